#!/usr/bin/env bash
# Domain adaptation: a small masked model, pretrained on Shakespeare and Moby Dick, goes on with an
# English Quran, alone or mixed with the old text against forgetting. The table is the masked loss
# on held-out text of both kinds.
. "$(dirname "$0")/begin.sh"
python3 scripts/fetch.py languages
steps=$(pick 800 40)
train=data/languages/en-text-train.jsonl test=data/languages/en-text-test.jsonl
ww pretrain --objective masked --out "$out/before" --set train.steps=$steps
