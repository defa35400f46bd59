//! Metrics beside scikit-learn, SciPy, seqeval, SQuAD's scripts and sacreBLEU: the cases of
//! `tests/golden/metrics.py`, each to 1e-9; and what must hold of any input.

use std::path::Path;
use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::Value;
use warpwright::eval::metrics::bootstrap::Bootstrap;
use warpwright::eval::metrics::classification::{ByClass, accuracy, confusion, multi_label};
use warpwright::eval::metrics::entities::{ByType, entities};
use warpwright::eval::metrics::regression::{mean_squared_error, pearson, spearman};
use warpwright::eval::metrics::squad::{Doubted, Score, best_threshold, normalize};
use warpwright::eval::metrics::{Scores, Tally, bleu, chrf, shown, squad};

/// Relative to the value, or absolute where that is below 1.
const TOLERANCE: f64 = 1e-9;

static GOLDEN: LazyLock<Value> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/metrics.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
});

fn get<T: DeserializeOwned>(case: &Value, key: &str) -> T {
    serde_json::from_value(case[key].clone()).unwrap_or_else(|e| panic!("{key}: {e} in {case}"))
}

fn cases(section: &str) -> Vec<Value> {
    get(&GOLDEN, section)
}

fn is_close(got: f64, expected: f64) -> bool {
    (got - expected).abs() <= TOLERANCE * expected.abs().max(1.0)
}

#[track_caller]
fn close(got: f64, expected: f64, what: &str) {
    assert!(is_close(got, expected), "{what}: {got}, not {expected}");
}

#[track_caller]
fn all_close(got: &[f64], expected: &[f64], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    got.iter().zip(expected).for_each(|(&got, &expected)| close(got, expected, what));
}

#[track_caller]
fn same_option(got: Option<f64>, expected: Option<f64>, what: &str) {
    assert_eq!(got.is_some(), expected.is_some(), "{what}: {got:?}, not {expected:?}");
    close(got.unwrap_or(0.0), expected.unwrap_or(0.0), what);
}

fn listed(scores: Scores) -> [f64; 3] {
    [scores.precision, scores.recall, scores.f1]
}

/// `expected` holds precisions, recalls, F1s.
#[track_caller]
fn tallies_close(tallies: &[Tally], expected: &[Vec<f64>], what: &str) {
    for (k, score) in [Tally::precision, Tally::recall, Tally::f1].into_iter().enumerate() {
        let got: Vec<f64> = tallies.iter().map(|&tally| score(tally)).collect();
        all_close(&got, &expected[k], what);
    }
}

#[test]
fn classification_as_scikit_learn() {
    for case in cases("classification") {
        let name: String = get(&case, "name");
        let gold: Vec<usize> = get(&case, "gold");
        let predicted: Vec<usize> = get(&case, "predicted");
        let classes = get(&case, "classes");
        let counts = confusion(classes, &gold, &predicted);
        assert_eq!(counts, get::<Vec<Vec<u64>>>(&case, "confusion"), "{name}");
        let found = ByClass::new(classes, &gold, &predicted);
        same_option(accuracy(&gold, &predicted), get(&case, "accuracy"), &name);
        same_option(found.accuracy(), get(&case, "accuracy"), &name);
        close(found.matthews(), get(&case, "matthews"), &name);
        tallies_close(&found.tallies, &get::<Vec<Vec<f64>>>(&case, "by_class"), &name);
        all_close(&listed(found.micro()), &get::<Vec<f64>>(&case, "micro"), &name);
        all_close(&listed(found.macro_mean()), &get::<Vec<f64>>(&case, "macro"), &name);
    }
}

#[test]
fn multi_label_as_scikit_learn() {
    let bits = |case: &Value, key| get::<Vec<u8>>(case, key).into_iter().map(|b| b == 1).collect();
    for case in cases("multi_label") {
        let name: String = get(&case, "name");
        let (gold, predicted): (Vec<bool>, Vec<bool>) =
            (bits(&case, "gold"), bits(&case, "predicted"));
        let tallies = multi_label(get(&case, "labels"), &gold, &predicted);
        tallies_close(&tallies, &get::<Vec<Vec<f64>>>(&case, "by_label"), &name);
        all_close(&listed(Scores::micro(&tallies)), &get::<Vec<f64>>(&case, "micro"), &name);
        all_close(&listed(Scores::macro_mean(&tallies)), &get::<Vec<f64>>(&case, "macro"), &name);
    }
}

#[test]
fn regression_as_scipy() {
    for case in cases("regression") {
        let (name, x, y): (String, Vec<f64>, Vec<f64>) =
            (get(&case, "name"), get(&case, "x"), get(&case, "y"));
        same_option(pearson(&x, &y), get(&case, "pearson"), &name);
        same_option(spearman(&x, &y), get(&case, "spearman"), &name);
        let mse = mean_squared_error(&x, &y).filter(|mse| mse.is_finite());
        same_option(mse, get(&case, "mse"), &name);
    }
}

#[test]
fn entities_as_seqeval() {
    for case in cases("entities") {
        let name: String = get(&case, "name");
        let gold: Vec<Vec<String>> = get(&case, "gold");
        let predicted: Vec<Vec<String>> = get(&case, "predicted");
        for (tags, expected) in
            gold.iter().zip(get::<Vec<Vec<(String, usize, usize)>>>(&case, "entities"))
        {
            let found = entities(tags).unwrap();
            let found: Vec<_> = found
                .iter()
                .map(|entity| (entity.kind.into(), entity.tokens.start, entity.tokens.end - 1))
                .collect();
            assert_eq!(found, expected, "{name}: {tags:?}");
        }
        let sentences = gold.iter().zip(&predicted);
        let tallies: ByType = sentences.map(|(g, p)| ByType::sentence(g, p).unwrap()).sum();
        all_close(&listed(tallies.total().scores()), &get::<Vec<f64>>(&case, "micro"), &name);
        let types: Vec<&String> = tallies.0.keys().collect();
        assert_eq!(types, get::<Vec<String>>(&case, "types").iter().collect::<Vec<_>>(), "{name}");
        let by_type: Vec<Tally> = tallies.0.values().copied().collect();
        let expected: Vec<Vec<f64>> = get(&case, "by_type");
        tallies_close(&by_type, &expected, &name);
        let support: Vec<f64> = by_type.iter().map(|tally| tally.gold as f64).collect();
        assert_eq!(support, expected[3], "{name}");
        // seqeval's mean of no types is NaN.
        let means = listed(Scores::macro_mean(&by_type));
        let expected: Vec<Option<f64>> = get(&case, "macro");
        all_close(&means, &expected.iter().map(|m| m.unwrap_or(0.0)).collect::<Vec<_>>(), &name);
    }
}

#[test]
fn answers_as_squad() {
    let section: Value = get(&GOLDEN, "squad");
    let (mut v1, mut has_answer, mut no_answer) = (Vec::new(), Vec::new(), Vec::new());
    for case in get::<Vec<Value>>(&section, "questions") {
        let prediction: String = get(&case, "prediction");
        let golds: Vec<String> = get(&case, "golds");
        assert_eq!(normalize(&prediction), get::<String>(&case, "normalized"));
        let check = |score: Score, key, scores: &mut Vec<Score>| {
            all_close(&[score.exact, score.f1], &get::<Vec<f64>>(&case, key), &case.to_string());
            scores.push(score);
        };
        if golds.is_empty() {
            check(squad::v2(&prediction, &golds), "v2", &mut no_answer);
        } else {
            check(squad::v1(&prediction, &golds), "v1", &mut v1);
            check(squad::v2(&prediction, &golds), "v2", &mut has_answer);
        }
    }
    let v2 = [has_answer.clone(), no_answer.clone()].concat();
    for (scores, key) in
        [(v1, "v1"), (v2, "v2"), (has_answer, "has_answer"), (no_answer, "no_answer")]
    {
        // In percent, as the scripts report the mean of questions.
        let percent = |of: fn(&Score) -> f64| {
            100.0 * scores.iter().map(of).sum::<f64>() / scores.len() as f64
        };
        let means = [percent(|score| score.exact), percent(|score| score.f1)];
        all_close(&means, &get::<Vec<f64>>(&section, key), key);
    }
}

#[test]
fn the_best_threshold_is_the_best_of_all() {
    for case in get::<Vec<Value>>(&GOLDEN["squad"], "thresholds") {
        let doubts: Vec<f64> = get(&case, "doubts");
        let (scores, answerable): (Vec<f64>, Vec<bool>) =
            (get(&case, "scores"), get(&case, "answerable"));
        let all = doubts.iter().zip(scores).zip(answerable);
        let questions: Vec<_> =
            all.map(|((&doubt, score), answerable)| Doubted { doubt, score, answerable }).collect();
        let (threshold, earned) = best_threshold(&questions).unwrap();
        let expected: Option<f64> = get(&case, "threshold");
        assert_eq!(threshold, expected.unwrap_or(f64::NEG_INFINITY), "{case}");
        close(earned, get(&case, "percent"), &case.to_string());
    }
}

#[test]
fn translations_as_sacrebleu() {
    for case in cases("translation") {
        let name: String = get(&case, "name");
        let hypotheses: Vec<String> = get(&case, "hypotheses");
        let references: Vec<Vec<String>> = get(&case, "references");
        let version = "|version:2.6.0";

        let expected = &case["bleu"];
        let pairs = || hypotheses.iter().zip(&references);
        let counts: Vec<bleu::Counts> = pairs().map(|(h, r)| bleu::sentence(h, r)).collect();
        let rows = get::<Vec<Vec<u64>>>(expected, "counts");
        for (i, (counts, row)) in counts.iter().zip(rows).enumerate() {
            let lengths = [counts.hypothesis, counts.reference];
            let got = [&lengths[..], &counts.matches, &counts.possible].concat();
            assert_eq!(got, row, "{name}: {:?}", hypotheses[i]);
        }
        let bleu = counts.into_iter().sum::<bleu::Counts>().bleu();
        close(bleu.score, get(expected, "score"), &name);
        close(bleu.brevity, get(expected, "brevity"), &name);
        all_close(&bleu.precisions, &get::<Vec<f64>>(expected, "precisions"), &name);
        let signature = bleu::signature(references[0].len()) + version;
        assert_eq!(signature, get::<String>(expected, "signature"));

        let expected = &case["chrf"];
        let counts: Vec<chrf::Counts> = pairs().map(|(h, r)| chrf::sentence(h, r)).collect();
        let rows = get::<Vec<Vec<u64>>>(expected, "counts");
        for (i, (counts, row)) in counts.iter().zip(rows).enumerate() {
            let got = counts.0.map(|tally| [tally.predicted, tally.gold, tally.correct]);
            assert_eq!(got.concat(), row, "{name}: {:?}", hypotheses[i]);
        }
        close(counts.into_iter().sum::<chrf::Counts>().chrf(), get(expected, "score"), &name);
        let signature = chrf::signature(references[0].len()) + version;
        assert_eq!(signature, get::<String>(expected, "signature"));
    }
}

#[test]
fn intervals_as_by_hand() {
    for case in cases("bootstrap") {
        let (x, y): (Vec<f64>, Vec<f64>) = (get(&case, "x"), get(&case, "y"));
        let bootstrap = Bootstrap {
            seed: get(&case, "seed"),
            resamples: get(&case, "resamples"),
            level: get(&case, "level"),
        };
        let mean = |picked: &[usize]| {
            Some(picked.iter().map(|&i| x[i]).sum::<f64>() / picked.len() as f64)
        };
        let interval = bootstrap.interval(x.len(), mean).unwrap();
        all_close(&[interval.low, interval.high], &get::<Vec<f64>>(&case, "mean"), "mean");
        let of = |values: &[f64], picked: &[usize]| {
            picked.iter().map(|&i| values[i]).collect::<Vec<_>>()
        };
        let correlation = |picked: &[usize]| pearson(&of(&x, picked), &of(&y, picked));
        let interval = bootstrap.interval(x.len(), correlation);
        let expected: Option<Vec<f64>> = get(&case, "pearson");
        assert_eq!(interval.is_some(), expected.is_some());
        if let (Some(interval), Some(expected)) = (interval, expected) {
            all_close(&[interval.low, interval.high], &expected, "pearson");
            assert_eq!(interval.undefined, get::<usize>(&case, "undefined"));
        }
    }
}

#[test]
fn an_interval_covers_as_often_as_it_says() {
    // Of the mean of 40 uniform numbers: 95%, within four standard errors of 400 trials.
    let mut covered = 0;
    for trial in 0..400 {
        let rng = warpwright::rng::Philox::new(trial);
        let values: Vec<f64> = (0..40).map(|i| f64::from(rng.block(0u32, 0, i)[0])).collect();
        let half = f64::from(u32::MAX) / 2.0;
        let mean = |picked: &[usize]| Some(picked.iter().map(|&i| values[i]).sum::<f64>() / 40.0);
        let interval = Bootstrap::default().interval(40, mean).unwrap();
        covered += u32::from(interval.low <= half && half <= interval.high);
    }
    assert!((363..=397).contains(&covered), "{covered} of 400");
}

#[test]
fn without_examples_metrics_are_undefined() {
    let none: [f64; 0] = [];
    assert_eq!(accuracy(&none, &none), None);
    assert_eq!(ByClass::new(2, &[], &[]).accuracy(), None);
    assert_eq!(ByClass::new(2, &[], &[]).matthews(), 0.0);
    assert_eq!((pearson(&none, &none), spearman(&none, &none)), (None, None));
    assert_eq!(mean_squared_error(&none, &none), None);
    assert_eq!(best_threshold(&[]), None);
    assert_eq!((bleu::Counts::default().bleu().score, chrf::Counts::default().chrf()), (0.0, 0.0));
    assert_eq!(Bootstrap::default().interval(0, |_| Some(1.0)), None);
    assert_eq!(Bootstrap::default().interval(3, |_| Some(f64::NAN)), None);
    assert_eq!((shown(None), shown(Some(0.5))), ("undefined".into(), "0.5000".into()));
}

#[test]
fn what_is_not_a_number_has_no_correlation() {
    let (x, y) = ([1.0, f64::NAN, 3.0], [1.0, 2.0, 3.0]);
    assert_eq!((pearson(&x, &y), spearman(&x, &y)), (None, None));
    let infinite = [f64::NEG_INFINITY, 0.0, f64::INFINITY];
    assert_eq!(pearson(&infinite, &y), None);
    close(spearman(&infinite, &y).unwrap(), 1.0, "infinities have ranks");
}

#[test]
fn what_is_no_tag_is_an_error() {
    for tag in ["", "-", "X-PER", "BPER", "b-PER", "PER", "-B", "Ö"] {
        let error = entities(&["O", tag]).unwrap_err();
        assert_eq!(error.0, tag);
        assert!(error.to_string().contains("is no tag"), "{error}");
    }
}

fn words() -> impl Strategy<Value = Vec<String>> {
    vec("[a-c]{1,2}|[.,é東]|the", 0..12)
}

/// Labels of two sides, 4 classes.
fn labels() -> impl Strategy<Value = Vec<(usize, usize)>> {
    vec((0..4usize, 0..4usize), 1..40)
}

proptest! {
    #[test]
    fn identical_texts_score_100(texts in vec("[a-e,.é東]( [a-z0-9.]{1,6}){3,9}", 1..5)) {
        let bleu: bleu::Counts = texts.iter().map(|t| bleu::sentence(t, &[t])).sum();
        prop_assert!(is_close(bleu.bleu().score, 100.0));
        let chrf: chrf::Counts = texts.iter().map(|t| chrf::sentence(t, &[t])).sum();
        prop_assert!(is_close(chrf.chrf(), 100.0));
    }

    #[test]
    fn scores_stay_in_their_ranges(h in "\\PC{0,20}", r in "\\PC{0,20}", s in "\\PC{0,20}") {
        let bleu = bleu::sentence(&h, &[&r, &s]).bleu().score;
        let chrf = chrf::sentence(&h, &[&r, &s]).chrf();
        // Sums of logarithms round.
        prop_assert!((0.0..100.0 + 1e-9).contains(&bleu), "BLEU {}", bleu);
        prop_assert!((0.0..100.0 + 1e-9).contains(&chrf), "chrF {}", chrf);
        for score in [squad::v1(&h, &[&r, &s]), squad::v2(&h, &[&r, &s])] {
            prop_assert!((0.0..=1.0).contains(&score.f1) && score.f1 <= 1.0);
        }
    }

    #[test]
    fn more_references_never_lower_a_sentence(h in words(), r in words(), s in words()) {
        let [h, r, s] = [h, r, s].map(|words| words.join(" "));
        let (one, two) = (bleu::sentence(&h, &[&r]), bleu::sentence(&h, &[&r, &s]));
        prop_assert!(one.matches.iter().zip(two.matches).all(|(one, two)| *one <= two));
        prop_assert!(chrf::sentence(&h, &[&r]).chrf() <= chrf::sentence(&h, &[&r, &s]).chrf());
        prop_assert!(squad::v1(&h, &[&r]).f1 <= squad::v1(&h, &[&r, &s]).f1);
    }

    #[test]
    fn normalising_twice_is_normalising_once(text in "(the|a |An|[a-zé東.,'Σ \u{301}]){0,12}") {
        let once = normalize(&text);
        prop_assert_eq!(normalize(&once), once);
    }

    #[test]
    fn an_answer_f1_is_symmetric_and_blind_to_order(words in words(), gold in words()) {
        let [ours, theirs] = [&words, &gold].map(|words| words.join(" "));
        let score = squad::v2(&ours, &[&theirs]);
        prop_assert!(is_close(score.f1, squad::v2(&theirs, &[&ours]).f1));
        let backwards = words.iter().rev().cloned().collect::<Vec<_>>().join(" ");
        prop_assert!(is_close(score.f1, squad::v2(&backwards, &[&theirs]).f1));
    }

    #[test]
    fn classes_have_no_order(pairs in labels()) {
        let (gold, predicted): (Vec<usize>, Vec<usize>) = pairs.iter().copied().unzip();
        let found = ByClass::new(4, &gold, &predicted);
        let renamed = |labels: &[usize]| labels.iter().map(|k| (k * 3 + 1) % 4).collect::<Vec<_>>();
        let other = ByClass::new(4, &renamed(&gold), &renamed(&predicted));
        prop_assert!(is_close(found.matthews(), other.matthews()));
        prop_assert!(is_close(found.macro_mean().f1, other.macro_mean().f1));
        prop_assert!(is_close(found.micro().f1, found.accuracy().unwrap()));
        // Nor has it a side: precision is the other's recall.
        let turned = ByClass::new(4, &predicted, &gold);
        prop_assert!(is_close(found.matthews(), turned.matthews()));
        prop_assert!(is_close(found.macro_mean().recall, turned.macro_mean().precision));
        prop_assert!(is_close(found.macro_mean().f1, turned.macro_mean().f1));
    }

    #[test]
    fn correlations_ignore_scale_and_order(
        pairs in vec((-9i8..9, -9i8..9), 2..30),
        scale in 0.1..10.0f64,
    ) {
        let (x, y): (Vec<f64>, Vec<f64>) =
            pairs.iter().map(|&(x, y)| (f64::from(x), f64::from(y))).unzip();
        let scaled: Vec<f64> = x.iter().map(|x| scale * x - 3.0).collect();
        let cubes: Vec<f64> = x.iter().map(|x| x.powi(3)).collect();
        let backwards = |values: &[f64]| values.iter().rev().copied().collect::<Vec<_>>();
        let close = |a: Option<f64>, b: Option<f64>| {
            a.is_some() == b.is_some() && is_close(a.unwrap_or(0.0), b.unwrap_or(0.0))
        };
        prop_assert!(close(pearson(&x, &y), pearson(&scaled, &y)));
        prop_assert!(close(pearson(&x, &y), pearson(&backwards(&y), &backwards(&x))));
        prop_assert!(close(spearman(&x, &y), spearman(&cubes, &y)));
    }

    #[test]
    fn well_formed_entities_survive_tagging(
        spans in vec((0..3usize, 0..4usize, 0..3usize), 0..8)
    ) {
        // Gaps, lengths, types: written as BIO and as BIOES, they read alike.
        let (mut bio, mut bioes, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        for (gap, length, kind) in spans.into_iter().filter(|span| span.1 > 0) {
            let kind = ["PER", "LOC", "ORG"][kind];
            bio.extend(vec!["O".to_string(); gap]);
            bioes.extend(vec!["O".to_string(); gap]);
            expected.push((kind, bio.len()..bio.len() + length));
            for i in 0..length {
                let is_last = i + 1 == length;
                let plain = if i == 0 { "B" } else { "I" };
                let fine = match (i, is_last) {
                    (0, true) => "S",
                    (_, true) => "E",
                    _ => plain,
                };
                bio.push(format!("{plain}-{kind}"));
                bioes.push(format!("{fine}-{kind}"));
            }
        }
        for tags in [&bio, &bioes] {
            let found = entities(tags).unwrap();
            let found: Vec<_> = found.into_iter().map(|e| (e.kind, e.tokens)).collect();
            prop_assert_eq!(&found, &expected);
        }
        let right = ByType::sentence(&bio, &bioes).unwrap().total();
        prop_assert_eq!(right.scores().f1, if expected.is_empty() { 0.0 } else { 1.0 });
    }
}
