//! Text and token files that are not what they should be, and those of other programs.

use std::fs::OpenOptions;
use std::io::Write;

use crate::*;

/// `pretrain` on the text or shards that `set` names.
fn on(lab: &Lab, set: &str) -> std::process::Command {
    lab.pretrain("run", &["--set", set])
}

#[test]
fn an_empty_corpus() {
    let lab = Lab::new();
    lab.write("empty.txt", " \n\n\n");
    let parts = ["empty.txt", "corpus is empty", "check the input"];
    refuses(&mut on(&lab, "data.text=['empty.txt']"), &parts);
    refuses(&mut lab.program(&["data", "tokenize", "empty.txt", "--out", "x"]), &parts);
    // Put right, the same command runs: nothing was begun that had to be forced away.
    lab.write("empty.txt", runs::text());
    succeeds(&mut on(&lab, "data.text=['empty.txt']"));
}

#[test]
fn a_corpus_that_is_not_there() {
    let lab = Lab::new();
    let parts = ["none.txt", "no such file", "check the path"];
    refuses(&mut on(&lab, "data.text=['none.txt']"), &parts);
    refuses(&mut lab.program(&["data", "tokenize", "none.txt", "--out", "x"]), &parts);
    fs::create_dir(lab.path("folder")).unwrap();
    refuses(&mut on(&lab, "data.text=['folder']"), &["folder", "no .txt or .jsonl"]);
    refuses(&mut on(&lab, "data.shards=folder"), &["no data set here", "data tokenize"]);
    refuses(&mut on(&lab, "data.shards=none"), &["no data set here", "data tokenize"]);
}

#[test]
fn text_that_is_not_utf8() {
    let lab = Lab::new();
    let mut text = runs::text().into_bytes();
    text[300] = 0xff;
    lab.write("latin.txt", text);
    refuses(
        &mut on(&lab, "data.text=['latin.txt']"),
        &["latin.txt", "not UTF-8 at byte 300", "iconv"],
    );
}

#[test]
fn shards_that_are_damaged() {
    let lab = Lab::new();
    let damage = |name: &str, how: &dyn Fn(&mut Vec<u8>), parts: &[&str]| {
        lab.shards(name);
        let path = lab.path(name).join("train-00000.wws");
        let mut bytes = fs::read(&path).unwrap();
        how(&mut bytes);
        fs::write(&path, bytes).unwrap();
        refuses(&mut on(&lab, &format!("data.shards={name}")), parts);
        let inspect = ["data", "inspect", name];
        refuses(&mut lab.program(&inspect), &[]);
    };
    let cut = |b: &mut Vec<u8>| b.truncate(b.len() - 100);
    damage("cut", &cut, &["train-00000.wws", "truncated", "make it again"]);
    damage("stub", &|b| b.truncate(20), &["shorter than a header", "make it again"]);
    damage("long", &|b| b.push(0), &["1 bytes follow", "make it again"]);
    damage("newer", &|b| b[8] = 2, &["version 2", "reads 1", "update the program"]);
    damage("header", &|b| b[32] ^= 1, &["header", "checksum", "make it again"]);
    // Two tokens that trade places are both in the vocabulary: only the checksum knows.
    let swap = |b: &mut Vec<u8>| b.swap(64, 66);
    damage("swapped", &swap, &["do not match their checksum", "make it again"]);
    let beyond = |b: &mut Vec<u8>| b[64..66].fill(0xff);
    damage(
        "beyond",
        &beyond,
        &["token 0 is 65535", "beyond the vocabulary of", "another tokenizer"],
    );
    damage("magic", &|b| b[0] = b'X', &["not a token file", "data tokenize"]);
}

#[test]
fn a_data_set_that_lacks_a_part() {
    let lab = Lab::new();
    lab.shards("unfinished");
    fs::remove_file(lab.path("unfinished/dataset.json")).unwrap();
    refuses(&mut on(&lab, "data.shards=unfinished"), &["interrupted", "data tokenize"]);
    lab.shards("absent");
    fs::remove_file(lab.path("absent/train-00000.wws")).unwrap();
    refuses(&mut on(&lab, "data.shards=absent"), &["absent/train-00000.wws", "No such file"]);
    lab.shards("newer");
    let path = lab.path("newer/dataset.json");
    let text = fs::read_to_string(&path).unwrap().replace("\"version\": 1", "\"version\": 9");
    fs::write(&path, text).unwrap();
    refuses(&mut on(&lab, "data.shards=newer"), &["version 9", "update the program"]);
}

#[test]
fn a_tokenizer_that_does_not_match_the_shards() {
    let lab = Lab::new();
    lab.shards("ours");
    let args = ["data", "tokenize", "corpus.txt", "--vocab-size", "280", "--out", "other"];
    succeeds(&mut lab.program(&args));
    fs::copy(lab.path("other/tokenizer.json"), lab.path("ours/tokenizer.json")).unwrap();
    let parts = ["another tokenizer", "fingerprint", "tokenize again"];
    refuses(&mut on(&lab, "data.shards=ours"), &parts);
    fs::write(lab.path("ours/tokenizer.json"), "{}").unwrap();
    refuses(&mut on(&lab, "data.shards=ours"), &["tokenizer.json", "not a tokenizer"]);
}

#[test]
fn a_data_set_is_not_overwritten_unasked() {
    let lab = Lab::new();
    lab.shards("set");
    let again = ["data", "tokenize", "corpus.txt", "--vocab-size", "300", "--out", "set"];
    refuses(&mut lab.program(&again), &["holds a data set already", "--force"]);
    succeeds(lab.program(&again).arg("--force"));
}

#[test]
fn documents_longer_than_the_context_are_split_and_it_is_said() {
    let lab = Lab::new();
    let (_, said) = succeeds(&mut lab.pretrain("run", &[]));
    assert!(said.contains("documents longer than the context of 16 are split"), "{said}");
}

/// Ids of a few documents in a vocabulary like GPT-2's, an end of text before each.
fn gpt2_ids(documents: usize) -> Vec<u16> {
    let document = |d: usize| {
        let text = (0..40).map(move |i| ((d * 31 + i * i) % 500) as u16);
        std::iter::once(50_256).chain(text)
    };
    (0..documents).flat_map(document).collect()
}

fn bytes(ids: &[u16]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}

fn llm_c(ids: &[u16]) -> Vec<u8> {
    let mut header = vec![0i32; 256];
    header[..3].copy_from_slice(&[20_240_520, 1, ids.len() as i32]);
    header.iter().flat_map(|x| x.to_le_bytes()).chain(bytes(ids)).collect()
}

#[test]
fn token_files_of_llm_c_and_nanogpt_train_a_gpt() {
    let lab = Lab::new();
    let file = |folder: &str, name: &str, data: Vec<u8>| {
        fs::create_dir_all(lab.path(folder)).unwrap();
        lab.write(&format!("{folder}/{name}"), data);
    };
    file("llmc", "tiny_train.bin", llm_c(&gpt2_ids(40)));
    file("llmc", "tiny_val.bin", llm_c(&gpt2_ids(8)));
    file("nanogpt", "train.bin", bytes(&gpt2_ids(40)));
    file("nanogpt", "val.bin", bytes(&gpt2_ids(8)));
    for folder in ["llmc", "nanogpt"] {
        let set = format!("data.shards={folder}");
        let more = ["--preset", "gpt2", "--set", &set, "--set", "model.context=32"];
        let (said, _) = succeeds(&mut lab.pretrain(&format!("{folder}-run"), &more));
        assert!(said.contains("tokenizer.json"), "{said}");
        let run = lab.path(&format!("{folder}-run"));
        assert_eq!(runs::steps(&run), [1, 2, 3, 4, 5, 6]);
        assert_eq!(runs::records(&run, "eval").len(), 2);
        let run = run.display().to_string();
        let generate = ["generate", "--model", &run, "--length", "3"];
        refuses(&mut lab.program(&generate), &["no tokenizer here", "tokenizer.json"]);
    }
    let (a, b) = (lab.path("llmc-run"), lab.path("nanogpt-run"));
    assert!(runs::state(&a) == runs::state(&b), "the same tokens train the same model");
    // A model whose vocabulary is too small for the tokens, and a masked one.
    let small = ["--preset", "gpt2-tiny", "--set", "data.shards=llmc"];
    refuses(&mut lab.pretrain("small", &small), &["50256", "beyond the vocabulary of 2048"]);
    let vocab = ["--set", "model.vocab=50257"];
    let bert = [&vocab[..], &["--preset", "bert-base", "--set", "data.shards=llmc"]].concat();
    refuses(&mut lab.pretrain("bert", &bert), &["[CLS]", "masked objective", "causal"]);
    // Cut in the middle.
    let train = lab.path("llmc/tiny_train.bin");
    let file = OpenOptions::new().write(true).open(train).unwrap();
    file.set_len(1500).unwrap();
    let gpt = ["--preset", "gpt2", "--set", "data.shards=llmc"];
    refuses(&mut lab.pretrain("cut", &gpt), &["tiny_train.bin", "truncated"]);
    let mut file = OpenOptions::new().append(true).open(lab.path("nanogpt/train.bin")).unwrap();
    file.write_all(&[0]).unwrap();
    let gpt = ["--preset", "gpt2", "--set", "data.shards=nanogpt"];
    refuses(&mut lab.pretrain("odd", &gpt), &["train.bin", "1 bytes follow"]);
}
