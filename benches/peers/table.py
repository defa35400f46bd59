"""The bars that a training step is to reach on an H200, beside what was measured; the same steps by
other products; and the ladder of products beside its predictions (kernels/README.md).

    python benches/peers/table.py OUT

OUT holds what scripts/measure.sh writes: `compare-NAME.json` of gpu_compare.py (both sides without
dropout) and `bench-step-NAME.json` of `bench step` (as the preset is, with its dropout). What is
missing is left empty; nothing else than Python is needed.
"""

import json
import sys
from pathlib import Path

# name, what it is, and the bar and the goal: the most ms, or the least of a rate
ROWS = [
    ("gpt2", "GPT-2 124M, S=1024, 64k", "ms", 95, 85),
    ("bert", "BERT-base, S=512, 64k", "ms", 71, 62),
    ("bert-large", "BERT-large, MLPerf lengths", "seq/s", 1140, 1250),
    ("modernbert", "ModernBERT-base, S=1024", "ktok/s", 540, 700),
]
OVER_PEER = 1.3, 1.6
# How a step's products are made, by the name of its report.
PRODUCTS = [("step", "host's cuts"), ("tuned", "tuned cuts"), ("cublaslt", "cuBLASLt")]
# TFLOP/s that each rung was predicted to reach at 4096³.
RUNGS = {"naive": 0.45, "tiled": 28, "mma": 430, "wgmma": 430, "roles": 540, "final": 750}


def read(path):
    return json.loads(path.read_text()) if path.is_file() else None


def in_unit(unit, seconds, tokens, sequences):
    return {"ms": seconds * 1e3, "seq/s": sequences / seconds, "ktok/s": tokens / seconds / 1e3}[unit]


def verdict(unit, value, bar, goal):
    reached = (lambda of: value <= of) if unit == "ms" else (lambda of: value >= of)
    return "goal" if reached(goal) else "bar" if reached(bar) else "missed"


def main():
    folder = Path(sys.argv[1])
    print(f"{'':<28}{'unit':>7}{'bar':>7}{'goal':>7}{'no dropout':>12}{'':>8}{'dropout':>9}"
          f"{'idle':>7}{'plan ms':>9}{'fastest peer / ours':>21}")
    for name, what, unit, bar, goal in ROWS:
        cells = [""] * 6
        if compared := read(folder / f"compare-{name}.json"):
            mine = compared["ours_s"]
            value = in_unit(unit, mine, compared["tokens"], compared["sequences"])
            cells[:2] = f"{value:.1f}", verdict(unit, value, bar, goal)
            if peers := compared["peers_s"]:
                ratio = min(peers.values()) / mine
                cells[5] = f"{ratio:.2f} {verdict('', ratio, *OVER_PEER)}"
        if report := read(folder / f"bench-step-{name}.json"):
            step = report["step"]
            value = in_unit(unit, step["seconds"], step["tokens"], step["sequences"])
            cells[2:4] = f"{value:.1f}", f"{100 * step['idle_share']:.1f}%"
            if predicted := step["predicted"]:
                cells[4] = f"{predicted['seconds'] * 1e3:.1f}"
        a, b, c, d, e, f = cells
        print(f"{what:<28}{unit:>7}{bar:>7}{goal:>7}{a:>12}{b:>8}{c:>9}{d:>7}{e:>9}{f:>21}")
    print(f"bars are of an H200; over the fastest peer {OVER_PEER[0]}, goal {OVER_PEER[1]}")
    products(folder)
    ladder(folder)


def products(folder):
    print(f"\n{'a step, ms':<28}" + "".join(f"{how:>13}" for _, how in PRODUCTS))
    for name, what, *_ in ROWS:
        reports = [read(folder / f"bench-{kind}-{name}.json") for kind, _ in PRODUCTS]
        cells = [f"{1e3 * report['step']['seconds']:.1f}" if report else "" for report in reports]
        print(f"{what:<28}" + "".join(f"{cell:>13}" for cell in cells))


def ladder(folder):
    print(f"\n{'the ladder, 4096³, TFLOP/s':<28}{'predicted':>13}{'measured':>13}")
    rows = (read(folder / "bench-ladder.json") or {"rows": []})["rows"]
    measured = {row["op"]: row["flops_per_s"] / 1e12 for row in rows if "4096 ×" in row["shape"]}
    for rung, predicted in RUNGS.items():
        cell = f"{measured[op]:.3g}" if (op := f"ladder {rung}") in measured else ""
        print(f"{rung:<28}{predicted:>13g}{cell:>13}")


if __name__ == "__main__":
    main()
