"""Make `metrics.json`: inputs of every metric in `src/eval/metrics/`, and what its reference says.

    python -m venv V && V/bin/pip install sacrebleu==2.6.0 scikit-learn scipy seqeval
    V/bin/pip download --no-deps neural-compressor==1.14.2 farm==0.8.0
    unzip -j neural_compressor-*.whl neural_compressor/experimental/metric/evaluate_squad.py
    unzip -j farm-*.whl farm/evaluation/squad_evaluation.py
    V/bin/python tests/golden/metrics.py evaluate_squad.py squad_evaluation.py

All references are asked themselves. SQuAD's official scripts are no package, but others ship copies
of them: these are v1.1's and v2.0's. Only the bootstrap, whose draws are warpwright's own, is
written here a second time, from its definition. Random cases are drawn from a fixed seed, of pieces
that are awkward on purpose.
"""

import importlib.util
import json
import math
import random
import sys
import unicodedata
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
from sacrebleu.metrics import BLEU, CHRF
from scipy import stats
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.metrics.sequence_labeling import precision_recall_fscore_support as entity_scores
from sklearn import metrics

HERE = Path(__file__).resolve().parent
warnings.simplefilter("ignore")  # undefined cases are what some of these are for


def defined(value):
    """NaN as null."""
    return None if math.isnan(value) else float(value)


# ---- classification -----------------------------------------------------------------------------


def prf(gold, predicted, **options):
    scores = metrics.precision_recall_fscore_support(gold, predicted, zero_division=0, **options)
    return [np.asarray(score).tolist() for score in scores[:3]]


def classification(rng):
    draw = lambda n, classes: [rng.randrange(classes) for _ in range(n)]
    noisy = lambda gold, classes, p: [rng.randrange(classes) if rng.random() < p else g
                                      for g in gold]
    balanced, rare = draw(120, 2), [int(rng.random() < 0.1) for _ in range(90)]
    many = draw(150, 5)
    cases = {
        "balanced": (2, balanced, noisy(balanced, 2, 0.4)),
        "rare positives": (2, rare, noisy(rare, 2, 0.3)),
        "five classes": (5, many, noisy(many, 5, 0.5)),
        "unrelated": (3, draw(60, 3), draw(60, 3)),
        "right": (3, [0, 1, 2, 1], [0, 1, 2, 1]),
        "all wrong": (2, [0, 1, 0, 1], [1, 0, 1, 0]),
        "one example": (2, [1], [1]),
        "one wrong example": (2, [1], [0]),
        "one class in gold": (3, [1, 1, 1, 1], [1, 0, 1, 2]),
        "one class predicted": (3, [0, 1, 2, 1], [1, 1, 1, 1]),
        "one class on both sides": (2, [0, 0, 0], [0, 0, 0]),
        "a class never predicted": (3, [0, 1, 2, 2, 0], [0, 1, 1, 0, 0]),
        "a class never there": (3, [0, 1, 1, 0], [0, 1, 2, 2]),
        "a class that no one knows": (4, [0, 3, 1, 0], [0, 1, 3, 0]),
    }
    for name, (classes, gold, predicted) in cases.items():
        labels = list(range(classes))
        yield dict(
            name=name, classes=classes, gold=gold, predicted=predicted,
            accuracy=metrics.accuracy_score(gold, predicted),
            confusion=metrics.confusion_matrix(gold, predicted, labels=labels).tolist(),
            matthews=metrics.matthews_corrcoef(gold, predicted),
            by_class=prf(gold, predicted, labels=labels),
            micro=prf(gold, predicted, average="micro"),
            macro=prf(gold, predicted, average="macro"),
        )


def multi_label(rng):
    rows = lambda n, labels, p: [[int(rng.random() < p) for _ in range(labels)] for _ in range(n)]
    gold = rows(40, 6, 0.3)
    noisy = [[bit ^ (rng.random() < 0.2) for bit in row] for row in gold]
    cases = {
        "noisy": (gold, noisy),
        "dense": (rows(20, 3, 0.8), rows(20, 3, 0.8)),
        "a label never there": ([[1, 0, 0], [0, 1, 0]], [[1, 0, 1], [0, 1, 1]]),
        "a label that no one knows": ([[1, 0, 0], [1, 1, 0]], [[1, 1, 0], [0, 1, 0]]),
        "nothing": ([[0, 0], [0, 0]], [[0, 0], [0, 0]]),
    }
    for name, (gold, predicted) in cases.items():
        gold, predicted = np.array(gold), np.array(predicted)
        yield dict(
            name=name, labels=gold.shape[1], gold=gold.ravel().tolist(),
            predicted=predicted.ravel().tolist(), by_label=prf(gold, predicted),
            micro=prf(gold, predicted, average="micro"),
            macro=prf(gold, predicted, average="macro"),
        )


# ---- regression ---------------------------------------------------------------------------------


def regression(rng):
    ratings = [round(rng.uniform(0, 5) * 5) / 5 for _ in range(100)]  # as in STS-B: many ties
    guesses = [rating + rng.gauss(0, 0.8) for rating in ratings]
    normal = [rng.gauss(0, 1) for _ in range(50)]
    cases = {
        "ratings": (ratings, guesses),
        "rounded guesses": (ratings, [float(round(guess)) for guess in guesses]),
        "unrelated": (normal, [rng.gauss(0, 1) for _ in range(50)]),
        "equal": (normal, normal),
        "opposite": (normal, [-3 * value + 1 for value in normal]),
        "cubes": (normal, [value**3 for value in normal]),
        "far from zero": ([1e6 + v for v in normal], [1e6 - 0.5 * v + v * v for v in normal]),
        "huge": ([1e200 * v for v in normal], [1e190 * math.sin(9 * v) for v in normal]),
        "tiny": ([1e-200 * v for v in normal], [1e-190 * math.sin(9 * v) for v in normal]),
        "all but one tied": ([2.0, 2.0, 2.0, 7.0], [1.0, 3.0, 3.0, 2.0]),
        "signed zeros": ([0.0, -0.0, 1.0, -1.0], [-0.0, 0.5, 0.0, 2.0]),
        "two": ([1.0, 2.0], [5.0, 4.0]),
        "constant guess": ([1.0, 2.0, 3.0], [0.1, 0.1, 0.1]),
        "constant gold": ([0.3, 0.3, 0.3, 0.3], [1.0, 2.0, 4.0, 3.0]),
        "both constant": ([0.7, 0.7, 0.7], [0.7, 0.7, 0.7]),
    }
    for name, (x, y) in cases.items():
        # Its squares overflow: the mean of them is infinite, which JSON does not have.
        mse = None if name == "huge" else metrics.mean_squared_error(x, y)
        yield dict(
            name=name, x=x, y=y, mse=mse, pearson=defined(stats.pearsonr(x, y).statistic),
            spearman=defined(stats.spearmanr(x, y).statistic),
        )


# ---- entities -----------------------------------------------------------------------------------


def entities(rng):
    def random_tags(n, letters, kinds):
        tags = [rng.choice(letters) for _ in range(n)]
        return [tag if tag == "O" or not kinds else f"{tag}-{rng.choice(kinds)}" for tag in tags]

    corpora = {}
    for name, letters, kinds in [
        ("random BIO", "OOBI", ["PER", "LOC", "ORG"]),
        ("random BIOES", "OBIES", ["PER", "MISC"]),
        ("random, one type", "OBI", ["X"]),
        ("random, no types", "OBIES", []),
    ]:
        gold = [random_tags(rng.randrange(1, 14), letters, kinds) for _ in range(25)]
        guess = [[tag if rng.random() < 0.7 else random_tags(1, letters, kinds)[0] for tag in tags]
                 for tags in gold]
        corpora[name] = (gold, guess)
    words = lambda *sentences: [sentence.split() for sentence in sentences]
    corpora |= {
        "news": (
            words("B-PER I-PER O O B-LOC", "O B-ORG I-ORG I-ORG O", "B-MISC O B-PER"),
            words("B-PER I-PER O O B-LOC", "O B-ORG I-ORG O O", "B-LOC O B-PER"),
        ),
        "inside without begin": (
            words("I-PER I-PER O I-LOC", "B-PER B-PER I-PER"),
            words("B-PER I-PER O B-LOC", "B-PER I-PER I-PER"),
        ),
        "type changes within": (
            words("B-PER I-LOC I-LOC O", "I-PER I-LOC I-PER"),
            words("B-PER B-LOC I-LOC O", "B-PER B-LOC B-PER"),
        ),
        "ends of sentences": (words("O B-PER", "I-PER O"), words("O B-PER", "O O")),
        "types with hyphens, accents": (
            words("B-geo-loc I-geo-loc O B-Ähre"), words("B-geo-loc I-geo-loc O B-Ähre"),
        ),
        "none in gold": (words("O O O"), words("O B-PER O")),
        "none predicted": (words("O B-PER I-PER"), words("O O O")),
        "none": (words("O O", "O"), words("O O", "O")),
        "right": (words("B-A I-A B-B O"), words("B-A I-A B-B O")),
        "an empty sentence": ([[], ["B-A"]], [[], ["B-A"]]),
    }
    for name, (gold, predicted) in corpora.items():
        numbers = lambda **options: [
            np.asarray(value).tolist() for value in entity_scores(gold, predicted, **options)
        ]
        kinds = sorted({kind for kind, *_ in get_entities(gold) + get_entities(predicted)})
        found = lambda tags: [list(entity) for entity in get_entities(tags)]
        yield dict(
            name=name, gold=gold, predicted=predicted, entities=[found(tags) for tags in gold],
            micro=numbers(average="micro")[:3],
            macro=[defined(mean) for mean in numbers(average="macro")[:3]],
            types=kinds, by_type=numbers(average=None)[:4] if kinds else [[], [], [], []],
        )


# ---- question answering -------------------------------------------------------------------------


def script(path):
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def paragraphs(questions):
    """As SQuAD's JSON has them, and what is said, by number."""
    qas = [dict(id=i, answers=[dict(text=gold) for gold in golds])
           for i, (_, golds) in enumerate(questions)]
    said = {i: prediction for i, (prediction, _) in enumerate(questions)}
    return [dict(paragraphs=[dict(qas=qas)])], said


ANSWERS = [
    ("Denver Broncos", ["Denver Broncos", "The Denver Broncos", "the Broncos"]),
    ("in 1066", ["1066", "October 1066", "the year 1066"]),
    ("  The   red\tfox ", ["red fox", "a fox"]),
    ("to be or not to be", ["to be", "not to be or be", "or"]),
    ("the the the cat", ["cat cat", "the"]),
    ("The", ["a", "an"]),
    ("a", ["the cat", "A."]),
    ("", ["an answer"]),
    ("an answer", []),
    ("", []),
    ("...", []),
    ("the", []),
    ("!?", ["the", "..."]),
    ("cat", ["the", "cat"]),
    ("cat", ["the", "..."]),
    ("", ["the", "real answer"]),
    ("U.S.", ["US", "U.S", "u s"]),
    ("rock-and-roll", ["rock and roll", "rockandroll"]),
    ("$5.6 million", ["5.6 million", "56 million", "$5,6 million"]),
    ("O'Neil's", ["ONeils", "O’Neil’s"]),
    ("café", ["cafe", "cafe\u0301", "CAFÉ"]),
    ("ÅNGSTRÖM", ["ångström", "A\u030angström"]),
    ("ΟΔΥΣΣΕΥΣ", ["οδυσσευς", "οδυσσευσ"]),
    ("İstanbul", ["i̇stanbul", "istanbul"]),
    ("STRASSE", ["straße", "strasse"]),
    ("東京都", ["東京 都", "東京都。"]),
    ("「東京」", ["東京", "「東京」"]),
    ("a東京", ["東京", "a 東京"]),
    ("the😀an", ["😀", "the an", ""]),
    ("a\u0301 b", ["b", "a\u0301 b", "\u0301 b"]),
    ("the\u0903 x", ["\u0903 x", "the x"]),
    ("Ⓐ an² the½", ["ⓐ", "an² the½", "² ½"]),
    ("ａ ｔｈｅ，ＡＮ！", ["ａ ｔｈｅ，ａｎ！", "ａ"]),
    ("a\u00a0cat\u3000sat\u2028", ["cat sat", "a cat sat"]),
    ("a\u200bcat", ["cat", "acat"]),
    ("x\x1cy\x1fthe\x85z", ["x y z", "xyz"]),
    ("the_cat a_b", ["thecat ab", "cat b"]),
    ("<a>the</a>", ["athea", "a"]),
    ("an\nanswer\r\nhere", ["answer here"]),
    ("Theatre, anthem", ["theatre anthem", "atre them"]),
    ("ʼn the ǅ", ["ʼn ǆ"]),
]


def squad(rng):
    pieces = ["the", "a", "An", "cat", "Cat.", "1,000", "1000", "é", "e\u0301", "東", "😀", "-", "—",
              "。", "...", " ", "\u00a0", "THE", "theory", "_", "a's", "२", "Σ", "x_the"]
    text = lambda: rng.choice(["", " "]).join(rng.choices(pieces, k=rng.randrange(6)))
    random_answers = [(text(), [text() for _ in range(rng.randrange(4))]) for _ in range(150)]
    asked = ANSWERS + random_answers
    v1, v2 = map(script, sys.argv[1:])
    exact, f1 = v2.get_raw_scores(*paragraphs(asked))
    questions = []
    for i, (prediction, golds) in enumerate(asked):
        normalized = v1.normalize_answer(prediction)
        assert normalized == v2.normalize_answer(prediction)
        best = lambda of: float(v1.metric_max_over_ground_truths(of, prediction, golds))
        questions.append(dict(
            prediction=prediction, golds=golds, normalized=normalized,
            v1=[best(v1.exact_match_score), best(v1.f1_score)] if golds else None,
            v2=[float(exact[i]), float(f1[i])],
        ))
    answerable, others = [[i for i, (_, golds) in enumerate(asked) if bool(golds) == has]
                          for has in (True, False)]
    of_v1 = v1.evaluate(*paragraphs([asked[i] for i in answerable]))
    of_v2 = lambda numbers: [v2.make_eval_dict(exact, f1, numbers)[key] for key in ("exact", "f1")]
    return dict(
        questions=questions, v1=[of_v1["exact_match"], of_v1["f1"]], v2=of_v2(None),
        has_answer=of_v2(answerable), no_answer=of_v2(others),
        thresholds=[threshold(rng, v2, n, skill) for n in (1, 2, 8, 40) for skill in (0, 0.5, 3)],
    )


def threshold(rng, script, n, skill):
    answerable = [rng.random() < 0.6 for _ in range(n)]
    # Halves, so that some are equal.
    doubts = [round(2 * rng.gauss(-skill if has else skill, 1)) / 2 for has in answerable]
    scores = [rng.choice([0.0, 0.5, 1.0]) if has else rng.choice([0.0, 0.0, 1.0])
              for has in answerable]
    # The script goes through the questions one by one and might stop between equal doubts, at what
    # no threshold gives; not so where those that lose come first.
    order = sorted(range(n), key=lambda i: scores[i] - (not answerable[i]))
    by_number = lambda values: {i: values[i] for i in order}
    said = ["" if score == 1 and not has else "something"
            for score, has in zip(scores, answerable)]
    percent, at = script.find_best_thresh(*map(by_number, (said, scores, doubts, answerable)))
    nothing = 100 * answerable.count(False) / n  # which it calls a threshold of 0
    return dict(doubts=doubts, scores=scores, answerable=answerable,
                threshold=at if percent > nothing else None, percent=percent)


# ---- translation --------------------------------------------------------------------------------

NEWS = [
    ("The cat sat on the mat, and it purred.", "A cat sat on the mat and purred."),
    ("He said: \"I don't know.\"", "He said, \"I do not know\"."),
    ("Prices rose 3.5% to $1,234.56 in 2019-2020.", "Prices went up by 3.5 % to $1,234.56."),
    ("The well-known author's state-of-the-art book", "The famous author's state of the art book"),
    ("There were about 10 000 people in the square yesterday evening, the police said.",
     "Police said about 10,000 people were in the square last night."),
    ("It is it is it is", "It is it"),
    ("Nothing in common here at all", "completely different words follow"),
    ("Der Zug fährt um 8.30 Uhr ab.", "Der Zug fährt um 8:30 Uhr ab."),
]
ODD = [
    ("", "Something was here."), ("Something is here.", ""), ("", ""), (" \t ", "  "), ("a", "a"),
    ("a b", "a b"), ("a b c", "a b c"), ("x", "y"), ("...", "…"), (".", "."), ("1.5,2", "1.5, 2"),
    (".5", "0.5"), ("5.", "5 ."), ("a.b,c", "a. b, c"), ("3-4 -5 x-9", "3 - 4 -5 x - 9"),
    ("&quot;R&amp;D&quot; &lt;3 &amp;lt;", "\"R&D\" <3 <"), ("<skipped> ok <skip", "ok <skip"),
    ("hyphen-\nated line\nbreak", "hyphenated line break"), ("trailing -\n", "trailing"),
    ("tab\tand\u00a0no-break\u3000wide\x1cfour\x85", "tab and no-break wide four"),
    ("and/or 1/2 of http://x.y/z", "and / or 1 / 2 of http : / / x.y / z"),
    ("can't 'quoted' rock'n'roll", "can 't ' quoted ' rock 'n' roll"),
    ("`tick` {a}[b]~^|\\ @home #1", "` tick ` { a } [ b ] ~ ^ | \\ @ home # 1"),
]
WORLD = [
    ("El niño comió piñas.", "El nin\u0303o comio\u0301 piñas."),
    ("Ça va très bien", "Ca va tres bien"),
    ("東京は日本の首都です。", "東京は、日本の首都である。"),
    ("我喜欢喝茶", "我喜欢喝茶"), ("他今天没有来", "她昨天来了"),
    ("Ｆｕｌｌ　ｗｉｄｔｈ！", "Full width!"), ("价格：１２．５元，贵", "价格：12.5元，贵"),
    ("👍🏽 great 👨‍👩‍👧", "👍 great 👨‍👩‍👧‍👦"), ("e\u0301e\u0301", "éé"), ("Привет, мир!", "Привет мир"),
    ("مرحبا، بالعالم", "مرحبا بالعالم"),
    ("हिन्दी में लिखो।", "हिन्दी में लिखा।"), ("z\u200bw", "zw"),
]


def translation(rng):
    pieces = ["the", "cat", "sat", "on", "mat", ".", ",", "1.5", "2,000", "-", "3-4", "é", "東京",
              "😀", "'s", "&amp;", "！", "x", "\n", "-\n", "\u00a0", "e\u0301"]
    text = lambda top: rng.choice(["", " ", " "]).join(rng.choices(pieces, k=rng.randrange(top)))

    def noisy(line):
        words = [w if rng.random() < 0.8 else rng.choice(pieces) for w in line.split(" ")]
        return " ".join(words)

    lines = [text(18) for _ in range(60)]
    several = [(a, [b, noisy(b), rng.choice(["", a, "the cat"])]) for a, b in NEWS + ODD + WORLD]
    one = lambda pairs: [(a, [b]) for a, b in pairs]
    corpora = {
        "news": one(NEWS), "odd": one(ODD), "world": one(WORLD), "several references": several,
        "references equally close": [
            ("one two three four", ["one two three four five", "one two three"]),
            ("four five", ["four", "four five six"]),
        ],
        "noisy": one([(noisy(line), line) for line in lines]),
        "random": one([(text(9), text(9)) for _ in range(60)]),
        "identical": one([(b, b) for _, b in NEWS]),
        "no hypotheses": one([("", b) for _, b in NEWS[:3]]),
        "no references": one([(a, "") for a, _ in NEWS[:3]]),
        "three words each": one([("one two three", "one two three"), ("four five", "four six")]),
        "no pair of words": one([("a b c d e", "e d c b a")]),
        "nothing in common": one([("aaa bbb ccc ddd", "xxx yyy zzz www")]),
        "too short": one([(b[: len(b) // 2], b) for _, b in NEWS]),
        "too long": one([(b + " " + a, b) for a, b in NEWS]),
    }
    for pair in NEWS + ODD + WORLD:
        corpora[f"alone: {pair[0]!r}"] = one([pair])
    for name, pairs in corpora.items():
        hypotheses = [hypothesis for hypothesis, _ in pairs]
        references = [list(column) for column in zip(*(refs for _, refs in pairs))]
        case = dict(name=name, hypotheses=hypotheses, references=[refs for _, refs in pairs])
        bleu, chrf = BLEU(), CHRF()
        score = bleu.corpus_score(hypotheses, references)
        counts = bleu._extract_corpus_statistics(hypotheses, references)
        case["bleu"] = dict(
            score=score.score, precisions=score.precisions, brevity=score.bp,
            signature=str(bleu.get_signature()), counts=counts,
        )
        score = chrf.corpus_score(hypotheses, references).score
        case["chrf"] = dict(
            score=score, signature=str(chrf.get_signature()),
            counts=chrf._extract_corpus_statistics(hypotheses, references),
        )
        yield case


# ---- bootstrap ----------------------------------------------------------------------------------

RESAMPLE = 7  # warpwright's stream of resamples


def philox(counter, key):
    """Philox4x32-10 (Salmon et al., 2011)."""
    word = 0xFFFFFFFF
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & word, (p0 >> 32) ^ c3 ^ k1, p0 & word
        k0, k1 = (k0 + 0x9E3779B9) & word, (k1 + 0xBB67AE85) & word
    return c0, c1, c2, c3


def resample(n, seed, number):
    key = (seed & 0xFFFFFFFF, seed >> 32)
    draws = [w for i in range(-(-n // 4)) for w in philox((i, 0, number, RESAMPLE), key)]
    return [draw * n >> 32 for draw in draws[:n]]


def bootstrap(rng):
    for n, seed, resamples, level in [
        (1, 0, 10, 0.95), (2, 1, 50, 0.9), (37, 2**40 + 3, 200, 0.95), (101, 7, 333, 0.5),
    ]:
        x = [rng.gauss(0, 1) for _ in range(n)]
        y = [value + rng.gauss(0, 1) for value in x]
        picks = [resample(n, seed, number) for number in range(resamples)]
        means = [float(np.mean([x[i] for i in picked])) for picked in picks]
        pearson = [
            stats.pearsonr([x[i] for i in picked], [y[i] for i in picked]).statistic
            for picked in picks if len(set(picked)) > 1
        ]
        ends = [50 * (1 - level), 50 * (1 + level)]
        interval = lambda values: np.percentile(values, ends).tolist() if values else None
        yield dict(
            x=x, y=y, seed=seed, resamples=resamples, level=level, mean=interval(means),
            pearson=interval(pearson), undefined=resamples - len(pearson),
        )


def main():
    sections = [classification, multi_label, regression, entities, squad, translation, bootstrap]
    packages = ["sacrebleu", "scikit-learn", "scipy", "seqeval", "numpy"]
    versions = {name: version(name) for name in packages}
    made = dict(versions=versions | {"unicode": unicodedata.unidata_version})
    for section in sections:
        # A seed each: one more case in a section leaves the others as they are.
        cases = section(random.Random(section.__name__))
        made[section.__name__] = cases if isinstance(cases, dict) else list(cases)
    # One case a line, for diffs that can be read.
    text = json.dumps(made, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    text = text.replace('},{"', '},\n{"').replace(':[{"', ':[\n{"')
    (HERE / "metrics.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
