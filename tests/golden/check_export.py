"""Load a directory that warpwright wrote with transformers, and compare a trace of it.

    V/bin/python tests/golden/check_export.py runs/demo/checkpoints/best
    V/bin/python tests/golden/check_export.py DIR --batch batch.json --trace out.safetensors

The first form asserts that transformers finds every tensor it wants and none that it does not, and
that AutoTokenizer cuts text as `tokenizer.json` does. The second also runs the batch in float64 and
prints, for logits, loss and every gradient of `warpwright trace`'s file, the largest difference
over the reference's largest value (or over 1e-4 of the largest gradient, where that is larger: some
gradients are zero); it fails above --tolerance. Run by hand, not in CI.
"""

import argparse
import json
import sys
from pathlib import Path

import make  # beside this file; first, since it sets the environment
import torch
import transformers
from safetensors.torch import load_file

AUTO_CLASSES = {
    "LMHeadModel": "AutoModelForCausalLM",
    "ForMaskedLM": "AutoModelForMaskedLM",
    "ForPreTraining": "AutoModelForPreTraining",
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForTokenClassification": "AutoModelForTokenClassification",
    "ForQuestionAnswering": "AutoModelForQuestionAnswering",
}
TEXTS = [
    "The whale, the white whale!",
    "  Two spaces, a tab\tand a new line\nthen 1234 numbers; don't they?",
    "Unicode: naïve café — “quoted” 東京 🙂",
]


def check_loading(directory: Path) -> None:
    """By the class that the config names, and by the Auto class that users reach for."""
    model = make.load_double(directory)  # asserts: no missing, unexpected or misshapen tensor
    name = type(model).__name__
    auto = next((auto for end, auto in AUTO_CLASSES.items() if name.endswith(end)), None)
    if auto is not None:
        again = getattr(transformers, auto).from_pretrained(directory)
        assert type(again) is type(model), f"{auto} makes a {type(again).__name__}, not a {name}"
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{name}: {count:,} parameters; none missing, none unexpected ({auto})")


def check_tokenizer(directory: Path) -> None:
    """AutoTokenizer may build a pipeline of its own from the vocabulary; it must act like ours."""
    from tokenizers import Tokenizer

    raw = Tokenizer.from_file(str(directory / "tokenizer.json"))
    auto = transformers.AutoTokenizer.from_pretrained(directory)
    for text in TEXTS:
        ours, theirs = raw.encode(text).ids, auto(text)["input_ids"]
        assert ours == theirs, f"{text!r}: {type(auto).__name__} {theirs}, tokenizer.json {ours}"
    vocabulary = json.loads((directory / "config.json").read_text())["vocab_size"]
    assert len(auto) <= vocabulary, f"{len(auto)} tokens, but the model has {vocabulary}"
    special = {name: getattr(auto, name) for name in ("mask_token", "pad_token", "eos_token")}
    print(f"{type(auto).__name__}: {len(auto)} tokens, as tokenizer.json cuts; {special}")


def compare_trace(directory: Path, batch: Path, trace: Path, tolerance: float) -> bool:
    model, names = make.load_double(directory), make.stored_names(directory)
    expected = make.reference(model, json.loads(batch.read_text()), names)
    found = load_file(trace)
    missing, extra = expected.keys() - found.keys(), found.keys() - expected.keys()
    assert not missing and not extra, f"{trace}: missing {sorted(missing)}, extra {sorted(extra)}"
    floor = 1e-4 * max(v.abs().max().item() for n, v in expected.items() if n.startswith("grad."))
    worst = []
    for name, reference in expected.items():
        assert found[name].shape == reference.shape, f"{name}: {list(found[name].shape)}"
        value = make.relative(found[name].double(), reference, floor)
        worst.append((value if value == value else float("inf"), name))  # NaN is the worst
    worst.sort(reverse=True)
    for value, name in worst[:10]:
        print(f"{value:9.2e}  {name}")
    print(f"{len(worst)} tensors, worst {worst[0][0]:.2e}, tolerance {tolerance:.0e}")
    return worst[0][0] <= tolerance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--no-tokenizer", action="store_true", help="the directory has none")
    parser.add_argument("--batch", type=Path, help="batch.json that was traced")
    parser.add_argument("--trace", type=Path, help="what `warpwright trace` wrote for it")
    parser.add_argument("--tolerance", type=float, default=1e-9, help="of the comparison")
    arguments = parser.parse_args()
    if (arguments.batch is None) != (arguments.trace is None):
        parser.error("--batch and --trace go together")
    torch.set_num_threads(1)
    check_loading(arguments.directory)
    if not arguments.no_tokenizer:
        check_tokenizer(arguments.directory)
    if arguments.trace is not None:
        if not compare_trace(
            arguments.directory, arguments.batch, arguments.trace, arguments.tolerance
        ):
            sys.exit("the trace differs from the reference")


if __name__ == "__main__":
    main()
