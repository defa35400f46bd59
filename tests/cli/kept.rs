//! Nothing that exists is lost, and nothing is found out after hours of training that could have
//! been known before.

use crate::*;

/// A short finetuning into `out`.
fn finetune(lab: &Lab, out: &str, more: &[&str]) -> Command {
    let rows: String =
        (0..40).map(|i| format!("{},{}\n", ["fine sea", "dull mast"][i % 2], i % 2)).collect();
    lab.write("rows.csv", format!("text,label\n{rows}"));
    let model = masked();
    let short = ["finetune", "--task", "classify", "--train", "rows.csv", "--epochs", "1"];
    let mut command = lab.program(&short);
    command.args(["--model", &model, "--out", out]).args(more);
    command
}

#[test]
fn what_cannot_be_written_is_known_before_training() {
    let lab = Lab::new();
    lab.write("file", "");
    let refused = |out: &str, more: &[&str], parts: &[&str]| {
        let said = refuses(&mut finetune(&lab, out, more), parts);
        assert!(!said.contains("rows to learn from"), "{said}");
        assert!(!lab.path("out").exists() && !lab.path("out.partial").exists());
    };
    refused("file/out", &[], &["file/out cannot be written"]);
    refused("file", &[], &["file exists"]);
    refused("out", &["--evaluation", "none.json"], &["none.json", "No such file"]);
    lab.write("empty.json", "{}");
    refused("out", &["--bench", "empty.json"], &["empty.json has no energy"]);
    refused("out", &["--weight-decay", "inf"], &["--weight-decay inf"]);
    refused("out", &["--positions", "1000000000000"], &["context is 1000000000000", "at most"]);
    refused("out", &["--longest-answer", "0"], &["--longest-answer is 0"]);
    refused("out", &["--null-threshold", "nan"], &["--null-threshold"]);
}

#[test]
fn weights_that_are_not_numbers_are_not_written() {
    let lab = Lab::new();
    for more in [["--lr", "1e38"], ["--weight-decay", "1e300"]] {
        refuses(&mut finetune(&lab, "out", &more), &["is not finite after step", "lower --lr"]);
        assert!(!lab.path("out").exists() && !lab.path("out.partial").exists(), "{more:?}");
    }
}

#[test]
fn a_folder_in_the_way_is_kept_and_one_left_behind_is_not() {
    let lab = Lab::new();
    fs::create_dir(lab.path("out.partial")).unwrap();
    lab.write("out.partial/mine.txt", "kept");
    refuses(&mut finetune(&lab, "out", &[]), &["out.partial is in the way", "move it"]);
    assert_eq!(fs::read_to_string(lab.path("out.partial/mine.txt")).unwrap(), "kept");
    // As a killed run leaves it.
    lab.write("out.partial/.warpwright-partial", "");
    succeeds(&mut finetune(&lab, "out", &[]));
    assert!(lab.path("out/model.safetensors").exists() && !lab.path("out.partial").exists());
    assert!(!lab.path("out/mine.txt").exists() && !lab.path("out/.warpwright-partial").exists());
}

#[test]
fn labels_of_any_length_are_told() {
    let lab = Lab::new();
    let mut command = finetune(&lab, "out", &[]);
    let rows: String = (0..40)
        .map(|i| format!("{},{}\n", ["fine", "dull"][i % 2], "ab".repeat(1 + 70_000 * (i % 2))))
        .collect();
    lab.write("rows.csv", format!("text,label\n{rows}"));
    let (said, _) = succeeds(&mut command);
    assert!(said.contains("was (row), said (column)") && said.len() < 9000, "{}", said.len());
}
