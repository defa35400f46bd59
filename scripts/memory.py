#!/usr/bin/env python3
"""Predicts what share of an H200's copy ceiling the memory-bound kernels reach: a Markdown table.

    scripts/memory.py [--folder target/release/kernels/cuda] [--chip sm_90a] [--out FILE]

Reads the machine code and resources of the last build's fatbins (or of a folder of cubins) with
cuobjdump, from .cuda/ or the PATH; needs no GPU and measures nothing. The model, for a launch:

- memory: all bytes moved, at the copy ceiling;
- issue: instructions that a warp executes, four a clock and multiprocessor. Code is cut into basic
  blocks; a block counts once for each turn of the loops around it, which `Launch.turns` tells, and
  not at all if it is rare: a slow path, a tail, another rule's branch (`Launch.dead`);
- special: exponentials and reciprocals, 16 lanes a clock and multiprocessor;
- latency: a warp lives for so many dependent waits of memory, and three clocks an instruction; as
  many live at once as registers and shared memory admit;
- the four overlap as the root of the sum of fourth powers, which is a guess; a launch begins and
  ends with a warp that has the machine to itself, and each launch after the first costs 2 us.
"""

import argparse
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# An H200: multiprocessors, clocks a us, bytes a us of the copy ceiling, us of a wait for memory and
# of a launch, and what a multiprocessor holds.
PROCESSORS, CLOCK, CEILING, WAIT, LAUNCH = 132, 1755, 4.3e6, 0.8, 2.0
REGISTERS, SHARED, THREADS, BLOCKS = 65536, 227 * 1024, 2048, 32

RARE = r"CALL|SEL.*0xff800000"  # a block with one of these: slow paths, columns beyond the last
TAIL = r"LDG\.E\.U16|STG\.E\.U16"
PHILOX = r"-0x2daee0ad"


@dataclass
class Launch:
    """One launch of a kernel at a shape."""

    kernel: str
    shape: str
    bytes: float  # moved
    floor: float  # bytes of its floor; 0 for a part of something
    blocks: int
    waits: float = 1.0  # dependent waits for memory
    threads: int = 256
    shared: int = 0  # bytes, dynamic
    turns: dict = field(default_factory=dict)  # of a loop with an instruction that matches
    dead: str = ""  # basic blocks with such an instruction are not run
    stores: int = 0  # 16-byte stores in the order of the code, after which comes another variant
    under_way: int = 0  # bytes a thread asks for before it uses any; 0: as the code says
    after: float = 0.0  # us of the launches that belong to it


def cuobjdump(*args):
    wheels = ROOT / ".cuda/nvidia/cu13/bin/cuobjdump"
    tool = str(wheels) if wheels.exists() else shutil.which("cuobjdump")
    if not tool:
        sys.exit("no cuobjdump: scripts/cuda-toolkit.sh fetches it")
    command = [tool, *map(str, args)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@dataclass
class Code:
    registers: int
    shared: int
    instructions: list  # (address, text)


def read(folder, chip):
    """{kernel: Code} of all fatbins and cubins."""
    kernels = {}
    for binary in sorted([*folder.glob("*.fatbin"), *folder.glob("*.cubin")]):
        chosen = ["-arch", chip] if binary.suffix == ".fatbin" else []
        code = []
        for line in cuobjdump("-sass", *chosen, binary).splitlines():
            if name := re.match(r"\s*Function : (\S+)", line):
                code = []
                kernels[name[1]] = Code(0, 0, code)
            elif found := re.match(r"\s*/\*([0-9a-f]{4,})\*/\s+(.*?);", line):
                code.append((int(found[1], 16), found[2].strip()))
        usage = cuobjdump("-res-usage", *chosen, binary)
        for name, registers, shared in re.findall(
            r"Function (\S+):\s+REG:(\d+).*?SHARED:(\d+)", usage
        ):
            kernels[name].registers, kernels[name].shared = int(registers), int(shared)
    return kernels


def closure(start, steps, within):
    """What is reached from `start`."""
    reached, left = set(), list(start)
    while left:
        i = left.pop()
        if i in within and i not in reached:
            reached.add(i)
            left += steps[i]
    return reached


def executed(code, launch):
    """Instructions that a warp executes, and those of them for the special-function unit."""
    branch = re.compile(r"(@\S+ )?BRA (?:\S+, )?0x([0-9a-f]+)")
    targets = {int(m[2], 16) for _, text in code if (m := branch.match(text))}
    blocks, loops = [[]], []
    for address, text in code:
        if address in targets and blocks[-1]:
            blocks.append([])
        blocks[-1].append((address, text))
        if "NOP" in text:
            blocks[-1].pop()
        elif re.match(r"(@\S+ )?(BRA|EXIT|RET)", text):
            blocks.append([])
        found = branch.match(text)
        if found and int(found[2], 16) < address:
            loops.append((int(found[2], 16), address))
    blocks = [block for block in blocks if block]
    starts = {block[0][0]: i for i, block in enumerate(blocks)}
    after, ends = [], set()  # blocks that may follow each, and those that may be the last
    for i, block in enumerate(blocks):
        last, found = block[-1][1], branch.match(block[-1][1])
        target = starts.get(int(found[2], 16)) if found else None
        after.append(set() if target is None else {target})
        if not re.match(r"(BRA 0x|EXIT|RET)", last) and i + 1 < len(blocks):
            after[i].add(i + 1)
        if "EXIT" in last:
            ends.add(i)
    rare = re.compile("|".join(filter(None, [RARE, launch.dead])))
    alive, stores = set(), 0
    for i, block in enumerate(blocks):
        stores += sum("STG.E.128" in text for _, text in block)
        if len(block) == 1 or not any(rare.search(text) for _, text in block):
            if not launch.stores or stores <= launch.stores:
                alive.add(i)
    # What the first block reaches, and what reaches the end, past no rare block.
    alive &= closure({0}, after, alive)
    before = [{j for j in alive if i in after[j]} for i in range(len(blocks))]
    alive &= closure(ends & alive, before, alive)
    def matches(loop, key):
        begin, end = loop
        return sum(begin <= address <= end and bool(re.search(key, text)) for address, text in code)

    # Of the loops with such an instruction those with the most of it turn; others are remainders.
    heads = {blocks[i][0][0] for i in alive}
    turns = dict.fromkeys((loop for loop in loops if loop[0] in heads), 1.0)
    told = set()
    for key, n in launch.turns.items():
        found = {loop: matches(loop, key) for loop in turns if loop not in told}
        most = max(found.values(), default=0)
        for loop, count in found.items():
            if most and count > 0.7 * most:
                turns[loop] = n
            if count:
                told.add(loop)
    total = special = 0.0
    for i in alive:
        block = blocks[i]
        weight = 1.0
        for (begin, end), n in turns.items():
            weight *= n if begin <= block[0][0] <= end else 1.0
        total += weight * len(block)
        special += weight * sum("MUFU" in text for _, text in block)
    addresses = {address for i in alive for address, _ in blocks[i]}
    return total, special, launch.under_way or under_way(code, addresses)


def under_way(code, alive):
    """The most bytes that a thread has asked memory for when it first uses some of them."""
    most, pending = 0, []  # (registers that it waits for, bytes)
    for address, text in code:
        if address not in alive or "NOP" in text:
            continue
        words = re.findall(r"\bR(\d+)\b", text)
        load = re.match(r"(?:@\S+ )?LDG\.E(?:\.\w+)*?(\.128|\.64)? R(\d+)", text)
        copy = "LDGSTS" in text
        read = words if not load else words[1:]
        used = [p for p in pending if any(int(w) in p[0] for w in read)]
        if used or "DEPBAR" in text:
            most = max(most, sum(size for _, size in pending))
            pending = [p for p in pending if p not in used and "DEPBAR" not in text]
        if load:
            size = {".128": 16, ".64": 8, None: 4}[load[1]]
            first = int(load[2])
            pending = [p for p in pending if first not in p[0]]
            pending.append((range(first, first + size // 4), size))
        elif copy:
            pending.append((range(0), 16))
    return most


def predict(code, launch):
    """The columns of a row."""
    instructions, special, thread_bytes = executed(code.instructions, launch)
    by_registers = REGISTERS // (ceil(code.registers / 8) * 8 * launch.threads)
    by_shared = SHARED // (code.shared + launch.shared + 1024)
    resident = min(by_registers, by_shared, THREADS // launch.threads, BLOCKS)
    warps = launch.blocks * launch.threads / 32
    held = min(resident, launch.blocks / PROCESSORS) * launch.threads / 32
    life = launch.waits * WAIT + 3 * instructions / CLOCK
    limits = {
        "memory": launch.bytes / CEILING,
        "issue": warps * instructions / (4 * PROCESSORS * CLOCK),
        "special": warps * special * 2 / (PROCESSORS * CLOCK),
        "latency": max(warps / (held * PROCESSORS), 1.0) * life,
    }
    time = sum(t**4 for t in limits.values()) ** 0.25 + min(life, 2 * WAIT) + launch.after
    binding = sorted(limits, key=limits.get)[::-1]
    floor = launch.floor / CEILING
    return {
        "registers": str(code.registers),
        "warps": f"{held:.0f}",
        "KB under way": f"{held * 32 * thread_bytes / 1024:.0f}",
        "MB": f"{launch.bytes / 1e6:.1f}",
        "floor MB": f"{launch.floor / 1e6:.1f}" if floor else "",
        "floor us": f"{floor:.1f}" if floor else "",
        "a warp": f"{instructions:.0f}",
        "issue us": f"{limits['issue']:.1f}",
        "special us": f"{limits['special']:.1f}",
        "latency us": f"{limits['latency']:.1f}",
        "predicted us": f"{time:.1f}",
        "binds": f"{binding[0]}, {binding[1]} {limits[binding[1]] / limits[binding[0]]:.2f}",
        "share": f"{floor / time:.2f}" if floor else "",
    }


N = 65536
PASS = {768: N * 768 * 2, 1024: N * 1024 * 2}  # bytes of an activation


def norms():
    for c in (768, 1024):
        stats, vectors = N * 8, c // 256
        moved = 2 * PASS[c] + stats
        yield Launch(f"norm_{c}", f"{N:,} x {c}", moved, moved, N // 8,
                     stores=vectors)
        for dropout in (False, True):
            shape = f"{N:,} x {c}" + (", dropout" if dropout else "")
            moved = 4 * PASS[c] + stats
            yield Launch(f"add_norm_{c}", shape, moved, moved, N // 8,
                         dead="" if dropout else PHILOX, stores=2 * vectors)
        blocks, teams = {768: (264, 8), 1024: (396, 4)}[c]
        for add in (False, True):
            moved = (4 if add else 3) * PASS[c] + stats
            rows = ceil(N / (blocks * teams))
            # Partial sums go to the L2 and back; norm_weights is a launch and some waits for it.
            yield Launch(f"norm_backward_{c}", f"{N:,} x {c}, " + ("+=" if add else "="), moved,
                         moved, blocks, waits=rows,
                         shared=2 * c * 4, turns={"SHFL": rows, "STS": teams},
                         after=LAUNCH + 2 * WAIT)


def elements():
    length = N * 768
    vectors = 1 if OLD else 2
    yield Launch("dropout", f"{N:,} x 768", 4 * length, 4 * length, length // (2048 * vectors),
                 dead=TAIL)
    yield Launch("rope", f"{N:,} x 12 heads of 64", 8 * length, 8 * length, N * 6 * 4 // 256)
    masked = 9830 * 768
    shape = "9,830 x 768"
    yield Launch("act_backward_gelu", shape, 6 * masked, 6 * masked, masked // 2048,
                 dead=TAIL)
    yield Launch("gather", shape, 4 * masked, 4 * masked, masked // 2048, waits=2)
    yield Launch("scatter_add", shape, 6 * masked, 6 * masked, masked // 2048, waits=2)


def optimizer():
    for model, p in [("GPT-2 124M", 124.4e6), ("BERT-base", 109.5e6), ("BERT-large", 335e6)]:
        yield Launch("square_sums", model, 4 * p, 4 * p, 1024 if OLD else 1056,
                     waits=p / 4 / 256 / (1024 if OLD else 4 * 1056),
                     turns={"LDG": p / 4 / 256 / (1024 if OLD else 4 * 1056)},
                     after=LAUNCH + 2 * WAIT)
        # Not run: other rules, stochastic rounding. The search among the groups: seven turns.
        yield Launch("update", model, 30 * p, 30 * p, ceil(p / 1024), waits=2,
                     turns={"LDG": 7}, dead=PHILOX)


def loss():
    for model, rows, chunk, v in [("GPT-2", N, 8192, 50264), ("BERT", 9830, 4915, 30528)]:
        turns = v / 8 / 512
        moved = 4.0 * chunk * v
        # A row's copies, then two passes over it: copies and the first pass in four parts.
        if OLD:
            passes = {"LDGSTS.*": turns / 4, "STG": turns, "EX2": turns}
        else:
            passes = {"LDGDEPBAR": 4, "LDGSTS": turns / 4, "STG": turns, "EX2": turns / 4}
        yield Launch("cross_entropy_staged", f"{chunk:,} of {rows:,} x {v:,} ({model})", moved,
                     moved, chunk, under_way=ceil(turns) * 16, waits=1.5, threads=512, shared=v * 2,
                     turns=passes, dead=r"STG\.E\.128 .*RZ$")


def embeddings():
    for model, v, contexts, types in [("GPT-2", 50257, 1024, 0), ("BERT", 30522, 512, 2)]:
        # Rows that random tokens touch.
        met = v * (1 - (1 - 1 / v) ** N)
        width, row = 768, 768 * 2
        moved = PASS[width] + (met + contexts + types) * row
        forward = N * width // 2048 if OLD else N // 32
        yield Launch("embed", f"{N:,} x 768 ({model})", moved, moved, forward,
                     waits=2 if OLD else 5, turns={} if OLD else {"SHFL": 4})
        count = 2 * N
        tables = (met + contexts) * row * 4
        floor = PASS[width] + tables + types * row * 4
        sort = 4 * (LAUNCH + 3 * WAIT) + LAUNCH + WAIT
        join = LAUNCH + 2 * WAIT
        waits = N / 512 / (1 if OLD else 8)  # of a warp of type_sums
        kinds = max(PASS[width] / CEILING, waits * WAIT) + 2 * LAUNCH + 3 * WAIT if types else 0
        chunks = count // 64
        # The sort's five launches, the join and the types are counted in `after`.
        yield Launch("embed_sum", f"{N:,} x 768, all of the backward ({model})",
                     2 * PASS[width] + tables, floor, chunks * 3 // 8, waits=9,
                     turns={"SHFL": 8}, after=sort + join + kinds)
        if types:
            turns = N / 512 / (4 if OLD else 8)
            yield Launch("type_sums", f"{N:,} x 768 ({model})", PASS[width], PASS[width],
                         512 * 3 // 8, waits=waits, turns={"LDG": turns}, after=LAUNCH + 2 * WAIT)


OLD = False  # the kernels before this table was first made, for comparison


def main():
    global OLD
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "target/release/kernels/cuda")
    parser.add_argument("--chip", default="sm_90a")
    parser.add_argument("--old", action="store_true", help="launches as of commit 5d90564")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    OLD = args.old
    kernels = read(args.folder, args.chip)
    lines = [
        "# Memory-bound kernels on an H200: predictions",
        "",
        f"Made by `scripts/memory.py` from code for {args.chip}; *unmeasured on a GPU*. The share",
        "is that of the floor's bytes at 4.3 TB/s in the predicted time; the script tells the model.",
        "`a warp` is how many instructions one executes, at most; under way are bytes that come from",
        "caches too.",
        "",
    ]
    rows = 0
    for family in (norms, elements, optimizer, loss, embeddings):
        for launch in family():
            row = predict(kernels[launch.kernel], launch)
            rows += 1
            if rows == 1:
                lines.append("| kernel | shape | " + " | ".join(row) + " |")
                lines.append("|---" * (len(row) + 2) + "|")
            lines.append(f"| {launch.kernel} | {launch.shape} | " + " | ".join(row.values()) + " |")
    text = "\n".join(lines) + "\n"
    if args.out:
        args.out.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
