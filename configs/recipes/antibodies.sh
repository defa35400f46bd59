#!/usr/bin/env bash
# Real checkpoints of others: a BERT (AntiBERTy) and a RoBERTa (Sapiens) of antibodies score the
# heavy chain of trastuzumab far likelier than its residues in another order. Needs torch, to read
# the pickles that they come in; PYTHON names a Python that has it.
. "$(dirname "$0")/begin.sh"
"${PYTHON:-python3}" scripts/fetch.py antiberty sapiens
python3 - $(pick 3 1) > "$out/chains.txt" << 'PY'
import random, sys
chain = ("EVQLVESGGGLVQPGGSLRLSCAASGFNIKDTYIHWVRQAPGKGLEWVARIYPTNGYTRYADSVKGRFTISADTSKNTAYLQMNSLRAEDTAVYY"
         "CSRWGGDGFYAMDYWGQGTLVTVSS")
draw = random.Random(1)
print(" ".join(chain))
for _ in range(int(sys.argv[1])):
    print(" ".join(draw.sample(chain, len(chain))))
PY
for model in antiberty sapiens; do
  ww score --model data/$model --input "$out/chains.txt" > "$out/$model.jsonl"
  python3 - $model "$out/$model.jsonl" << 'PY'
import json, sys
model, path = sys.argv[1:]
real, *shuffled = (json.loads(line)["mean_nll"] for line in open(path))
print(f"{model}: {real:.2f} nats a residue; in another order",
      ", ".join(f"{nll:.2f}" for nll in shuffled))
if min(shuffled) < real + 1.5:
    sys.exit(f"{model} does not tell a chain from a shuffled one")
PY
done
