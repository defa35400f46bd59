#!/usr/bin/env bash
# Translation: a small GPT, pretrained on Shakespeare and Moby Dick, learns to put verses of the
# King James Bible into new words; judged by BLEU beside the World English Bible. Copying the old
# verse is a strong baseline: both translate the same text.
. "$(dirname "$0")/begin.sh"
python3 scripts/fetch.py verses
ww pretrain --objective causal --out "$out/pretrained" \
  --set batch.context=$(pick 256 128) --set model.context=$(pick 256 128) \
  --set train.steps=$(pick 2000 60)
ww finetune --model "$out/pretrained" --task complete --longest $(pick 256 128) \
  --train "data/verses/verses-train$small.jsonl" --dev "data/verses/verses-test$small.jsonl" \
  --epochs $(pick 3 1) --lr 1e-3 --out "$out/model"
head -n $(pick 1555 20) data/verses/verses-test.jsonl > "$out/test.jsonl"
ww eval completion --model "$out/model" --input "$out/test.jsonl" --length $(pick 96 24) \
  --beams $(pick 4 1) --out "$out/bleu.json"
head -n 3 "$out/test.jsonl" > "$out/shown.jsonl"
ww generate --model "$out/model" --beams 4 --length $(pick 96 24) --input "$out/shown.jsonl"
