"""Make the golden files of `warpwright eval` and `explain`: what transformers makes of them.

    python -m venv V && V/bin/pip install torch transformers safetensors tokenizers numpy
    V/bin/python tests/golden/eval.py

`eval/` is a small GPT-2 with a byte-level tokenizer, trained for seconds on `text.txt`, so that it
prefers one text to another; `eval.json` holds, all in float64 from its float32 weights:

    rolling      of `text.txt` (one document), by stride: the sum of -log p over its tokens, each
                 once, in windows of the context after <|endoftext|>, and the tokens
    choices      of `choices.jsonl` after its shot: log p of each choice, and its tokens, with
                 <|endoftext|> first and without (`bare`), by lm-evaluation-harness' rules
    completions  of `completions.jsonl`: log p, tokens, whether greedy decoding writes it
    hellaswag    of `hellaswag.bin`, llm.c's layout: each completion's mean loss, and the count right

and of the committed cases `gpt2` and `bert`, by ids:

    pseudo       log p of each token of a sequence, each masked in turn (bert)
    explained    gradient x input of each token, and every attention probability, of the next token
                 (gpt2), of a masked one (bert, modernbert), of a class (bert-classes)
"""

import json
import math
import struct
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from make import HERE, patch_float32_islands, set_parameters

OUT = HERE / "eval"
EOT = "<|endoftext|>"
CONTEXT = 80
TEXT = """Call me Ishmael. Some years ago, never mind how long precisely, having little or no money in
my purse, and nothing particular to interest me on shore, I thought I would sail about a little and
see the watery part of the world. It is a way I have of driving off the spleen.
"""
SHOT = dict(question="What does a whale breathe?", choices=["water", "air"], answer=1)
CHOICES = [
    dict(question="Where does a whale live?", choices=["in the sea", "on a hill", "in a tree"],
         answer=0),
    dict(question="Who is the captain?", choices=["Ahab", "Ishmael, who tells the story"],
         answer="Ahab"),
    dict(question="How is «naïve» spelt?", choices=["naive", "naïve", "knave", "nave"], answer=1),
    dict(question="Years at sea " * 20 + "are", choices=["long", "short"], answer=0),
]
COMPLETIONS = [
    dict(prompt="Call me", completion="Ishmael."),
    dict(prompt="the watery part of ", completion="the world"),
]
TEMPLATE = "Q: {question}\nA:"


def main() -> None:
    patch_float32_islands()
    OUT.mkdir(exist_ok=True)
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    rows = lambda items: "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
    (OUT / "text.txt").write_text(TEXT)
    (OUT / "shots.jsonl").write_text(rows([SHOT]))
    (OUT / "choices.jsonl").write_text(rows(CHOICES))
    (OUT / "completions.jsonl").write_text(rows(COMPLETIONS))
    golden = dict(
        made_with=f"torch {torch.__version__}, transformers {transformers.__version__}",
        rolling=[rolling(model, tokenizer, stride) for stride in (CONTEXT, 30, 1)],
        choices=choices(model, tokenizer, bare=False),
        choices_bare=choices(model, tokenizer, bare=True),
        completions=[completion(model, tokenizer, item) for item in COMPLETIONS],
        hellaswag=hellaswag(model, tokenizer),
        pseudo=pseudo(),
        explained=[explained(*case) for case in EXPLAINED],
    )
    (HERE / "eval.json").write_text(json.dumps(golden, indent=1) + "\n")


# ---- the model ----------------------------------------------------------------------------------

def make_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=[EOT], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator([TEXT] * 2, trainer)
    tokenizer.save(str(OUT / "tokenizer.json"))
    return tokenizer


def make_model(tokenizer):
    config = transformers.GPT2Config(
        vocab_size=tokenizer.get_vocab_size(), n_positions=CONTEXT, n_embd=16, n_layer=2, n_head=1,
        n_inner=24, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0,
        eos_token_id=0,
    )
    model = transformers.GPT2LMHeadModel(config)
    set_parameters(model, torch.Generator().manual_seed(5))
    ids = torch.tensor([0] + tokenizer.encode(TEXT.rstrip("\n")).ids)
    windows = torch.stack([ids[at:at + CONTEXT] for at in range(0, len(ids) - CONTEXT + 1, 4)])
    adam = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(150):
        adam.zero_grad()
        model(windows, labels=windows).loss.backward()
        adam.step()
    model.save_pretrained(OUT)
    (OUT / "generation_config.json").unlink(missing_ok=True)
    return load(transformers.GPT2LMHeadModel, OUT)


def load(model_class, path, **more):
    model = model_class.from_pretrained(path, attn_implementation="eager", **more)
    return model.to(torch.float64).eval()


@torch.no_grad()
def log_p(model, ids: list[int]) -> torch.Tensor:
    """[tokens, V]"""
    return model(torch.tensor([ids])).logits[0].log_softmax(-1)


# ---- causal -------------------------------------------------------------------------------------

def rolling(model, tokenizer, stride: int) -> dict:
    ids = [0] + tokenizer.encode(TEXT.rstrip("\n")).ids
    predictions, done, nll, right = len(ids) - 1, 0, 0.0, 0
    while done < predictions:
        end = min(predictions, done + (CONTEXT if done == 0 else stride))
        begin = max(0, end - CONTEXT)
        table = log_p(model, ids[begin:end])
        for at in range(done, end):
            nll -= table[at - begin, ids[at + 1]].item()
            right += int(table[at - begin].argmax()) == ids[at + 1]
        done = end
    return dict(stride=stride, nll=nll, right=right, tokens=predictions,
                bytes=len(TEXT.rstrip("\n").encode()))


def judged(model, tokenizer, prompt: str, completion: str, bare: bool) -> dict:
    """lm-evaluation-harness' `_encode_pair` and `_loglikelihood_tokens`."""
    blanks = len(prompt) - len(prompt.rstrip())
    if blanks > 0:
        prompt, completion = prompt[:-blanks], prompt[-blanks:] + completion
    whole, own = tokenizer.encode(prompt + completion).ids, tokenizer.encode(prompt).ids
    first = [] if bare else [0]
    kept = (whole)[-(CONTEXT + 1 - len(first)):]
    ids, tokens = first + kept, len(whole) - len(own)
    table = log_p(model, ids[:-1])[-tokens:]
    targets = ids[-tokens:]
    each = [table[i, target].item() for i, target in enumerate(targets)]
    greedy = table.argmax(-1).tolist() == targets
    return dict(log_p=sum(each), tokens=tokens, greedy=greedy)


def choices(model, tokenizer, bare: bool) -> list:
    shot = TEMPLATE.format(**SHOT) + " " + SHOT["choices"][SHOT["answer"]] + "\n\n"
    return [
        [judged(model, tokenizer, shot + TEMPLATE.format(**item), " " + choice, bare)
         for choice in item["choices"]]
        for item in CHOICES
    ]


def completion(model, tokenizer, item: dict) -> dict:
    return judged(model, tokenizer, item["prompt"], " " + item["completion"], bare=False)


def hellaswag(model, tokenizer) -> dict:
    """The file of dev/data/hellaswag.py, and the score of llm.c's evalloader_stat_losses."""
    encode = lambda text: tokenizer.encode(text).ids
    examples = [
        ("Call me", [" Ishmael", " a little", " the watery world", " no"], 0),
        ("I thought I would", [" sail about", " see", " having", " shore, I"], 0),
        ("It is a way", [" I have of driving", " on", " of the spleen", " mind"], 2),
    ]
    stream, means, right, longest = [], [], 0, 0
    for number, (context, endings, label) in enumerate(examples):
        words = [65535, 0, number, label, len(endings), len(encode(context)), *encode(context)]
        losses = []
        for ending in endings:
            words += [len(encode(ending)), *encode(ending)]
            ids = encode(context) + encode(ending)
            table, first = log_p(model, ids[:-1]), len(encode(context))
            each = [-table[at - 1, ids[at]].item() for at in range(first, len(ids))]
            losses.append(sum(each) / len(each))
        words[1] = 2 * len(words)
        longest = max(longest, words[1])
        stream += words
        means.append(losses)
        right += losses.index(min(losses)) == label
    header = [20240522, 1, len(examples), longest] + [0] * 252
    file = struct.pack("<256i", *header) + struct.pack(f"<{len(stream)}H", *stream)
    (OUT / "hellaswag.bin").write_bytes(file)
    return dict(losses=means, right=right)


# ---- masked -------------------------------------------------------------------------------------

def pseudo() -> dict:
    model, mask = load(transformers.BertForMaskedLM, HERE / "bert"), 4
    ids = [2, 17, 5, 60, 33, 9, 3]
    scored = [1, 2, 4, 5]
    each = []
    for at in scored:
        masked = ids[:at] + [mask] + ids[at + 1:]
        each.append(log_p(model, masked)[at, ids[at]].item())
    return dict(ids=ids, scored=scored, mask=mask, log_p=each)


# ---- explained ----------------------------------------------------------------------------------

EXPLAINED = [
    # The case, the class, ids, the row of the logits (None: the sequence's), the target (of an
    # answer its first and last token).
    ("gpt2", "GPT2LMHeadModel", [7, 30, 4, 7, 55, 12], 5, 20),
    ("bert", "BertForMaskedLM", [2, 17, 4, 60, 33, 3], 2, 11),
    ("modernbert", "ModernBertForMaskedLM", [2, 17, 4, 60, 33, 17, 90, 3], 2, 11),
    ("albert-1", "AlbertForMaskedLM", [2, 17, 4, 60, 3], 2, 11),
    ("bert-classes", "BertForSequenceClassification", [2, 17, 5, 30, 3], None, 1),
    ("bert-tokens", "BertForTokenClassification", [2, 17, 5, 30, 3], 2, 1),
    ("gpt2-tokens", "GPT2ForTokenClassification", [7, 30, 4, 7], 3, 0),
    ("bert-spans", "BertForQuestionAnswering", [2, 17, 3, 30, 9, 14, 3], None, [3, 5]),
    ("modernbert-spans", "ModernBertForQuestionAnswering", [2, 17, 3, 30, 9, 14, 3], None, [4, 4]),
]


def explained(case: str, model_class: str, ids: list, row, target) -> dict:
    """Gradient x input: of log p(target), by what the first block, or projection, reads."""
    model = load(getattr(transformers, model_class), HERE / case)
    base = model.base_model
    last = base.drop if case.startswith("gpt2") else base.embeddings
    seen = {}

    def keep(module, inputs, output):
        output.retain_grad()
        seen["output"] = output

    hook = last.register_forward_hook(keep)
    out = model(torch.tensor([ids]), output_attentions=True)
    hook.remove()
    if isinstance(target, list):
        ends = out.start_logits[0], out.end_logits[0]
        log_p = sum(logits.log_softmax(-1)[at] for logits, at in zip(ends, target))
    else:
        logits = out.logits[0] if row is None else out.logits[0, row]
        log_p = logits.log_softmax(-1)[target]
    log_p.backward()
    each = (seen["output"].grad * seen["output"]).sum(-1)[0]
    attentions = [layer[0].reshape(-1).tolist() for layer in out.attentions]  # [H, T, T]
    return dict(case=case, ids=ids, row=row, target=target, log_p=log_p.item(),
                saliency=each.tolist(), attentions=[[round(p, 12) for p in a] for a in attentions])


if __name__ == "__main__":
    main()
