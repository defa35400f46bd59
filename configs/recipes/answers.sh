#!/usr/bin/env bash
# Question answering: MiniLM finds answers in the World Factbook, and says where there is none. The
# questions are generated ("What is the capital name of France?"), so this is easier than SQuAD.
. "$(dirname "$0")/begin.sh"
python3 scripts/fetch.py minilm answers
ww finetune --model data/minilm --task answer \
  --train "data/answers/factbook-train$small.json" --dev "data/answers/factbook-test$small.json" \
  --longest $(pick 384 128) --stride $(pick 128 32) --batch $(pick 24 16) --epochs $(pick 2 1) \
  --lr 1e-4 --out "$out/model"
ww explain --model "$out/model" "What is the coastline of Ukraine?" --out "$out/explained.html" \
  --pair "Geography of Ukraine. map references: Asia, Europe. coastline: 2,782 km. terrain: plains."
