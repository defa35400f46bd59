//! What the data are, and what they hold much and little of.

use std::cmp::Reverse;
use std::path::Path;

use regex::Regex;
use serde_json::Value;

use super::{Known, Origin, Run, bullets, file_name, table};
use crate::data::dataset::Split;
use crate::data::{Corpus, Dataset, Manifest};
use crate::telemetry::format::{commas, count};

/// Sources that are listed.
const LISTED: usize = 20;
/// Documents that scripts are counted in, and tokens of each.
const READ: u64 = 400;
const READ_TOKENS: u64 = 1000;
/// Scripts that are told apart.
const SCRIPTS: [&str; 12] = [
    "Latin",
    "Greek",
    "Cyrillic",
    "Hebrew",
    "Arabic",
    "Devanagari",
    "Bengali",
    "Thai",
    "Hangul",
    "Hiragana",
    "Katakana",
    "Han",
];

/// The section's text, and bullets of what is over- and under-represented.
pub fn of(origin: &Origin) -> (String, String) {
    match origin {
        Origin::Run(run) => of_run(run),
        Origin::Finetuned(results) => of_rows(results),
        Origin::Unknown => ("Unknown here.\n\n".into(), String::new()),
    }
}

/// What the data may be used for.
pub fn licenses(known: &Known) -> String {
    let license = known.data_license.as_deref().unwrap_or("unknown");
    format!("Licence of the data: {license}.\n\n")
}

fn of_run(run: &Run) -> (String, String) {
    let (manifest, dataset) =
        (Manifest::read(&run.data), Dataset::open(&run.data, run.config.data.end_of_text));
    let mut text = String::new();
    if let Ok(manifest) = &manifest {
        text += &listed(manifest);
    }
    let Ok(dataset) = dataset else {
        let gone = "The tokens are no longer where the run read them: nothing is counted here.\n\n";
        return (text + gone, String::new());
    };
    text += &prints(&dataset);
    let mut lines = Vec::new();
    if let Ok(manifest) = &manifest {
        lines.extend(shares(manifest));
    }
    lines.extend(lengths(&dataset.train, run.config.batch.context as u64));
    lines.extend(scripts(&dataset));
    lines.extend(unseen(&dataset));
    (
        text,
        "\nWhat its training data hold, by `data inspect`'s counts:\n\n".to_string()
            + &bullets(&lines),
    )
}

/// Documents and bytes, by split and by source.
fn listed(manifest: &Manifest) -> String {
    let row = |cells: [&str; 4]| cells.map(String::from).to_vec();
    let mut splits = vec![row(["", "documents", "tokens", "bytes of text"])];
    for (name, split) in [("training", &manifest.train), ("held out", &manifest.heldout)] {
        let Split { documents, tokens, bytes, .. } = split;
        splits.push(row([name, &commas(*documents), &commas(*tokens), &commas(*bytes)]));
    }
    let mut sources: Vec<_> = manifest.sources.iter().collect();
    sources.sort_by_key(|source| Reverse(source.bytes));
    let mut files = vec![["source", "bytes as stored", "documents"].map(String::from).to_vec()];
    files.extend(sources.iter().take(LISTED).map(|source| {
        let name = file_name(Path::new(&source.path));
        vec![format!("`{name}`"), commas(source.bytes), commas(source.documents)]
    }));
    let others = sources.len().saturating_sub(LISTED);
    let more = if others > 0 { format!("and {others} smaller ones.\n\n") } else { String::new() };
    format!("{}{}{more}", table(&splits), table(&files))
}

/// Fingerprints.
fn prints(dataset: &Dataset) -> String {
    let shard = |shard: &crate::data::shard::Shard| {
        let sum = shard.checksum().map_or("none".into(), |sum| format!("`{sum:016x}`"));
        vec![format!("`{}`", file_name(shard.path())), sum]
    };
    let mut cells = vec![["tokens", "XXH3 of the file's body"].map(String::from).to_vec()];
    cells.extend(dataset.shards().take(LISTED).map(shard));
    let others = dataset.shards().count().saturating_sub(LISTED);
    let more = if others > 0 { format!("and {others} others.\n\n") } else { String::new() };
    let tokenizer = dataset.tokenizer.as_ref().map(|t| format!("`{:016x}`", t.fingerprint()));
    let tokenizer = tokenizer.unwrap_or_else(|| "unknown".into());
    format!("{}{more}Fingerprint of the tokenizer: {tokenizer}.\n\n", table(&cells))
}

/// How much the largest source has of all.
fn shares(manifest: &Manifest) -> Option<String> {
    let total: u64 = manifest.sources.iter().map(|source| source.bytes).sum();
    let largest = manifest.sources.iter().max_by_key(|source| source.bytes)?;
    let (name, share) = (file_name(Path::new(&largest.path)), percent(largest.bytes, total));
    Some(match manifest.sources.len() {
        1 => format!(
            "All text is from one source, `{name}`: its subjects and voices are all there is."
        ),
        n => format!("Of {n} sources the largest, `{name}`, has {share} of the bytes."),
    })
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.1}%", 100.0 * part as f64 / whole.max(1) as f64)
}

fn lengths(corpus: &Corpus, context: u64) -> Option<String> {
    let mut lengths: Vec<u64> = corpus.lengths().collect();
    lengths.sort_unstable();
    let (&median, &longest) = (lengths.get(lengths.len() / 2)?, lengths.last()?);
    let cut: u64 = lengths.iter().filter(|&&length| length > context).sum();
    Some(format!(
        "Documents have {} tokens in the median, {} at most; {} of the tokens are in documents \
         longer than the {context} tokens of a sequence, which were cut.",
        commas(median),
        commas(longest),
        percent(cut, corpus.tokens())
    ))
}

/// The share of each script among the letters of evenly spaced documents.
fn scripts(dataset: &Dataset) -> Option<String> {
    let (corpus, tokenizer) = (&dataset.train, dataset.tokenizer.as_ref()?);
    let every = corpus.documents().div_ceil(READ).max(1) as usize;
    let mut text = String::new();
    for document in (0..corpus.documents()).step_by(every) {
        let length = corpus.length(document).min(READ_TOKENS);
        text += &tokenizer.decode(&corpus.document_part(document, 0, length).to_vec()).ok()?;
    }
    let letters = |class: &str| {
        let pattern = Regex::new(&format!(r"\p{{{class}}}")).expect("a class of Unicode");
        pattern.find_iter(&text).count() as u64
    };
    let all = letters("L");
    let mut found: Vec<(u64, &str)> =
        SCRIPTS.iter().map(|script| (letters(script), *script)).filter(|(n, _)| *n > 0).collect();
    found.sort_by(|a, b| b.cmp(a));
    let shown = found.iter().map(|(n, script)| format!("{script} {}", percent(*n, all)));
    let shown = shown.collect::<Vec<_>>().join(", ");
    (all > 0).then(|| {
        format!(
            "Letters by script, in a sample of {}: {shown}. Languages in other scripts are all but \
             absent.",
            count(all as f64)
        )
    })
}

/// Entries of the vocabulary that training never met.
fn unseen(dataset: &Dataset) -> Option<String> {
    let tokenizer = dataset.tokenizer.as_ref()?;
    let counts = dataset.train.counts(tokenizer.vocabulary(), usize::MAX);
    let special = tokenizer.is_special();
    let plain = || counts.iter().zip(&special).filter(|(_, special)| !**special);
    let never = plain().filter(|(count, _)| **count == 0).count() as u64;
    let rare = plain().filter(|(count, _)| (1..10).contains(*count)).count() as u64;
    let all = plain().count() as u64;
    Some(format!(
        "Of {} entries of the vocabulary {} ({}) never occur in it and {} ({}) fewer than ten \
         times: what the model knows of them is little.",
        commas(all),
        commas(never),
        percent(never, all),
        commas(rare),
        percent(rare, all)
    ))
}

/// The rows of a finetuning.
fn of_rows(results: &Value) -> (String, String) {
    let rows = |value: &Value| value.as_u64().map_or("unknown".into(), commas);
    let list = |key: &str| results[key].as_array().map_or(&[][..], Vec::as_slice);
    let name = |value: &Value| value.as_str().unwrap_or("unknown").to_string();
    let mut files = vec![["file", "rows", "XXH3"].map(String::from).to_vec()];
    files.extend(list("data").iter().map(|file| {
        let (name, print) = (name(&file["file"]), name(&file["xxh3"]));
        vec![format!("`{name}`"), rows(&file["rows"]), format!("`{print}`")]
    }));
    let files = match files.len() {
        1 => "The files are unknown here.\n\n".into(),
        _ => table(&files),
    };
    let (train, held) = (rows(&results["train"]), rows(&results["held_out"]));
    let text = format!("{files}{train} rows to learn from, {held} held out.\n\n");
    let mut counts: Vec<(u64, u64, String)> = list("counts")
        .iter()
        .filter_map(|count| {
            Some((count["train"].as_u64()?, count["held_out"].as_u64()?, name(&count["label"])))
        })
        .collect();
    counts.sort_by_key(|count| Reverse(count.0));
    let (Some(most), Some(least)) = (counts.first(), counts.last()) else {
        return (text, String::new());
    };
    let mut cells = vec![["", "to learn from", "held out"].map(String::from).to_vec()];
    cells.extend(
        counts
            .iter()
            .take(LISTED)
            .map(|(train, held, label)| vec![label.clone(), commas(*train), commas(*held)]),
    );
    let others = counts.len().saturating_sub(LISTED);
    let more = if others > 0 { format!("and {others} rarer ones.\n\n") } else { String::new() };
    let line = format!(
        "It had most examples of \"{}\" ({}) and fewest of \"{}\" ({} to learn from, {} to be \
         tested on): of these it knows least, and least is known.",
        most.2,
        commas(most.0),
        least.2,
        commas(least.0),
        commas(least.1)
    );
    (format!("{text}{}{more}", table(&cells)), bullets(&[line]))
}
