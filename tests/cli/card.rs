//! Model cards: true figures, and nothing that nobody knows.

use crate::*;

fn card(lab: &Lab, folder: &str) -> String {
    fs::read_to_string(lab.path(folder).join("README.md")).unwrap()
}

/// The lines between the first two `---`.
fn front(card: &str) -> Vec<&str> {
    let mut lines = card.lines();
    assert_eq!(lines.next(), Some("---"));
    lines.take_while(|line| *line != "---").collect()
}

#[test]
fn a_run_s_card_tells_what_the_run_wrote_down() {
    let lab = Lab::new();
    let run = masked();
    succeeds(&mut lab.program(&["export", &run, "--to", "plain"]));
    let text = card(&lab, "plain");
    let lines = front(&text);
    assert!(lines.contains(&"pipeline_tag: \"fill-mask\""), "{text}");
    assert!(!text.contains("license:") && text.contains("License: unknown"), "{text}");
    assert!(text.contains("Licence of the data: unknown") && text.contains("Not measured."));
    // The held-out loss of the exported checkpoint, to the last digit.
    let best = fs::read_to_string(format!("{run}/checkpoints/best/state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&best).unwrap();
    let step = &state["progress"]["step"];
    let evals = runs::records(Path::new(&run), "eval");
    let eval = evals.iter().rev().find(|eval| eval["step"] == *step).unwrap();
    let loss =
        lines.iter().position(|line| line.contains("name: \"loss [nats a token]\"")).unwrap();
    assert_eq!(lines[loss + 1], format!("      value: {}", eval["loss"]));
    assert!(text.contains(&format!("| steps | {step} in this model, of 20 planned |")), "{text}");
    // The data: the manifest's counts and fingerprint, and no folder of this machine.
    let manifest = fs::read_to_string(format!("{run}/data/dataset.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let (train, print) = (&manifest["train"], manifest["fingerprint"].as_str().unwrap());
    assert!(text.contains(&format!("Fingerprint of the tokenizer: `{print}`")), "{text}");
    assert!(text.contains(&format!("| training | {} |", train["documents"])), "{text}");
    assert!(text.contains("All text is from one source, `corpus.txt`"), "{text}");
    assert!(text.contains("Letters by script, in a sample of") && text.contains("Latin 100.0%"));
    assert!(text.contains("never occur in it") && text.contains("masked: 15% of tokens by token"));
    assert!(text.contains("text = [\"corpus.txt\"]") && !text.contains(&run), "{text}");

    // What a person adds, and what `eval` measured.
    let rows = "{\"question\": \"On\", \"choices\": [\"day\", \"sea\"], \"answer\": 0}\n".repeat(3);
    lab.write("q.jsonl", rows);
    let eval = ["eval", "choice", "--model", &run, "--input", "q.jsonl", "--out", "eval.json"];
    succeeds(&mut lab.program(&eval));
    let more = ["--license", "apache-2.0", "--language", "en,la", "--dataset", "user/whales"];
    let evaluation = ["--evaluation", "eval.json", "--data-license", "public domain: \"all\""];
    let bench = r#"{"device": {"name": "H200"}, "step": {"energy": {"per_token": 0.002}}}"#;
    lab.write("bench.json", bench);
    let full = ["export", &run, "--to", "full", "--bench", "bench.json"];
    succeeds(lab.program(&full).args(more).args(evaluation));
    let text = card(&lab, "full");
    let lines = front(&text);
    for line in [
        "license: \"apache-2.0\"",
        "- \"en\"",
        "- \"la\"",
        "- \"user/whales\"",
        "      name: \"q.jsonl, 3 questions\"",
        "      type: \"choice\"",
    ] {
        assert!(lines.contains(&line), "{line}: {text}");
    }
    assert!(text.contains("Licence of the data: public domain: \"all\"."));
    // 20 steps of 128 tokens.
    assert!(
        text.contains("J a trained token on H200") && text.contains("so about 5.12 J"),
        "{text}"
    );
    // What was counted in the run itself is truer.
    let copy = lab.path("copy");
    assert!(
        Command::new("cp")
            .arg("-r")
            .args([run.as_ref(), copy.as_os_str()])
            .status()
            .unwrap()
            .success()
    );
    let log = copy.join("metrics.jsonl");
    let counted = format!("{{\"kind\":\"energy\",\"step\":{step},\"joules\":64.0}}\n");
    fs::write(&log, fs::read_to_string(&log).unwrap() + &counted).unwrap();
    succeeds(&mut lab.program(&["export", "copy", "--to", "counted", "--bench", "bench.json"]));
    let said = "64 J for its training and held-out losses, 0.025 J a trained token";
    assert!(card(&lab, "counted").contains(said), "{}", card(&lab, "counted"));
    let value = lines.iter().filter(|line| line.trim() == "name: \"accuracy, total\"").count();
    assert!(value == 1 && text.contains("| accuracy, total | "), "{text}");
}

#[test]
fn a_finetuned_model_s_card_has_its_results() {
    let lab = Lab::new();
    let model = masked();
    let rows: String = (0..40)
        .map(|i| format!("{},{}\n", ["fine sea", "dull mast", "old whale"][i % 3], i % 3))
        .collect();
    lab.write("rows.csv", format!("text,label\n{rows}"));
    let finetune = ["finetune", "--task", "classify", "--train", "rows.csv", "--epochs", "1"];
    let more = ["--model", &model, "--out", "tuned", "--base-model", "user/whale"];
    succeeds(lab.program(&finetune).args(more));
    let results = fs::read_to_string(lab.path("tuned/results.json")).unwrap();
    let results: serde_json::Value = serde_json::from_str(&results).unwrap();
    succeeds(&mut lab.program(&["export", "tuned", "--to", "again"]));
    for folder in ["tuned", "again"] {
        let text = card(&lab, folder);
        let lines = front(&text);
        assert!(lines.contains(&"pipeline_tag: \"text-classification\""), "{text}");
        let value = format!("      value: {}", results["metrics"][0]["value"]);
        assert!(lines.contains(&value.as_str()), "{value}: {text}");
        let [low, high] = ["low", "high"].map(|end| results["metrics"][0][end].as_f64().unwrap());
        assert!(text.contains(&format!("{low:.4} to {high:.4} |")), "{text}");
        for part in [
            "| `rows.csv` | 40 | `",
            "36 rows to learn from, 4 held out",
            "It had most examples of ",
            "| learning rate | 0.00003 |",
            "| warmup share | 0.06 |",
            "| hidden dropout | 0.0 |",
            "| pooling | first |",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("stride") && !text.contains("over seeds"), "{text}");
        for count in results["counts"].as_array().unwrap() {
            let [label, train, held] = ["label", "train", "held_out"].map(|key| &count[key]);
            let row = format!("| {} | {train} | {held} |", label.as_str().unwrap());
            assert!(text.contains(&row), "{row}: {text}");
        }
        let base = if folder == "tuned" { "user/whale" } else { "`masked`" };
        assert!(text.contains(&format!("finetuned from {base} with")), "{text}");
    }
    let of = |key: &str| -> Option<u64> {
        results["counts"].as_array().unwrap().iter().map(|count| count[key].as_u64()).sum()
    };
    assert_eq!((of("train"), of("held_out")), (Some(36), Some(4)));
    // The digest is that of the bytes.
    let bytes = fs::read(lab.path("rows.csv")).unwrap();
    let print = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&bytes));
    assert_eq!(results["data"][0]["xxh3"], print);
}

#[test]
fn a_card_tells_each_seed_and_whether_questions_may_have_no_answer() {
    let lab = Lab::new();
    let model = masked();
    let rows = |none: bool| -> String {
        let row = |i: usize| {
            let answer = if none && i.is_multiple_of(3) { "" } else { "the whale" };
            format!("Who?,on day {i} the whale saw the captain,{answer}\n")
        };
        (0..12).map(row).collect()
    };
    let tune = |out: &str, none: bool| {
        lab.write("asked.csv", format!("question,context,answer\n{}", rows(none)));
        let args = ["finetune", "--task", "answer", "--train", "asked.csv", "--dev", "asked.csv"];
        let more = ["--model", &model, "--epochs", "1", "--seeds", "1,2", "--out", out];
        succeeds(lab.program(&args).args(more));
        card(&lab, out)
    };
    let always = tune("always", false);
    assert!(always.contains("in the text, even where none is."), "{always}");
    assert!(always.contains("| without one | 0 | 0 |"), "{always}");
    let some = tune("some", true);
    assert!(!some.contains("even where none is") && some.contains("that there is none"), "{some}");
    for row in [
        "| with an answer | 8 | 8 |",
        "| without one | 4 | 4 |",
        "| seed | answer-f1 |",
        "| mean ± deviation | ",
        "| stride | 128 |",
        "| null threshold | 0.0 |",
    ] {
        assert!(some.contains(row), "{row}: {some}");
    }
}

#[test]
fn a_model_of_unknown_origin_says_so_and_bad_sources_are_refused() {
    let lab = Lab::new();
    let model = format!("{}/checkpoints/best", masked());
    succeeds(&mut lab.program(&["export", &model, "--to", "out"]));
    let text = card(&lab, "out");
    assert!(text.contains("how it was trained is unknown here"), "{text}");
    assert!(
        text.contains("## Data\n\nUnknown here.") && text.contains("Not measured, or not known")
    );
    assert!(!text.contains("model-index"), "{text}");
    let refused = |more: &[&str], parts: &[&str]| {
        refuses(lab.program(&["export", &model, "--to", "x"]).args(more), parts);
        assert!(!lab.path("x").exists() && !lab.path("x.partial").exists());
    };
    refused(&["--evaluation", "none.json"], &["none.json", "No such file"]);
    lab.write("torn.json", "{");
    refused(&["--evaluation", "torn.json"], &["torn.json is not JSON", "`warpwright eval"]);
    lab.write("empty.json", "{}");
    refused(&["--evaluation", "empty.json"], &["empty.json has no metrics"]);
    refused(&["--bench", "empty.json"], &["empty.json has no energy", "bench step --json"]);
}
