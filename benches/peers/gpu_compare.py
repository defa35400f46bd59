"""Our training step and PyTorch's on one GPU, in turn, and the ratio of their times.

    V/bin/python benches/peers/gpu_compare.py --preset gpt2 --seq 1024 --tokens 65536

A round is ours, then each variant of theirs, so a GPU that grows hot slows all of them; after the
first round only the fastest three of theirs go on. The ratio is of medians over rounds; the last
line names the fastest peer. Neither side has dropout, and theirs takes the very lengths that ours
drew. A peer that fails (a backend that does not take the shape, no memory, no time) is told and left
out. `--toy` runs everything tiny, ours on the emulator and theirs on the CPU, to see that it works;
such times say nothing.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
GO_ON = 3

# variant, attention (see models.py) and SDPA backend; likely winners first
PLAIN = [
    ("compile", "sdpa", "any"),
    ("compile", "sdpa", "flash"),
    ("compile", "sdpa", "cudnn"),
    ("max-autotune", "sdpa", "any"),
    ("compile", "varlen", "any"),
    ("eager", "sdpa", "any"),
    ("compile", "sdpa", "efficient"),
    ("compile", "sdpa", "math"),
]
# Windows, and sequences of many lengths.
PACKED = [
    ("compile", "varlen", "any"),
    ("compile", "flex", "any"),
    ("max-autotune", "varlen", "any"),
    ("compile", "sdpa", "any"),
    ("eager", "varlen", "any"),
    ("compile", "sdpa", "cudnn"),
]
TOY = [("eager", "sdpa", "any"), ("compile", "sdpa", "any")]
NO_DROPOUT = [f"--set=model.dropout.{where}=0" for where in ("embed", "hidden", "attention")]


def run(command, limit):
    """Whether it went well; if not, the reason is told. And its standard output."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        print(f"left out after {limit} s: {' '.join(map(str, command[1:]))}", file=sys.stderr)
        return None
    if done.returncode == 0:
        return done.stdout
    reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
    print(f"left out: {' '.join(map(str, command[1:]))}: {' '.join(reason)}", file=sys.stderr)
    return None


def ours(args, shape, report):
    command = [args.program, "bench", "step", "--no-verify", "--json", report, *shape, *NO_DROPOUT]
    device = ["--device", "emulator" if args.toy else "cuda", "--budget", "0" if args.toy else "3"]
    if run([*command, "--lengths", args.lengths, *device], args.limit) is None:
        sys.exit("ours failed")
    return json.loads(report.read_text())


def theirs(args, peer, shape, report, masked):
    variant, attention, sdpa = peer
    command = [sys.executable, HERE / "gpu_step.py", "--variant", variant, "--sdpa", sdpa]
    command += ["--attention", attention, "--lengths", report, "--masked", str(masked), *shape]
    if args.toy:
        command += ["--device", "cpu", "--warmup", "1", "--steps", "2"]
    said = run(command, args.limit)
    return said and json.loads(said.strip().splitlines()[-1])["median_s"]


def rounds(args, shape, peers, folder):
    """Seconds by name, of each round; and what ours told last. Each is kept as soon as it is there."""
    times = {"ours": []}
    report = folder / "step.json"
    for i in range(args.rounds):
        told = ours(args, shape, report)
        step = told["step"]
        times["ours"].append(step["seconds"])
        masked = step["labelled"] / step["tokens"]
        for peer in peers:
            seconds = theirs(args, peer, shape, report, masked)
            times.setdefault(", ".join(peer), []).append(seconds)
            keep(args, times, told)
        fast = [peer for peer in peers if None not in times[", ".join(peer)]]
        peers = sorted(fast, key=lambda peer: min(times[", ".join(peer)]))[:GO_ON]
    return times, told


def medians_of(times):
    """By name, of those that did not fail. Of a peer that did not go on, its first round's time."""
    return {name: statistics.median(t) for name, t in times.items() if None not in t}


def keep(args, times, told):
    medians, step = medians_of(times), told["step"]
    mine = medians.pop("ours")
    figures = {"preset": args.preset, "seq": args.seq, "tokens": step["tokens"],
               "sequences": step["sequences"], "lengths": args.lengths, "ours_s": mine,
               "device": told["device"]["name"], "peers_s": medians, "rounds": times}
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="gpt2")
    parser.add_argument("--seq", type=int, default=1024)
    parser.add_argument("--tokens", type=int, default=65536)
    parser.add_argument("--lengths", default="fixed", help="as of `bench step`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=300, help="seconds a run may take")
    parser.add_argument("--program", default=ROOT / "target/release/warpwright")
    parser.add_argument("--json", help="write the figures here too")
    parser.add_argument("--toy", action="store_true", help="tiny, on emulator and CPU")
    args = parser.parse_args()
    if args.toy:
        args.preset, args.seq, args.tokens = f"{args.preset.split('-')[0]}-tiny", 32, 64
    packed = args.lengths != "fixed" or args.preset.startswith("modernbert")
    peers = TOY if args.toy else PACKED if packed else PLAIN
    shape = ["--preset", args.preset, "--seq", str(args.seq), "--tokens", str(args.tokens)]
    with tempfile.TemporaryDirectory() as folder:
        times, told = rounds(args, shape, peers, Path(folder))

    medians = medians_of(times)
    mine, step = medians.pop("ours"), told["step"]
    print(f"{told['device']['name']}: {told['what']}, without dropout")
    print(f"{'':<28}{'ms a step':>12}{'tokens/s':>12}{'sequences/s':>13}{'theirs / ours':>15}")
    for name, seconds in {"ours": mine, **medians}.items():
        ratio = "" if name == "ours" else f"{seconds / mine:>15.2f}"
        name = name if name == "ours" else f"PyTorch {name}"
        rates = step["tokens"] / seconds, step["sequences"] / seconds
        print(f"{name:<28}{seconds * 1e3:>12.2f}{rates[0]:>12.0f}{rates[1]:>13.1f}{ratio}")
    fastest = min(medians, key=medians.get, default=None)
    if fastest:
        print(f"fastest peer: {fastest}: {medians[fastest] / mine:.2f} times our time")


if __name__ == "__main__":
    main()
