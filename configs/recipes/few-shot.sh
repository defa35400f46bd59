#!/usr/bin/env bash
# Few-shot: which topic does a causal model that was never taught one think likeliest, with no
# solved example before the question, and with three? A model of 1M weights is not expected to beat
# guessing (one in eight, or the share of the largest topic) by much; give another with MODEL.
. "$(dirname "$0")/begin.sh"
python3 scripts/fetch.py topics
model=${MODEL:-$out/pretrained}
[ -n "${MODEL:-}" ] || ww pretrain --objective causal --out "$model" \
  --set batch.context=$(pick 512 256) --set model.context=$(pick 512 256) \
  --set train.steps=$(pick 2000 40)
for k in 0 3; do
  ww eval choice --model "$model" --input "data/topics/r8-choices-test$small.jsonl" \
    --shots data/topics/r8-choices-train.jsonl --k $k --out "$out/$k-shots.json" \
    --template 'News: {question}\nTopic:'
done
