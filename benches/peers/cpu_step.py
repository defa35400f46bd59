"""The PyTorch CPU peer of our training-step bench: the same model and work, on its best terms.

    V/bin/python benches/peers/cpu_step.py --model gpt --threads 2

A step is forward, loss, backward, clipping of the global gradient norm at 1.0, and AdamW, all in
float32, on random tokens. One JSON line goes to standard output, a line a step to standard error.
The model is plain modules in nanoGPT's manner, without the layers of a library in between:
fused scaled_dot_product_attention, fused AdamW where this PyTorch has it for the CPU, gradients set
to None rather than zeroed, no dropout, for BERT only the masked rows through the head, and an
allocator that keeps freed memory (as it comes, glibc's returns large tensors to the system, and
every step faults them in again).

Letters: B sequences, S tokens each, C width, H heads, V vocabulary, M masked rows.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, causal: bool):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x):  # [B, S, C]
        b, s, c = x.shape
        q, k, v = self.qkv(x).view(b, s, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)  # [B, H, S, C/H]
        return self.out(y.transpose(1, 2).reshape(b, s, c))


class Layer(nn.Module):
    """Pre-norm, tanh GELU (GPT-2), or post-norm, erf GELU (BERT)."""

    def __init__(self, width: int, heads: int, causal: bool):
        super().__init__()
        self.pre_norm, self.gelu = causal, "tanh" if causal else "none"
        self.attention = Attention(width, heads, causal)
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def feed_forward(self, x):
        return self.down(F.gelu(self.up(x), approximate=self.gelu))

    def forward(self, x):  # [B, S, C]
        if self.pre_norm:
            x = x + self.attention(self.norm_1(x))
            return x + self.feed_forward(self.norm_2(x))
        x = self.norm_1(x + self.attention(x))
        return self.norm_2(x + self.feed_forward(x))


class Transformer(nn.Module):
    """`causal`: GPT-2. Otherwise BERT for masked language modelling, with its transform head."""

    def __init__(self, causal, layers, width, heads, context, vocabulary):
        super().__init__()
        self.causal = causal
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.layers = nn.ModuleList(Layer(width, heads, causal) for _ in range(layers))
        self.norm = nn.LayerNorm(width)  # GPT-2: after the last layer; BERT: after the embeddings
        if not causal:
            self.types = nn.Embedding(2, width)
            self.transform, self.transform_norm = nn.Linear(width, width), nn.LayerNorm(width)
            self.head_bias = nn.Parameter(torch.zeros(vocabulary))
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, ids, rows, labels):
        """Mean loss. `ids` [B, S]; `rows` [M] of the flat tokens, or None for all; `labels` [M]"""
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        if not self.causal:
            x = self.norm(x + self.types.weight[0])
        for layer in self.layers:
            x = layer(x)
        x = x.flatten(0, 1)
        if self.causal:
            logits = F.linear(self.norm(x), self.tokens.weight)
        else:
            x = self.transform_norm(F.gelu(self.transform(x[rows])))
            logits = F.linear(x, self.tokens.weight, self.head_bias)
        return F.cross_entropy(logits, labels)


def make_optimizer(model):
    """AdamW, decay on matrices only; fused where it can be."""
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() != 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    try:
        return torch.optim.AdamW(groups, lr=3e-4, betas=(0.9, 0.95), fused=True), "fused"
    except (RuntimeError, TypeError):
        return torch.optim.AdamW(groups, lr=3e-4, betas=(0.9, 0.95), foreach=True), "foreach"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=("gpt", "bert"), default="gpt")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16, help="sequences a step")
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--masked", type=float, default=0.15, help="share of rows, BERT only")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="needs a C++ compiler")
    parser.add_argument("--stock-malloc", action="store_true", help="leave the allocator as it is")
    a = parser.parse_args()
    if not a.stock_malloc:
        keep_freed_memory()

    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    causal, tokens = a.model == "gpt", a.batch * a.context
    model = Transformer(causal, a.layers, a.width, a.heads, a.context, a.vocab)
    optimizer, optimizer_kind = make_optimizer(model)
    step_loss = torch.compile(model) if a.compile else model

    def batch():
        ids = torch.randint(a.vocab, (a.batch, a.context))
        if causal:
            return ids, None, torch.randint(a.vocab, (tokens,))
        masked = round(a.masked * tokens)
        return ids, torch.randperm(tokens)[:masked], torch.randint(a.vocab, (masked,))

    seconds = []
    for step in range(a.warmup + a.steps):
        data = batch()
        start = time.perf_counter()
        loss = step_loss(*data)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss = loss.item()
        seconds.append(time.perf_counter() - start)
        kind = "warm-up" if step < a.warmup else "timed"
        print(f"step {step}: {seconds[-1]:.3f} s, loss {loss:.4f}, {kind}", file=sys.stderr)

    timed = seconds[a.warmup :]
    median = statistics.median(timed)
    print(json.dumps({
        "peer": "pytorch", "model": a.model, "layers": a.layers, "width": a.width,
        "heads": a.heads, "context": a.context, "batch": a.batch, "vocab": a.vocab,
        "parameters": sum(p.numel() for p in model.parameters()), "tokens": tokens,
        "dtype": "float32", "compile": a.compile, "optimizer": f"AdamW {optimizer_kind}",
        "stock_malloc": a.stock_malloc, "threads": torch.get_num_threads(),
        "torch": torch.__version__, "cpu": cpu_model(),
        "median_s": round(median, 4), "min_s": round(min(timed), 4),
        "tokens_per_s": round(tokens / median), "steps_s": [round(t, 4) for t in timed],
    }))


def keep_freed_memory() -> None:
    """glibc reads these at start, so start again with them. Other C libraries ignore them."""
    settings = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 36)}
    if any(name not in os.environ for name in settings):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**settings, **os.environ})


def cpu_model() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


if __name__ == "__main__":
    main()
