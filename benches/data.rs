//! How fast the data side is, on one thread (`RAYON_NUM_THREADS=1`).
//!
//! ```text
//! batch/*      whole micro-batches of 16,384 tokens over the shipped text, by objective; the
//!              context is the demo's 64 tokens and a usual 1,024
//! encode/*     text to ids: all of it new to the cache, again with the cache warm, and without it
//! encode/train a vocabulary of 2,048 from the shipped text (6.2 MB)
//! shard/verify checksum and range of every token of a shard of 64 MiB
//! rng/philox   blocks of four words
//! ```
//!
//! `batch/*` must not be what a trainer waits for: at 6 operations a parameter and token, a chip of
//! 989 TFLOPS can train a model of 124M on 1.3 million tokens a second at the very most.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use indicatif::ProgressBar;
use warpwright::data::shard::{Shard, ShardWriter};
use warpwright::data::sources::{Documents, Rules};
use warpwright::data::{
    Dataset, Facts, Loader, Masking, Objective, Pair, Tokenizer, Unit, shipped,
};
use warpwright::rng::{Philox, Stream};

const TOKENS: usize = 16_384;

fn texts() -> Vec<String> {
    let (inputs, rules) = ([shipped::input()], Rules::default());
    let documents = Documents::new(&inputs, &rules, ProgressBar::hidden());
    documents.map(|part| part.expect("the shipped text reads").text).collect()
}

fn batches(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    shipped::prepare(folder.path(), 2048, 0.05).expect("the shipped text tokenizes");
    let dataset = Dataset::open(folder.path(), None).expect("it was just made");
    let facts = Facts::from(dataset.tokenizer.as_ref().expect("it was just made"));
    let masked =
        |unit, pair| Objective::Masked { masking: Masking { unit, ..Masking::default() }, pair };
    let mut group = c.benchmark_group("batch");
    group.throughput(Throughput::Elements(TOKENS as u64));
    for (name, objective) in [
        ("causal", Objective::Causal),
        ("token", masked(Unit::Token, None)),
        ("word", masked(Unit::Word, None)),
        ("span", masked(Unit::Span, None)),
        ("token + order", masked(Unit::Token, Some(Pair::Order))),
        ("token + next", masked(Unit::Token, Some(Pair::Next))),
    ] {
        for context in [64, 1024] {
            let loader = Loader::new(&dataset, &facts, &objective, TOKENS, context, 1)
                .expect("a possible shape");
            let mut index = 0;
            group.bench_function(format!("{name}/{context}"), |b| {
                b.iter(|| {
                    index += 1;
                    loader.batch(index)
                })
            });
        }
    }
    group.finish();
}

fn tokenizer(c: &mut Criterion) {
    let texts = texts();
    let bytes = texts.iter().map(String::len).sum::<usize>() as u64;
    let json = Tokenizer::train(texts.iter(), 2048).expect("training").to_json();
    let fresh = || Tokenizer::from_json(json.as_bytes(), "bench".as_ref()).expect("its own json");
    let encode = |tokenizer: &Tokenizer| -> usize {
        let length = |text| tokenizer.encode_document(text).expect("any text encodes").len();
        texts.iter().map(|text| length(text)).sum()
    };
    let mut group = c.benchmark_group("encode");
    group.sample_size(10).throughput(Throughput::Bytes(bytes));
    group.bench_function("new", |b| {
        b.iter_batched(fresh, |tokenizer| encode(&tokenizer), BatchSize::PerIteration)
    });
    // The library's own way, text by text: what `words` is measured against.
    let library = fresh();
    group.bench_function("library", |b| {
        b.iter(|| {
            texts.iter().map(|text| library.encode(text).expect("encodes").len()).sum::<usize>()
        })
    });
    let warm = fresh();
    encode(&warm);
    group.bench_function("warm", |b| b.iter(|| encode(&warm)));
    group.bench_function("train", |b| {
        b.iter(|| Tokenizer::train(texts.iter(), 2048).expect("training"))
    });
    group.finish();
}

fn shard(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("bench.wws");
    let mut writer = ShardWriter::create(&path, 50_257, 0).expect("a shard");
    let rng = Philox::new(0);
    for block in 0..1u64 << 15 {
        let words = (0..256).flat_map(|i| rng.block(Stream::Sample, 0, block << 8 | i));
        writer.push(&words.map(|word| word % 50_257).collect::<Vec<_>>()).expect("written");
        writer.end_document();
    }
    let tokens = writer.token_count();
    writer.finish().expect("written");
    let shard = Shard::open(&path).expect("it was just made");
    let mut group = c.benchmark_group("shard");
    group.sample_size(20).throughput(Throughput::Bytes(2 * tokens));
    group.bench_function("verify", |b| b.iter(|| shard.verify().expect("it holds")));
    group.finish();
}

fn philox(c: &mut Criterion) {
    let mut group = c.benchmark_group("rng");
    group.throughput(Throughput::Elements(1024));
    group.bench_function("philox", |b| {
        let rng = Philox::new(black_box(1));
        b.iter(|| (0..1024).fold(0, |sum, i| sum ^ rng.block(Stream::Mask, 0, i)[0]))
    });
    group.finish();
}

criterion_group!(benches, batches, tokenizer, shard, philox);
criterion_main!(benches);
