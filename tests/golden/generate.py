"""Make gpt2/generated.json: what transformers' `generate` does with the model of the case gpt2.

    V/bin/python tests/golden/generate.py        # V: see make.py, whose gpt2 must be there

Greedy and beam search, in float64, from several prompts, with one token or another as that which
ends a text: a list of

    {"prompt": [ids], "length": most new tokens, "end": id, "beams": B (1: greedy),
     "length_penalty": A, "early_stopping": true or false,
     "ids": [new ids, the end included], "score": of a beam search}

A case is kept if float32 weights and activations give the same tokens, so that no margin is a
matter of rounding; and all are, but for at most one in twenty.
"""

import json
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import GPT2LMHeadModel

HERE = Path(__file__).resolve().parent
PROMPTS = [
    [5], [7, 7, 21], [60, 1, 33, 12, 48], [3, 14, 15, 9, 26, 53, 58, 9, 7], [44, 2, 19],
    [31, 30, 29, 28, 27, 26, 25, 24, 23, 22], [50, 40, 30, 20, 10, 0], [17, 6],
]
SEARCHES = [(1, 1.0, False)] + [
    (beams, penalty, early)
    for beams in (2, 4)
    for penalty in (-1.0, 0.0, 1.0, 2.0)
    for early in (False, True)
]


def generate(model, prompt, end, beams, penalty, early):
    ids = torch.tensor([prompt])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        num_beams=beams,
        max_new_tokens=LENGTH,
        eos_token_id=end,
        pad_token_id=END_OF_NONE,
        return_dict_in_generate=True,
        output_scores=True,
        **(dict(length_penalty=penalty, early_stopping=early) if beams > 1 else {}),
    )
    new = out.sequences[0, len(prompt):].tolist()
    if end in new:
        new = new[: new.index(end) + 1]
    score = out.sequences_scores[0].item() if beams > 1 else None
    return new, score


LENGTH = 12
END_OF_NONE = 2  # any id: nothing is padded


def main():
    single = GPT2LMHeadModel.from_pretrained(HERE / "gpt2").eval()
    double = GPT2LMHeadModel.from_pretrained(HERE / "gpt2", dtype=torch.float64).eval()
    cases, dropped = [], 0
    for number, prompt in enumerate(PROMPTS):
        for place, (beams, penalty, early) in enumerate(SEARCHES):
            # Tokens that the model likes, some sooner and some later.
            likes = generate(double, prompt, None, 4, 1.0, False)[0]
            for end in sorted({likes[(number + place) % LENGTH], likes[-1]}):
                new, score = generate(double, prompt, end, beams, penalty, early)
                if generate(single, prompt, end, beams, penalty, early)[0] != new:
                    dropped += 1
                    continue
                cases.append(
                    dict(prompt=prompt, length=LENGTH, end=end, beams=beams,
                         length_penalty=penalty, early_stopping=early, ids=new, score=score)
                )
    assert dropped * 20 <= len(cases), dropped
    ends = sum(case["ids"][-1] == case["end"] for case in cases)
    assert 0.3 < ends / len(cases) < 0.9, ends
    lines = ",\n".join(json.dumps(case) for case in cases)
    (HERE / "gpt2/generated.json").write_text(f"[\n{lines}\n]\n")
    print(len(cases), "cases,", ends, "of which end,", dropped, "dropped")


if __name__ == "__main__":
    main()
