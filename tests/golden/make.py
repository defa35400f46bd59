"""Make the golden files: small checkpoints of every family, and what PyTorch computes from them.

    python -m venv V && V/bin/pip install torch transformers safetensors numpy
    V/bin/python tests/golden/make.py              # all cases, into tests/golden/CASE/
    V/bin/python tests/golden/make.py bert gpt2    # some of them
    V/bin/python tests/golden/make.py --check      # remake nothing; verify the files that are here

Each case gets `config.json` and `model.safetensors` as `save_pretrained` writes them (float32),
`batch.json`, and `expected.safetensors`, computed from those float32 weights in float64:

    logits       [sum of lengths, V]   sequences one after another; V is the number of labels
                                       where tokens are labelled, 2 (start, end) for spans
                 [sequences, K]        where sequences are labelled
    pair_logits  [sequences, 2]        where the model has a sentence-pair head
    loss         [1]                   mean over the labelled tokens of the whole batch,
                                       plus the mean over the labelled pairs; or, by the head,
                                       the mean over the sequences
    grad.NAME    NAME's shape          d loss / d NAME for every tensor of model.safetensors;
                                       a tied tensor once, with the sum over its uses

`labels` of a sequence, and its loss, by what the head is for:

    next, masked, tokens   a label a token, -100 ignored   cross entropy
    classes                the class                       cross entropy
    flags                  0 or 1 for each label           binary cross entropy, mean over labels
    values                 the value                       squared error
    spans                  [start, end]                    cross entropy among the sequence's own
                                                           positions, mean of start's and end's

Two things make "float64" true. A few lines of transformers compute in float32 whatever the model's
type; `patch_float32_islands` replaces them. And every forward and backward here runs under
`OnlyDouble`, which raises at the first operation whose result is a float of any other type.
A central difference along a random direction in every tensor then checks the gradients.
"""

import argparse
import json
import math
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.models.modernbert import modeling_modernbert

HERE = Path(__file__).resolve().parent
IGNORED = -100  # label of a position (or a pair) that does not count
DIFFERENCE_TOLERANCE = 1e-7  # central difference against gradient, relative

# What a head is trained for, by the config's problem_type or by the end of the class's name.
SEQUENCE_TASKS = {
    "single_label_classification": "classes",
    "multi_label_classification": "flags",
    "regression": "values",
}
TOKEN_TASKS = {
    "LMHeadModel": "next",
    "ForTokenClassification": "tokens",
    "ForQuestionAnswering": "spans",
}


# ---- the cases ----------------------------------------------------------------------------------
# Sizes are awkward on purpose: widths that are not powers of two, inner widths that are not 4x,
# odd vocabularies. The longest sequence fills the position table; the shortest has one token.

NO_DROPOUT = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)

# The models under the cases of one head each.
TINY = {
    "bert": dict(
        vocab_size=37, hidden_size=18, num_hidden_layers=1, num_attention_heads=3,
        intermediate_size=22, max_position_embeddings=11, type_vocab_size=2, **NO_DROPOUT,
    ),
    "roberta": dict(
        vocab_size=35, hidden_size=20, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=14, max_position_embeddings=13, type_vocab_size=1,
        layer_norm_eps=1e-5, **NO_DROPOUT,
    ),
    "albert": dict(
        vocab_size=39, embedding_size=10, hidden_size=18, num_hidden_layers=2,
        num_hidden_groups=1, inner_group_num=1, num_attention_heads=3, intermediate_size=22,
        max_position_embeddings=11, type_vocab_size=2, classifier_dropout_prob=0.0,
        **NO_DROPOUT,
    ),
    "gpt2": dict(
        vocab_size=33, n_positions=11, n_embd=18, n_layer=1, n_head=3, n_inner=26,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    ),
    "modernbert": dict(  # layer 0 is global, 1 sees +-3 positions
        vocab_size=37, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=14, max_position_embeddings=11, local_attention=6,
        pad_token_id=1, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3,
    ),
}
NAMES = {0: "negative", 1: "neutral", 2: "positive"}
NAMED = dict(id2label=NAMES, label2id={name: label for label, name in NAMES.items()})
SINGLE = dict(problem_type="single_label_classification")

CASES = {
    "gpt2": dict(
        model="GPT2LMHeadModel",
        lengths=[1, 5, 13, 22, 2],
        config=dict(
            vocab_size=61, n_positions=22, n_embd=40, n_layer=3, n_head=4, n_inner=56,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        ),
    ),
    "bert": dict(
        model="BertForMaskedLM",
        lengths=[13, 1, 22, 5],
        config=dict(
            vocab_size=67, hidden_size=24, num_hidden_layers=3, num_attention_heads=3,
            intermediate_size=50, max_position_embeddings=22, type_vocab_size=2, **NO_DROPOUT,
        ),
    ),
    "bert-pretraining": dict(
        model="BertForPreTraining",
        lengths=[5, 17, 22, 3, 1],
        pair_labels=[1, 0, IGNORED, 0, 1],
        config=dict(
            vocab_size=61, hidden_size=20, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=36, max_position_embeddings=22, type_vocab_size=2, **NO_DROPOUT,
        ),
    ),
    "roberta": dict(
        model="RobertaForMaskedLM",
        lengths=[22, 5, 1, 13],
        config=dict(
            # As published: eps 1e-5 (not the class default), one token type, and a position table
            # two rows longer than the longest sequence (pad is id 1, positions start at 2).
            vocab_size=71, hidden_size=36, num_hidden_layers=2, num_attention_heads=3,
            intermediate_size=44, max_position_embeddings=24, type_vocab_size=1,
            layer_norm_eps=1e-5, **NO_DROPOUT,
        ),
    ),
    "albert-1": dict(
        model="AlbertForMaskedLM",
        lengths=[5, 22, 13, 1],
        config=dict(
            vocab_size=83, embedding_size=10, hidden_size=24, num_hidden_layers=3,
            num_hidden_groups=1, inner_group_num=1, num_attention_heads=2, intermediate_size=40,
            max_position_embeddings=22, type_vocab_size=2, classifier_dropout_prob=0.0,
            **NO_DROPOUT,
        ),
    ),
    "albert-3": dict(
        # Seven layers over three groups of two inner layers: the groups are used 3, 2 and 2 times.
        model="AlbertForMaskedLM",
        lengths=[13, 5, 1, 22],
        config=dict(
            vocab_size=73, embedding_size=12, hidden_size=20, num_hidden_layers=7,
            num_hidden_groups=3, inner_group_num=2, num_attention_heads=2, intermediate_size=28,
            max_position_embeddings=22, type_vocab_size=2, classifier_dropout_prob=0.0,
            **NO_DROPOUT,
        ),
    ),
    "albert-pretraining": dict(
        model="AlbertForPreTraining",
        lengths=[9, 22, 1, 4],
        pair_labels=[0, 1, 1, 0],
        config=dict(
            vocab_size=61, embedding_size=14, hidden_size=24, num_hidden_layers=2,
            num_hidden_groups=1, inner_group_num=1, num_attention_heads=3, intermediate_size=36,
            max_position_embeddings=22, type_vocab_size=2, classifier_dropout_prob=0.0,
            **NO_DROPOUT,
        ),
    ),
    "modernbert": dict(
        # Layers 0 and 3 are global, 1, 2 and 4 see +-4 positions.
        model="ModernBertForMaskedLM",
        lengths=[13, 1, 22, 5, 9],
        config=dict(
            vocab_size=101, hidden_size=24, num_hidden_layers=5, num_attention_heads=2,
            intermediate_size=28, max_position_embeddings=22, local_attention=8,
            pad_token_id=1, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3,
        ),
    ),
    # Heads for tasks. Some configs have a problem_type and names of labels, some leave them out.
    "bert-classes": dict(
        model="BertForSequenceClassification",
        lengths=[7, 1, 11, 4, 2],
        labels=[2, 0, 1, 1, 0],
        config=TINY["bert"] | SINGLE | NAMED,
    ),
    "bert-flags": dict(
        model="BertForSequenceClassification",
        lengths=[3, 11, 1, 8],
        labels=[[0, 1, 0, 1], [1, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]],
        config=TINY["bert"] | dict(num_labels=4, problem_type="multi_label_classification"),
    ),
    "bert-values": dict(
        model="BertForSequenceClassification",
        lengths=[11, 5, 1, 6],
        labels=[0.75, -1.5, 2.0, 0.125],
        config=TINY["bert"] | dict(num_labels=1, problem_type="regression"),
    ),
    "bert-tokens": dict(
        model="BertForTokenClassification",
        lengths=[5, 1, 11, 8],
        config=TINY["bert"] | dict(num_labels=5, classifier_dropout=0.0),
    ),
    "bert-spans": dict(
        model="BertForQuestionAnswering",
        lengths=[6, 1, 11, 4, 9],
        labels=[[2, 4], [0, 0], [0, 10], [3, 3], [5, 8]],
        config=TINY["bert"],
    ),
    "roberta-classes": dict(
        model="RobertaForSequenceClassification",
        lengths=[4, 11, 1, 7, 2],
        labels=[1, 2, 0, 2, 1],
        config=TINY["roberta"] | dict(num_labels=3),
    ),
    "roberta-tokens": dict(
        model="RobertaForTokenClassification",
        lengths=[1, 9, 11, 4],
        config=TINY["roberta"] | dict(num_labels=3) | NAMED,
    ),
    "roberta-spans": dict(
        model="RobertaForQuestionAnswering",
        lengths=[11, 1, 5, 8],
        labels=[[4, 10], [0, 0], [1, 1], [0, 3]],
        config=TINY["roberta"],
    ),
    "albert-classes": dict(
        model="AlbertForSequenceClassification",
        lengths=[1, 11, 6, 3, 2],
        labels=[0, 2, 2, 1, 0],
        config=TINY["albert"] | SINGLE | dict(num_labels=3),
    ),
    "albert-spans": dict(
        model="AlbertForQuestionAnswering",
        lengths=[7, 11, 1, 4],
        labels=[[6, 6], [2, 9], [0, 0], [0, 1]],
        config=TINY["albert"],
    ),
    "gpt2-classes": dict(
        model="GPT2ForSequenceClassification",
        lengths=[5, 1, 11, 2, 8],
        labels=[1, 0, 2, 1, 2],
        config=TINY["gpt2"] | dict(num_labels=3),
    ),
    "gpt2-tokens": dict(
        # Unless the config says otherwise, this class alone has a dropout, of 0.1.
        model="GPT2ForTokenClassification",
        lengths=[9, 1, 3, 11],
        config=TINY["gpt2"] | dict(num_labels=3, classifier_dropout=0.0),
    ),
    "gpt2-spans": dict(
        model="GPT2ForQuestionAnswering",
        lengths=[1, 6, 11, 4],
        labels=[[0, 0], [1, 5], [7, 7], [0, 2]],
        config=TINY["gpt2"],
    ),
    "modernbert-classes": dict(
        model="ModernBertForSequenceClassification",
        lengths=[3, 11, 1, 8, 5],
        labels=[2, 1, 1, 0, 2],
        config=TINY["modernbert"] | SINGLE | dict(num_labels=3, classifier_pooling="cls"),
    ),
    "modernbert-mean": dict(
        model="ModernBertForSequenceClassification",
        lengths=[11, 2, 6, 1, 9],
        labels=[0, 2, 1, 0, 1],
        config=TINY["modernbert"] | dict(num_labels=3, classifier_pooling="mean"),
    ),
    "modernbert-tokens": dict(
        model="ModernBertForTokenClassification",
        lengths=[8, 1, 11, 4],
        config=TINY["modernbert"] | dict(num_labels=3),
    ),
    "modernbert-spans": dict(
        model="ModernBertForQuestionAnswering",
        lengths=[1, 10, 4, 11],
        labels=[[0, 0], [3, 9], [2, 2], [0, 6]],
        config=TINY["modernbert"],
    ),
    "albert-tokens": dict(
        model="AlbertForTokenClassification",
        lengths=[6, 11, 1, 3],
        config=TINY["albert"] | dict(num_labels=4, classifier_dropout_prob=0.0),
    ),
    "roberta-flags": dict(
        model="RobertaForSequenceClassification",
        lengths=[2, 11, 1, 7],
        labels=[[1, 0, 0], [1, 1, 1], [0, 0, 0], [0, 1, 1]],
        config=TINY["roberta"] | dict(num_labels=3, problem_type="multi_label_classification"),
    ),
    "albert-values": dict(
        model="AlbertForSequenceClassification",
        lengths=[1, 8, 11, 4],
        labels=[-0.5, 1.25, 0.0, 3.0],
        config=TINY["albert"] | dict(num_labels=1, problem_type="regression"),
    ),
    "gpt2-values": dict(
        model="GPT2ForSequenceClassification",
        lengths=[11, 1, 5, 2],
        labels=[1.5, -0.75, 0.25, -2.0],
        config=TINY["gpt2"] | dict(num_labels=1, problem_type="regression"),
    ),
    "modernbert-flags": dict(
        model="ModernBertForSequenceClassification",
        lengths=[4, 11, 1, 9],
        labels=[[0, 1], [1, 1], [0, 0], [1, 0]],
        config=TINY["modernbert"]
        | dict(num_labels=2, problem_type="multi_label_classification", classifier_pooling="cls"),
    ),
}


def make(case: str, seed: int) -> None:
    spec, out = CASES[case], HERE / case
    random = torch.Generator().manual_seed(seed)
    model_class = getattr(transformers, spec["model"])
    config = model_class.config_class(**spec["config"])
    model = model_class(config)
    set_parameters(model, random)
    out.mkdir(exist_ok=True)
    model.save_pretrained(out)
    (out / "generation_config.json").unlink(missing_ok=True)  # GPT-2's; nothing reads it
    batch = make_batch(spec, model.config, random)
    (out / "batch.json").write_text(to_json(batch))

    model = load_double(out)
    expected = reference(model, batch, stored_names(out))
    save_file(expected, out / "expected.safetensors")
    check(case)


def set_parameters(model, random) -> None:
    """Random values, none at its initial value, of a size that keeps the whole model at work.

    Norm weights 1 + 0.2 z, biases 0.2 z, embeddings 0.4 z, matrices 0.8 z / sqrt(fan in): attention
    scores then spread over about +-1, so that a wrong mask, scale or rotation is seen.
    """
    norms = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.LayerNorm)}
    tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    conv1d = {id(m.weight) for m in model.modules() if type(m).__name__ == "Conv1D"}  # [in, out]
    with torch.no_grad():
        for parameter in model.parameters():
            z = torch.randn(parameter.shape, generator=random)
            if id(parameter) in norms:
                parameter.copy_(1 + 0.2 * z)
            elif parameter.dim() == 1:
                parameter.copy_(0.2 * z)
            elif id(parameter) in tables:
                parameter.copy_(0.4 * z)
            else:
                fan_in = parameter.shape[0 if id(parameter) in conv1d else 1]
                parameter.copy_(0.8 / math.sqrt(fan_in) * z)


def make_batch(spec, config, random) -> dict:
    """Random ids above the special ones.

    For masked models about a third of the positions count, for labelled tokens two thirds.
    """
    task = task_of(config)

    def integers(low, high, n):
        return torch.randint(low, high, (n,), generator=random).tolist()

    # From 5 up: no pad id, at which embeddings would drop gradients and RoBERTa would not count.
    ids = [integers(5, config.vocab_size, n) for n in spec["lengths"]]
    batch = {"input_ids": ids}
    if spec["config"].get("type_vocab_size", 1) > 1:
        # A first and a second segment, as in a sentence pair; in a long sequence both occur.
        batch["token_type_ids"] = [
            [int(t >= (n + 1) // 2) for t in range(n)] for n in spec["lengths"]
        ]
        batch["token_type_ids"][-1] = [1] * spec["lengths"][-1]
    if task == "next":
        # The ids themselves; the model shifts them. One sequence starts with a part not learnt.
        batch["labels"] = [list(row) for row in ids]
        batch["labels"][2][:4] = [IGNORED] * 4
    elif "labels" in spec:
        batch["labels"] = spec["labels"]
    elif task == "tokens":
        batch["labels"] = [
            [target if chance < 70 else IGNORED for target, chance in
             zip(integers(0, config.num_labels, n), integers(0, 100, n))]
            for n in spec["lengths"]
        ]
        # The longest sequence counts from its first to its last position; the shortest not at all.
        longest, shortest = (spec["lengths"].index(f(spec["lengths"])) for f in (max, min))
        batch["labels"][longest][0], batch["labels"][longest][-1] = 1, 0
        batch["labels"][shortest] = [IGNORED] * min(spec["lengths"])
    else:
        batch["labels"] = [
            [target if chance < 33 else IGNORED for target, chance in
             zip(integers(5, config.vocab_size, n), integers(0, 100, n))]
            for n in spec["lengths"]
        ]
        # The first and the last position of the longest sequence always count.
        longest = spec["lengths"].index(max(spec["lengths"]))
        batch["labels"][longest][0], batch["labels"][longest][-1] = 7, 8
    if "pair_labels" in spec:
        batch["pair_labels"] = spec["pair_labels"]
    return batch


def to_json(batch: dict) -> str:
    """One sequence a line."""
    def value(rows):
        if not isinstance(rows[0], list):
            return json.dumps(rows)
        return "[\n    " + ",\n    ".join(json.dumps(row) for row in rows) + "\n  ]"
    return "{\n" + ",\n".join(f'  "{key}": {value(rows)}' for key, rows in batch.items()) + "\n}\n"


# ---- the reference ------------------------------------------------------------------------------

def load_double(directory):
    """The checkpoint in `directory` in float64, by the class that its config names."""
    patch_float32_islands()
    config = json.loads((Path(directory) / "config.json").read_text())
    model_class = getattr(transformers, config["architectures"][0])
    model, report = model_class.from_pretrained(
        directory, dtype=torch.float64, attn_implementation="eager", output_loading_info=True
    )
    problems = {what: found for what, found in report.items() if found}
    assert not problems, f"{directory}: {problems}"
    return model.eval()  # no dropout; gradients are computed all the same


def stored_names(directory) -> list[str]:
    return sorted(load_file(Path(directory) / "model.safetensors"))


def reference(model, batch: dict, names: list[str]) -> dict:
    """Logits, loss and gradients. Each sequence runs alone, so that no padding is involved."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    model.zero_grad()
    with OnlyDouble():
        logits, pair_logits, loss = forward(model, batch)
        loss.backward()
    expected = {"logits": logits, "loss": loss.reshape(1)}
    if pair_logits is not None:
        expected["pair_logits"] = pair_logits
    assert {id(p) for p in parameters.values()} == {id(parameters[name]) for name in names}
    for name in names:
        expected[f"grad.{name}"] = parameters[name].grad
    return {name: tensor.detach().contiguous() for name, tensor in expected.items()}


def forward(model, batch: dict):
    """logits as described above, pair_logits [sequences, 2] or None, loss []"""
    task = task_of(model.config)
    logits, pair_logits, total, count = [], [], 0.0, 0
    for i in range(len(batch["input_ids"])):
        output = model(**inputs(batch, i))
        if task == "spans":
            scores = torch.stack((output.start_logits[0], output.end_logits[0]), dim=1)
        else:
            scores = output.logits if "logits" in output else output.prediction_logits
            scores = scores if task in SEQUENCE_TASKS.values() else scores[0]  # [1, K] or [S, K]
        logits.append(scores)
        loss, weight = loss_of(task, scores, batch["labels"][i])
        total, count = total + loss, count + weight
        for name in ("seq_relationship_logits", "sop_logits"):  # BERT, ALBERT
            if name in output:
                pair_logits.append(output[name][0])
    loss, pair_logits = total / count, torch.stack(pair_logits) if pair_logits else None
    if "pair_labels" in batch:
        pair_labels = torch.tensor(batch["pair_labels"])
        loss = loss + torch.nn.functional.cross_entropy(
            pair_logits, pair_labels, ignore_index=IGNORED, reduction="mean"
        )
    return torch.cat(logits), pair_logits, loss


def task_of(config) -> str:
    """What the head of the class that `config` names is trained for."""
    name = config.architectures[0]
    if name.endswith("ForSequenceClassification"):
        # Where the config does not say, transformers goes by the labels: whole numbers are classes.
        inferred = "regression" if config.num_labels == 1 else "single_label_classification"
        return SEQUENCE_TASKS[config.problem_type or inferred]
    return next((task for end, task in TOKEN_TASKS.items() if name.endswith(end)), "masked")


def loss_of(task: str, scores, labels):
    """One sequence's loss, and its weight in the mean over the batch."""
    loss = torch.nn.functional
    if task == "flags":  # mean over the labels
        labels = torch.tensor([labels], dtype=torch.float64)
        return loss.binary_cross_entropy_with_logits(scores, labels), 1
    if task == "values":
        return loss.mse_loss(scores, torch.tensor([[labels]], dtype=torch.float64)), 1
    labels = torch.tensor(labels)
    if task == "classes":
        return loss.cross_entropy(scores, labels[None]), 1
    if task == "spans":  # mean of start's and end's, each a choice among the positions
        return loss.cross_entropy(scores.T, labels), 1
    if task == "next":
        scores, labels = scores[:-1], labels[1:]
    total = loss.cross_entropy(scores, labels, ignore_index=IGNORED, reduction="sum")
    return total, int((labels != IGNORED).sum())


def inputs(batch: dict, i: int) -> dict:
    """Sequence `i` as a batch of one."""
    keys = [key for key in ("input_ids", "token_type_ids") if key in batch]
    return {key: torch.tensor([batch[key][i]]) for key in keys}


class OnlyDouble(TorchDispatchMode):
    """Raises at the first operation, forward or backward, that makes a float other than float64."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                assert tensor.dtype == torch.float64, f"{function} made a {tensor.dtype}"
        return result


def patch_float32_islands() -> None:
    """Replace the parts of ModernBERT that transformers computes in float32 whatever the type.

    They are the rotary angles with their cosine and sine, the rotation itself, and the softmax of
    the eager attention. GPT-2 (with reorder_and_upcast_attn off), BERT, RoBERTa and ALBERT have
    none; `OnlyDouble` would say so.
    """

    def rotary(self, x, position_ids, layer_type):
        theta = self.config.rope_parameters[layer_type]["rope_theta"]
        head_width = self.config.hidden_size // self.config.num_attention_heads
        frequency = theta ** -(torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
        angle = position_ids[..., None].double() * frequency  # [1, S, D/2]
        angle = torch.cat((angle, angle), dim=-1)
        return angle.cos(), angle.sin()

    def rotate(q, k, cos, sin, unsqueeze_dim=1):
        cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
        half = modeling_modernbert.rotate_half
        return q * cos + half(q) * sin, k * cos + half(k) * sin

    def attention(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
        scores = query @ key.transpose(2, 3) * scaling
        if attention_mask is not None:
            scores = scores + attention_mask
        weights = torch.softmax(scores, dim=-1)
        return (weights @ value).transpose(1, 2).contiguous(), weights

    modeling_modernbert.ModernBertRotaryEmbedding.forward = torch.no_grad()(rotary)
    modeling_modernbert.apply_rotary_pos_emb = rotate
    modeling_modernbert.eager_attention_forward = attention


# ---- the check ----------------------------------------------------------------------------------

def check(case: str) -> None:
    """The stored gradients against differences of the loss, one random direction a tensor."""
    out = HERE / case
    model, expected = load_double(out), load_file(out / "expected.safetensors")
    batch, names = json.loads((out / "batch.json").read_text()), stored_names(out)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    again = reference(model, batch, names)
    assert set(again) == set(expected)
    drift = max(relative(again[name], expected[name], floor=1e-4) for name in expected)
    assert drift < 1e-11, f"{case}: recomputed values differ by {drift:.1e}"
    loss, own = expected["loss"].item(), own_loss(model, batch)
    assert own is None or abs(own - loss) < 1e-12, f"{case}: loss {loss}, transformers' own {own}"

    random, worst = torch.Generator().manual_seed(1), (0.0, "")
    scale = max(expected[f"grad.{name}"].norm().item() for name in names)
    with torch.no_grad():
        for name in names:
            parameter, gradient = parameters[name], expected[f"grad.{name}"]
            direction = torch.randn(gradient.shape, generator=random, dtype=torch.float64)
            direction = direction / direction.norm()
            slope = difference(lambda: forward(model, batch)[2].item(), parameter, direction)
            dot = (direction * gradient).sum().item()
            # Relative to the gradient's size, not to the slope, which may happen to be near zero;
            # and key biases have no gradient at all, since softmax does not see them.
            size = max(gradient.norm().item() / math.sqrt(gradient.numel()), 1e-4 * scale)
            worst = max(worst, (abs(slope - dot) / size, name))
    assert worst[0] < DIFFERENCE_TOLERANCE, f"{case}: {worst}"
    size = sum(file.stat().st_size for file in out.iterdir())
    print(f"{case:20} {len(names):3} tensors {sum(p.numel() for p in model.parameters()):7,} "
          f"parameters {size:9,} bytes, loss {expected['loss'].item():.6f}, "
          f"difference to central differences {worst[0]:.1e} ({worst[1]})")


def own_loss(model, batch: dict) -> float | None:
    """The loss as the class itself computes it from labels; for heads only, which do so in f64.

    Of batches of one: in a padded batch, the softmax over positions would have the padding's too.
    """
    task, total, count = task_of(model.config), 0.0, 0
    if task in ("next", "masked"):
        return None
    for i, labels in enumerate(batch["labels"]):
        labels = torch.tensor([labels])
        weight = int((labels != IGNORED).sum()) if task == "tokens" else 1
        if weight == 0:
            continue  # transformers' mean over no tokens is not a number
        if task == "spans":
            named = dict(start_positions=labels[:, 0], end_positions=labels[:, 1])
        else:
            named = dict(labels=labels.double() if task in ("flags", "values") else labels)
        with OnlyDouble(), torch.no_grad():
            total += model(**inputs(batch, i), **named).loss.item() * weight
        count += weight
    return total / count


def difference(loss, parameter, direction, step=2e-3) -> float:
    """Slope of `loss` along `direction`, from four points: the error is of order step^4."""
    start, values = parameter.clone(), {}
    for k in (-2, -1, 1, 2):
        parameter.copy_(start + k * step * direction)
        values[k] = loss()
    parameter.copy_(start)
    return (8 * (values[1] - values[-1]) - (values[2] - values[-2])) / (12 * step)


def relative(a, b, floor: float) -> float:
    """Largest difference of two tensors over the largest value of the second, or over `floor`."""
    return (a - b).abs().max().item() / max(b.abs().max().item(), floor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", nargs="*", help=f"of {', '.join(CASES)}; all by default")
    parser.add_argument("--check", action="store_true", help="verify, make nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the same order of sums on every machine with as many threads
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    for case in arguments.case or CASES:
        if case not in CASES:
            sys.exit(f"no case {case!r}; there are {', '.join(CASES)}")
        if arguments.check:
            check(case)
        else:
            make(case, seed=1000 + list(CASES).index(case))


if __name__ == "__main__":
    main()
