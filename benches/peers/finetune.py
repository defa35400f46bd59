"""The PyTorch peer of `warpwright finetune --task classify`: transformers' model, the same recipe.

    V/bin/python benches/peers/finetune.py --model data/minilm --epochs 2 --lr 5e-5 --longest 64 \
        --train data/reviews/rotten-tomatoes-train.csv --dev data/reviews/rotten-tomatoes-test.csv

V has torch and transformers. Batches are padded to their longest row (transformers' dynamic
padding). AdamW with a decay of 0.01 on matrices, a linear schedule with 6% warm-up, gradients
clipped to a norm of 1.0, the model's own dropout, the best epoch by accuracy; f32 on a CPU, bf16 by
autocast with --device cuda. One JSON line a seed: accuracy, and rows a second of training alone,
without reading, tokenizing and measuring.
"""

import argparse
import csv
import json
import time

import torch
from transformers import (AutoModelForSequenceClassification, AutoTokenizer,
                          get_linear_schedule_with_warmup)


def read(path, labels=None):
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    labels = labels or sorted({row["label"] for row in rows})
    return [row["text"] for row in rows], [labels.index(row["label"]) for row in rows], labels


def batches(rows, labels, order, size, pad):
    for start in range(0, len(order), size):
        picked = order[start:start + size]
        longest = max(len(rows[i]) for i in picked)
        ids = torch.full((len(picked), longest), pad)
        mask = torch.zeros(len(picked), longest, dtype=torch.long)
        for n, i in enumerate(picked):
            ids[n, :len(rows[i])] = torch.tensor(rows[i])
            mask[n, :len(rows[i])] = 1
        yield ids, mask, torch.tensor([labels[i] for i in picked])


def optimizer(model, lr, decay):
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, fused=True)


def output(model, batch, device):
    ids, mask, wanted = (tensor.to(device, non_blocking=True) for tensor in batch)
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        return model(input_ids=ids, attention_mask=mask, labels=wanted)


def accuracy(model, rows, labels, size, pad, device):
    model.eval()
    right = 0
    with torch.no_grad():
        for batch in batches(rows, labels, range(len(rows)), size, pad):
            said = output(model, batch, device).logits.argmax(-1).cpu()
            right += (said == batch[-1]).sum().item()
    return right / len(rows)


def one_seed(args, seed, train, dev, labels, pad):
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=len(labels))
    model.to(args.device)
    steps = args.epochs * -(-len(train[0]) // args.batch)
    update = optimizer(model, args.lr, 0.01)
    schedule = get_linear_schedule_with_warmup(update, -(-6 * steps // 100), steps)
    best, seconds = 0.0, 0.0
    for _ in range(args.epochs):
        model.train()
        began = time.perf_counter()
        order = torch.randperm(len(train[0])).tolist()
        for batch in batches(*train, order, args.batch, pad):
            output(model, batch, args.device).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            update.step()
            schedule.step()
            update.zero_grad(set_to_none=True)
        if args.device == "cuda":
            torch.cuda.synchronize()
        seconds += time.perf_counter() - began
        best = max(best, accuracy(model, *dev, args.batch, pad, args.device))
    rows = args.epochs * len(train[0])
    print(json.dumps({"seed": seed, "accuracy": best, "rows_a_second": rows / seconds}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", required=True)
    parser.add_argument("--dev", required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--longest", type=int, default=128)
    parser.add_argument("--lr", type=float, default=3e-5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    texts, train_labels, labels = read(args.train)
    dev_texts, dev_labels, _ = read(args.dev, labels)

    def encode(texts):
        return tokenizer(texts, truncation=True, max_length=args.longest)["input_ids"]

    train, dev = (encode(texts), train_labels), (encode(dev_texts), dev_labels)
    for seed in args.seeds:
        one_seed(args, seed, train, dev, labels, tokenizer.pad_token_id)


if __name__ == "__main__":
    main()
