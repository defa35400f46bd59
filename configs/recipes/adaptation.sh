#!/usr/bin/env bash
# Domain adaptation: a small masked model, pretrained on Shakespeare and Moby Dick, goes on with an
# English Quran, alone or with a third of the old text against forgetting. The table is the masked
# loss on held-out text of both kinds [nats].
. "$(dirname "$0")/begin.sh"
python3 scripts/fetch.py languages
new=data/languages/en-text
ww pretrain --objective masked --out "$out/before" --set train.steps=$(pick 800 40)
adapt() {
  ww pretrain --init "$out/before" --out "$out/$1" --set "data.text=[\"$new-train.jsonl\"]" \
    --set train.steps=$(pick 400 20) --set schedule.peak=1e-3 "${@:2}"
}
adapt alone
adapt mixed --set data.general="$out/before/data" --set data.general_share=0.33
value() {
  python3 -c 'import json, sys; print("%.3f" % json.load(open(sys.argv[1]))["metrics"][0]["value"])' "$1"
}
printf '%-8s %8s %8s\n' '' 'old text' 'new text'
for model in before alone mixed; do
  result=$out/$model
  ww eval loss --model "$result" --shards "$out/before/data" --out "$result-old.json" > "$out/log"
  ww eval loss --model "$result" --text "$new-test.jsonl" --out "$result-new.json" > "$out/log"
  printf '%-8s %8s %8s\n' $model "$(value "$result-old.json")" "$(value "$result-new.json")"
done
