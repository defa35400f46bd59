//! Every flag of `finetune` does something: a quick run with each, beside one without.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::Value;

use crate::*;

/// Rows of a few words, one of which decides; one class is three times the other.
fn rows() -> Vec<(String, &'static str)> {
    let others = ["day", "whale", "sea", "ship", "captain", "night", "storm"];
    let row = |i: usize| {
        let (word, class) =
            if i.is_multiple_of(4) { ("cursed", "bad") } else { ("blessed", "good") };
        (format!("{} {word} {}", others[i % 7], others[(i * i + 3) % 7]), class)
    };
    (0..40).map(row).collect()
}

/// The files that the table's tasks read.
fn lab() -> Lab {
    let lab = Lab::new();
    let of = |line: &dyn Fn(usize, &str, &str) -> String| -> String {
        rows().iter().enumerate().map(|(i, (text, class))| line(i, text, class)).collect()
    };
    lab.write(
        "rows.csv",
        format!("text,label\n{}", of(&|_, text, class| format!("{text},{class}\n"))),
    );
    let tags = |i: usize| ["", "odd|few", "even"][i % 3];
    lab.write(
        "tags.csv",
        format!("text,tags\n{}", of(&|i, text, _| format!("{text},{}\n", tags(i)))),
    );
    let pair = |i: usize, text: &str, _: &str| format!("{text}\tthe \"mast {i}\t{}.5\n", i % 5);
    lab.write("pairs.tsv", format!("one\tother\tscore\n{}", of(&pair)));
    lab
}

/// What a run left.
struct Done {
    shown: String,
    results: Value,
    config: Value,
    weights: Weights,
}

/// The bytes of each tensor.
type Weights = BTreeMap<String, Vec<u8>>;

fn weights(folder: &Path) -> Weights {
    let bytes = fs::read(folder.join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    file.tensors().into_iter().map(|(name, t)| (name, t.data().to_vec())).collect()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A quick finetuning; `flags` may take the place of its own.
fn finetune(lab: &Lab, model: &str, out: &str, flags: &str) -> Done {
    let mut args = vec!["finetune", "--model", model, "--out", out];
    args.extend(flags.split_whitespace());
    for (flag, own) in [
        ("--task", "classify"),
        ("--train", "rows.csv"),
        ("--epochs", "1"),
        ("--batch", "8"),
        ("--lr", "1e-3"),
        ("--split", "0.3"),
    ] {
        if !args.contains(&flag) {
            args.extend([flag, own]);
        }
    }
    let (shown, _) = succeeds(&mut lab.program(&args));
    let folder = lab.path(out);
    let [results, config] = ["results.json", "config.json"].map(|name| json(&folder.join(name)));
    Done { shown, results, config, weights: weights(&folder) }
}

/// How far the tensors whose names hold `part` are from where they began: √Σd².
fn moved(from: &Weights, to: &Weights, part: &str) -> f64 {
    let floats = |bytes: &[u8]| -> Vec<f32> {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let both = to.iter().filter_map(|(name, after)| {
        name.contains(part).then_some(())?;
        Some((floats(from.get(name)?), floats(after)))
    });
    let squares =
        both.flat_map(|(a, b)| a.into_iter().zip(b)).map(|(a, b)| f64::from(a - b).powi(2));
    squares.sum::<f64>().sqrt()
}

/// Whether a run did what its flags say: the model before, the run without them, the run.
type Check = fn(&Weights, &Done, &Done);

const FLAGS: [(&str, Check); 13] = [
    ("--task tag --train tags.csv --label tags", |_, _, done| {
        assert_eq!(done.results["labels"], serde_json::json!(["even", "few", "odd"]));
        assert_eq!(done.results["metrics"][0]["metric"], "micro-f1");
        assert_eq!(done.config["problem_type"], "multi_label_classification");
        // Of 40 rows 13 have each.
        let count = &done.results["counts"][1];
        let both = ["train", "held_out"].map(|part| count[part].as_u64().unwrap());
        assert_eq!((count["label"].as_str(), both[0] + both[1]), (Some("few"), 13));
    }),
    ("--task regress --train pairs.tsv --text one --pair other --label score", |_, _, done| {
        assert_eq!(done.results["metrics"][0]["metric"], "pearson");
        assert_eq!(done.config["problem_type"], "regression");
        let text = done.results["worst"][0]["text"].as_str().unwrap();
        assert!(text.contains(" / the \"mast "), "{text}");
        assert!(done.results["worst"][0]["right"].as_f64().unwrap().fract() == 0.5);
    }),
    ("--task regress --train pairs.tsv --text one --label score --seeds 1,2", |_, _, done| {
        let value = |i: usize| done.results["seeds"][i][1].as_f64().unwrap();
        let (a, b) = (value(0), value(1));
        assert_ne!(a, b);
        let over = &done.results["over_seeds"];
        let near = |key: &str, value: f64| (over[key].as_f64().unwrap() - value).abs() < 1e-12;
        assert!(near("mean", (a + b) / 2.0), "{over}");
        assert!(near("deviation", (a - b).abs() / 2f64.sqrt()), "{over}");
        assert_eq!(done.results["seed"], if a > b { 1 } else { 2 });
        assert_eq!(done.results["metrics"][0]["value"].as_f64(), Some(a.max(b)));
    }),
    ("--optimizer sgd", |base, plain, done| {
        // AdamW takes about as long a step everywhere; SGD's are as small as the gradient.
        let [ours, theirs] = [done, plain].map(|run| moved(base, &run.weights, "layers."));
        assert!(0.0 < ours && ours < 0.5 * theirs, "{ours} {theirs}");
    }),
    ("--optimizer rmsprop", |base, plain, done| {
        // Its first steps are √(1/(1−α)) = 10 times as long.
        let [ours, theirs] = [done, plain].map(|run| moved(base, &run.weights, "layers."));
        assert!(ours > 1.5 * theirs, "{ours} {theirs}");
    }),
    ("--freeze 1", |base, plain, done| {
        for part in ["embeddings", "layers.0."] {
            assert!(moved(base, &plain.weights, part) > 0.0, "{part}");
            let names: Vec<&String> = base.keys().filter(|name| name.contains(part)).collect();
            assert!(!names.is_empty(), "{part}");
            assert!(names.iter().all(|name| base[*name] == done.weights[*name]), "{part}");
        }
        for (name, before) in base.iter().filter(|(name, _)| name.contains("layers.1.")) {
            assert_ne!(before, &done.weights[name], "{name}");
        }
    }),
    ("--layer-decay 0.1", |base, plain, done| {
        // The upper layer is one below the head, the lower two.
        for (part, rate) in [("layers.1.", 0.1), ("layers.0.", 0.01)] {
            let [ours, theirs] = [done, plain].map(|run| moved(base, &run.weights, part));
            let ratio = ours / theirs / rate;
            assert!((0.3..3.0).contains(&ratio), "{part}: {ours} {theirs}");
        }
    }),
    ("--class-weights", |_, plain, done| {
        // The rarer class weighs more, so the model leans to it: its bias goes up beside.
        let lean = |run: &Done| {
            let bias = &run.weights["classifier.bias"];
            let at = |i: usize| f32::from_le_bytes(bias[4 * i..4 * i + 4].try_into().unwrap());
            at(0) - at(1)
        };
        assert_eq!(done.results["labels"][0], "bad");
        assert!(lean(done) > lean(plain), "{} {}", lean(done), lean(plain));
    }),
    ("--epochs 6 --lr 1e-12 --patience 1", |_, _, done| {
        assert!(done.shown.contains("epoch 2 ") && !done.shown.contains("epoch 3 "));
        assert_eq!(done.results["best_epoch"], 1);
    }),
    ("--epochs 6 --lr 1e-12", |_, _, done| assert!(done.shown.contains("epoch 6 "))),
    ("--weight-decay 100", |_, plain, done| {
        let size = |run: &Done| moved(&zeros(&run.weights), &run.weights, "mlp.Wi");
        assert!(size(done) < 0.99 * size(plain));
    }),
    ("--pooling mean", |_, plain, done| {
        assert_eq!(plain.config["classifier_pooling"], "cls");
        assert_eq!(done.config["classifier_pooling"], "mean");
        assert_ne!(plain.weights, done.weights);
    }),
    ("--metric f1", |_, plain, done| {
        let chosen = |run: &Done| run.results["chosen_by"].as_str().map(str::to_string);
        assert_eq!((chosen(plain), chosen(done)), (Some("accuracy".into()), Some("f1".into())));
    }),
];

fn zeros(weights: &Weights) -> Weights {
    weights.iter().map(|(name, bytes)| (name.clone(), vec![0; bytes.len()])).collect()
}

#[test]
fn every_flag_does_something() {
    let (lab, model) = (lab(), masked());
    let base = weights(&Path::new(&model).join("checkpoints/best"));
    let plain = finetune(&lab, &model, "plain", "");
    for (i, (flags, check)) in FLAGS.iter().enumerate() {
        let done = finetune(&lab, &model, &format!("out-{i}"), flags);
        println!("{flags}");
        check(&base, &plain, &done);
        // A run without them does not pass.
        let without = AssertUnwindSafe(|| check(&base, &plain, &plain));
        assert!(catch_unwind(without).is_err(), "{flags}");
    }
}

#[test]
fn dropouts_are_set_in_every_family() {
    let lab = lab();
    // Hidden states', the embeddings' where that is a number of its own, attention's, and the
    // classifier's where there is one.
    for (preset, hidden, apart, attention, classifier) in [
        (
            "bert-tiny",
            "hidden_dropout_prob",
            "",
            "attention_probs_dropout_prob",
            "classifier_dropout",
        ),
        (
            "roberta-tiny",
            "hidden_dropout_prob",
            "",
            "attention_probs_dropout_prob",
            "classifier_dropout",
        ),
        (
            "albert-tiny",
            "hidden_dropout_prob",
            "",
            "attention_probs_dropout_prob",
            "classifier_dropout_prob",
        ),
        (
            "modernbert-tiny",
            "mlp_dropout",
            "embedding_dropout",
            "attention_dropout",
            "classifier_dropout",
        ),
        ("gpt2-tiny", "resid_pdrop", "embd_pdrop", "attn_pdrop", ""),
    ] {
        let one = ["--set", "train.steps=1", "--preset", preset];
        succeeds(&mut lab.pretrain(preset, &one));
        let plain = finetune(&lab, preset, &format!("{preset}-plain"), "");
        let mut before = plain.weights;
        for (flag, key) in [
            ("--hidden-dropout", hidden),
            ("--attention-dropout", attention),
            ("--dropout", classifier),
        ] {
            let out = format!("{preset}{flag}");
            let args = format!("{flag} 0.5");
            if key.is_empty() {
                let mut all = vec!["finetune", "--model", preset, "--task", "classify"];
                all.extend(["--train", "rows.csv", "--out", &out, flag, "0.5"]);
                refuses(&mut lab.program(&all), &["--dropout: transformers' Gpt2 has none"]);
                continue;
            }
            let done = finetune(&lab, preset, &out, &args);
            assert_eq!(done.config[key], 0.5, "{preset} {flag}");
            if !apart.is_empty() {
                assert_eq!(done.config[apart], 0.0, "{preset} {flag}");
            }
            // Each has weights of its own.
            assert_ne!(done.weights, before, "{preset} {flag}");
            before = done.weights;
        }
    }
}
