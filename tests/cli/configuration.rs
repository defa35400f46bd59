//! Configurations that cannot be.

use crate::*;

/// `pretrain` of the small model with these settings besides.
fn refused(sets: &[&str], parts: &[&str]) {
    let lab = Lab::new();
    let more: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    refuses(&mut lab.pretrain("run", &more), parts);
    assert!(!lab.path("run/checkpoints").exists());
}

#[test]
fn heads_that_do_not_divide_the_width() {
    refused(&["model.heads=3"], &["width 16", "heads 3", "nearest", "is 2"]);
}

#[test]
fn a_batch_shorter_than_one_sequence() {
    refused(&["batch.tokens=8"], &["batch of 8 tokens", "one sequence of 16", "raise"]);
}

#[test]
fn passes_that_do_not_divide_the_batch() {
    refused(&["batch.micro=100"], &["batch.micro 100 must divide batch.tokens 128"]);
    refused(&["batch.tokens=0"], &["batch.tokens is 0", "it must be 1 to 2^28"]);
}

#[test]
fn memory_beyond_the_machines() {
    let hint = "lower batch.micro";
    refused(&["model.layers=16000", "model.width=8192"], &["of memory", hint]);
    refused(&["model.width=1000000"], &["of memory", hint]);
    refused(&["model.width=1000000000000"], &["model.width is", "at most 1048576"]);
    refused(&["batch.tokens=200000000", "model.width=4096"], &["of memory", hint]);
    refused(&["batch.tokens=1000000000000"], &["batch.tokens", "2^28"]);
}

#[test]
fn unknown_keys() {
    refused(&["train.stepps=5"], &["stepps", "steps"]);
    refused(&["model.depth=5"], &["depth", "layers"]);
    refused(&["speed=5"], &["speed", "seed"]);
    refused(&["objective.masking.rat=0.2"], &["rat", "rate"]);
    let lab = Lab::new();
    lab.write("recipe.toml", "[optimizer]\nrule = \"sgd\"\nbeta1 = 0.9\n");
    refuses(&mut lab.pretrain("run", &["--config", "recipe.toml"]), &["beta1", "momentum"]);
}

#[test]
fn settings_that_are_none() {
    refused(&["train.steps"], &["--set train.steps", "key=value"]);
    refused(&["=5"], &["key=value"]);
    refused(&["seed=1", "seed.of=5"], &["`seed` is a value", "table"]);
    refused(&["train.steps.more=5"], &["`steps` is a value", "table"]);
    refused(&["objective=causal"], &["`objective` is a value", "--set objective.kind=causal"]);
    refused(&["model=bert-tiny"], &["`model` is a value", "--set model.preset="]);
}

#[test]
fn values_beyond_reason() {
    refused(&["train.steps=0"], &["train.steps is 0", "above 0"]);
    refused(&["train.steps=-4"], &["-4"]);
    refused(&["train.steps=many"], &["many", "train"]);
    refused(&["train.clip=-1"], &["train.clip is -1"]);
    refused(&["schedule.peak=nan"], &["schedule.peak is NaN", "above 0"]);
    refused(&["schedule.shape=sine"], &["sine", "cosine"]);
    refused(&["optimizer.beta1=1.0"], &["optimizer.beta1 is 1", "below 1"]);
    refused(&["optimizer.rule=adam"], &["adam", "adamw"]);
    refused(&["model.dropout.hidden=1.0"], &["dropout.hidden is 1", "below 1"]);
    refused(&["objective.masking.rate=1.5"], &["rate = 1.5", "(0, 1)"]);
    refused(&["data.heldout=1.0"], &["held-out", "[0, 1)"]);
    refused(&["data.vocabulary=100"], &["vocabulary of 100 is too small", "262"]);
    refused(&["batch.context=3", "model.context=3", "objective.pair=order"], &["context of 3"]);
    refused(&["dtype=f16"], &["f16", "bf16"]);
}

#[test]
fn a_context_longer_than_the_models() {
    refused(&["batch.context=100"], &["batch.context 100", "64 positions", "model.context=100"]);
}

#[test]
fn a_preset_that_is_none() {
    let lab = Lab::new();
    let more = ["--preset", "gpt5"];
    refuses(&mut lab.pretrain("run", &more), &["no preset `gpt5`", "gpt2-tiny", "bert-base"]);
}

#[test]
fn an_objective_that_the_model_cannot_have() {
    let lab = Lab::new();
    let gpt = ["--preset", "gpt2-tiny", "--objective", "masked"];
    let parts = ["masked", "only to what came before", "modernbert-tiny", "model.causal=false"];
    refuses(&mut lab.pretrain("run", &gpt), &parts);
    let bert = ["--preset", "bert-tiny", "--objective", "causal"];
    refuses(&mut lab.pretrain("run", &bert), &["causal", "both ways", "gpt2-tiny"]);
    let pair = ["--objective", "causal", "--set", "objective.pair=next"];
    refuses(&mut lab.pretrain("run", &pair), &["pair", "masked", "remove"]);
    refuses(&mut lab.pretrain("run", &["--objective", "both"]), &["both", "masked, causal"]);
}

/// Told before a device is looked for, text is tokenized or the directory made.
#[test]
fn a_shape_that_no_kernel_takes() {
    let lab = Lab::new();
    let sets = ["--set", "model.width=24", "--set", "model.heads=1"];
    for device in ["cuda", "emulator"] {
        let parts = ["a rotated head is 24", "multiples of 16: 32 works", "--device cpu"];
        refuses(lab.pretrain("run", &["--device", device]).args(sets), &parts);
        assert!(!lab.path("run").exists());
    }
    succeeds(lab.pretrain("run", &["--device", "cpu"]).args(sets));
}

/// The emulator runs our kernels alone.
#[test]
fn a_library_where_there_is_none() {
    let lab = Lab::new();
    let parts = ["--gemm cublaslt", "NVIDIA GPU", "--device cuda"];
    refuses(&mut lab.program(&["verify", "--gemm", "cublaslt"]), &parts);
    let args = ["--device", "emulator", "--gemm", "cublaslt"];
    refuses(lab.pretrain("run", &args).args(["--set", "model.width=32"]), &parts);
    assert!(!lab.path("run").exists());
    refuses(lab.program(&["bench", "gemm"]).args(args), &parts);
    refuses(lab.program(&["bench", "gemm", "--tune"]).args(&args[..2]), &["--tune FILE"]);
}

#[test]
fn a_recipe_that_cannot_be_read() {
    let lab = Lab::new();
    refuses(&mut lab.pretrain("run", &["--config", "none.toml"]), &["none.toml", "No such file"]);
    lab.write("recipe.toml", "[train]\nsteps = = 5\n");
    refuses(&mut lab.pretrain("run", &["--config", "recipe.toml"]), &["recipe.toml", "line 2"]);
}

#[test]
fn flags_that_exclude_each_other() {
    let lab = Lab::new();
    for flag in ["--force", "--preset=gpt2", "--dtype=f64", "--gemm=portable", "--tuned"] {
        let flags = ["--resume", flag];
        refuses(lab.program(&["pretrain"]).args(flags), &["cannot be used with", "--help"]);
    }
}
