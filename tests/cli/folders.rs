//! Run directories: whose they are, and what survives.

use crate::*;
use runs::{checkpoints, records, spawn, state, wait_until};

#[test]
fn a_run_is_neither_overwritten_nor_lost() {
    let lab = Lab::new();
    succeeds(&mut lab.pretrain("run", &[]));
    let path = lab.path("run");
    let before = state(&path);
    refuses(&mut lab.pretrain("run", &[]), &["already holds a run", "--resume", "--force"]);
    // Forced, but not able to start: the old run is still whole.
    for (set, part) in [
        ("model.heads=3", "divides"),
        ("batch.tokens=8", "shorter than one sequence"),
        ("data.text=['none.txt']", "no such file"),
        ("batch.tokens=200000000", "of memory"),
    ] {
        refuses(&mut lab.pretrain("run", &["--force", "--set", set]), &[part]);
        assert!(state(&path) == before, "--force with {set}");
        assert_eq!(runs::steps(&path).len(), 6, "--force with {set}");
    }
    succeeds(&mut lab.resume("run"));
    assert!(state(&path) == before);
    succeeds(&mut lab.pretrain("run", &["--force", "--set", "seed=7", "--set", "train.steps=3"]));
    assert!(state(&path) != before);
    assert_eq!(checkpoints(&path), [3]);
    assert_eq!(runs::steps(&path), [1, 2, 3]);
}

/// Text tokenized for one run is not taken for another's.
#[test]
fn a_forced_run_reads_its_own_text() {
    let lab = Lab::new();
    succeeds(&mut lab.pretrain("run", &[]));
    let first = state(&lab.path("run"));
    lab.write("corpus.txt", runs::text().replace("whale", "sloop"));
    succeeds(&mut lab.pretrain("run", &["--force"]));
    assert!(state(&lab.path("run")) != first, "the new text was not read");
    lab.write("corpus.txt", runs::text());
    succeeds(&mut lab.pretrain("run", &["--force"]));
    assert!(state(&lab.path("run")) == first);
    succeeds(&mut lab.pretrain("run", &["--force", "--set", "data.vocabulary=290"]));
    let config = fs::read_to_string(lab.path("run/checkpoints/last/config.json")).unwrap();
    assert!(config.contains("\"vocab_size\": 290"), "{config}");
}

#[test]
fn a_folder_of_other_things_is_not_touched() {
    let lab = Lab::new();
    fs::create_dir(lab.path("mine")).unwrap();
    lab.write("mine/thesis.txt", "years of work");
    for more in [&[][..], &["--force"]] {
        refuses(&mut lab.pretrain("mine", more), &["mine", "no run", "not touched", "--out"]);
    }
    let entries = fs::read_dir(lab.path("mine")).unwrap().count();
    assert_eq!(entries, 1);
    refuses(&mut lab.resume("mine"), &["no run to resume", "leave out --resume"]);
    refuses(&mut lab.resume("nowhere"), &["no run to resume", "leave out --resume"]);
    assert!(!lab.path("nowhere").exists());
}

/// Permissions do not bind root, so a path that no one can make stands for a folder that may not
/// be written; where they bind, they are tried too.
#[test]
fn a_folder_that_cannot_be_written() {
    let lab = Lab::new();
    refuses(&mut lab.pretrain("/dev/null/run", &[]), &["/dev/null/run", "--out"]);
    refuses(&mut lab.pretrain("corpus.txt", &[]), &["corpus.txt", "Not a directory", "--out"]);
    let tokenize =
        ["data", "tokenize", "corpus.txt", "--vocab-size", "300", "--out", "/dev/null/x"];
    refuses(&mut lab.program(&tokenize), &["/dev/null/x"]);
    fs::create_dir(lab.path("locked")).unwrap();
    let mut permissions = fs::metadata(lab.path("locked")).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(lab.path("locked"), permissions).unwrap();
    if fs::write(lab.path("locked/probe"), "").is_err() {
        refuses(&mut lab.pretrain("locked/run", &[]), &["locked/run", "denied", "--out"]);
    }
}

#[test]
fn one_process_at_a_time() {
    let lab = Lab::new();
    let mut first = spawn(&mut lab.pretrain("run", &["--set", "train.steps=1000000"]));
    let path = lab.path("run");
    wait_until("a step", || !records(&path, "train").is_empty());
    let parts = ["another process", "run", "--out"];
    refuses(&mut lab.resume("run"), &parts);
    refuses(&mut lab.pretrain("run", &["--force"]), &parts);
    let taken = records(&path, "train").len();
    wait_until("a further step", || records(&path, "train").len() > taken);
    first.kill().unwrap();
    first.wait().unwrap();
    // The lock goes with the process.
    succeeds(&mut lab.pretrain("run", &["--force"]));
}

/// The checkpoint `last` of a finished run, with its state file brought up to date by `change`.
fn changed(lab: &Lab, change: impl FnOnce(&Path)) {
    succeeds(&mut lab.pretrain("run", &[]));
    let folder = fs::canonicalize(lab.path("run/checkpoints/last")).unwrap();
    change(&folder);
    let path = folder.join("state.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (name, digest) in json["files"].as_object_mut().unwrap() {
        let bytes = fs::read(folder.join(name)).unwrap();
        *digest = blake3::hash(&bytes).to_hex().to_string().into();
    }
    fs::write(&path, json.to_string()).unwrap();
}

#[test]
fn a_checkpoint_of_another_architecture() {
    let lab = Lab::new();
    succeeds(&mut lab.pretrain("run", &[]));
    let path = lab.path("run/config.toml");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, config.replace("width = 16", "width = 32")).unwrap();
    let parts = ["step-000006", "another architecture", "config.toml"];
    refuses(&mut lab.resume("run"), &parts);
    // As much as the flags, an edited configuration has to make sense.
    fs::write(&path, config.replace("tokens = 128", "tokens = 128\nmicro = 100")).unwrap();
    refuses(&mut lab.resume("run"), &["micro"]);
    fs::write(&path, config.replace("seed = 1", "seed = one")).unwrap();
    refuses(&mut lab.resume("run"), &["config.toml"]);
}

#[test]
fn a_checkpoint_that_lacks_a_tensor_or_has_one_of_another_shape() {
    let lab = Lab::new();
    changed(&lab, |folder| {
        models::rewrite(&folder.join("optimizer.safetensors"), |tensors| {
            tensors.retain(|(name, ..)| name != "v.embed.tokens");
        });
    });
    refuses(&mut lab.resume("run"), &["optimizer.safetensors", "lacks v.embed.tokens"]);
    let lab = Lab::new();
    changed(&lab, |folder| {
        models::rewrite(&folder.join("model.safetensors"), |tensors| {
            tensors.retain(|(name, ..)| !name.ends_with("layers.1.attn.Wqkv.weight"));
        });
    });
    refuses(&mut lab.resume("run"), &["no tensor", "layers.1.attn.Wqkv.weight", "same model"]);
    let lab = Lab::new();
    changed(&lab, |folder| {
        models::rewrite(&folder.join("model.safetensors"), |tensors| {
            models::halve(tensors, "layers.1.attn.Wqkv.weight");
        });
    });
    let parts = ["layers.1.attn.Wqkv.weight", "is [24, 16]", "[48, 16]", "same model"];
    refuses(&mut lab.resume("run"), &parts);
}

#[test]
fn a_checkpoint_of_a_newer_version() {
    let lab = Lab::new();
    succeeds(&mut lab.pretrain("run", &[]));
    let path = lab.path("run/checkpoints/last/state.json");
    let state = fs::read_to_string(&path).unwrap();
    fs::write(&path, state.replace("\"version\": 1", "\"version\": 2")).unwrap();
    refuses(&mut lab.resume("run"), &["version 2", "update"]);
}
