#!/usr/bin/env bash
# Cross-lingual transfer: one small masked model is pretrained on the Quran in eight languages,
# finetuned in English alone to tell where a verse was revealed, Mecca or Medina, and measured in
# every language on chapters that it has never seen. Guessing the larger class is the baseline.
. "$(dirname "$0")/begin.sh"
python3 scripts/fetch.py languages
languages="en es fr id ru sv tr zh"
ww pretrain --objective masked --out "$out/pretrained" --set data.vocabulary=8000 \
  --set "data.text=[$(printf '"data/languages/%s-text-train.jsonl",' $languages)]" \
  --set train.steps=$(pick 2000 60)
ww finetune --model "$out/pretrained" --task classify --longest 64 --lr 3e-4 \
  --train "data/languages/en-train$small.csv" --dev "data/languages/en-test$small.csv" \
  --epochs $(pick 3 1) --out "$out/model"
for language in $languages; do
  ww eval task --model "$out/model" --input "data/languages/$language-test$small.csv" \
    --out "$out/$language.json" > "$out/$language.txt"
done
python3 - "$out" $languages << 'PY'
import json, sys
out, *languages = sys.argv[1:]
print("language  accuracy              Matthews")
for language in languages:
    metrics = {m["metric"]: m for m in json.load(open(f"{out}/{language}.json"))["metrics"]}
    cells = ["{value:.3f} [{low:.3f}, {high:.3f}]".format(**metrics[name])
             for name in ("accuracy", "Matthews")]
    print(f"{language:<9}", *cells)
PY
