"""The PyTorch GPU peer of `warpwright bench step`: the same model and work, on its best terms.

    V/bin/python benches/peers/gpu_step.py --preset gpt2 --seq 1024 --tokens 65536 --variant compile

A step is forward, loss, backward, clipping of the global gradient norm at 1.0, and fused AdamW, on
random tokens that are on the GPU beforehand. Matrices multiply in bf16 (autocast), weights and
moments are fp32, as ours. For BERT only the masked rows pass the head. Nothing is read back before
the end. One JSON line goes to standard output. `--device cpu` runs it anywhere, to see that it
works: `--preset toy-gpt --seq 64 --tokens 256`.
"""

import argparse
import contextlib
import json
import statistics
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from cpu_step import Transformer, make_optimizer

# causal, layers, width, heads, vocabulary (that of ours: rounded up to what both multiply well)
PRESETS = {
    "gpt2": (True, 12, 768, 12, 50304),
    "gpt2-medium": (True, 24, 1024, 16, 50304),
    "gpt2-xl": (True, 48, 1600, 25, 50304),
    "bert-base": (False, 12, 768, 12, 30528),
    "bert-large": (False, 24, 1024, 16, 30528),
    "toy-gpt": (True, 2, 64, 2, 512),
    "toy-bert": (False, 2, 64, 2, 512),
}
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="gpt2")
    parser.add_argument("--seq", type=int, default=1024, help="tokens a sequence")
    parser.add_argument("--tokens", type=int, default=65536, help="tokens a step, in one pass")
    parser.add_argument("--masked", type=float, default=0.15, help="share of rows, BERT only")
    parser.add_argument("--variant", choices=VARIANTS, default="compile")
    parser.add_argument("--sdpa", choices=BACKENDS, default="any")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    if args.tokens % args.seq:
        parser.error("--tokens is a multiple of --seq")

    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    causal, layers, width, heads, vocabulary = PRESETS[args.preset]
    sequences = args.tokens // args.seq
    model = Transformer(causal, layers, width, heads, args.seq, vocabulary).to(args.device)
    optimizer, optimizer_kind = make_optimizer(model)
    loss_of = VARIANTS[args.variant](model)
    backend = BACKENDS[args.sdpa]
    attention = sdpa_kernel(backend) if backend else contextlib.nullcontext()

    def batch():
        ids = torch.randint(vocabulary, (sequences, args.seq), device=args.device)
        count = args.tokens if causal else round(args.masked * args.tokens)
        labels = torch.randint(vocabulary, (count,), device=args.device)
        rows = None if causal else torch.randperm(args.tokens, device=args.device)[:count]
        return ids, rows, labels

    def step(data):
        with torch.autocast(args.device, torch.bfloat16):
            loss = loss_of(*data)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    batches = [batch() for _ in range(4)]
    with attention:
        for i in range(args.warmup):
            loss = step(batches[i % 4])
        seconds = (timed_by_events if args.device == "cuda" else timed_by_clock)(
            lambda i: step(batches[i % 4]), args.steps
        )
        loss = step(batches[0]).item()
    median = statistics.median(seconds)
    gpu = args.device == "cuda"
    print(json.dumps({
        "peer": "pytorch", "preset": args.preset, "seq": args.seq, "tokens": args.tokens,
        "variant": args.variant, "sdpa": args.sdpa, "optimizer": f"AdamW {optimizer_kind}",
        "torch": torch.__version__, "device": torch.cuda.get_device_name() if gpu else "cpu",
        "parameters": sum(p.numel() for p in model.parameters()), "loss": round(loss, 4),
        "memory_bytes": torch.cuda.max_memory_allocated() if gpu else None,
        "median_s": median, "low_s": min(seconds), "high_s": max(seconds),
        "tokens_per_s": args.tokens / median,
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
