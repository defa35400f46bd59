//! `warpwright data`: text to shards, and what is in them.

use std::convert::Infallible;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use super::say;
use crate::data::dataset::{Corpus, Dataset, MANIFEST, Manifest, Split};
use crate::data::ingest::{Ingest, TokenizerFrom};
use crate::data::shard::Shard;
use crate::data::sources::{self, Rules, Separator};
use crate::data::tokenizer::Tokenizer;

/// Make training data from text, and look into it.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    Tokenize(TokenizeArgs),
    Inspect(InspectArgs),
}

/// Turn text into memory-mapped token shards.
///
/// Reads .txt and .jsonl files, also compressed as .gz or .zst, and folders of them; writes
/// tokenizer.json, train-*.wws, heldout-*.wws and dataset.json to a new folder. One data set serves
/// causal and masked objectives, and any context length.
#[derive(Args, Debug)]
#[command(after_help = "Example: a new vocabulary, and 1% of the documents held out\n  \
    warpwright data tokenize books/ wiki.jsonl.zst --vocab-size 32768 --out data/books\n\n\
    Example: with the tokenizer of a model you have\n  \
    warpwright data tokenize corpus.txt --tokenizer my-bert/ --out data/corpus")]
pub struct TokenizeArgs {
    /// Files, or folders searched for .txt and .jsonl (.gz and .zst of them too)
    #[arg(required = true)]
    pub inputs: Vec<PathBuf>,
    /// The folder to make
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Use this tokenizer: tokenizer.json, vocab.txt (WordPiece), vocab.json with merges.txt beside
    /// it, or a folder that holds one of them
    #[arg(long, value_name = "FILE|DIR", conflicts_with = "vocab_size")]
    pub tokenizer: Option<PathBuf>,
    /// Train a byte-level BPE of this many entries on the text
    #[arg(long, value_name = "N", default_value_t = 32_768)]
    pub vocab_size: usize,
    /// Share of documents held out, chosen by their hash
    #[arg(long, value_name = "FRACTION", default_value_t = 0.01)]
    pub heldout: f64,
    /// The field of a .jsonl line that holds the text
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub field: String,
    /// Where a document ends in a .txt file: "blanks" (two blank lines or more), "blank" (one),
    /// "file" (a file is a document), or a line of its own, such as "<|endoftext|>"
    #[arg(long, value_name = "RULE", default_value = "blanks", value_parser = separator)]
    pub document_separator: Separator,
    /// Tokens a shard file holds
    #[arg(long, value_name = "TOKENS", default_value_t = 1 << 28)]
    pub shard_tokens: u64,
    /// Replace the data set that the folder holds
    #[arg(long)]
    pub force: bool,
}

fn separator(name: &str) -> Result<Separator, Infallible> {
    name.parse()
}

/// Show what is in a data set or a token file.
///
/// Counts, a histogram of document lengths, the first documents as text, and whether every checksum
/// and token holds. Reads our shards and the .bin files of llm.c and nanoGPT.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  warpwright data inspect data/books\n\n\
    Example: a file of llm.c, decoded with GPT-2's vocabulary\n  \
    warpwright data inspect fineweb_train_000001.bin --tokenizer gpt2/")]
pub struct InspectArgs {
    /// A data set's folder, or one token file
    pub path: PathBuf,
    /// Decode with this tokenizer rather than the one beside the shards
    #[arg(long, value_name = "FILE|DIR")]
    pub tokenizer: Option<PathBuf>,
    /// Documents to show
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub documents: u64,
    /// Token that ends a text in .bin files [default: 50256 in 16-bit files, 128000 in 32-bit ones]
    #[arg(long, value_name = "ID")]
    pub end_of_text: Option<u32>,
}

/// Runs `warpwright data …`.
pub fn run(command: &DataCommand) -> Result<()> {
    match command {
        DataCommand::Tokenize(args) => tokenize(args),
        DataCommand::Inspect(args) => inspect(args, &mut io::stdout().lock()),
    }
}

/// Runs `warpwright data tokenize`.
pub fn tokenize(args: &TokenizeArgs) -> Result<()> {
    let tokenizer = match &args.tokenizer {
        Some(path) => TokenizerFrom::Path(path.clone()),
        None => TokenizerFrom::Train { vocabulary: args.vocab_size },
    };
    let rules = Rules { separator: args.document_separator.clone(), field: args.field.clone() };
    let ingest = Ingest {
        inputs: sources::find(&args.inputs)?,
        rules,
        tokenizer,
        heldout: args.heldout,
        replace: args.force,
        shard_tokens: args.shard_tokens,
        progress: true,
        ..Ingest::new(&args.out)
    };
    let manifest = ingest.run()?;
    print_manifest(&manifest, &mut io::stdout().lock())?;
    if manifest.heldout.documents == 0 && args.heldout > 0.0 {
        writeln!(
            io::stderr(),
            "warning: no document fell into the held-out {}; runs on this data cannot be \
             evaluated. Raise --heldout, or check --document-separator",
            args.heldout
        )?;
    }
    Ok(say(format_args!("next: warpwright data inspect {}", args.out.display()))?)
}

/// Runs `warpwright data inspect`, writing to `out`. An error if anything is damaged.
pub fn inspect(args: &InspectArgs, out: &mut impl Write) -> Result<()> {
    if args.path.join(MANIFEST).is_file() {
        print_manifest(&Manifest::read(&args.path)?, out)?;
    }
    let dataset = Dataset::open(&args.path, args.end_of_text)?;
    let tokenizer = match (&args.tokenizer, dataset.tokenizer) {
        (Some(path), _) => Some(Tokenizer::load(path)?),
        (None, beside) => beside,
    };
    let mut damaged = 0;
    for corpus in [Some(&dataset.train), dataset.heldout.as_ref()].into_iter().flatten() {
        for shard in corpus.shards() {
            damaged += u64::from(!print_shard(shard, out)?);
        }
    }
    print_lengths(&dataset.train, out)?;
    print_documents(&dataset.train, tokenizer.as_ref(), args.documents, out)?;
    if damaged > 0 {
        bail!("{damaged} of the files are damaged");
    }
    Ok(())
}

/// Characters of a document that are shown.
const SHOWN: usize = 320;
/// Width of the longest bar of the histogram.
const BAR: u64 = 40;

fn print_manifest(manifest: &Manifest, out: &mut impl Write) -> io::Result<()> {
    let Manifest { vocabulary, fingerprint, sources, .. } = manifest;
    let bytes: u64 = sources.iter().map(|source| source.bytes).sum();
    writeln!(out, "vocabulary  {vocabulary}, fingerprint {fingerprint}")?;
    writeln!(out, "sources     {} files, {} bytes as stored", sources.len(), grouped(bytes))?;
    for (name, split) in [("train", &manifest.train), ("heldout", &manifest.heldout)] {
        let Split { documents, tokens, bytes, shards } = split;
        writeln!(
            out,
            "{name:<11} {} documents, {} tokens, {} bytes of text ({:.2} a token), {} shards",
            grouped(*documents),
            grouped(*tokens),
            grouped(*bytes),
            *bytes as f64 / (*tokens).max(1) as f64,
            shards.len()
        )?;
    }
    Ok(())
}

/// Prints a shard's line with its verdict; false if it is damaged.
fn print_shard(shard: &Shard, out: &mut impl Write) -> io::Result<bool> {
    let result = shard.verify();
    let verdict = match &result {
        Err(error) => format!("DAMAGED: {error}"),
        Ok(()) if shard.checksum().is_some() => "checksum and tokens hold".into(),
        Ok(()) => "size holds (the format has no checksum)".into(),
    };
    writeln!(
        out,
        "{}: {} tokens of {} bytes, {} documents; {verdict}",
        shard.path().display(),
        grouped(shard.token_count()),
        shard.width(),
        grouped(shard.document_count()),
    )?;
    Ok(result.is_ok())
}

/// Document lengths of the training split, by powers of two.
fn print_lengths(corpus: &Corpus, out: &mut impl Write) -> io::Result<()> {
    let mut counts = [0u64; 64];
    corpus.lengths().for_each(|length| counts[length.ilog2() as usize] += 1);
    let most = counts.iter().max().copied().unwrap_or(0).max(1);
    let first = counts.iter().position(|&count| count > 0).unwrap_or(0);
    let last = counts.iter().rposition(|&count| count > 0).unwrap_or(0);
    writeln!(out, "\ndocument length, in tokens")?;
    for (power, &count) in counts.iter().enumerate().take(last + 1).skip(first) {
        let bar = "#".repeat((count * BAR).div_ceil(most) as usize);
        writeln!(out, "{:>12} up {:>12}  {bar}", grouped(1 << power), grouped(count))?;
    }
    Ok(())
}

fn print_documents(
    corpus: &Corpus,
    tokenizer: Option<&Tokenizer>,
    count: u64,
    out: &mut impl Write,
) -> Result<()> {
    for i in 0..count.min(corpus.documents()) {
        // A token is a byte at least, so these suffice, whatever the length of the document.
        let length = corpus.length(i);
        let ids = corpus.document_part(i, 0, length.min(SHOWN as u64)).to_vec();
        writeln!(out, "\ndocument {i}, {} tokens", grouped(length))?;
        let Some(tokenizer) = tokenizer else {
            writeln!(out, "  {ids:?}\n  (give --tokenizer to see the text)")?;
            continue;
        };
        let text: String = tokenizer.decode(&ids)?.chars().take(SHOWN).collect();
        text.lines().try_for_each(|line| writeln!(out, "  {line}"))?;
    }
    Ok(())
}

/// 1234567 as 1,234,567.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
