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
        "drawn at random, as the model has none for this: classifier.weight, classifier.bias",
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
    refuses(&mut lab.program(&args), &["out exists", "name a folder"]);
    refuses(
        &mut lab.program(&["fill", "--model", "out", "a[MASK]"]),
        &["task's head", "pretrained model"],
    );
    // Vectors are of what is under the head.
    succeeds(&mut lab.program(&["embed", "--model", "out", "a day"]));
    // What overflows is no answer.
    models::inflate(&lab.path("again/model.safetensors"), "final_norm.weight");
    for command in [&["predict", "a"][..], &["eval", "task", "--input", "train.csv"]] {
        let mut large = lab.program(command);
        refuses(large.args(["--model", "again"]), &["outputs are not finite numbers", "--dtype"]);
    }
}

#[test]
fn a_head_is_taken_for_the_same_labels_alone() {
    let lab = Lab::new();
    let good = csv(&rows(40, 3));
    lab.write("train.csv", &good);
    let tuned = |model: &str, file: &str, out: &str| {
        let args = ["finetune", "--model", model, "--train", file, "--out", out];
        let slow = ["--task", "classify", "--epochs", "1", "--lr", "1e-9"];
        succeeds(lab.program(&args).args(slow)).0
    };
    let config = |out: &str| json(&fs::read_to_string(lab.path(out).join("config.json")).unwrap());
    const NEW: &str = "drawn at random, as the model has none for this: classifier.weight";
    assert!(tuned(&masked(), "train.csv", "one").contains(NEW));
    // The same labels in another order than the one that files are read in.
    let mut turned = config("one");
    turned["id2label"] = serde_json::json!({"0": "good", "1": "bad"});
    lab.write("one/config.json", turned.to_string());
    assert!(!tuned("one", "train.csv", "two").contains("drawn at random"));
    assert_eq!(config("two")["id2label"], turned["id2label"]);
    // Others, as many and more.
    lab.write("renamed.csv", good.replace(",good", ",fine"));
    assert!(tuned("one", "renamed.csv", "three").contains(NEW));
    lab.write("more.csv", format!("{good}{}", "a day,neither\n".repeat(20)));
    assert!(tuned("one", "more.csv", "four").contains(NEW));
    assert_eq!(config("four")["id2label"]["2"], "neither");
}

/// transformers pads batches of a GPT-2 that classifies, and refuses one without a token for that.
#[test]
fn a_gpt2_that_classifies_names_what_it_is_padded_with() {
    let lab = Lab::new();
    lab.write("train.csv", csv(&rows(40, 3)));
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/eval");
    let args = ["finetune", "--model", model.to_str().unwrap(), "--train", "train.csv"];
    let quick = ["--task", "classify", "--epochs", "1", "--out", "out"];
    succeeds(lab.program(&args).args(quick));
    let read = |file: &str| json(&fs::read_to_string(lab.path("out").join(file)).unwrap());
    assert_eq!(read("config.json")["pad_token_id"], 0);
    let tokenizer = read("tokenizer_config.json");
    assert_eq!(tokenizer["pad_token"], "<|endoftext|>");
    assert_eq!(tokenizer["model_max_length"], 80);
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
    refused("text,label\na,1\nb,\n", &CLASSIFY, &["train.csv, line 3", "label is empty"]);
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
    refused(&good, &["--task", "continue"], &["'continue'", "pretrain --init"]);
    refused(&good, &["--task", "tokens", "--pair", "text"], &["--pair", "leave it away"]);
    refused(&good, &["--task", "guess"], &["'guess'", "classify, tag, regress"]);
    lab.write("dev.csv", "text,label\nfine,splendid\n");
    refused(
        &good,
        &["--task", "classify", "--dev", "dev.csv"],
        &["dev.csv, line 2", "\"splendid\"", "bad, good"],
    );
}

/// A line of JSON.
fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn results(lab: &runs::Lab, out: &str) -> serde_json::Value {
    json(&fs::read_to_string(lab.path(out).join("results.json")).unwrap())
}

/// Of the metric that a task is judged by: its name and value.
fn judged(results: &serde_json::Value) -> (&str, f64) {
    let metric = &results["metrics"][0];
    (metric["metric"].as_str().unwrap(), metric["value"].as_f64().unwrap())
}

const SENTENCES: &str = "-DOCSTART- O\n\nOn O\nday O\nfour B-DATE\nthe O\nold B-ROLE\n\
    captain I-ROLE\nslept O\n\nThe O\nwhale B-BEAST\nsaw O\nthe O\ncaptain B-ROLE\nagain O\n\n\
    day O\nsix B-DATE\n. O\n";

/// Of [`SENTENCES`] in train.txt.
fn of_words<'a>(model: &'a str, dev: &'a str, out: &'a str) -> [&'a str; 11] {
    let train = "train.txt";
    ["finetune", "--model", model, "--task", "tokens", "--train", train, "--dev", dev, "--out", out]
}

#[test]
fn words_are_learnt_and_told_again() {
    let lab = Lab::new();
    lab.write("train.txt", SENTENCES);
    let lines = [
        r#"{"tokens": ["On", "day", "four", "the", "old", "captain", "slept"],
            "labels": ["O", "O", "B-DATE", "O", "B-ROLE", "I-ROLE", "O"]}"#,
        r#"{"tokens": ["The", "whale", "saw", "the", "captain", "again"],
            "labels": ["O", "B-BEAST", "O", "O", "B-ROLE", "O"]}"#,
    ];
    lab.write("dev.jsonl", lines.map(|line| line.replace('\n', "")).join("\n"));
    let model = masked();
    let args = of_words(&model, "dev.jsonl", "out");
    let more = ["--epochs", "200", "--lr", "1e-2", "--batch", "3"];
    succeeds(lab.program(&args).args(more));
    let found = results(&lab, "out");
    assert_eq!(judged(&found), ("entity-f1", 1.0), "{found:#}");
    let count = serde_json::json!({"label": "B-ROLE", "train": 2, "held_out": 2});
    assert!(found["counts"].as_array().unwrap().contains(&count), "{found:#}");
    // Words of a list, and of a text as it stands; places count characters.
    lab.write("new.jsonl", r#"{"tokens": ["The", "whale", "saw", "the", "captain", "again"]}"#);
    let input = ["predict", "--model", "out", "--input", "new.jsonl"];
    let (said, _) = succeeds(&mut lab.program(&input));
    let entities = &json(&said)["entities"];
    let entity = |i: usize| {
        let of = &entities[i];
        let text = of["text"].as_str().unwrap().to_string();
        (of["label"].as_str().unwrap().to_string(), text, of["start"].as_u64().unwrap())
    };
    assert_eq!(entity(0), ("BEAST".into(), "whale".into(), 4), "{said}");
    assert_eq!(entity(1), ("ROLE".into(), "captain".into(), 18), "{said}");
    let (again, _) = succeeds(&mut lab.program(&[
        "predict",
        "--model",
        "out",
        "The whale saw the captain again",
    ]));
    assert_eq!(json(&again)["entities"], *entities);
}

fn question(question: &str, context: &str, answer: Option<&str>) -> String {
    serde_json::json!({ "question": question, "context": context, "answer": answer }).to_string()
}

#[test]
fn answers_are_learnt_and_found_again() {
    let lab = Lab::new();
    let context = "On day four the whale saw the captain. The storm followed on day nine, and the \
        island was near. A letter came at last, of a harpoon that the mast had praised.";
    let rows = [
        ("Who saw the captain?", Some("the whale")),
        ("What followed?", Some("The storm")),
        ("When was that?", Some("day nine")),
        ("What was near?", Some("the island")),
        ("Who was painted?", None),
    ];
    let lines = rows.map(|(asked, answer)| question(asked, context, answer)).join("\n");
    lab.write("train.jsonl", &lines);
    let model = masked();
    let args = [
        "finetune",
        "--model",
        &model,
        "--task",
        "answer",
        "--train",
        "train.jsonl",
        "--dev",
        "train.jsonl",
        "--epochs",
        "100",
        "--lr",
        "1e-2",
        "--batch",
        "4",
        "--longest",
        "48",
        "--stride",
        "8",
        "--out",
        "out",
    ];
    let (shown, _) = succeeds(&mut lab.program(&args));
    assert!(shown.contains("best in hindsight: --null-threshold"), "{shown}");
    let found = results(&lab, "out");
    assert_eq!(judged(&found), ("answer-f1", 1.0), "{found:#}");
    assert_eq!(found["metrics"][1]["value"], 1.0);
    // The same from rows, from SQuAD's JSON and from the command line.
    let asked = |args: &[&str]| -> Vec<serde_json::Value> {
        let base = ["predict", "--model", "out", "--longest", "48", "--stride", "8"];
        let given = [&base[..], &["--null-threshold", "0"], args].concat();
        succeeds(&mut lab.program(&given)).0.lines().map(json).collect()
    };
    let said = asked(&["--input", "train.jsonl"]);
    let answers: Vec<&str> = said.iter().map(|line| line["answer"].as_str().unwrap()).collect();
    assert_eq!(answers, rows.map(|(_, answer)| answer.unwrap_or("")));
    assert_eq!(said[2]["start"], context.find("day nine").unwrap());
    let qas: Vec<serde_json::Value> =
        rows.iter().map(|(q, _)| serde_json::json!({"question": q, "answers": []})).collect();
    let squad = serde_json::json!({"data": [{"paragraphs": [{"context": context, "qas": qas}]}]});
    // With the mark that some editors put first.
    lab.write("squad.json", format!("\u{feff}{squad}"));
    assert_eq!(asked(&["--input", "squad.json"]), said);
    // Alone it may be added up in another order.
    let [alone] = &asked(&["--with", context, rows[3].0])[..] else { panic!("not one answer") };
    for key in ["question", "answer", "start", "end"] {
        assert_eq!(alone[key], said[3][key]);
    }
    for key in ["probability", "doubt"] {
        let [one, other] = [alone, &said[3]].map(|line| line[key].as_f64().unwrap());
        assert!((one - other).abs() <= 1e-5 * other.abs(), "{key}: {one} and {other}");
    }
    refuses(&mut lab.program(&["predict", "--model", "out", "Who?"]), &["context with --with"]);
}

#[test]
fn answers_that_are_astray_are_counted() {
    let lab = Lab::new();
    let asked = |day: usize, answer: &str| {
        question("Who?", &format!("on day {day} the whale saw the captain"), Some(answer))
    };
    let (good, bad) = (|day| asked(day, "the whale"), |day| asked(day, "Ahab"));
    let model = masked();
    let finetune = |text: &str| {
        lab.write("train.jsonl", text);
        lab.program(&[
            "finetune",
            "--model",
            &model,
            "--task",
            "answer",
            "--train",
            "train.jsonl",
            "--epochs",
            "1",
            "--split",
            "0.4",
            "--out",
            "out",
        ])
    };
    let (_, said) = succeeds(&mut finetune(&[good(1), bad(2), good(3), bad(4)].join("\n")));
    let told = "2 answers are not where they should be in their contexts, the first of line 2";
    assert!(said.contains(told), "{said}");
    fs::remove_dir_all(lab.path("out")).unwrap();
    refuses(&mut finetune(&[bad(1), bad(2)].join("\n")), &["no question's answer is in its"]);
    // Questions of one context are not on both sides.
    let apart = ["nothing to learn from or to measure", "--dev"];
    refuses(&mut finetune(&[good(1), good(1), good(1)].join("\n")), &apart);
}

#[test]
fn labels_that_nobody_knows_and_files_of_another_kind() {
    let lab = Lab::new();
    let model = masked();
    let refused = |task: &str, train: &str, text: &str, parts: &[&str]| {
        lab.write(train, text);
        let args = ["--task", task, "--train", train, "--out", "no", "--split", "0.5"];
        refuses(&mut lab.program(&[&["finetune", "--model", &model], &args[..]].concat()), parts);
        assert!(!lab.path("no").exists() && !lab.path("no.partial").exists());
    };
    refused("tokens", "a.txt", "On O\nday\n", &["a.txt, line 2", "no label"]);
    refused("tokens", "a.txt", "On\tO\nday\t\n", &["a.txt, line 2", "no label"]);
    refused("tokens", "a.txt", "On O\n\nday O\n", &["one label alone"]);
    refused("tokens", "a.txt", "\n\n", &["a.txt has no rows"]);
    refused("tokens", "a.txt", "\u{feff}-DOCSTART- O\r\n", &["a.txt has no rows"]);
    let uneven = r#"{"tokens": ["a", "b"], "labels": ["O"]}"#;
    refused("tokens", "a.jsonl", uneven, &["a.jsonl, line 1", "2 words, but 1 labels"]);
    let text = r#"{"tokens": "a b", "labels": ["O"]}"#;
    refused("tokens", "a.jsonl", text, &["tokens is not a list of names"]);
    let unnamed = r#"{"tokens": ["a", "b"], "labels": ["O", ""]}"#;
    refused("tokens", "a.jsonl", unnamed, &["a.jsonl, line 1", "labels has an empty one"]);
    let flagged = "{\"text\": \"a\", \"label\": [\"x\"]}\n{\"text\": \"b\", \"label\": [\"\"]}";
    refused("tag", "a.jsonl", flagged, &["a.jsonl, line 2", "label has an empty one"]);
    let uneven = "{\"text\": \"a\", \"label\": 1}\n{\"text\": \"b\"}";
    refused("classify", "a.jsonl", uneven, &["a.jsonl, line 2", "no \"label\" as in other rows"]);
    refused("answer", "a.json", "{\"data\": 3}", &["a.json is not SQuAD's JSON", "invalid type"]);
    refused("answer", "a.csv", "question,context\na,b\n", &["no column \"answer\""]);
    let nowhere = "question,context,answer,answer_start\na,b,b,x\n";
    refused("answer", "a.csv", nowhere, &["line 2", "is no number of a character"]);
    refused("answer", "a.txt", "", &["neither .csv, .tsv nor .jsonl"]);
    lab.write("dev.txt", "day B-SHIP\n");
    lab.write("train.txt", SENTENCES);
    let known = ["dev.txt, line 1", "\"B-SHIP\" is none of the model's: B-BEAST, B-DATE"];
    refuses(&mut lab.program(&of_words(&model, "dev.txt", "no")), &known);
    let causal = causal();
    lab.write("train.jsonl", "{\"prompt\": \"a\", \"completion\": \"\"}\n");
    let args = ["finetune", "--model", &causal, "--task", "complete", "--train", "train.jsonl"];
    refuses(&mut lab.program(&args), &["train.jsonl, line 1", "completion is empty"]);
}

/// The vocabulary of a data set.
fn vocabulary(lab: &runs::Lab, shards: &str) -> serde_json::Value {
    json(&fs::read_to_string(lab.path(shards).join("dataset.json")).unwrap())["vocabulary"].clone()
}

#[test]
fn models_that_cannot_be_finetuned() {
    let lab = Lab::new();
    lab.write("train.csv", csv(&rows(40, 3)));
    let (masked, causal) = (masked(), causal());
    let refused = |model: &str, parts: &[&str]| {
        let args = finetune(model, &["--task", "classify", "--out", "no"]);
        refuses(&mut lab.program(&args), parts);
        assert!(!lab.path("no").exists() && !lab.path("no.partial").exists());
    };
    let llama = copied(&lab, &masked, "llama").join("config.json");
    let config = fs::read_to_string(&llama).unwrap();
    fs::write(&llama, config.replace("\"modernbert\"", "\"llama\"")).unwrap();
    refused("llama", &["llama", "model_type", "gpt2, bert"]);
    // The first weight, after the header and its length, is made NaN.
    let weights = copied(&lab, &masked, "astray").join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let first = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[first..first + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&weights, bytes).unwrap();
    refused(
        "astray",
        &["not numbers", "tensor model.embeddings.tok_embeddings.weight", "checkpoint"],
    );
    let end = fs::metadata(&weights).unwrap().len() - 100;
    fs::OpenOptions::new().write(true).open(&weights).unwrap().set_len(end).unwrap();
    refused("astray", &["truncated"]);
    // A tokenizer of more tokens than the model has.
    let other = copied(&lab, &masked, "other");
    let args = ["data", "tokenize", "corpus.txt", "--vocab-size", "400", "--out", "shards"];
    succeeds(&mut lab.program(&args));
    fs::copy(lab.path("shards/tokenizer.json"), other.join("tokenizer.json")).unwrap();
    refused("other", &["beyond the vocabulary of 300", "--tokenizer"]);
    // On request the model takes it, and longer sequences.
    let row = "whale ".repeat(100);
    lab.write("train.csv", format!("{}{row},good\n", csv(&rows(40, 3))));
    let grown = [
        "--task",
        "classify",
        "--out",
        "grown",
        "--tokenizer",
        "shards",
        "--positions",
        "256",
        "--longest",
        "256",
    ];
    let (_, said) = succeeds(&mut lab.program(&finetune(&masked, &grown)));
    assert!(said.contains("are new to it") && !said.contains("were cut"), "{said}");
    let config = json(&fs::read_to_string(lab.path("grown/config.json")).unwrap());
    assert_eq!(
        (&config["vocab_size"], &config["max_position_embeddings"]),
        (&vocabulary(&lab, "shards"), &256.into())
    );
    succeeds(&mut lab.program(&["predict", "--model", "grown", "a blessed day"]));
    let (_, said) = succeeds(&mut lab.program(&finetune(
        &masked,
        &["--task", "classify", "--out", "short", "--longest", "256"],
    )));
    let told = "1 rows were cut to 64 tokens (the model takes no more: --positions makes it)";
    assert!(said.contains(told), "{said}");
    let heads = finetune(&causal, &["--task", "answer", "--out", "no", "--class-weights"]);
    refuses(&mut lab.program(&heads), &["train.csv has no column \"question\""]);
    refuses(&mut lab.program(&["predict", "--model", &masked, "x"]), &["no task's head"]);
    let kernels = finetune(&masked, &["--task", "classify", "--device", "emulator"]);
    refuses(&mut lab.program(&kernels), &["multiples of 16", "--device cpu"]);
}

#[test]
fn a_model_goes_on_with_other_text() {
    let lab = Lab::new();
    let masked = masked();
    let go_on = |more: &[&str]| {
        let mut command = lab.program(&["pretrain", "--threads", "1", "--init", &masked]);
        for set in runs::SMALL.iter().filter(|set| !set.starts_with("model.")) {
            command.args(["--set", set]);
        }
        command.args(more);
        command
    };
    let text = ["--set", "data.text=[\"corpus.txt\"]"];
    succeeds(&mut go_on(&[&text[..], &["--out", "on"]].concat()));
    // It begins where the other ended.
    let evaluated = |run: &Path| runs::records(run, "eval");
    let before = evaluated(Path::new(&masked));
    let after = evaluated(&lab.path("on"));
    let (last, first) = (&before[before.len() - 1]["loss"], &after[0]["loss"]);
    assert_eq!(first, last);
    let [ours, theirs] = ["on", &masked].map(|run| lab.path(run).join("checkpoints/best"));
    let tokenizer = |run: &Path| fs::read(run.join("tokenizer.json")).unwrap();
    assert!(tokenizer(&ours) == tokenizer(&theirs));
    // With general data, another tokenizer and longer sequences; and on from a kill.
    lab.write("general.txt", "A sea is not a mast.\n\n\nNor is a storm a letter of the whale.");
    let args = ["data", "tokenize", "corpus.txt", "--vocab-size", "400", "--heldout", "0.2"];
    succeeds(lab.program(&args).args(["--out", "shards"]));
    let more = [
        "--tokenizer",
        "shards",
        "--positions",
        "100",
        "--set",
        "data.shards=shards",
        "--set",
        "data.general=general.txt",
        "--set",
        "data.general_share=0.25",
        "--out",
        "grown",
    ];
    let (_, said) = succeeds(&mut go_on(&more));
    assert!(said.contains("2 documents, 25% of the batches"), "{said}");
    assert!(said.contains("are new to it"), "{said}");
    let config = json(&fs::read_to_string(lab.path("grown/checkpoints/best/config.json")).unwrap());
    assert_eq!(
        (&config["vocab_size"], &config["max_position_embeddings"]),
        (&vocabulary(&lab, "shards"), &100.into())
    );
    succeeds(&mut lab.resume("grown"));
    let out = ["--out", "no"];
    refuses(&mut go_on(&out), &["goes on with text of yours"]);
    let shards = ["--set", "data.shards=shards"];
    refuses(&mut go_on(&[&shards[..], &out].concat()), &["not of the tokenizer", "--tokenizer"]);
    let wider = ["--set", "model.width=32"];
    refuses(&mut go_on(&[&text[..], &wider, &out].concat()), &["`width`", "context and dropout"]);
    let general = ["--set", "data.general=general.txt"];
    refuses(&mut go_on(&[&text[..], &general, &out].concat()), &["data.general_share is 0"]);
    let causal = ["--objective", "causal"];
    refuses(&mut go_on(&[&text[..], &causal, &out].concat()), &["the objective is causal"]);
    assert!(!lab.path("no").join("checkpoints").exists());
}

#[test]
fn completions_are_learnt_from_their_prompts() {
    let lab = Lab::new();
    let rows: String = (0..12)
        .map(|i| {
            let (asked, said) =
                [("whale", "sea"), ("captain", "mast"), ("letter", "island")][i % 3];
            format!("{{\"prompt\": \"{asked} of day {i}:\", \"completion\": \" {said}\"}}\n")
        })
        .collect();
    lab.write("train.jsonl", rows);
    let (causal, masked) = (causal(), masked());
    let args = |model: &str| {
        let text = format!(
            "finetune --model {model} --task complete --train train.jsonl --dev train.jsonl \
             --epochs 40 --lr 1e-2 --batch 6 --out out"
        );
        text.split_whitespace().map(str::to_string).collect::<Vec<_>>()
    };
    let run =
        |model: &str| lab.program(&args(model).iter().map(String::as_str).collect::<Vec<_>>());
    refuses(&mut run(&masked), &["--task complete is what causal models do"]);
    let (shown, _) = succeeds(&mut run(&causal));
    let found = results(&lab, "out");
    let (metric, value) = judged(&found);
    assert!(metric == "perplexity" && value < 1.5, "{shown}");
    // It is a language model still.
    let prompt = ["generate", "--model", "out", "--prompt", "captain of day 4:"];
    let greedy = ["--temperature", "0", "--length", "8"];
    let (text, _) = succeeds(&mut lab.program(&[&prompt[..], &greedy].concat()));
    assert!(text.contains("captain of day 4: mast"), "{text}");
    refuses(&mut lab.program(&["predict", "--model", "out", "x"]), &["no task's head", "finetune"]);
}
