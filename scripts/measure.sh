#!/usr/bin/env bash
# All that waits for a GPU, in one command: correctness first, then figures.
#
#     [PYTHON=V/bin/python] scripts/measure.sh OUT [PROGRAM]
#
# Where PYTHON (python3) has torch, its peers run beside ours (benches/peers), in turn on this GPU;
# and cuBLASLt is found in what torch came with, if the system has none. All of it may take an
# hour: ONLY=REGEX runs some parts alone (ONLY=compare-gpt2), ROUNDS=1 one round of each comparison.
#
# OUT is a folder for what comes of it; PROGRAM the built warpwright (target/release/warpwright). A
# part that fails does not stop the others; the table at the end says which did. Both programs can
# be built elsewhere, without a GPU, and brought here: warpwright by `cargo build --release` after
# scripts/cuda-toolkit.sh, and values-gpu, to lie beside it, by kernels/emulator/tests/gpu.sh.
set -uo pipefail
out=${1:?usage: scripts/measure.sh OUT [PROGRAM]}
program=${2:-target/release/warpwright}
python=${PYTHON:-python3}
peers=$(cd "$(dirname "$0")/../benches/peers" && pwd)
values=$(dirname "$program")/values-gpu
mkdir -p "$out"
[ -n "${ONLY:-}" ] || rm -f "$out/summary.txt"
touch "$out/summary.txt"
with_torch=$("$python" -c 'import torch; print(torch.cuda.is_available())' 2> /dev/null)
pip_cuda=$("$python" -c 'import nvidia.cu13 as n; print(n.__path__[0])' 2> /dev/null)
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}${pip_cuda:+$pip_cuda/lib}"

# part NAME SECONDS COMMAND...: runs it with a time limit, its words in OUT/NAME.txt.
part() {
  local name=$1 limit=$2 began=$SECONDS
  shift 2
  [[ $name =~ ${ONLY:-.*} ]] || return 0
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
part verify-repeats 300 bash -c 'verify --op attention --sizes small --repeats 1000'
part verify-overlap 120 bash -c 'verify --overlap --sizes small --repeats 20'
# Where there is no cuBLASLt, nothing is to be said of it.
with_blas=
if "$program" verify --device cuda --gemm cublaslt --op rope --sizes small > /dev/null 2>&1; then
  with_blas=True
  for family in linear loss; do
    part "verify-cublaslt-$family" 300 bash -c \
      'verify --gemm cublaslt --kernels fast --sizes full --op "$0"' "$family"
  done
fi
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
bench ladder gemm --ladder
part tune 2400 "$program" bench gemm --tune "$out/cuts.json" --device cuda --no-verify \
  --preset gpt2,bert-base,bert-large,modernbert-base --budget 0.1
bench tuned gemm --tuned "$out/cuts.json"
bench attention attention
bench attention-ragged attention --head-dim 64 --seq 512 --lengths mlperf
bench attention-portable attention --portable
# steps NAME LIMIT ARGS...: whole steps of ours, and of each peer in turn with them.
steps() {
  local name=$1 limit=$2
  shift 2
  bench "step-$name" step "$@" --tokens 65536 --budget 3
  bench "overlap-$name" step "$@" --tokens 65536 --budget 3 --set train.overlap=true
  bench "tuned-$name" step "$@" --tokens 65536 --budget 3 --tuned "$out/cuts.json"
  if [ -n "$with_blas" ]; then
    bench "cublaslt-$name" step "$@" --tokens 65536 --budget 3 --gemm cublaslt
  fi
  bench "any-order-$name" step "$@" --tokens 65536 --budget 3 --set train.deterministic=false
  if [ "$with_torch" = True ]; then
    part "compare-$name" "$limit" "$python" "$peers/gpu_compare.py" "$@" --tokens 65536 \
      --rounds "${ROUNDS:-3}" --program "$program" --json "$out/compare-$name.json"
  fi
}
if [ "$with_torch" = True ]; then
  part peers-ops 1800 "$python" "$peers/gpu_ops.py" "$out"/bench-{gemm,attention,ops}.json \
    --json "$out/peers-ops.json"
fi
steps gpt2 3600 --preset gpt2 --seq 1024
steps bert 3600 --preset bert-base --seq 512
steps bert-large 3600 --preset bert-large --seq 512 --lengths mlperf
steps modernbert 3600 --preset modernbert-base --seq 1024
# Finetuning, where `scripts/fetch.py minilm reviews` has brought something to finetune.
reviews="$(dirname "$peers")/../data/reviews/imdb"
minilm="$(dirname "$peers")/../data/minilm"
if [ -d "$minilm" ] && [ -f "$reviews-train.csv" ]; then
  recipe=(--model "$minilm" --train "$reviews-train.csv" --dev "$reviews-test.csv"
    --epochs 1 --lr 1e-4 --longest 256)
  part finetune 600 bash -c 'rm -rf "$0" && "$@" --out "$0"' "$out/finetune" \
    "$program" finetune --task classify "${recipe[@]}" --seeds 1,2,3 --device cuda
  if [ "$with_torch" = True ]; then
    part peers-finetune 900 "$python" "$peers/finetune.py" "${recipe[@]}" --seeds 1 2 3 \
      --device cuda
  fi
fi
if command -v "$python" > /dev/null; then
  "$python" "$peers/table.py" "$out" | tee "$out/table.txt"
fi
echo "in $out: summary.txt, table.txt, and a file a part"
! grep -qv 'exit   0' "$out/summary.txt"
