"""Our CPU training step and PyTorch's, alternately on the same cores, and the ratio of their times.

    python benches/peers/compare.py [--model gpt|bert] [--rounds 3] [--steps 5]

Run it with a Python that has torch (see README.md). A round is ours, then theirs; the ratio of each
round is of the two medians, so a machine whose speed drifts between rounds does not blur it.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def last_line(command):
    done = subprocess.run(command, cwd=HERE.parent.parent, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=["gpt", "bert"], default="gpt")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    args = parser.parse_args()
    ours = ["cargo", "bench", "-q", "--bench", "step", "--", args.model, str(args.steps)]
    theirs = [sys.executable, str(HERE / "cpu_step.py"), "--model", args.model]
    theirs += ["--threads", "2", "--steps", str(args.steps)]
    ratios = []
    print(f"{'round':>5} {'ours s':>9} {'PyTorch s':>10} {'PyTorch / ours':>15}")
    for i in range(args.rounds):
        a, b = last_line(ours)["median_s"], last_line(theirs)["median_s"]
        ratios.append(b / a)
        print(f"{i + 1:>5} {a:>9.3f} {b:>10.3f} {b / a:>15.2f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
