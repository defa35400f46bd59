"""Reads a run's event files with TensorBoard itself and compares them with its metrics.jsonl.

    pip install tensorboard
    cargo run --release --example synthetic_run -- /tmp/run
    python tests/tensorboard/check.py /tmp/run
"""

import json
import math
import struct
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TAGS = {
    "train": {
        "loss": "loss/train",
        "pair_loss": "loss/pair",
        "lr": "lr",
        "grad_norm": "grad_norm",
        "tokens_per_s": "tokens_per_s",
    },
    "eval": {"loss": "loss/heldout", "accuracy": "accuracy", "pair_accuracy": "accuracy/pair"},
}


def f32(value):
    """The value as an event holds it; null, which JSON has for NaN and infinity, as None."""
    return None if value is None else struct.unpack("f", struct.pack("f", value))[0]


def expected(run):
    """{tag: [(step, value)]} by the log."""
    scalars = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        for field, tag in TAGS.get(record["kind"], {}).items():
            if field in record:
                scalars.setdefault(tag, []).append((record["step"], f32(record[field])))
    return scalars


def main():
    run = Path(sys.argv[1])
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    scalars = expected(run)
    assert sorted(scalars) == sorted(events.Tags()["scalars"]), events.Tags()
    for tag, wanted in scalars.items():
        finite = lambda value: value if math.isfinite(value) else None
        found = [(event.step, finite(event.value)) for event in events.Scalars(tag)]
        assert found == wanted, f"{tag}: {len(found)} found, {len(wanted)} in the log"
        print(f"{tag}: {len(found)} values agree")


if __name__ == "__main__":
    main()
