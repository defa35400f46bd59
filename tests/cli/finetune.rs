//! `finetune` from files to a model that predicts.

use crate::*;

/// Rows whose class a single word decides, with others around it.
fn rows(count: usize, seed: u64) -> Vec<(String, &'static str)> {
    let mut state = seed;
    let mut below = |n: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let others = ["day", "whale", "sea", "ship", "captain", "night"];
    let row = |_| {
        let good = below(2) == 0;
        let mut words: Vec<&str> = (0..4 + below(6)).map(|_| others[below(others.len())]).collect();
        words.insert(below(words.len()), if good { "blessed" } else { "cursed" });
        (words.join(" "), if good { "good" } else { "bad" })
    };
    (0..count).map(row).collect()
}

fn csv(rows: &[(String, &str)]) -> String {
    let lines = rows.iter().map(|(text, label)| format!("{text},{label}\n"));
    ["text,label\n".to_string()].into_iter().chain(lines).collect()
}

const QUICK: [&str; 6] = ["--epochs", "6", "--lr", "3e-3", "--batch", "16"];

const CLASSIFY: [&str; 2] = ["--task", "classify"];

fn finetune<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let base = ["finetune", "--model", model, "--train", "train.csv"];
    [&base[..], &QUICK, more].concat()
}

#[test]
fn classes_are_learnt_and_the_model_tells_them_again() {
    let lab = Lab::new();
    lab.write("train.csv", csv(&rows(300, 7)));
    let model = masked();
    let args = finetune(&model, &["--task", "classify", "--out", "out", "--split", "0.3"]);
    let (shown, _) = succeeds(&mut lab.program(&args));
    for part in [
        "210 rows to learn from, 90 held out",
        "epoch 6",
        "was (row), said (column)",
        "drawn at random: classifier.weight, classifier.bias",
        "of no use to the task: decoder.bias",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let results: serde_json::Value =
        serde_json::from_slice(&fs::read(lab.path("out/results.json")).unwrap()).unwrap();
    let accuracy = &results["metrics"][0];
    assert_eq!(
        (accuracy["metric"].as_str(), &results["labels"][0]),
        (Some("accuracy"), &"bad".into())
    );
    // Chance is a half; the interval's lower end is far above.
    assert!(accuracy["low"].as_f64().unwrap() > 0.8, "{results:#}");
    assert_eq!(results["worst"].as_array().unwrap().len(), 20);
    // The same again, to the bit.
    let again = finetune(&model, &["--task", "classify", "--out", "again", "--split", "0.3"]);
    succeeds(&mut lab.program(&again));
    let weights = |out: &str| fs::read(lab.path(out).join("model.safetensors")).unwrap();
    assert!(weights("out") == weights("again"));
    refuses(&mut lab.program(&args), &["out exists", "--out"]);
    refuses(
        &mut lab.program(&["fill", "--model", "out", "a[MASK]"]),
        &["task's head", "pretrained model"],
    );
}

#[test]
fn data_that_cannot_be_learnt_from() {
    let lab = Lab::new();
    let model = masked();
    let refused = |text: &str, more: &[&str], parts: &[&str]| {
        lab.write("train.csv", text);
        let args = finetune(&model, &[&["--out", "no"], more].concat());
        refuses(&mut lab.program(&args), parts);
        assert!(!lab.path("no").exists() && !lab.path("no.partial").exists());
    };
    let good = csv(&rows(40, 3));
    refused("text,label\na,1\nb,1\n", &CLASSIFY, &["one label alone", "\"1\""]);
    refused("text,label\na,1\nb,2,3\n", &CLASSIFY, &["train.csv, line 3", "3 fields"]);
    refused(
        &good,
        &["--task", "classify", "--label", "stars"],
        &["no column \"stars\"", "text, label"],
    );
    refused(&good, &["--task", "regress"], &["line 2", "is no number"]);
    refused(&good, &["--task", "classify", "--split", "1.5"], &["--split 1.5", "between 0 and 1"]);
    refused(&good, &["--task", "classify", "--longest", "2"], &["--longest 2", "give more"]);
    refused(&good, &["--task", "classify", "--freeze", "99"], &["--freeze 99", "layers"]);
    refused(&good, &["--task", "classify", "--metric", "pearson"], &["--metric", "accuracy"]);
    lab.write("dev.csv", "text,label\nfine,splendid\n");
    refused(
        &good,
        &["--task", "classify", "--dev", "dev.csv"],
        &["dev.csv, line 2", "\"splendid\"", "bad, good"],
    );
}
