"""PyTorch's products and attention (every SDPA backend, varlen) at the shapes of a bench of ours.

    warpwright bench gemm --json gemm.json && warpwright bench attention --json attention.json
    V/bin/python benches/peers/gpu_ops.py gemm.json attention.json

Reads rows as `bench gemm`, `bench attention` and `bench ops` write them, times the same work in bf16
on random data, inputs rotated past three times a 60 MB L2, and prints theirs / ours by row and the
geometric mean. Where ours fuses an epilogue, theirs is the product (with its bias, where PyTorch has
it in one call) and the further kernels. `--device cpu` is to see that it works.
"""

import argparse
import json
import math
import re
import statistics
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from models import seen_by_varlen

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # an older PyTorch
    varlen_attn = None

ROTATED_BYTES = 3 * 60 << 20
BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
ACTIVATIONS = {"Gelu": {}, "GeluTanh": {"approximate": "tanh"}}


def random(device, *shape):
    return torch.randn(*shape, device=device, dtype=torch.bfloat16)


def products(row, device):
    """{name: (make inputs, run)} of a product's row, or nothing if it is none."""
    found = re.match(r"(\d+) × (\d+) → (\d+)(.*)", row["shape"])
    if not found or not row["op"].startswith("linear"):
        return {}
    rows, n_in, n_out = map(int, found.groups()[:3])
    rest, op = found[4], row["op"]
    activation = next((ACTIVATIONS[a] for a in ACTIVATIONS if rest.endswith(f", {a}")), None)
    weight = random(device, n_out, n_in)
    bias = None if "no bias" in rest else random(device, n_out)
    acc = torch.zeros(n_out, n_in, device=device)

    def forward(x):
        y = F.linear(x, weight, bias)
        return y if op == "linear" else (y, F.gelu(y, **activation))

    def dx(dy, pre):
        d = dy @ weight
        if op != "linear_dx_act":
            return d
        kind = activation.get("approximate", "none")
        return torch.ops.aten.gelu_backward(d, pre, approximate=kind)

    def gate(x):
        a, g = F.linear(x, weight, bias).chunk(2, dim=-1)
        return a, g, F.gelu(a, **activation) * g

    def dx_gate(dy, pre):
        d, (a, g) = dy @ weight, pre.chunk(2, dim=-1)
        da = torch.ops.aten.gelu_backward(d * g, a, approximate=activation.get("approximate", "none"))
        return da, d * F.gelu(a, **activation)

    def dw(dy, x):
        acc.add_(dy.t() @ x)
        return None if bias is None else dy.sum(0)

    if op.endswith(("_act", "_gate")) and activation is None:
        return {}
    if op in ("linear", "linear_act"):
        return {"PyTorch": (lambda: (random(device, rows, n_in),), forward)}
    if op == "linear_gate":
        return {"PyTorch": (lambda: (random(device, rows, n_in),), gate)}
    if op == "linear_dx_gate":
        make = lambda: (random(device, rows, n_out), random(device, rows, 2 * n_in))
        return {"PyTorch": (make, dx_gate)}
    if op in ("linear_dx", "linear_dx_act"):
        make = lambda: (random(device, rows, n_out), random(device, rows, n_in))
        return {"PyTorch": (make, dx)}
    make = lambda: (random(device, rows, n_out), random(device, rows, n_in))
    return {"PyTorch": (make, dw)}


def attentions(row, device):
    found = re.match(r"(\d+) × (\d+), (\d+) × (\d+)(.*)", row["shape"])
    if not found or not row["op"].startswith("attention"):
        return {}
    sequences, length, heads, width = map(int, found.groups()[:4])
    causal, window = "causal" in found[5], re.search(r"±(\d+)", found[5])
    mask = None
    if window:
        at = torch.arange(length, device=device)
        mask = (at[:, None] - at[None, :]).abs() <= int(window[1])
    backward = row["op"] == "attention_backward"

    def of(backend):
        def make():
            q, k, v = (random(device, sequences, heads, length, width) for _ in range(3))
            if not backward:
                return q, k, v
            leaves = [t.requires_grad_() for t in (q, k, v)]
            with sdpa_kernel(backend):
                y = F.scaled_dot_product_attention(*leaves, attn_mask=mask, is_causal=causal)
            return y, leaves, torch.randn_like(y)

        def run(*inputs):
            if backward:
                y, leaves, dy = inputs
                return torch.autograd.grad(y, leaves, dy, retain_graph=True)
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(*inputs, attn_mask=mask, is_causal=causal)

        return make, run

    peers = {f"SDPA {name}": of(backend) for name, backend in BACKENDS.items()}
    if varlen_attn and device == "cuda":
        seen = (int(window[1]),) * 2 if window else (-1, 0 if causal else -1)
        peers["varlen"] = packed(sequences, length, heads, width, seen, backward, device)
    return peers


def packed(sequences, length, heads, width, seen, backward, device):
    """FlashAttention over packed sequences: no mask to read for a window."""
    ends = torch.arange(0, (sequences + 1) * length, length, device=device, dtype=torch.int32)

    def attend(q, k, v):
        return varlen_attn(q, k, v, ends, ends, length, length, **seen_by_varlen(seen))

    def make():
        leaves = [random(device, sequences * length, heads, width) for _ in range(3)]
        if not backward:
            return leaves
        y = attend(*(leaf.requires_grad_() for leaf in leaves))
        return y, leaves, torch.randn_like(y)

    def run(*inputs):
        if not backward:
            return attend(*inputs)
        y, leaves, dy = inputs
        return torch.autograd.grad(y, leaves, dy, retain_graph=True)

    return make, run


def timed(make, run, device, budget):
    """Median seconds of a call, on inputs in turn."""
    first = make()
    size = sum(t.numel() * t.element_size() for t in first if torch.is_tensor(t))
    copies = 1 if device == "cpu" else min(16, math.ceil(ROTATED_BYTES / max(size, 1)))
    inputs = [first] + [make() for _ in range(copies - 1)]
    for i in range(3):
        run(*inputs[i % copies])
    if device == "cpu":
        began = time.perf_counter()
        run(*inputs[0])
        return time.perf_counter() - began
    seconds, spent = [], 0.0
    while spent < budget or len(seconds) < 10:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        calls = 8
        start.record()
        for i in range(calls):
            run(*inputs[i % copies])
        end.record()
        torch.cuda.synchronize()
        seconds.append(start.elapsed_time(end) / 1e3 / calls)
        spent += seconds[-1] * calls
    return statistics.median(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("benches", nargs="+", help="JSON of `warpwright bench`")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--budget", type=float, default=0.1, help="seconds a row and peer")
    parser.add_argument("--json", help="write the rows here too")
    args = parser.parse_args()
    torch.manual_seed(0)
    out = []
    print(f"{'op':<19}{'shape':<38}{'peer':<16}{'ours µs':>10}{'theirs':>10}{'theirs / ours':>15}")
    for path in args.benches:
        with open(path) as file:
            rows = json.load(file)["rows"]
        for row in rows:
            peers = {**products(row, args.device), **attentions(row, args.device)}
            for name, (make, run) in peers.items():
                try:
                    seconds = timed(make, run, args.device, args.budget)
                except RuntimeError:  # a backend that does not take the shape
                    continue
                finally:
                    if args.device == "cuda":
                        torch.cuda.empty_cache()
                ratio = seconds / row["seconds"]
                out.append({"op": row["op"], "shape": row["shape"], "peer": name,
                            "ours_s": row["seconds"], "theirs_s": seconds, "ratio": ratio})
                print(f"{row['op']:<19}{row['shape']:<38}{name:<16}{row['seconds'] * 1e6:>10.1f}"
                      f"{seconds * 1e6:>10.1f}{ratio:>15.2f}", flush=True)
    fastest = {}
    for row in out:
        key = row["op"], row["shape"]
        fastest[key] = min(fastest.get(key, math.inf), row["ratio"])
    for family in ("linear", "attention"):
        ratios = [r for (op, _), r in fastest.items() if op.startswith(family)]
        if ratios:
            mean = math.exp(statistics.mean(map(math.log, ratios)))
            print(f"{family}: the fastest peer takes {mean:.2f} times our time (geometric mean of "
                  f"{len(ratios)} shapes; least {min(ratios):.2f})")
    if args.json:
        with open(args.json, "w") as file:
            json.dump(out, file, indent=1)


if __name__ == "__main__":
    main()
