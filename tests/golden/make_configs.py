"""Write config.json of each family's published base size, as the installed transformers writes it.

    python -m venv V && V/bin/pip install transformers==4.48.3     # PyTorch is not needed
    V/bin/python tests/golden/make_configs.py                      # configs/transformers-4.48.3/

The values are those of the published checkpoints, among them keys that the classes do not know
(they are kept, as they are in the files on the hub).
"""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import transformers

CONFIGS = Path(__file__).resolve().parent / "configs"
NEW_NAMES = tuple(map(int, transformers.__version__.split(".")[:2])) >= (4, 56)
DTYPE = "dtype" if NEW_NAMES else "torch_dtype"

PUBLISHED = {
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", dict(
        vocab_size=50257, n_positions=1024, n_ctx=1024, n_embd=768, n_layer=12, n_head=12,
        task_specific_params={"text-generation": {"do_sample": True, "max_length": 50}},
    )),
    "bert-base-uncased": ("BertConfig", "BertForMaskedLM", dict(
        vocab_size=30522, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
        intermediate_size=3072, max_position_embeddings=512, type_vocab_size=2,
        gradient_checkpointing=False, position_embedding_type="absolute",
    )),
    "roberta-base": ("RobertaConfig", "RobertaForMaskedLM", dict(
        vocab_size=50265, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
        intermediate_size=3072, max_position_embeddings=514, type_vocab_size=1,
        layer_norm_eps=1e-5, bos_token_id=0, pad_token_id=1, eos_token_id=2,
    )),
    "albert-base-v2": ("AlbertConfig", "AlbertForMaskedLM", dict(
        vocab_size=30000, embedding_size=128, hidden_size=768, num_hidden_layers=12,
        num_hidden_groups=1, inner_group_num=1, num_attention_heads=12, intermediate_size=3072,
        max_position_embeddings=512, type_vocab_size=2, hidden_act="gelu_new",
        hidden_dropout_prob=0, attention_probs_dropout_prob=0,
        down_scale_factor=1, gap_size=0, net_structure_type=0, num_memory_blocks=0,
    )),
    "modernbert-base": ("ModernBertConfig", "ModernBertForMaskedLM", dict(
        vocab_size=50368, hidden_size=768, num_hidden_layers=22, num_attention_heads=12,
        intermediate_size=1152, max_position_embeddings=8192, local_attention=128,
        classifier_pooling="mean", layer_norm_eps=1e-5, position_embedding_type="absolute",
        # Newer versions turn the pattern and the two bases into layer_types and rope_parameters.
        global_attn_every_n_layers=3, global_rope_theta=160000.0, local_rope_theta=10000.0,
    )),
}


def main() -> None:
    out = CONFIGS / f"transformers-{transformers.__version__}"
    out.mkdir(parents=True, exist_ok=True)
    for name, (config_class, architecture, values) in PUBLISHED.items():
        config_class = getattr(transformers, config_class, None)
        if config_class is None:
            print(f"{name}: not in transformers {transformers.__version__}")
            continue
        config = config_class(architectures=[architecture], **{DTYPE: "float32"}, **values)
        (out / f"{name}.json").write_text(config.to_json_string())
        print(out / f"{name}.json")


if __name__ == "__main__":
    main()
