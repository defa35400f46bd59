"""What transformers makes of sentences, questions and answers, for `finetune` to be held to.

    python reading.py utils_qa.py > reading.json

`utils_qa.py` is transformers' own, from its examples/pytorch/question-answering. A small WordPiece
vocabulary, contexts with accents and wide characters, answers at every place; windows as run_qa's
`prepare_train_features` labels them; random logits decoded by `postprocess_qa_predictions`.
"""

import importlib.util
import json
import sys
import tempfile

import numpy as np
from transformers import BertTokenizerFast

WORDS = """the a of in is was it who what when where did sleep ##s river ##side town old new bridge
built by king queen olav caf ##e at mill north . , ? ( ) ' 中 国 1 ##8 ##1 ##4 oslo berg ##en""".split()
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]

CONTEXTS = [
    "The old bridge in Bergen was built by Queen Olav (1814).  It is at the Café, north of 中国.",
    "Café 中国",
    "the river the river the river the town of Oslo , the new mill at the riverside .",
    "unknown words sleeps",
]
QUESTIONS = ["Who built the bridge?", "  Where is it ?", "when", "What sleeps?"]


def tokenizer(folder):
    path = f"{folder}/vocab.txt"
    with open(path, "w") as file:
        file.write("\n".join(VOCABULARY) + "\n")
    return BertTokenizerFast(vocab=path)


def features(tokenizer, question, context, longest, stride):
    read = tokenizer(
        question.lstrip(),
        context,
        truncation="only_second",
        max_length=longest,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    for i in range(len(read["input_ids"])):
        of_context = [part == 1 for part in read.sequence_ids(i)]
        offsets = read["offset_mapping"][i]
        yield {
            "ids": read["input_ids"][i],
            "types": read["token_type_ids"][i],
            "offsets": [o if inside else None for o, inside in zip(offsets, of_context)],
        }


def label(feature, start, text):
    """The first and the last token of an answer, or the first token of the window for none."""
    if text is None:
        return [0, 0]
    end = start + len(text)
    inside = [(i, o) for i, o in enumerate(feature["offsets"]) if o is not None]
    if not (inside and inside[0][1][0] <= start and inside[-1][1][1] >= end):
        return [0, 0]
    first = max(i for i, o in inside if o[0] <= start)
    last = min(i for i, o in inside if o[1] >= end)
    return [first, last]


def windows(tokenizer):
    for question, context in zip(QUESTIONS, CONTEXTS):
        words = context.split()
        answers = [(0, None)] + [(context.index(w), w) for w in words]
        answers += [(at, context[at : at + 12].rstrip()) for at, _ in answers[1:]]
        for longest, stride in [(64, 16), (16, 4), (14, 2)]:
            found = list(features(tokenizer, question, context, longest, stride))
            yield {
                "question": question,
                "context": context,
                "longest": longest,
                "stride": stride,
                "windows": [{"ids": f["ids"], "types": f["types"]} for f in found],
                "answers": [
                    {"start": at, "text": text, "ends": [label(f, at, text) for f in found]}
                    for at, text in answers
                ],
            }


class Table(list):
    """Enough of a data set for `postprocess_qa_predictions`."""

    def __getitem__(self, key):
        return [row[key] for row in self] if isinstance(key, str) else list.__getitem__(self, key)


def decodings(tokenizer, decode):
    rng = np.random.default_rng(7)
    for question, context in zip(QUESTIONS, CONTEXTS):
        for longest, stride, best, answer, threshold in [
            (64, 16, 20, 30, None),
            (16, 4, 20, 30, None),
            (16, 4, 5, 3, 0.0),
            (14, 2, 20, 30, 1.5),
            (64, 16, 3, 2, -2.0),
        ]:
            found = list(features(tokenizer, question, context, longest, stride))
            logits = [rng.normal(size=(2, len(f["ids"]))).round(3) for f in found]
            inputs = [{"example_id": "q", "offset_mapping": f["offsets"]} for f in found]
            said, nbest, odds = run(decode, context, inputs, logits, best, answer, threshold)
            if any(n["text"] == "empty" for n in nbest):
                continue  # It found nothing, and says so by a word that no context has.
            yield {
                "question": question,
                "context": context,
                "longest": longest,
                "stride": stride,
                "best": best,
                "longest_answer": answer,
                "threshold": threshold,
                "logits": [z.T.tolist() for z in logits],
                "answer": said,
                "spans": [n["text"] for n in nbest if n["text"]],
                "probability": next(n["probability"] for n in nbest if n["text"] == said),
                "doubt": odds,
            }


def run(decode, context, inputs, logits, best, answer, threshold):
    with tempfile.TemporaryDirectory() as folder:
        said = decode(
            Table([{"id": "q", "context": context}]),
            inputs,
            ([z[0] for z in logits], [z[1] for z in logits]),
            version_2_with_negative=threshold is not None,
            n_best_size=best,
            max_answer_length=answer,
            null_score_diff_threshold=threshold or 0.0,
            output_dir=folder,
        )["q"]
        nbest = json.load(open(f"{folder}/nbest_predictions.json"))["q"]
        odds = None
        if threshold is not None:
            odds = json.load(open(f"{folder}/null_odds.json"))["q"]
    return said, nbest, odds


def sentences(tokenizer):
    for words in [["Olav", "sleeps", "at", "Café", "(", "1814", ")"], ["中国", "riverside", "xyz"]]:
        read = tokenizer(words, is_split_into_words=True)
        firsts = [i for i, (word, before) in enumerate(pairs(read.word_ids())) if word != before]
        yield {"words": words, "ids": read["input_ids"], "firsts": firsts}


def pairs(words):
    """Each word that is one, with the one before."""
    return [(w if w is not None else b, b) for w, b in zip(words, [None] + words[:-1])]


def main():
    spec = importlib.util.spec_from_file_location("utils_qa", sys.argv[1])
    utils = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(utils)
    with tempfile.TemporaryDirectory() as folder:
        bert = tokenizer(folder)
        golden = {
            "tokenizer": json.loads(bert.backend_tokenizer.to_str()),
            "windows": list(windows(bert)),
            "decodings": list(decodings(bert, utils.postprocess_qa_predictions)),
            "sentences": list(sentences(bert)),
        }
    print("{")
    parts = []
    for name, value in golden.items():
        rows = value if isinstance(value, list) else None
        text = json.dumps(value, ensure_ascii=False)
        if rows is not None:
            text = "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]"
        parts.append(f"{json.dumps(name)}: {text}")
    print(",\n".join(parts))
    print("}")


main()
