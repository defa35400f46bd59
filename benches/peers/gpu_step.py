"""The PyTorch GPU peer of `warpwright bench step`: the same model and work, on its best terms.

    V/bin/python benches/peers/gpu_step.py --preset gpt2 --seq 1024 --tokens 65536 --variant compile

A step is forward, loss, backward, clipping of the global gradient norm at 1.0, and fused AdamW, on
random tokens that are on the GPU beforehand. Matrices multiply in bf16 (autocast), weights and
moments are fp32, as ours. Models and kinds of attention: see models.py. Nothing is read back before
the end. One JSON line goes to standard output; it counts real tokens only. `--device cpu` runs it
anywhere, to see that it works: `--preset modernbert-tiny --seq 64 --tokens 256`.
"""

import argparse
import contextlib
import json
import statistics
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from cpu_step import make_optimizer
from models import PRESETS, Model, attention

VARIANTS = {
    "eager": lambda model: model,
    "compile": torch.compile,
    "max-autotune": lambda model: torch.compile(model, mode="max-autotune"),
}
BACKENDS = {
    "any": None,
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


def lengths_of(args):
    """Of each sequence, from `--lengths`."""
    if args.lengths not in ("fixed", "mlperf"):
        with open(args.lengths) as file:
            found = json.load(file)["step"].get("lengths")
        if found:
            return found
    drawn = torch.Generator().manual_seed(1)
    draw = lambda below: torch.randint(below, (), generator=drawn).item()
    lengths, left = [], args.tokens
    while left:
        # As ours: a quarter of them whole, the others from 1 to 336 of 512.
        whole = args.lengths != "mlperf" or draw(4) == 0
        length = args.seq if whole else 1 + draw(max(1, -(-args.seq * 336 // 512)))
        lengths.append(min(length, left))
        left -= lengths[-1]
    return lengths


def kind_of_attention(args, arch, lengths):
    """The best there is, where nothing was asked for."""
    if args.attention != "auto":
        return args.attention
    plain = len(set(lengths)) == 1 and arch.family != "modernbert"
    if plain or args.device != "cuda":
        return "sdpa"
    try:
        import torch.nn.attention.varlen  # noqa: F401

        return "varlen"
    except ImportError:
        return "sdpa"


def batch(arch, lengths, laid, masked, device):
    """Random tokens; `laid`: each sequence lies in so many, the rest is padding."""
    where = [torch.arange(length) for length in lengths]
    if laid:
        starts = torch.arange(len(lengths)) * laid
        real = torch.cat([start + at for start, at in zip(starts, where)]).to(device)
        positions = torch.arange(laid, device=device).repeat(len(lengths))
    else:
        positions = torch.cat(where).to(device)
        real = torch.arange(len(positions), device=device)
    ids = torch.randint(arch.vocab, positions.shape, device=device)
    rows = None
    if not arch.causal:
        count = max(1, round(masked * len(real)))
        rows = real[torch.randperm(len(real), device=device)[:count]].sort().values
    labels = torch.randint(arch.vocab, (len(positions) if rows is None else len(rows),))
    labels = labels.to(device)
    if rows is None and laid:
        padding = torch.ones_like(labels, dtype=torch.bool)
        padding[real] = False
        labels[padding] = -100  # what cross_entropy ignores
    return ids, positions, rows, labels


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="gpt2")
    parser.add_argument("--seq", type=int, default=1024, help="tokens a sequence, at most")
    parser.add_argument("--tokens", type=int, default=65536, help="tokens a step, in one pass")
    parser.add_argument("--lengths", default="fixed",
                        help="fixed, mlperf, or JSON of `bench step`, whose lengths are taken")
    parser.add_argument("--masked", type=float, default=0.15, help="share of rows, not GPT-2")
    parser.add_argument("--variant", choices=VARIANTS, default="compile")
    parser.add_argument("--sdpa", choices=BACKENDS, default="any")
    parser.add_argument("--attention", choices=("auto", "sdpa", "varlen", "flex"), default="auto")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()

    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    arch, lengths = PRESETS[args.preset], lengths_of(args)
    kind = kind_of_attention(args, arch, lengths)
    compiled = args.variant != "eager"
    attend, laid = attention(kind, arch, lengths, args.device, compiled)
    model = Model(arch, max(args.seq, max(lengths)), attend).to(args.device)
    optimizer, optimizer_kind = make_optimizer(model)
    loss_of = VARIANTS[args.variant](model)
    backend = BACKENDS[args.sdpa]
    backends = sdpa_kernel(backend) if backend else contextlib.nullcontext()

    def step(data):
        with torch.autocast(args.device, torch.bfloat16):
            loss = loss_of(*data)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    batches = [batch(arch, lengths, laid, args.masked, args.device) for _ in range(4)]
    with backends:
        for i in range(args.warmup):
            loss = step(batches[i % 4])
        seconds = (timed_by_events if args.device == "cuda" else timed_by_clock)(
            lambda i: step(batches[i % 4]), args.steps
        )
        loss = step(batches[0]).item()
    median, tokens = statistics.median(seconds), sum(lengths)
    gpu = args.device == "cuda"
    print(json.dumps({
        "peer": "pytorch", "preset": args.preset, "seq": args.seq, "tokens": tokens,
        "sequences": len(lengths), "laid_out": laid * len(lengths) if laid else tokens,
        "variant": args.variant, "attention": kind, "sdpa": args.sdpa,
        "optimizer": f"AdamW {optimizer_kind}", "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "parameters": sum(p.numel() for p in model.parameters()), "loss": round(loss, 4),
        "memory_bytes": torch.cuda.max_memory_allocated() if gpu else None,
        "median_s": median, "low_s": min(seconds), "high_s": max(seconds),
        "tokens_per_s": tokens / median, "sequences_per_s": len(lengths) / median,
    }))


def timed_by_events(step, steps):
    """Device time of each step [s], queued without waiting."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]
    events[0].record()
    for i in range(steps):
        step(i)
        events[i + 1].record()
    torch.cuda.synchronize()
    return [a.elapsed_time(b) / 1e3 for a, b in zip(events, events[1:])]


def timed_by_clock(step, steps):
    seconds = []
    for i in range(steps):
        began = time.perf_counter()
        step(i)
        seconds.append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    main()
