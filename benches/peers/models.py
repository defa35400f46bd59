"""The models that gpu_step.py trains: GPT-2, BERT and ModernBERT as plain modules, token-flat.

Activations are [N, C] for all tokens of a batch together, as in ours, so that one model serves
sequences of one length and of many. How tokens attend is a function `attend(q, k, v, local)` of
[N, H, D] each:

    sdpa    scaled_dot_product_attention over [B, H, S, D], with a mask where heads see ±w only;
            sequences of many lengths are padded to the longest, and the padding masked
    varlen  torch.nn.attention.varlen: FlashAttention over packed sequences, windows included
    flex    flex_attention, by blocks that a window or a sequence's end leaves out

Of a masked model only the rows whose loss counts leave the last attention: its output projection,
its MLP and the head see no others. There is no dropout.

Letters: N tokens, M rows whose loss counts, C width, H heads, D head width, F inner width.
"""

import inspect
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Arch:
    family: str  # gpt2, bert or modernbert
    layers: int
    width: int
    heads: int
    inner: int
    vocab: int  # that of ours, rounded up to what both multiply well
    window: int = 64  # of ModernBERT's local layers
    global_every: int = 3

    @property
    def causal(self):
        return self.family == "gpt2"


def bert(layers, width, heads, vocab=30528, family="bert"):
    return Arch(family, layers, width, heads, 4 * width, vocab)


def gpt2(layers, width, heads, vocab=50304):
    return bert(layers, width, heads, vocab, "gpt2")


PRESETS = {
    "gpt2": gpt2(12, 768, 12),
    "gpt2-medium": gpt2(24, 1024, 16),
    "gpt2-xl": gpt2(48, 1600, 25),
    "bert-base": bert(12, 768, 12),
    "bert-large": bert(24, 1024, 16),
    "modernbert-base": Arch("modernbert", 22, 768, 12, 1152, 50368),
    "modernbert-large": Arch("modernbert", 28, 1024, 16, 2624, 50368),
    "gpt2-tiny": gpt2(3, 128, 4, 2048),
    "bert-tiny": bert(3, 128, 4, 2048),
    "modernbert-tiny": Arch("modernbert", 3, 128, 4, 256, 2048),
}


class Layer(nn.Module):
    """Pre-norm and tanh GELU (GPT-2), post-norm and erf GELU (BERT), or pre-norm and GeGLU, without
    biases and without the first norm (ModernBERT)."""

    def __init__(self, arch: Arch, index: int):
        super().__init__()
        modern, width = arch.family == "modernbert", arch.width
        self.heads, self.post = arch.heads, arch.family == "bert"
        self.gated, self.gelu = modern, "tanh" if arch.causal else "none"
        self.local = modern and index % arch.global_every != 0
        bias, eps = not modern, 1e-12 if self.post else 1e-5
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)
        skipped = modern and index == 0
        self.norm_1 = nn.Identity() if skipped else nn.LayerNorm(width, eps=eps, bias=bias)
        self.norm_2 = nn.LayerNorm(width, eps=eps, bias=bias)
        self.up = nn.Linear(width, (2 if modern else 1) * arch.inner, bias=bias)
        self.down = nn.Linear(arch.inner, width, bias=bias)

    def feed_forward(self, x):
        y = self.up(x)
        if self.gated:
            y, gate = y.chunk(2, dim=-1)
            return self.down(F.gelu(y) * gate)
        return self.down(F.gelu(y, approximate=self.gelu))

    def forward(self, x, tables, attend, rows):  # [N, C], tables of angles or None, rows [M] or None
        n, c = x.shape
        y = x if self.post else self.norm_1(x)
        q, k, v = self.qkv(y).view(n, 3, self.heads, c // self.heads).unbind(1)
        if tables is not None:
            q, k = (turned(t, tables[self.local]) for t in (q, k))
        y = attend(q, k, v, self.local).reshape(n, c)
        if rows is not None:
            x, y = x[rows], y[rows]
        x = x + self.out(y)
        if self.post:
            x = self.norm_1(x)
            return self.norm_2(x + self.feed_forward(x))
        return x + self.feed_forward(self.norm_2(x))


def turned(x, table):
    """Rotates halves of [N, H, D] by (cos, sin), [N, 1, D] each, in f32."""
    cos, sin = table
    a, b = x.float().chunk(2, dim=-1)
    return (torch.cat((a, b), -1) * cos + torch.cat((-b, a), -1) * sin).to(x.dtype)


def angles(positions, width, base):
    """cos and sin, [N, 1, D]."""
    halves = torch.arange(0, width, 2, device=positions.device, dtype=torch.float32) / width
    angle = positions[:, None].float() * base**-halves
    angle = torch.cat((angle, angle), -1)[:, None, :]
    return angle.cos(), angle.sin()


class Model(nn.Module):
    """Mean loss of a batch."""

    def __init__(self, arch: Arch, context: int, attend):
        super().__init__()
        self.arch, self.attend, width = arch, attend, arch.width
        modern, causal = arch.family == "modernbert", arch.causal
        bias, eps = not modern, 1e-12 if arch.family == "bert" else 1e-5
        norm = lambda: nn.LayerNorm(width, eps=eps, bias=bias)
        self.tokens = nn.Embedding(arch.vocab, width)
        self.positions = None if modern else nn.Embedding(context, width)
        self.types = nn.Embedding(2, width) if arch.family == "bert" else None
        self.embedded = nn.Identity() if causal else norm()
        self.layers = nn.ModuleList(Layer(arch, i) for i in range(arch.layers))
        self.last = nn.Identity() if arch.family == "bert" else norm()
        if not causal:
            self.transform, self.transformed = nn.Linear(width, width, bias=bias), norm()
            self.decoder_bias = nn.Parameter(torch.zeros(arch.vocab))
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, ids, positions, rows, labels):
        """`ids` and `positions` [N]; `rows` [M] whose loss counts, or None for all; `labels` [M]"""
        x, tables = self.tokens(ids), None
        if self.positions is not None:
            x = x + self.positions(positions)
        else:
            width = self.arch.width // self.arch.heads
            # Global layers, then local ones.
            tables = [angles(positions, width, base) for base in (160_000.0, 10_000.0)]
        if self.types is not None:
            x = x + self.types.weight[0]
        x = self.embedded(x)
        for layer in self.layers:
            x = layer(x, tables, self.attend, rows if layer is self.layers[-1] else None)
        x = self.last(x)
        if self.arch.causal:
            return F.cross_entropy(F.linear(x, self.tokens.weight), labels)
        x = self.transformed(F.gelu(self.transform(x)))
        return F.cross_entropy(F.linear(x, self.tokens.weight, self.decoder_bias), labels)


def attention(kind, arch: Arch, lengths, device, compiled):
    """`attend`, and how many tokens a sequence is laid out in (None: as many as it has)."""
    same = len(set(lengths)) == 1
    if kind == "varlen":
        return varlen(arch, lengths, device), None
    if kind == "flex":
        return flex(arch, lengths, device, compiled), None
    return sdpa(arch, lengths, device), None if same else max(lengths)


def sdpa(arch, lengths, device):
    count, longest = len(lengths), max(lengths)
    at = torch.arange(longest, device=device)
    band = (at[:, None] - at[None, :]).abs() <= arch.window
    masks = [None, band]
    # A causal row sees nothing behind it, so no padding either.
    if min(lengths) < longest and not arch.causal:
        real = at[None, :] < torch.tensor(lengths, device=device)[:, None]  # [B, S]
        real = real[:, None, None, :]
        # Rows of padding see something too, or their sums were 0 / 0.
        masks = [real, (real & band) | (at[:, None] == at[None, :])]

    def attend(q, k, v, local):
        n, h, d = q.shape
        q, k, v = (t.view(count, longest, h, d).transpose(1, 2) for t in (q, k, v))
        mask = masks[local]
        causal = arch.causal and mask is None
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return y.transpose(1, 2).reshape(n, h, d)

    return attend


def varlen(arch, lengths, device):
    from torch.nn.attention.varlen import varlen_attn

    ends = torch.tensor([0, *lengths], device=device).cumsum(0).int()
    longest = max(lengths)
    whole = seen_by_varlen((-1, 0 if arch.causal else -1))
    window = (arch.window, arch.window)
    # Asked for only if there are such layers: not every PyTorch has it.
    options = [whole, seen_by_varlen(window) if arch.family == "modernbert" else whole]

    def attend(q, k, v, local):
        return varlen_attn(q, k, v, ends, ends, longest, longest, **options[local])

    return attend


def seen_by_varlen(seen):
    """varlen_attn's arguments for so many tokens to the left and right, -1 for all."""
    from torch.nn.attention.varlen import varlen_attn

    if "window_size" in inspect.signature(varlen_attn).parameters:
        return {"window_size": seen}
    if seen[0] >= 0:
        raise RuntimeError(f"varlen_attn of PyTorch {torch.__version__} has no windows")
    return {"is_causal": seen[1] == 0}


def flex(arch, lengths, device, compiled):
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    # Alone it would write all scores; inside a compiled model it is compiled with it.
    run = flex_attention if compiled else torch.compile(flex_attention)
    same = len(set(lengths)) == 1
    count, longest = (len(lengths), lengths[0]) if same else (1, sum(lengths))
    of = torch.repeat_interleave(torch.tensor(lengths)).to(device)  # [N] the sequence of a token

    def mask(local):
        def sees(b, h, i, j):
            seen = i >= 0
            if arch.causal:
                seen = seen & (i >= j)
            if local:
                seen = seen & ((i - j).abs() <= arch.window)
            return seen if same else seen & (of[i] == of[j])

        if same and not arch.causal and not local:
            return None
        return create_block_mask(sees, None, None, longest, longest, device=device)

    masks = [mask(local) for local in (False, True)]

    def attend(q, k, v, local):
        n, h, d = q.shape
        q, k, v = (t.view(count, longest, h, d).transpose(1, 2) for t in (q, k, v))
        return run(q, k, v, block_mask=masks[local]).transpose(1, 2).reshape(n, h, d)

    return attend
