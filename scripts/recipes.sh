#!/usr/bin/env bash
# Every recipe at small size, so that they are known to work; and what sentiment's has learnt.
#
#     scripts/recipes.sh
#
# PYTHON names a Python that has torch, as for scripts/peers.sh; without one, the recipe whose
# checkpoints are pickles is left out.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHON=${PYTHON:-.peers/bin/python}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for recipe in configs/recipes/*.sh; do
  name=$(basename "$recipe" .sh)
  [ "$name" != begin ] || continue
  if [ "$name" = antibodies ] && ! "$PYTHON" -c 'import torch' 2> /dev/null; then
    echo "       $name: no torch, left out"
    continue
  fi
  began=$SECONDS
  OUT=$folder/$name "$recipe" small > "$folder/$name.log" 2>&1 \
    || { cat "$folder/$name.log"; echo "$recipe failed"; exit 1; }
  printf "%4d s  %s\n" $((SECONDS - began)) "$name"
done
python3 - "$folder/sentiment/model/results.json" << 'PY'
import json, sys
metrics = {m["metric"]: m for m in json.load(open(sys.argv[1]))["metrics"]}
accuracy = metrics["accuracy"]
print("sentiment: {value:.3f} [{low:.3f}, {high:.3f}]".format(**accuracy))
if accuracy["low"] <= 0.55:
    sys.exit("finetuning is hardly better than guessing")
PY
