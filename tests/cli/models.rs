//! Models at work: `fill`, `generate`, `trace`; and model folders that are none.

use crate::*;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};

/// Name, type, shape and bytes.
pub type Tensor = (String, Dtype, Vec<usize>, Vec<u8>);

/// Reads a file's tensors and writes them again, changed.
pub fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<Tensor>)) {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let own = |(name, view): (String, TensorView)| {
        (name, view.dtype(), view.shape().to_vec(), view.data().to_vec())
    };
    let mut tensors: Vec<Tensor> = file.tensors().into_iter().map(own).collect();
    change(&mut tensors);
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, data)| (name, TensorView::new(*dtype, shape.clone(), data)))
        .map(|(name, view)| (name, view.unwrap()));
    let metadata = [("format".to_string(), "pt".to_string())].into();
    fs::write(path, serialize(views, Some(metadata)).unwrap()).unwrap();
}

/// Half of the rows of the tensor whose name ends so.
pub fn halve(tensors: &mut [Tensor], name: &str) {
    let found = tensors.iter_mut().find(|(n, ..)| n.ends_with(name)).unwrap();
    found.2[0] /= 2;
    let half = found.3.len() / 2;
    found.3.truncate(half);
}

/// Makes a tensor's values (f32) so large that what they are multiplied with overflows.
pub fn inflate(path: &Path, name: &str) {
    rewrite(path, |tensors| {
        let found = tensors.iter_mut().find(|(n, ..)| n.ends_with(name)).unwrap();
        found.3.chunks_exact_mut(4).for_each(|value| value.copy_from_slice(&3e38f32.to_le_bytes()));
    });
}

fn stdout(lab: &Lab, args: &[&str]) -> String {
    succeeds(&mut lab.program(args)).0
}

#[test]
fn fill_prints_the_likeliest_for_each_mask() {
    let lab = Lab::new();
    let model = masked();
    let text = "On day[MASK] the whale[MASK] the sea";
    let shown = stdout(&lab, &["fill", "--model", &model, "-k", "4", text]);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 3, "{shown}");
    assert_eq!(lines[0], text);
    for line in &lines[1..] {
        let shares: Vec<f64> =
            line.split_whitespace().filter_map(|w| w.strip_suffix('%')?.parse().ok()).collect();
        assert_eq!(shares.len(), 4, "{line}");
        assert!(shares.is_sorted_by(|a, b| a >= b), "{line}");
    }
    assert_eq!(stdout(&lab, &["fill", "--model", &model, "-k", "4", text]), shown);
}

#[test]
fn generate_is_seeded() {
    let lab = Lab::new();
    let model = causal();
    let text = |more: &[&str]| {
        let args = ["generate", "--model", &model, "--prompt", "On day", "--length", "30"];
        stdout(&lab, &[&args, more].concat())
    };
    let first = text(&["--seed", "3"]);
    assert!(first.starts_with("On day") && first.len() > 7, "{first:?}");
    assert_eq!(text(&["--seed", "3"]), first);
    assert_ne!(text(&["--seed", "4"]), first);
    let greedy = text(&["--temperature", "0"]);
    assert_eq!(text(&["--temperature", "0", "--seed", "9"]), greedy);
    assert_eq!(text(&["--top-k", "1", "--seed", "8"]), greedy);
    let folder = format!("{model}/checkpoints/best");
    let args = ["generate", "--model", &folder, "--prompt", "On day", "--length", "30"];
    assert_eq!(stdout(&lab, &[&args[..], &["--seed", "3"]].concat()), first);
}

#[test]
fn generate_ends_before_a_string() {
    let lab = Lab::new();
    let model = causal();
    let base = ["--model", &model, "--temperature", "0", "--length", "40"];
    let text = |more: &[&str]| {
        let args = [&["generate"], &base[..], &["--prompt", "On day"], more].concat();
        stdout(&lab, &args)["On day".len()..].trim_end_matches('\n').to_string()
    };
    let whole = text(&[]);
    let middle: String = whole.chars().skip(whole.chars().count() / 2).take(4).collect();
    let cut = &whole[..whole.find(&middle).unwrap()];
    assert_eq!(text(&["--stop", "no such thing", "--stop", &middle]), cut);
    // What a stop begins with is not held back when another token follows.
    let longer = format!("{}\u{7f}", &middle);
    assert_eq!(text(&["--stop", &longer]), whole);
    lab.write("prompts.txt", "On day\n");
    let args = [&["generate", "--input", "prompts.txt", "--stop", &middle], &base[..]].concat();
    let line = json(&stdout(&lab, &args)).remove(0);
    assert_eq!((&line["text"], &line["end"]), (&cut.into(), &"stop".into()));
    let beams = ["generate", "--model", &model, "--prompt", "On day", "--beams", "3"];
    let found = stdout(&lab, &[&beams[..], &["--length", "40", "--stop", &middle]].concat());
    assert!(found.starts_with("On day") && !found["On day".len()..].contains(&middle), "{found}");
}

#[test]
fn prompts_of_a_file_are_continued_together() {
    let lab = Lab::new();
    let model = causal();
    lab.write("prompts.txt", "On day\n\nthe whale\n");
    lab.write("prompts.jsonl", "{\"q\": \"On day\"}\n{\"q\": \"\"}\n\n{\"q\": \"the whale\"}\n");
    let generated = |file: &str, more: &[&str]| {
        let base = ["generate", "--model", &model, "--input", file, "--length", "30"];
        json(&stdout(&lab, &[&base[..], more].concat()))
    };
    let three = generated("prompts.txt", &[]);
    assert_eq!(three.len(), 3);
    for (line, prompt) in three.iter().zip(["On day", "", "the whale"]) {
        assert_eq!(line["prompt"], prompt);
        let (tokens, end) = (line["tokens"].as_u64().unwrap(), line["end"].as_str().unwrap());
        assert!(end == "text" && tokens <= 30 || end == "length" && tokens == 30, "{line}");
        assert!(line.get("score").is_none());
    }
    // Neither the batch nor the kind of file matters, nor the place of what is stored.
    assert_eq!(generated("prompts.txt", &["--batch", "1"]), three);
    assert_eq!(generated("prompts.txt", &["--batch", "2"]), three);
    assert_eq!(generated("prompts.jsonl", &["--column", "q"]), three);
    let one = ["generate", "--model", &model, "--prompt", "On day", "--length", "30"];
    let alone = stdout(&lab, &one);
    assert_eq!(alone, format!("On day{}\n", three[0]["text"].as_str().unwrap()));
    let base = ["generate", "--model", &model, "--input", "prompts.txt", "--length", "30"];
    let beams = ["--beams", "3", "--length-penalty", "-0.5", "--out", "out.jsonl"];
    let search = [&base[..], &beams].concat();
    assert_eq!(stdout(&lab, &search), "");
    let written = json(&fs::read_to_string(lab.path("out.jsonl")).unwrap());
    assert!(written.len() == 3 && written.iter().all(|l| l["score"].as_f64().unwrap() < 0.0));
    assert!(!lab.path("out.jsonl.partial").exists());
    refuses(&mut lab.program(&search), &["out.jsonl exists", "--out"]);
    for (more, parts) in [
        (&["--batch", "0"][..], &["--batch 0"][..]),
        (&["--beams", "0"], &["--beams 0", "1 to 1000"]),
        (&["--beams", "1000000000000"], &["--beams 1000000000000"]),
        (&["--beams", "2", "--seed", "3"], &["--beams", "--seed"]),
        (&["--beams", "2", "--length-penalty", "inf"], &["--length-penalty inf"]),
        (&["--early-stopping"], &["--beams"]),
        (&["--stop", ""], &["--stop", "empty"]),
        (&["--prompt", "a"], &["--prompt"]),
        (&["--out", "nowhere/out"], &["nowhere/out", "cannot be written"]),
    ] {
        refuses(&mut lab.program(&[&base[..], more].concat()), parts);
    }
    lab.write("empty.txt", "");
    for (file, parts) in [
        ("prompts.jsonl", &["--column", "\"prompt\"", "it has q"][..]),
        ("none.txt", &["none.txt", "cannot be read"]),
        ("empty.txt", &["empty.txt has no lines"]),
    ] {
        refuses(&mut lab.program(&["generate", "--model", &model, "--input", file]), parts);
    }
}

/// On every precision of the CPU, and by the kernels.
#[test]
fn models_work_where_they_are_told_to() {
    let lab = Lab::new();
    let (masked, causal) = (masked(), causal());
    let commands: [&[&str]; 4] = [
        &["fill", "--model", &masked, "On day[MASK]"],
        &["embed", "--model", &masked, "On day"],
        &["score", "--model", &causal, "On day"],
        &["generate", "--model", &causal, "--temperature", "0", "--length", "8"],
    ];
    for command in commands {
        let on = |more: &[&str]| stdout(&lab, &[command, more].concat());
        assert_eq!(on(&["--device", "cpu"]), on(&["--device", "cpu", "--dtype", "f32"]));
        assert!(!on(&["--dtype", "f64"]).is_empty() && !on(&["--dtype", "bf16"]).is_empty());
        let args = [command, &["--device", "emulator"]].concat();
        refuses(&mut lab.program(&args), &["kernel", "--device cpu"]);
        let args = [command, &["--device", "cuda", "--dtype", "f32"]].concat();
        refuses(&mut lab.program(&args), &["bf16", "--device cpu"]);
    }
}

#[test]
fn what_fill_and_generate_cannot_do() {
    let lab = Lab::new();
    let (masked, causal) = (masked(), causal());
    let refused = |args: &[&str], parts: &[&str]| {
        refuses(&mut lab.program(args), parts);
    };
    refused(&["fill", "--model", &masked, "no gap"], &["no [MASK]", "put it"]);
    refused(&["fill", "--model", &causal, "a [MASK]"], &["masked", "`warpwright generate`"]);
    refused(&["generate", "--model", &masked], &["causal", "`warpwright fill`"]);
    refused(&["fill", "--model", &masked, "-k", "0", "[MASK]"], &["--top", "at least 1"]);
    let long = format!("[MASK]{}", " whale".repeat(100));
    refused(&["fill", "--model", &masked, &long], &["tokens long", "takes 64", "shorten"]);
    refused(&["fill", "--model", &masked], &["<TEXT>", "--help"]);
    let hot = ["generate", "--model", &causal, "--temperature=-1"];
    refused(&hot, &["--temperature -1", "0 or more"]);
    refused(&["generate", "--model", &causal, "--top-p", "0"], &["--top-p 0", "above 0"]);
    refused(&["generate", "--model", &causal, "--top-p", "nan"], &["--top-p"]);
    for more in [["--out", "o.jsonl"], ["--column", "a"], ["--batch", "2"]] {
        let one = ["generate", "--model", &causal, "--prompt", "a"];
        refused(&[&one[..], &more].concat(), &[more[0], "--prompt"]);
    }
    refused(&["predict", "--model", &masked, "--text", "a", "b"], &["--text", "cannot be used"]);
}

/// The JSON lines of an output.
fn json(shown: &str) -> Vec<serde_json::Value> {
    shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn texts_become_vectors() {
    let lab = Lab::new();
    let model = masked();
    // The first line has a mark, and ends as Windows ends it.
    lab.write("lines.txt", "\u{feff}On day 1 the whale\r\n\nOn day 1 the whale\n");
    let shown = stdout(&lab, &["embed", "--model", &model, "--input", "lines.txt"]);
    let lines = json(&shown);
    let vector =
        |i: usize| -> Vec<f64> { serde_json::from_value(lines[i]["vector"].clone()).unwrap() };
    assert_eq!((lines.len(), vector(0).len()), (3, 16));
    assert!((vector(0).iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-9);
    // The same text gives the same vector, whatever else is in the pass; [CLS] [SEP] have one too.
    assert_eq!(vector(0), vector(2));
    assert_ne!(vector(0), vector(1));
    assert_eq!(lines[1]["tokens"], 2);
    let raw = stdout(&lab, &["embed", "--model", &model, "--raw", "--pooling", "first", "a"]);
    assert_ne!(json(&raw)[0]["vector"], lines[0]["vector"]);
    let args = ["embed", "--model", &model, "--longest", "4", "On day 1 the whale swam away"];
    let (cut, said) = succeeds(&mut lab.program(&args));
    assert_eq!(json(&cut)[0]["tokens"], 4);
    assert!(said.contains("1 texts were cut to 4 tokens"), "{said}");
    refuses(
        &mut lab.program(&["embed", "--model", &model, "--longest", "2", "a"]),
        &["--longest 2"],
    );
    refuses(&mut lab.program(&["embed", "--model", &model]), &["<TEXT>"]);
    lab.write("empty.txt", "");
    for command in ["embed", "score"] {
        let empty = [command, "--model", &model, "--input"];
        refuses(lab.program(&empty).arg("empty.txt"), &["empty.txt has no lines"]);
        refuses(lab.program(&empty).arg("-"), &["standard input has no lines"]);
    }
    let nowhere = ["embed", "--model", &model, "--input", "nowhere.txt"];
    refuses(&mut lab.program(&nowhere), &["nowhere.txt", "cannot be read"]);
}

#[test]
fn texts_are_scored_token_by_token() {
    let lab = Lab::new();
    let text = "On day 1 the whale";
    for model in [masked(), causal()] {
        let shown = stdout(&lab, &["score", "--model", &model, "--tokens", text, ""]);
        let lines = json(&shown);
        let each: Vec<(String, f64)> = serde_json::from_value(lines[0]["each"].clone()).unwrap();
        assert!(lines[0]["tokens"].as_u64().unwrap() as usize == each.len() && each.len() > 3);
        let total: f64 = each.iter().map(|(_, p)| p).sum();
        let said = lines[0]["log_likelihood"].as_f64().unwrap();
        assert!(each.iter().all(|(_, p)| *p < 0.0) && (total - said).abs() < 1e-9, "{shown}");
        let mean = lines[0]["mean_nll"].as_f64().unwrap();
        assert!((mean + said / each.len() as f64).abs() < 1e-12);
        assert_eq!((&lines[1]["tokens"], &lines[1]["mean_nll"]), (&0.into(), &().into()));
    }
    // What ends a text is read, not scored.
    let text = "On day<|endoftext|> the whale";
    let scored = json(&stdout(&lab, &["score", "--model", &causal(), "--tokens", text]));
    let each: Vec<(String, f64)> = serde_json::from_value(scored[0]["each"].clone()).unwrap();
    let said: String = each.iter().map(|(token, _)| &**token).collect();
    assert!("On day the whale".ends_with(&said) && said.contains("day the"), "{said}");
    let long = " whale".repeat(100);
    let args = ["score", "--model", &causal(), &long];
    refuses(&mut lab.program(&args), &["text 1", "tokens long", "takes 64"]);
    lab.write("lines.txt", format!("a\n{long}\n"));
    let args = ["score", "--model", &causal(), "--input", "lines.txt"];
    refuses(&mut lab.program(&args), &["lines.txt, line 2", "tokens long"]);
}

#[test]
fn what_is_exported_is_the_model() {
    let lab = Lab::new();
    let (model, text) = (masked(), "On day[MASK] the whale");
    let shown = stdout(&lab, &["export", &model, "--to", "out"]);
    assert!(shown.contains("wrote out"), "{shown}");
    let filled = |model: &str| stdout(&lab, &["fill", "--model", model, text]);
    assert_eq!(filled("out"), filled(&model));
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        assert!(lab.path("out").join(file).exists(), "{file}");
    }
    refuses(&mut lab.program(&["export", &model, "--to", "out"]), &["out exists", "does not"]);
    // A checkpoint without its tokenizer and head: the export says so.
    let bare = lab.path("bare");
    fs::create_dir(&bare).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(lab.path("out").join(file), bare.join(file)).unwrap();
    }
    rewrite(&bare.join("model.safetensors"), |tensors| {
        tensors.retain(|(name, ..)| name != "head.dense.weight");
        let (dtype, data) = (Dtype::F32, vec![0; 4]);
        tensors.push(("extra".into(), dtype, vec![1], data));
    });
    let shown = stdout(&lab, &["export", "bare/", "--dtype", "bf16"]);
    for part in ["no tokenizer", "drawn at random: head.dense.weight", "no use to it: extra"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(shown.contains("wrote bare-hf\n") && lab.path("bare-hf/README.md").exists());
    assert!(!lab.path("bare-hf.partial").exists());
    // Tensors of no use are listed wherever a model is opened.
    fs::write(lab.path("batch.json"), r#"{"input_ids": [[7, 8, 9]]}"#).unwrap();
    let trace = ["trace", "--model", "bare", "--input", "batch.json", "--output", "traced"];
    let (_, beside) = succeeds(&mut lab.program(&trace));
    assert!(beside.contains("of no use here: extra"), "{beside}");
    rewrite(&bare.join("model.safetensors"), |tensors| {
        tensors.retain(|(name, ..)| !name.starts_with("head.") && !name.starts_with("decoder."));
    });
    let headless = ["export", "bare", "--to", "x"];
    refuses(&mut lab.program(&headless), &["bare is an encoder without a head", "finetune it"]);
    refuses(&mut lab.program(&["export", "nowhere", "--to", "x"]), &["does not exist"]);
    assert!(!lab.path("x").exists() && !lab.path("x.partial").exists());
}

#[test]
fn folders_that_hold_no_model() {
    let lab = Lab::new();
    fs::create_dir(lab.path("empty")).unwrap();
    lab.write("batch.json", r#"{"input_ids": [[7, 8, 9]]}"#);
    let commands: [&[&str]; 5] = [
        &["fill", "[MASK]"],
        &["embed", "a"],
        &["score", "a"],
        &["generate"],
        &["trace", "--input", "batch.json", "--output", "out"],
    ];
    for command in commands {
        for (model, part) in [
            ("nowhere", "does not exist: give the folder"),
            ("empty", "has no config.json"),
            ("corpus.txt", "is not a folder"),
        ] {
            refuses(lab.program(command).args(["--model", model]), &[model, part]);
        }
    }
    assert!(!lab.path("out").exists());
}

#[test]
fn models_that_are_damaged() {
    let lab = Lab::new();
    let copy = |name: &str| copied(&lab, &masked(), name);
    let refused = |model: &str, parts: &[&str]| {
        refuses(&mut lab.program(&["fill", "--model", model, "a[MASK]"]), parts);
    };
    rewrite(&copy("lacking").join("model.safetensors"), |tensors| {
        tensors.retain(|(name, ..)| !name.ends_with("layers.0.mlp.Wi.weight"));
    });
    refused("lacking", &["no tensor", "layers.0.mlp.Wi.weight", "same model"]);
    rewrite(&copy("misshapen").join("model.safetensors"), |tensors| {
        halve(tensors, "layers.0.mlp.Wi.weight");
    });
    refused("misshapen", &["layers.0.mlp.Wi.weight", "[24, 16]", "[48, 16]"]);
    rewrite(&copy("headless").join("model.safetensors"), |tensors| {
        tensors.retain(|(name, ..)| !name.starts_with("head.") && !name.starts_with("decoder."));
    });
    refused("headless", &["lacks the head", "pretrained model"]);
    let weights = copy("cut").join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() - 10]).unwrap();
    refused("cut", &["truncated", "copy or download"]);
    fs::write(copy("text").join("model.safetensors"), "weights").unwrap();
    refused("text", &["model.safetensors", "copy or download"]);
    fs::write(copy("json").join("config.json"), "{").unwrap();
    refused("json", &["config.json", "not JSON"]);
    fs::remove_file(copy("weightless").join("model.safetensors")).unwrap();
    refused("weightless", &["no model.safetensors"]);
    fs::remove_file(copy("wordless").join("tokenizer.json")).unwrap();
    refused("wordless", &["no tokenizer here"]);
    inflate(&copy("large").join("model.safetensors"), "final_norm.weight");
    lab.write("q.jsonl", r#"{"question": "a", "choices": ["b", "c"], "answer": 0}"#);
    let causal = copied(&lab, &causal(), "large-causal").join("model.safetensors");
    inflate(&causal, "ln_f.weight");
    let commands: [(&str, &[&str]); 8] = [
        ("large", &["fill", "a[MASK]"]),
        ("large", &["score", "a"]),
        ("large", &["embed", "a"]),
        ("large", &["eval", "choice", "--input", "q.jsonl"]),
        ("large", &["eval", "loss", "--text", "corpus.txt"]),
        ("large", &["explain", "a[MASK]"]),
        ("large-causal", &["generate", "--prompt", "a"]),
        ("large-causal", &["generate", "--prompt", "a", "--beams", "2"]),
    ];
    for (model, command) in commands {
        let mut large = lab.program(command);
        refuses(large.args(["--model", model]), &["outputs are not finite numbers", "--dtype"]);
    }
    lab.shards("other");
    fs::copy(lab.path("other/tokenizer.json"), copy("foreign").join("tokenizer.json")).unwrap();
}

/// `trace` of this batch with the causal model.
fn trace(lab: &Lab, json: &str, more: &[&str]) -> std::process::Command {
    lab.write("batch.json", json);
    let mut command = lab.program(&["trace", "--input", "batch.json", "--model", &causal()]);
    command.args(more);
    command
}

#[test]
fn trace_writes_logits_loss_and_every_gradient() {
    let lab = Lab::new();
    let json = r#"{"input_ids": [[7, 8, 9, 10], [11, 12]], "labels": [[7, 8, 9, 10], [11, 12]]}"#;
    let marked = format!("\u{feff}{json}");
    succeeds(&mut trace(&lab, &marked, &["--output", "out", "--dtype", "f64"]));
    let bytes = fs::read(lab.path("out")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("loss").unwrap().shape(), [1]);
    assert_eq!(file.tensor("logits").unwrap().shape()[0], 6);
    let weights = fs::read(format!("{}/checkpoints/best/model.safetensors", causal())).unwrap();
    for (name, view) in SafeTensors::deserialize(&weights).unwrap().tensors() {
        let grad = file.tensor(&format!("grad.{name}")).unwrap();
        assert_eq!(grad.shape(), view.shape(), "{name}");
    }
}

#[test]
fn batches_that_cannot_be_traced() {
    let lab = Lab::new();
    let refused = |json: &str, parts: &[&str]| {
        refuses(&mut trace(&lab, json, &["--output", "out"]), parts);
    };
    refused("{", &["batch.json", "not a batch", "line 1"]);
    refused("{}", &["not a batch", "input_ids"]);
    refused(r#"{"input_ids": [[1]], "lables": [[1]]}"#, &["lables", "labels"]);
    refused(r#"{"input_ids": [[-1]]}"#, &["not a batch", "-1"]);
    refused(r#"{"input_ids": [[]]}"#, &["no token"]);
    refused(r#"{"input_ids": [[70000]]}"#, &["70000", "beyond the vocabulary"]);
    refused(r#"{"input_ids": [[1, 2]], "labels": [[1]]}"#, &["labels", "shape of input_ids"]);
    refused(r#"{"input_ids": [[1]], "labels": [[-5]]}"#, &["-5", "-100"]);
    refused(r#"{"input_ids": [[1]], "pair_labels": [0]}"#, &["no pair head"]);
    refused(r#"{"input_ids": [[1]], "token_type_ids": [[1]]}"#, &["token_type_ids", "1"]);
    lab.write("pairs.json", r#"{"input_ids": [[5], []], "pair_labels": [0, 1]}"#);
    let pairs = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/bert-pretraining");
    let empty = ["trace", "--model", pairs, "--input", "pairs.json", "--output", "out"];
    refuses(&mut lab.program(&empty), &["pairs.json", "a sequence has no token"]);
    let long = format!(r#"{{"input_ids": [{:?}]}}"#, vec![1; 65]);
    refused(&long, &["65 tokens", "takes 64", "cut it"]);
    let none = ["trace", "--model", &causal(), "--input", "none.json", "--output", "out"];
    refuses(&mut lab.program(&none), &["none.json", "No such file"]);
    assert!(!lab.path("out").exists());
    let json = r#"{"input_ids": [[1, 2, 3]]}"#;
    // What exists stays: the batch itself, a device, the weights that are being read.
    let weights = format!("{}/checkpoints/best/model.safetensors", causal());
    let before = fs::read(&weights).unwrap();
    for there in ["batch.json", "/dev/full", &weights] {
        let parts = [there, "exists: name another file"];
        refuses(&mut trace(&lab, json, &["--output", there]), &parts);
    }
    assert!(fs::read(&weights).unwrap() == before);
    assert_eq!(fs::read_to_string(lab.path("batch.json")).unwrap(), json);
    let nowhere = ["--output", "nowhere/out"];
    refuses(&mut trace(&lab, json, &nowhere), &["nowhere/out", "cannot be written"]);
}

/// Files may have 8 blocks, as on a disk that is full.
#[cfg(unix)]
#[test]
fn a_trace_is_whole_or_absent() {
    let lab = Lab::new();
    lab.write("batch.json", r#"{"input_ids": [[1, 2]], "labels": [[1, 2]]}"#);
    let program = env!("CARGO_BIN_EXE_warpwright");
    let limited = format!(
        "trap '' XFSZ; ulimit -f 8; {program} trace --model {} --input batch.json --output out",
        causal()
    );
    let mut shell = std::process::Command::new("sh");
    refuses(shell.current_dir(lab.dir.path()).args(["-c", &limited]), &["cannot be written"]);
    assert!(!lab.path("out").exists() && !lab.path("out.partial").exists());
}
