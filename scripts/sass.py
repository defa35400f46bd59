#!/usr/bin/env python3
"""What the compiler made of each kernel: a Markdown table from its machine code.

    scripts/sass.py [--chip sm_90a] [--out benches/results/sass-sm_90a.md]

Needs the last build's fatbins and resources (`cargo build --release` with nvcc) and cuobjdump, from
.cuda/ or the PATH. Counts are of instructions in the code, not of how often they run.
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# A column's name, and what its instructions match. The wide forms of loads come before the rest.
COLUMNS = [
    ("products", r"(HMMA|HGMMA)\."),
    ("LDSM", r"LDSM\."),
    ("LDGSTS", r"LDGSTS\."),
    ("TMA", r"UTMA(LDG|STG|REDG)"),
    ("loads of 16 B", r"LDG\.E\.128|LDG\.E\.\S*\.128"),
    ("other loads", r"LDG\."),
    ("stores of 16 B", r"STG\.E\.128|STG\.E\.\S*\.128"),
    ("other stores", r"STG\."),
    ("shared", r"(LDS|STS|ATOMS)\b"),
    ("atomics", r"(ATOMG|REDG?|ATOM)\."),
    ("MUFU", r"MUFU\."),
    ("local", r"(LDL|STL)\b"),
]


def newest_build():
    tables = (ROOT / "target").glob("*/build/warpwright-*/out/resources.tsv")
    tables = [table for table in tables if len(table.read_text().splitlines()) > 1]
    if not tables:
        sys.exit("no build with kernels: scripts/cuda-toolkit.sh, then cargo build --release")
    return max(tables, key=lambda table: table.stat().st_mtime).parent


def resources(out, chip):
    """{(file, kernel): row} of ptxas's report."""
    lines = (out / "resources.tsv").read_text().splitlines()
    names = lines[0].split("\t")
    rows = (dict(zip(names, line.split("\t"))) for line in lines[1:])
    return {(row["module"], row["kernel"]): row for row in rows if row["arch"] == chip}


def instructions(tool, fatbin, chip):
    """{kernel: [instruction without its predicate]}."""
    command = [tool, "-sass", "-arch", chip, str(fatbin)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    kernels = {}
    for line in text.splitlines():
        if name := re.match(r"\s*Function : (\S+)", line):
            kernels[name[1]] = code = []
        elif found := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@\S+\s+)?([A-Z][^;]*);", line):
            code.append(found[1].strip())
    return kernels


def counts(code):
    found = dict.fromkeys((name for name, _ in COLUMNS), 0)
    for instruction in code:
        for name, pattern in COLUMNS:
            if re.match(pattern, instruction):
                found[name] += 1
                break
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chip", default="sm_90a")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    wheels = ROOT / ".cuda/nvidia/cu13/bin/cuobjdump"
    tool = str(wheels) if wheels.exists() else shutil.which("cuobjdump")
    if not tool:
        sys.exit("no cuobjdump: scripts/cuda-toolkit.sh fetches it")
    out = newest_build()
    known = resources(out, args.chip)
    columns = ["registers", "shared B", "instructions"] + [name for name, _ in COLUMNS]
    lines = [
        f"# Machine code for {args.chip}",
        "",
        "Made by `scripts/sass.py`. Instructions are counted in the code, not as they run. Shared",
        "memory is what the kernel declares; more is given at the launch. Loads and stores are of",
        "global memory; `MUFU` are exponentials, reciprocals and the like.",
        "",
        "| kernel | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for fatbin in sorted((out.parents[2] / "kernels" / "cuda").glob("*.fatbin")):
        for kernel, code in sorted(instructions(tool, fatbin, args.chip).items()):
            row = known[fatbin.stem, kernel]
            cells = [row["registers"], row["shared"], str(len(code))]
            cells += [str(n or "") for n in counts(code).values()]
            lines.append(f"| {fatbin.stem}: {kernel} | " + " | ".join(cells) + " |")
    text = "\n".join(lines) + "\n"
    if args.out:
        args.out.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
