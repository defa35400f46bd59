"""Our training step and PyTorch's on one GPU, in turn, and the ratio of their times.

    V/bin/python benches/peers/gpu_compare.py --preset gpt2 --seq 1024 --tokens 65536

A round is ours, then each variant of theirs, so a GPU that grows hot slows all of them. The ratio is
of medians over rounds; the last line names the fastest peer. A peer that fails (a backend that does
not take the shape, no memory) is told and left out. `--toy` runs everything tiny, ours on the
emulator and theirs on the CPU, to see that it works; such times say nothing.
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

# variant and SDPA backend
PEERS = [
    ("eager", "any"),
    ("compile", "any"),
    ("compile", "flash"),
    ("compile", "cudnn"),
    ("max-autotune", "any"),
]


def run(command):
    """Standard output, or None where it fails, with the reason told."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return done.stdout
    reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
    print(f"left out: {' '.join(map(str, command[1:]))}: {' '.join(reason)}", file=sys.stderr)
    return None


def ours(program, shape, extra):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "step.json"
        command = [program, "bench", "step", "--no-verify", "--json", path, *shape, *extra]
        if run(command) is None:
            sys.exit("ours failed")
        return json.loads(path.read_text())["step"]["seconds"]


def theirs(peer, shape, extra):
    variant, sdpa = peer
    command = [sys.executable, HERE / "gpu_step.py", "--variant", variant, "--sdpa", sdpa]
    said = run([*command, *shape, *extra])
    return said and json.loads(said.strip().splitlines()[-1])["median_s"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="gpt2")
    parser.add_argument("--seq", type=int, default=1024)
    parser.add_argument("--tokens", type=int, default=65536)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--program", default=ROOT / "target/release/warpwright")
    parser.add_argument("--toy", action="store_true")
    args = parser.parse_args()
    peers = PEERS
    preset, seq, tokens = args.preset, args.seq, args.tokens
    our_preset, our_extra, their_extra = preset, ["--device", "cuda"], []
    if args.toy:
        preset, our_preset, seq, tokens = "toy-gpt", "gpt2-tiny", 64, 256
        our_extra, their_extra = ["--device", "emulator", "--budget", "1"], ["--device", "cpu"]
        peers = PEERS[:2]
    sizes = ["--seq", str(seq), "--tokens", str(tokens)]

    times = {"ours": []}
    for _ in range(args.rounds):
        times["ours"].append(ours(args.program, ["--preset", our_preset, *sizes], our_extra))
        for peer in peers:
            name = "PyTorch " + ", ".join(peer)
            if None in times.setdefault(name, []):
                continue
            times[name].append(theirs(peer, ["--preset", preset, *sizes], their_extra))
    medians = {name: statistics.median(t) for name, t in times.items() if None not in t}
    mine = medians.pop("ours")
    print(f"{'':<28}{'ms a step':>12}{'tokens/s':>12}{'theirs / ours':>15}")
    print(f"{'ours':<28}{mine * 1e3:>12.2f}{tokens / mine:>12.0f}")
    for name, seconds in medians.items():
        print(f"{name:<28}{seconds * 1e3:>12.2f}{tokens / seconds:>12.0f}{seconds / mine:>15.2f}")
    fastest = min(medians, key=medians.get, default=None)
    if fastest:
        print(f"fastest peer: {fastest}: {medians[fastest] / mine:.2f} times our time")


if __name__ == "__main__":
    main()
