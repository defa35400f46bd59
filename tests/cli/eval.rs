//! `eval`: every figure beside transformers' (`tests/golden/eval.py`), and what is refused.

use crate::*;
use serde_json::Value;
use warpwright::device::gpu::{self, Kernels, Place};

/// Relative to the value.
const TOLERANCE: f64 = 1e-9;

fn golden(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).display().to_string()
}

fn expected() -> Value {
    serde_json::from_str(&fs::read_to_string(golden("eval.json")).unwrap()).unwrap()
}

/// What `eval` with these arguments says, and writes.
fn measured(lab: &Lab, args: &[&str]) -> (String, Value) {
    let args = [&["eval"], args, &["--out", "results.json"]].concat();
    let (said, _) = succeeds(&mut lab.program(&args));
    let results = fs::read_to_string(lab.path("results.json")).unwrap();
    (said, serde_json::from_str(&results).unwrap())
}

/// The same of the golden model, in f64.
fn of_golden(lab: &Lab, task: &str, args: &[&str]) -> (String, Value) {
    let model = golden("eval");
    let first = [task, "--model", &model, "--device", "cpu", "--dtype", "f64"];
    measured(lab, &[&first, args].concat())
}

/// A metric's value and its ends.
fn metric(results: &Value, name: &str) -> [f64; 3] {
    let all = results["metrics"].as_array().unwrap();
    let found = all.iter().find(|metric| metric["metric"] == name).unwrap();
    ["value", "low", "high"].map(|part| found[part].as_f64().unwrap_or(f64::NAN))
}

#[track_caller]
fn close(got: f64, want: &Value) {
    let want = want.as_f64().unwrap();
    assert!((got - want).abs() <= TOLERANCE * want.abs().max(1.0), "{got}, not {want}");
}

#[test]
fn rolling_losses_are_transformers() {
    let lab = Lab::new();
    let text = golden("eval/text.txt");
    for case in expected()["rolling"].as_array().unwrap() {
        let stride = case["stride"].to_string();
        let args = ["--text", &text, "--stride", &stride];
        let (said, results) = of_golden(&lab, "loss", &args);
        let tokens = case["tokens"].as_f64().unwrap();
        assert_eq!(results["examples"], case["tokens"]);
        let loss = metric(&results, "loss [nats a token]")[0];
        close(loss * tokens, &case["nll"]);
        close(metric(&results, "perplexity")[0], &loss.exp().into());
        close(metric(&results, "accuracy")[0] * tokens, &case["right"]);
        let bytes = case["bytes"].as_f64().unwrap();
        let bits = case["nll"].as_f64().unwrap() / bytes / 2f64.ln();
        close(metric(&results, "bits a byte")[0], &bits.into());
        assert!(said.contains(&format!("on {tokens} tokens")) && said.contains("wrote"), "{said}");
    }
    // One document less, and the shards that the same text makes.
    lab.write("two.jsonl", "{\"text\": \"Call me Ishmael.\"}\n{\"text\": \"Some years ago\"}\n");
    let (_, all) = of_golden(&lab, "loss", &["--text", "two.jsonl"]);
    let (_, one) = of_golden(&lab, "loss", &["--text", "two.jsonl", "--tokens", "1"]);
    assert_eq!(
        (&all["settings"]["documents"], &one["settings"]["documents"]),
        (&2.into(), &1.into())
    );
    // How many bytes a part has is not known.
    let names = |results: &Value| results["metrics"].to_string();
    assert!(names(&all).contains("bits a byte") && !names(&one).contains("bits a byte"));
    let tokenize = ["data", "tokenize", "two.jsonl", "--heldout", "0", "--out", "two"];
    succeeds(lab.program(&tokenize).args(["--tokenizer", &golden("eval")]));
    let (_, shards) = of_golden(&lab, "loss", &["--shards", "two"]);
    assert_eq!(shards["metrics"], all["metrics"]);
}

#[test]
fn choices_are_judged_as_the_harness_does() {
    let (lab, expected) = (Lab::new(), expected());
    let (input, shots) = (golden("eval/choices.jsonl"), golden("eval/shots.jsonl"));
    let args = ["--input", &input, "--shots", &shots, "--k", "1"];
    let args = [&args[..], &["--template", "Q: {question}\\nA:"]].concat();
    for (more, case) in [(&[][..], "choices"), (&["--bare"][..], "choices_bare")] {
        let (_, results) = of_golden(&lab, "choice", &[&args, more].concat());
        let rows = results["rows"].as_array().unwrap();
        for (row, want) in rows.iter().zip(expected[case].as_array().unwrap()) {
            for (i, want) in want.as_array().unwrap().iter().enumerate() {
                close(row["log_likelihoods"][i].as_f64().unwrap(), &want["log_p"]);
                assert_eq!(row["tokens"][i], want["tokens"]);
            }
        }
        assert_eq!(rows.len(), 4);
        let right = rows.iter().filter(|row| row["by_token"] == row["right"]).count();
        let [value, low, high] = metric(&results, "accuracy, per token");
        assert_eq!(value, right as f64 / 4.0);
        assert!(low <= value && value <= high, "{low} {value} {high}");
    }
    // The last question is longer than the context: its beginning goes.
    let model = golden("eval");
    let run = [&["eval", "choice", "--model", &model][..], &args].concat();
    let (_, said) = succeeds(&mut lab.program(&run));
    assert!(said.contains("1 prompts were cut at their beginning to fit 80 tokens"), "{said}");
    let (_, results) = measured(&lab, &[&run[1..], &["--limit", "2"]].concat());
    assert_eq!(results["examples"], 2);
}

#[test]
fn a_masked_model_chooses_by_pseudo_likelihood() {
    let lab = Lab::new();
    let row = serde_json::json!({
        "question": "On day 1 the whale",
        "choices": ["saw the sea", "sea the saw"],
        "answer": 0,
    });
    lab.write("questions.jsonl", row.to_string());
    let model = masked();
    let args = ["choice", "--model", &model, "--input", "questions.jsonl"];
    let (_, results) = measured(&lab, &args);
    let prompt = "On day 1 the whale saw the sea";
    let scored = ["score", "--model", &model, "--tokens", prompt];
    let (scored, _) = succeeds(&mut lab.program(&scored));
    let scored: Value = serde_json::from_str(&scored).unwrap();
    let each: Vec<(String, f64)> = serde_json::from_value(scored["each"].clone()).unwrap();
    let tokens = results["rows"][0]["tokens"][0].as_u64().unwrap() as usize;
    let total: f64 = each[each.len() - tokens..].iter().map(|(_, p)| p).sum();
    let found = results["rows"][0]["log_likelihoods"][0].as_f64().unwrap();
    assert!((found - total).abs() < 1e-5, "{found} {total}");
}

#[test]
fn completions_are_judged_and_written() {
    let (lab, expected) = (Lab::new(), expected());
    let input = golden("eval/completions.jsonl");
    let (_, results) = of_golden(&lab, "completion", &["--input", &input, "--length", "6"]);
    for (i, want) in expected["completions"].as_array().unwrap().iter().enumerate() {
        let row = &results["rows"][i];
        close(row["log_likelihood"].as_f64().unwrap(), &want["log_p"]);
        assert_eq!((&row["tokens"], &row["greedy"]), (&want["tokens"], &want["greedy"]));
    }
    assert_eq!(results["rows"][0]["written"], "Ishmael.");
    assert_eq!(metric(&results, "reference is greedy")[0], 0.5);
    assert_eq!(metric(&results, "exact match")[0], 0.5);
    assert!(metric(&results, "BLEU")[0] >= 0.0 && metric(&results, "chrF2")[0] > 20.0);
    let (_, none) = of_golden(&lab, "completion", &["--input", &input, "--length", "0"]);
    assert_eq!(none["metrics"].as_array().unwrap().len(), 2);
    assert_eq!(none["rows"][0]["written"], Value::Null);
    // What ends an answer is no part of it.
    let until = ["--input", &input, "--length", "6", "--until", "ma"];
    let (_, cut) = of_golden(&lab, "completion", &until);
    assert_eq!(cut["rows"][0]["written"], "Ish");
    // By beam search, what `generate` finds.
    let (length, beams) = (["--length", "6"], ["--beams", "3"]);
    let searched = [&["--input", &input, "--until", ""], &length[..], &beams].concat();
    let (_, found) = of_golden(&lab, "completion", &searched);
    assert_eq!(found["settings"]["beams"], 3);
    lab.write("prompts.txt", "Call me\nthe watery part of\n");
    let model = golden("eval");
    let generate = ["generate", "--model", &model, "--device", "cpu", "--dtype", "f64"];
    let asked = ["--input", "prompts.txt"];
    let (texts, _) = succeeds(&mut lab.program(&[&generate[..], &asked, &length, &beams].concat()));
    for (row, line) in texts.lines().enumerate() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(found["rows"][row]["written"], line["text"].as_str().unwrap().trim());
    }
    // What stands between prompt and completion is given to go on from.
    let between = ["--input", &input, "--until", "", "--delimiter", " of", "--limit", "1"];
    let (_, found) = of_golden(&lab, "completion", &[&between[..], &length].concat());
    let alone = ["--temperature", "0", "--prompt", "Call me of"];
    let (text, _) = succeeds(&mut lab.program(&[&generate[..], &alone, &length].concat()));
    let written = found["rows"][0]["written"].as_str().unwrap();
    assert_eq!(text.trim().strip_prefix("Call me of").unwrap().trim(), written);
    let one = [&["--input", &input, "--beams", "1"], &length[..]].concat();
    assert_eq!(of_golden(&lab, "completion", &one).1["rows"], results["rows"]);
}

#[test]
fn hellaswag_is_told_as_llm_c_tells_it() {
    let (lab, expected) = (Lab::new(), expected());
    let input = golden("eval/hellaswag.bin");
    let (said, results) = of_golden(&lab, "hellaswag", &["--input", &input]);
    assert!(said.contains("HellaSwag: 2/3 = 0.666667"), "{said}");
    assert_eq!(expected["hellaswag"]["right"], 2);
    for (row, losses) in results["rows"].as_array().unwrap().iter().zip(0..) {
        let losses: Vec<f64> =
            serde_json::from_value(expected["hellaswag"]["losses"][losses].clone()).unwrap();
        let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
        assert_eq!(row["said"], losses.iter().position(|&loss| loss == least).unwrap());
    }
    let (said, _) = of_golden(&lab, "hellaswag", &["--input", &input, "--limit", "2"]);
    assert!(said.contains("/2 = "), "{said}");
}

/// In bf16, by the kernels, where they are emulated.
#[test]
fn kernels_find_the_same() {
    let lab = Lab::new();
    let (model, input) = (golden("eval"), golden("eval/hellaswag.bin"));
    let text = golden("eval/text.txt");
    if gpu::open(Place::Emulator, Kernels::Fast).is_err() {
        return;
    }
    let on = |task: &str, file: [&str; 2], device: &str| {
        let args = [&[task, "--model", &model, "--device", device], &file[..]].concat();
        measured(&lab, &args).1
    };
    let hellaswag = |device| on("hellaswag", ["--input", &input], device);
    assert_eq!(hellaswag("emulator")["rows"], hellaswag("cpu")["rows"]);
    let loss = |device| metric(&on("loss", ["--text", &text], device), "loss [nats a token]")[0];
    let (found, want) = (loss("emulator"), loss("cpu"));
    assert!((found - want).abs() < 0.05, "{found}, not {want}");
    let rotated = masked();
    let refused = ["eval", "loss", "--model", &rotated, "--device", "emulator"];
    refuses(&mut lab.program(&refused), &["multiples of 16", "--device cpu"]);
}

/// The held-out loss in a run's log is what `eval loss` finds of its best checkpoint.
#[test]
fn a_masked_run_is_measured_as_it_measured_itself() {
    let lab = Lab::new();
    let run = masked();
    let (_, results) = measured(&lab, &["loss", "--model", &run, "--tokens", "256"]);
    let losses: Vec<f64> = runs::records(Path::new(&run), "eval")
        .iter()
        .map(|r| r["loss"].as_f64().unwrap())
        .collect();
    let best = losses.iter().copied().fold(f64::INFINITY, f64::min);
    let found = metric(&results, "loss [nats a token]")[0];
    assert!((found - best).abs() < 1e-6, "{found}, not {best}");
    let (_, train) = measured(&lab, &["loss", "--model", &run, "--split", "train"]);
    assert!(train["data"].as_str().unwrap().ends_with("(training)"), "{train}");
    let (_, text) = measured(&lab, &["loss", "--model", &run, "--text", "corpus.txt"]);
    assert!(text["examples"].as_u64().unwrap() > 100);
}

#[test]
fn texts_and_labels_beside_what_is_right() {
    let lab = Lab::new();
    lab.write("said.txt", "the cat sat on the mat\nthere is a dog here\n");
    lab.write("right.txt", "the cat sat on the mat\nthere was a dog there\n");
    let same = ["text", "--hypotheses", "said.txt", "--references", "said.txt"];
    let equal = metric(&measured(&lab, &same).1, "BLEU");
    assert!(equal.iter().all(|bleu| (bleu - 100.0).abs() < 1e-9), "{equal:?}");
    let both = ["text", "--hypotheses", "said.txt", "--references", "right.txt", "said.txt"];
    let (_, results) = measured(&lab, &both);
    assert!((metric(&results, "chrF2")[0] - 100.0).abs() < 1e-9);
    assert_eq!(results["settings"]["bleu"], "nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp");

    assert_eq!(metric(&results, "exact match, SQuAD")[0], 1.0);
    // Marks and ends of lines are no text.
    let marked = "\u{feff}the cat sat on the mat\r\nthere is a dog here\r\n";
    lab.write("marked.txt", marked);
    let same = ["text", "--hypotheses", "marked.txt", "--references", "said.txt"];
    assert_eq!(metric(&measured(&lab, &same).1, "exact match, SQuAD")[0], 1.0);
    let one = ["text", "--hypotheses", "said.txt", "--references", "right.txt"];
    // Of the second line `there` and `dog` are shared, of four words each without the article.
    assert!((metric(&measured(&lab, &one).1, "F1, SQuAD")[0] - 0.75).abs() < 1e-12);

    lab.write("rows.csv", "label,prediction\na,a\na,b\nb,b\nc,b\n");
    let (said, results) = measured(&lab, &["labels", "--input", "rows.csv", "--positive", "b"]);
    assert_eq!(metric(&results, "accuracy")[0], 0.5);
    let of = |name| metric(&results, name)[0];
    assert_eq!((of("precision"), of("recall"), of("F1")), (1.0 / 3.0, 1.0, 0.5));
    assert!((of("F1, macro") - (2.0 / 3.0 + 0.5) / 3.0).abs() < 1e-12, "{said}");
    lab.write("rows.tsv", "gold\tsaid\n1\t2\n2\t4\n3\t7\n");
    let numbers = ["--numbers", "--label", "gold", "--prediction", "said"];
    let args = [&["labels", "--input", "rows.tsv"], &numbers[..]].concat();
    let (_, results) = measured(&lab, &args);
    assert!((metric(&results, "Spearman")[0] - 1.0).abs() < 1e-12);
    assert_eq!(metric(&results, "mean squared error")[0], 7.0);
}

const ROWS: &str = "text,label\na blessed day,good\na cursed sea,bad\nthe whale,bad\n\
    a blessed ship,good\na cursed night,bad\nday and night,good\nthe captain,good\n";

/// By `finetune --task`: a file of such rows, and what its model must be asked with.
fn labelled(lab: &Lab, task: &str) -> (&'static str, Vec<&'static str>) {
    let question = |question: &str, answer: Option<&str>| {
        let context = "On day four the whale saw the captain. The storm followed on day nine.";
        serde_json::json!({"question": question, "context": context, "answer": answer}).to_string()
    };
    let (file, text) = match task {
        "classify" => ("classes.csv", ROWS.to_string()),
        "tag" => ("tags.csv", ROWS.replace(",good", ",good|short").replace("sea,bad", "sea,")),
        "regress" => ("numbers.csv", ROWS.replace("good", "1.5").replace("bad", "-2")),
        "tokens" => ("words.txt", "On O\nday B-DATE\nfour I-DATE\n\nThe O\nwhale B-BEAST\n".into()),
        _ => {
            let asked = [question("Who saw?", Some("the whale")), question("Who fled?", None)];
            ("questions.jsonl", asked.join("\n"))
        }
    };
    lab.write(file, text);
    let long = ["--longest", "32", "--stride", "4", "--longest-answer", "5"];
    (file, if task == "answer" { long.to_vec() } else { vec![] })
}

/// A model of such a task, hardly trained, in the folder `task`; and what its finetuning found.
fn finetuned(lab: &Lab, task: &str) -> Value {
    let (model, (file, more)) = (masked(), labelled(lab, task));
    let args = ["finetune", "--model", &model, "--task", task, "--train", file, "--dev", file];
    let quick = ["--epochs", "2", "--lr", "3e-3", "--batch", "2", "--out", task, "--device", "cpu"];
    succeeds(&mut lab.program(&[&args[..], &quick, &more].concat()));
    let results = fs::read_to_string(lab.path(task).join("results.json")).unwrap();
    serde_json::from_str(&results).unwrap()
}

#[test]
fn a_task_is_measured_as_its_finetuning_measured_it() {
    let lab = Lab::new();
    for task in ["classify", "tag", "regress", "tokens", "answer"] {
        let want = finetuned(&lab, task);
        let (file, more) = labelled(&lab, task);
        let args = ["task", "--model", task, "--input", file, "--device", "cpu"];
        let (said, found) = measured(&lab, &[&args, &more[..]].concat());
        let figures = |results: &Value| -> Vec<[Value; 3]> {
            let all = results["metrics"].as_array().unwrap().iter();
            all.map(|m| ["value", "low", "high"].map(|part| m[part].clone())).collect()
        };
        assert_eq!(figures(&found), figures(&want), "{task}: {said}");
        for part in ["confusion", "null", "worst"] {
            assert_eq!(found[part], want[part], "{task}");
        }
        assert_eq!(found["settings"]["labels"], want["labels"]);
        assert_eq!(found["rows"].as_array().unwrap().len(), want["held_out"]);
        assert_eq!(said.contains("was (row), said (column)"), task == "classify");
        assert_eq!(said.contains("best in hindsight"), task == "answer");
        assert!(said.contains(file) && said.contains("most wrong about"), "{said}");
    }
    // Of one class, as `eval labels` has it of the same predictions.
    let asked = ["task", "--model", "classify", "--input", "classes.csv", "--positive", "good"];
    let (_, found) = measured(&lab, &asked);
    let said = |row: &Value| format!("{},{}\n", row["right"], row["label"]).replace('"', "");
    let rows = found["rows"].as_array().unwrap().iter().map(said).collect::<String>();
    lab.write("said.csv", format!("label,prediction\n{rows}"));
    let labels = ["labels", "--input", "said.csv", "--positive", "good"];
    let (_, beside) = measured(&lab, &labels);
    for name in ["accuracy", "F1, macro", "Matthews", "precision", "recall", "F1"] {
        assert_eq!(metric(&found, name)[0], metric(&beside, name)[0], "{name}");
    }
    // A card takes it.
    measured(&lab, &asked);
    let export = ["export", "classify", "--to", "full", "--evaluation", "results.json"];
    succeeds(&mut lab.program(&export));
    let card = fs::read_to_string(lab.path("full/README.md")).unwrap();
    assert!(card.contains("`eval task`: classes.csv, 7 rows"), "{card}");
}

#[test]
fn tasks_that_cannot_be_measured() {
    let lab = Lab::new();
    for task in ["classify", "regress", "tokens"] {
        finetuned(&lab, task);
    }
    let refused = |model: &str, file: &str, more: &[&str], parts: &[&str]| {
        let args = ["eval", "task", "--model", model, "--input", file, "--out", "out.json"];
        refuses(lab.program(&args).args(more), parts);
        assert!(!lab.path("out.json").exists());
    };
    let (classes, model) = ("classes.csv", masked());
    refused(&model, classes, &[], &["no task's head", "finetune", "eval loss"]);
    lab.write("new.csv", "text,label\nfine,good\nfine,splendid\n");
    refused("classify", "new.csv", &[], &["new.csv, line 3", "\"splendid\"", "bad, good"]);
    refused("classify", "new.csv", &["--label", "stars"], &["no column \"stars\"", "text, label"]);
    refused("classify", classes, &["--positive", "fair"], &["\"fair\"", "bad, good"]);
    refused("classify", classes, &["--longest", "2"], &["--longest 2", "give more"]);
    refused("classify", classes, &["--longest-answer", "0"], &["--longest-answer is 0"]);
    refused("classify", "none.csv", &[], &["none.csv"]);
    refused("classify", "words.txt", &[], &["neither .csv, .tsv nor .jsonl"]);
    refused("regress", classes, &[], &["classes.csv, line 2", "is no number"]);
    refused("regress", "numbers.csv", &["--positive", "a"], &["--positive", "leave it away"]);
    lab.write("new.txt", "On O\n\nday B-SHIP\n");
    refused("tokens", "new.txt", &[], &["new.txt, line 3", "\"B-SHIP\"", "B-BEAST, B-DATE"]);
    // A head of several numbers, for which rows have no place.
    let flags = fs::read_to_string(golden("bert-flags/config.json")).unwrap();
    fs::create_dir(lab.path("several")).unwrap();
    let values = flags.replace("multi_label_classification", "regression");
    lab.write("several/config.json", values);
    let weights = golden("bert-flags/model.safetensors");
    fs::copy(weights, lab.path("several/model.safetensors")).unwrap();
    refused("several", "numbers.csv", &[], &["4 numbers of a text", "rows have one"]);
}

#[test]
fn what_eval_refuses() {
    let lab = Lab::new();
    let (masked, causal, model) = (masked(), causal(), golden("eval"));
    let refused = |args: &[&str], parts: &[&str]| {
        refuses(lab.program(&["eval"]).args(args).args(["--out", "out.json"]), parts);
    };
    let loss = |more: &[&str], parts: &[&str]| {
        refused(&[&["loss", "--model", &model], more].concat(), parts);
    };
    loss(&[], &["give --text FILE or --shards PATH"]);
    loss(&["--text", "nowhere.txt"], &["nowhere.txt"]);
    lab.write("empty.txt", "\n\n");
    loss(&["--text", "empty.txt"], &["empty.txt", "holds no documents"]);
    loss(&["--text", "corpus.txt", "--stride", "81"], &["--stride 81", "1 to 80"]);
    loss(&["--text", "corpus.txt", "--stride", "0"], &["--stride 0"]);
    loss(&["--text", "corpus.txt", "--context", "81"], &["--context 81", "2 to 80"]);
    loss(&["--text", "corpus.txt", "--tokens", "0"], &["--tokens 0"]);
    lab.shards("shards");
    loss(&["--shards", "shards"], &["made with another tokenizer"]);
    let strided = ["loss", "--model", &masked, "--text", "corpus.txt", "--stride", "4"];
    refused(&strided, &["--stride", "masked one has no windows"]);
    // None of so few tokens is masked.
    lab.write("short.txt", "hi");
    let short = ["loss", "--model", &masked, "--text", "short.txt"];
    refused(&short, &["short.txt: no token to predict"]);

    lab.write("q.jsonl", "{\"question\": \"a\", \"choices\": [\"b\", \"\"], \"answer\": 0}\n");
    let choice = |more: &[&str], parts: &[&str]| {
        refused(&[&["choice", "--model", &model, "--input", "q.jsonl"], more].concat(), parts);
    };
    choice(&["--delimiter", ""], &["q.jsonl, line 1", "has no token of its own"]);
    choice(&["--template", "{question"], &["without a }"]);
    choice(&["--template", "{q}"], &["q.jsonl has no column \"q\"", "it has question"]);
    choice(&["--answer", "right"], &["no column \"right\""]);
    choice(&["--k", "2"], &["--shots"]);
    choice(&["--shots", "q.jsonl", "--k", "1"], &["1 shots", "the question itself among them"]);
    choice(&["--limit", "0"], &["--limit 0"]);
    let long = format!("{{\"prompt\": \"a\", \"completion\": \"{}\"}}\n", "whale ".repeat(60));
    lab.write("long.jsonl", long);
    let args = ["completion", "--model", &model, "--input", "long.jsonl"];
    refused(&args, &["long.jsonl, line 1", "tokens long", "takes 80"]);
    let args = ["completion", "--model", &masked, "--input", "long.jsonl", "--limit", "1"];
    refused(&[&args[..], &["--length", "0"]].concat(), &["line 1", "tokens long"]);
    refused(&args, &["a masked model writes nothing", "--length 0"]);
    refused(&[&args[..], &["--beams", "0"]].concat(), &["--beams 0", "1 to 1000"]);
    lab.write("torn.jsonl", "{\"prompt\": \"a\"\n");
    refused(&["completion", "--model", &model, "--input", "torn.jsonl"], &["torn.jsonl, line 1"]);

    let file = golden("eval/hellaswag.bin");
    let bytes = fs::read(&file).unwrap();
    lab.write("cut.bin", &bytes[..bytes.len() - 4]);
    refused(
        &["hellaswag", "--model", &model, "--input", "cut.bin"],
        &["cut.bin", "example 2 is cut"],
    );
    refused(&["hellaswag", "--model", &masked, "--input", &file], &["causal models"]);
    refused(&["hellaswag", "--model", &causal, "--input", &file], &["beyond the vocabulary"]);
    refused(&["hellaswag", "--model", &model, "--input", &file, "--limit", "0"], &["no example"]);

    lab.write("one.txt", "a\n");
    lab.write("two.txt", "a\nb\n");
    let text = ["text", "--hypotheses", "two.txt", "--references", "one.txt"];
    refused(&text, &["one.txt has 1 lines, two.txt has 2"]);
    lab.write("latin.txt", b"a\n\xe9t\xe9\n");
    let text = ["text", "--hypotheses", "latin.txt", "--references", "two.txt"];
    refused(&text, &["latin.txt", "line 2 is not UTF-8"]);
    lab.write("none.txt", "");
    refused(&["text", "--hypotheses", "none.txt", "--references", "none.txt"], &["no lines"]);
    lab.write("rows.csv", "label,prediction\na,b\n");
    refused(&["labels", "--input", "rows.csv", "--numbers"], &["rows.csv, line 2", "is no number"]);
    refused(&["labels", "--input", "rows.csv", "--positive", "c"], &["\"c\"", "a, b"]);
    refused(&["labels", "--input", "rows.csv", "--label", "gold"], &["no column \"gold\""]);
    assert!(!lab.path("out.json").exists());
    // What exists stays, but for results.
    let parts = ["exists, and is nothing that this command wrote: name another"];
    for (there, text) in [("rows.csv", "label,prediction\na,b\n"), ("config.json", "{}")] {
        lab.write(there, text);
        let args = ["eval", "labels", "--input", "rows.csv", "--out", there];
        refuses(&mut lab.program(&args), &[&parts[..], &[there]].concat());
        assert_eq!(fs::read_to_string(lab.path(there)).unwrap(), text);
    }
    refuses(lab.program(&["eval"]).args([&text[..], &["--out", "/dev/null"]].concat()), &parts);
    let nowhere = ["labels", "--input", "rows.csv", "--out", "no/where.json"];
    refuses(lab.program(&["eval"]).args(nowhere), &["no/where.json", "cannot be written"]);
}
