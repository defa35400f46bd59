//! Commands as a newcomer meets them: help, the plan, the report, and pipes that close.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::*;
use warpwright::model::families::PRESETS;

#[test]
fn help_ends_with_an_example() {
    let lab = Lab::new();
    for command in [
        &["pretrain"][..],
        &["fill"],
        &["generate"],
        &["finetune"],
        &["embed"],
        &["score"],
        &["export"],
        &["data", "tokenize"],
        &["data", "inspect"],
        &["plan"],
        &["trace"],
        &["report"],
        &["verify"],
        &["info"],
    ] {
        let (help, _) = succeeds(lab.program(command).arg("--help"));
        let at = help.rfind("Example").unwrap_or_else(|| panic!("{command:?}:\n{help}"));
        assert!(help[at..].contains(&format!("warpwright {}", command.join(" "))), "{help}");
    }
    let (help, _) = succeeds(&mut lab.program(&["--help"]));
    assert!(help.contains("warpwright pretrain"), "{help}");
    refuses(&mut lab.program(&["pertrain"]), &["pertrain", "pretrain"]);
    refuses(&mut lab.program(&[]), &["Usage"]);
}

#[test]
fn every_preset_can_be_planned() {
    let lab = Lab::new();
    for (name, _) in PRESETS {
        let args = ["plan", "--preset", name, "--gpu", "H100", "--tokens", "4096"];
        let (plan, _) = succeeds(&mut lab.program(&args));
        assert!(plan.contains("H100") && plan.contains("a step"), "{name}:\n{plan}");
    }
    refuses(&mut lab.program(&["plan", "--preset", "gpt5"]), &["no preset `gpt5`", "gpt2-xl"]);
    refuses(&mut lab.program(&["plan", "--gpu", "Voodoo2"]), &["no GPU `Voodoo2`", "H100"]);
    refuses(&mut lab.program(&["plan", "--tokens", "1000000000000"]), &["batch.tokens", "2^28"]);
    refuses(&mut lab.program(&["plan", "--set", "model.heads=7"]), &["heads 7", "nearest"]);
    // A shape that no kernel takes: told with the nearest that one does, here as in training.
    let narrow = ["--set", "model.heads=32", "--set", "model.width=768"];
    let says = ["heads of width 24", "nearest", "is 16"];
    refuses(lab.program(&["plan"]).args(narrow), &[&says[..], &["--gpu none"]].concat());
    succeeds(lab.program(&["plan", "--gpu", "none"]).args(narrow));
    let odd = ["plan", "--set", "model.inner=1001"];
    refuses(&mut lab.program(&odd), &["outputs is 1001", "multiples of 8", "1000 works"]);
}

/// Whatever is here, each kind of device is told of, and what is not here says what would help.
#[test]
fn info_tells_of_every_device() {
    let lab = Lab::new();
    let (text, _) = succeeds(&mut lab.program(&["info", "--kernels"]));
    for heading in ["program", "kernels", "emulator", "CPU", "trains on"] {
        assert!(text.lines().any(|line| line.starts_with(heading)), "no {heading} in\n{text}");
    }
    let (json, _) = succeeds(&mut lab.program(&["info", "--kernels", "--json"]));
    let info: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(info["cpu"]["cores"].as_u64() >= Some(1), "{json}");
    for device in ["cuda", "emulator"] {
        let why = &info[device]["unusable"];
        assert!(why.is_null() || why.as_str().is_some_and(|why| why.contains(": ")), "{json}");
    }
    let table = info["kernels"]["table"].as_array().unwrap();
    let chips = info["kernels"]["chips"].as_array().unwrap().len() as u64;
    assert_eq!(info["kernels"]["nvcc"].is_null(), table.is_empty());
    assert!(table.len() as u64 <= chips * info["kernels"]["count"].as_u64().unwrap());
    for row in table {
        assert!(text.contains(row["kernel"].as_str().unwrap()), "{row}");
    }
}

#[test]
fn a_report_is_made_of_a_run_only() {
    let lab = Lab::new();
    let (said, _) = succeeds(lab.program(&["report", &masked()]).args(["--output", "page.html"]));
    assert_eq!(said, "wrote page.html\n");
    let page = fs::read_to_string(lab.path("page.html")).unwrap();
    assert!(page.contains("</html>"));
    refuses(&mut lab.program(&["report", "nowhere"]), &["nowhere", "name a run directory"]);
    refuses(
        lab.program(&["report", &masked()]).args(["--output", "/dev/null/x"]),
        &["/dev/null/x"],
    );
}

/// Reads one line of what a command prints, then closes the pipe, as `head -1` does.
fn head(mut command: std::process::Command) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    assert!(!said.contains("panicked") && !said.contains("error"), "{command:?}:\n{said}");
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let lab = Lab::new();
    lab.shards("set");
    head(lab.program(&["data", "inspect", "set", "--documents", "1000"]));
    head(lab.program(&["plan", "--preset", "gpt2-tiny"]));
    head(lab.program(&["plan", "--preset", "gpt2-tiny", "--json"]));
    // More than any length it is asked for: it has to stop drawing when no one reads on.
    let prompt = "On day\n";
    let endless = ["generate", "--model", &causal(), "--prompt", prompt, "--length", "1000000000"];
    head(lab.program(&endless));
    let texts = vec!["a[MASK]"; 2000];
    head({
        let mut command = lab.program(&["fill", "--model", &masked()]);
        command.args(&texts);
        command
    });
    // A training run goes on to its end.
    head(lab.pretrain("run", &["--set", "train.steps=30"]));
    assert_eq!(runs::steps(&lab.path("run")).len(), 30);
    assert!(lab.path("run/report.html").exists());
    lab.write("rows.csv", format!("text,label\n{}", "fine sea,1\ndull mast,2\n".repeat(20)));
    let rows = ["--task", "classify", "--train", "rows.csv", "--epochs", "2", "--out", "tuned"];
    head(lab.program(&[&["finetune", "--model", &masked()], &rows[..]].concat()));
    assert!(lab.path("tuned/model.safetensors").exists());
}

/// A full disk under standard output is an error, unlike a reader that left.
#[test]
fn what_cannot_be_printed_is_an_error() {
    let lab = Lab::new();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = lab.program(&["plan", "--preset", "gpt2-tiny"]);
    let output = command.stdout(full).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("No space left") && !said.contains("panicked"), "{said}");
}
