#!/usr/bin/env bash
# Topics: MiniLM finetuned on Reuters R8, eight topics of very different sizes.
. "$(dirname "$0")/begin.sh"
python3 scripts/fetch.py minilm topics
ww finetune --model data/minilm --task classify --metric f1 --class-weights \
  --train "data/topics/r8-train$small.csv" --dev "data/topics/r8-test$small.csv" \
  --epochs $(pick 3 1) --lr $(pick 5e-5 2e-4) --longest $(pick 256 48) --out "$out/model"
