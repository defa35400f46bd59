#!/usr/bin/env bash
# Sentiment: MiniLM (22.7M weights) finetuned on film reviews, IMDB's or short ones.
. "$(dirname "$0")/begin.sh"
python3 scripts/fetch.py minilm reviews
source=$(pick imdb rotten-tomatoes)
ww finetune --model data/minilm --task classify \
  --train "data/reviews/$source-train$small.csv" --dev "data/reviews/$source-test$small.csv" \
  --epochs $(pick 1 2) --lr $(pick 1e-4 2e-4) --longest $(pick 256 64) --out "$out/model"
ww predict --model "$out/model" "A delight from start to finish." "Two hours that I want back."
ww explain --model "$out/model" "A delight from start to finish." --out "$out/explained.html"
