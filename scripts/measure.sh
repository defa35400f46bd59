#!/usr/bin/env bash
# All that waits for a GPU, in one command: correctness first, then figures.
#
#     scripts/measure.sh OUT [PROGRAM]
#
# OUT is a folder for what comes of it; PROGRAM the built warpwright (target/release/warpwright). A
# part that fails does not stop the others; the table at the end says which did. Both programs can
# be built elsewhere, without a GPU, and brought here: warpwright by `cargo build --release` after
# scripts/cuda-toolkit.sh, and values-gpu, to lie beside it, by kernels/emulator/tests/gpu.sh.
set -uo pipefail
out=${1:?usage: scripts/measure.sh OUT [PROGRAM]}
program=${2:-target/release/warpwright}
values=$(dirname "$program")/values-gpu
mkdir -p "$out"
: > "$out/summary.txt"

# part NAME SECONDS COMMAND...: runs it with a time limit, its words in OUT/NAME.txt.
part() {
  local name=$1 limit=$2 began=$SECONDS
  shift 2
  timeout "$limit" "$@" > "$out/$name.txt" 2>&1
  local code=$?
  printf '%-24s exit %3d  %4d s  %s\n' "$name" $code $((SECONDS - began)) \
    "$(grep -v '^$' "$out/$name.txt" | tail -1 | cut -c 1-90)" | tee -a "$out/summary.txt"
}

verify() { "$program" verify --device cuda --seed 1 "$@"; }

part info 60 "$program" info --kernels
if [ -x "$values" ]; then
  part wrappers 60 "$values" "record=$out/golden.bin"
fi
export -f verify && export program
part verify-small 120 bash -c 'verify --sizes small --json "$0"' "$out/verify-small.json"
part verify-full 480 bash -c 'verify --sizes full --json "$0"' "$out/verify-full.json"
if command -v compute-sanitizer > /dev/null; then
  for tool in memcheck racecheck synccheck; do
    part "$tool" 300 compute-sanitizer --tool "$tool" --error-exitcode 1 \
      "$program" verify --device cuda --seed 1 --sizes small --kernels fast --repeats 1
  done
fi
for objective in masked causal; do
  part "pretrain-$objective" 180 "$program" pretrain --device cuda --objective "$objective" \
    --force --out "$out/$objective"
done
bench() {
  local name=$1
  shift
  part "bench-$name" 300 "$program" bench "$@" --device cuda --no-verify \
    --json "$out/bench-$name.json" --html "$out/bench-$name.html"
}
bench ops ops --preset gpt2
bench gemm gemm
bench attention attention
bench step-gpt2 step --preset gpt2 --seq 1024 --tokens 65536
bench step-bert step --preset bert-base --seq 512 --tokens 65536
bench step-bert-large step --preset bert-large --lengths mlperf
bench step-modernbert step --preset modernbert-base --seq 1024 --tokens 65536
echo "in $out: summary.txt, and a file a part"
! grep -qv 'exit   0' "$out/summary.txt"
