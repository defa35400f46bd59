#!/usr/bin/env bash
# The peers in PyTorch at toy size, on the CPU and the emulator, so that they are known to work.
# Their times say nothing.
#
#     scripts/peers.sh [PROGRAM]
#
# PROGRAM is the built warpwright (target/release/warpwright). PyTorch goes to .peers, once: 2.7 GB
# of downloads and 4.5 GB on disk, since its libraries for GPUs are loaded even where there is none
# (its compiler for GPUs, triton, is not). PYTHON names a Python that has torch instead.
set -euo pipefail
cd "$(dirname "$0")/.."
program=$(realpath "${1:-target/release/warpwright}")
TORCH=2.15.0
NUMPY=2.4.6

if [ -z "${PYTHON:-}" ]; then
  PYTHON=.peers/bin/python
  if [ "$(cat .peers/torch 2> /dev/null)" != "$TORCH" ]; then
    began=$SECONDS
    rm -rf .peers
    python3 -m venv .peers
    # What torch needs, without triton: it says itself which.
    .peers/bin/pip install -q --no-cache-dir --no-deps "torch==$TORCH" "numpy==$NUMPY"
    .peers/bin/python - > .peers/needs <<'PY'
import re
from importlib.metadata import requires
for need in requires("torch"):
    if "extra ==" not in need and not need.startswith("triton"):
        print(need)
PY
    # It warns that triton is missing.
    .peers/bin/pip install -q --no-cache-dir -r .peers/needs 2> .peers/log \
      || { cat .peers/log; exit 1; }
    echo "$TORCH" > .peers/torch
    echo "PyTorch $TORCH: $((SECONDS - began)) s, $(du -sh .peers | cut -f 1)"
  fi
fi

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
export OMP_NUM_THREADS=1
peer() {
  local began=$SECONDS
  "$PYTHON" "benches/peers/$@" > "$out/said" 2> "$out/errors" || { cat "$out"/*; exit 1; }
  printf "%4d s  %s\n" $((SECONDS - began)) "$(cut -c 1-90 <<< "$*")"
}

small="--layers 2 --width 64 --heads 2 --context 32 --batch 2 --vocab 512 --threads 1 --steps 2"
for model in gpt bert; do
  # shellcheck disable=SC2086
  peer cpu_step.py --model $model $small
done
cpu="--device cpu --warmup 1 --steps 2 --seq 32 --tokens 64 --variant eager"
for model in "gpt2-tiny --lengths mlperf" "bert-tiny --lengths mlperf" modernbert-tiny; do
  # shellcheck disable=SC2086
  peer gpu_step.py --preset $model $cpu
done
# Ours on the emulator; theirs eager and compiled.
peer gpu_compare.py --toy --preset modernbert --lengths mlperf --rounds 1 --program "$program" \
  --json "$out/compare-modernbert.json"
rows() { "$program" bench "$@" --device emulator --no-verify --budget 0 > "$out/said"; }
rows gemm --tokens 8 --json "$out/gemm.json"
rows attention --tokens 32 --width 32 --head-dim 32 --seq 16 --json "$out/attention.json"
peer gpu_ops.py --device cpu --budget 0.001 "$out/gemm.json" "$out/attention.json"
rows step --preset modernbert-tiny --tokens 64 --json "$out/bench-step-modernbert.json"
peer table.py "$out"
