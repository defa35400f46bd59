#!/usr/bin/env bash
# Embeddings: MiniLM turns two sentences into the vectors that its card publishes, to four digits.
. "$(dirname "$0")/begin.sh"
python3 scripts/fetch.py minilm
ww embed --model data/minilm --dtype f32 \
  "This is an example sentence" "Each sentence is converted" > "$out/vectors.jsonl"
python3 - "$out/vectors.jsonl" << 'PY'
import json, sys
one, two = (json.loads(line)["vector"] for line in open(sys.argv[1]))
found = [*one[:4], sum(a * b for a, b in zip(one, two))]
published = [0.0677, 0.0635, 0.0487, 0.0793, 0.4046]
print("the first begins {:.4f}, {:.4f}, {:.4f}, {:.4f}; cosine {:.4f}".format(*found))
if any(abs(a - b) > 1e-4 for a, b in zip(found, published)):
    sys.exit(f"published are {published}")
PY
