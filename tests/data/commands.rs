//! `warpwright data`, from its arguments on.

use crate::*;
use clap::Parser;
use warpwright::cli::data::{self, DataCommand};

#[derive(Parser)]
enum Command {
    #[command(subcommand)]
    Data(DataCommand),
}

fn run(arguments: &[&str]) -> anyhow::Result<()> {
    let Command::Data(command) =
        Command::try_parse_from([&["warpwright", "data"], arguments].concat())?;
    data::run(&command)
}

fn inspect(arguments: &[&str]) -> (anyhow::Result<()>, String) {
    let arguments = [&["warpwright", "data", "inspect"], arguments].concat();
    let Command::Data(DataCommand::Inspect(args)) = Command::parse_from(arguments) else {
        unreachable!("the arguments say inspect")
    };
    let mut out = Vec::new();
    let result = data::inspect(&args, &mut out);
    (result, String::from_utf8(out).unwrap())
}

#[test]
fn tokenize_then_inspect() {
    let folder = folder();
    let text: Vec<String> = (0..50).map(|i| format!("Call me Ishmael {i}.")).collect();
    let input = write(folder.path(), "in.txt", text.join("\n\n\n"));
    let out = folder.path().join("out");
    let [input, out] = [&input, &out].map(|path| path.to_str().unwrap());
    run(&["tokenize", input, "--vocab-size", "300", "--heldout", "0.2", "--out", out]).unwrap();
    let (result, shown) = inspect(&[out, "--documents", "1"]);
    result.unwrap();
    for part in ["vocabulary  278", "checksum and tokens hold", "####", "Call me Ishmael"] {
        assert!(shown.contains(part), "{part} in:\n{shown}");
    }
    let shard = folder.path().join("out/train-00000.wws");
    let mut bytes = fs::read(&shard).unwrap();
    bytes[66] ^= 1;
    fs::write(&shard, bytes).unwrap();
    let (result, shown) = inspect(&[shard.to_str().unwrap()]);
    assert!(result.is_err() && shown.contains("DAMAGED"), "{shown}");
    let error = run(&["tokenize", input, "--out", out]).unwrap_err().to_string();
    assert!(error.contains("--force"), "{error}");
}

#[test]
fn inspect_reads_nanogpt() {
    let folder = folder();
    let bytes: Vec<u8> = [5u16, 6, 50256, 7].iter().flat_map(|t| t.to_le_bytes()).collect();
    let path = write(folder.path(), "train.bin", bytes);
    let (result, shown) = inspect(&[path.to_str().unwrap()]);
    result.unwrap();
    assert!(shown.contains("4 tokens of 2 bytes, 2 documents") && shown.contains("[5, 6]"));
}
