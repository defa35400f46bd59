//! Text to data sets, and damaged ones.

use crate::*;
fn text() -> String {
    let documents: Vec<String> =
        (0..200).map(|i| format!("document {i} of the whale, the sea\nand the ship")).collect();
    documents.join("\n\n\n")
}

fn ingest(folder: &Path, out: &str) -> Ingest {
    let path = write(folder, "text.txt", text());
    Ingest {
        inputs: vec![Input::File(path)],
        tokenizer: TokenizerFrom::Train { vocabulary: 300 },
        heldout: 0.2,
        ..Ingest::new(&folder.join(out))
    }
}

#[test]
fn text_to_batches() {
    let folder = folder();
    let manifest = ingest(folder.path(), "out").run().unwrap();
    assert_eq!(manifest.train.documents + manifest.heldout.documents, 200);
    assert!((20..60).contains(&manifest.heldout.documents), "{manifest:?}");
    let out = folder.path().join("out");
    let dataset = Dataset::open(&out, None).unwrap();
    dataset.verify(300).unwrap();
    let tokenizer = dataset.tokenizer.as_ref().unwrap();
    assert_eq!(tokenizer.vocabulary(), 300);
    let mut texts: Vec<String> = [&dataset.train, dataset.heldout.as_ref().unwrap()]
        .iter()
        .flat_map(|corpus| {
            let text = |i| tokenizer.decode(&corpus.document(i).to_vec()).unwrap();
            (0..corpus.documents()).map(text).collect::<Vec<_>>()
        })
        .collect();
    texts.sort();
    let whole = text();
    let mut expected: Vec<&str> = whole.split("\n\n\n").collect();
    expected.sort_unstable();
    assert_eq!(texts, expected);
    let facts = Facts::from(tokenizer);
    let loader = Loader::new(&dataset, &facts, &masked(Unit::Word, 0.15), 128, 32, 0).unwrap();
    let heldout = loader.heldout(1000).unwrap();
    assert!(loader.batch(3).labelled() > 0 && loader.unigram_nll(&heldout) > 1.0);
}

#[test]
fn the_same_text_gives_the_same_bytes_and_shards_are_cut() {
    let folder = folder();
    ingest(folder.path(), "a").run().unwrap();
    ingest(folder.path(), "b").run().unwrap();
    let read = |out: &str, name: &str| fs::read(folder.path().join(out).join(name)).unwrap();
    for name in ["tokenizer.json", "train-00000.wws", "heldout-00000.wws", MANIFEST] {
        assert_eq!(read("a", name), read("b", name), "{name}");
    }
    let cut = Ingest { shard_tokens: 500, ..ingest(folder.path(), "c") }.run().unwrap();
    assert!(cut.train.shards.len() > 3);
    let [whole, cut] = ["a", "c"].map(|out| Dataset::open(&folder.path().join(out), None).unwrap());
    assert_eq!(whole.train.tokens(), cut.train.tokens());
    for i in 0..whole.train.documents() {
        assert_eq!(whole.train.document(i).to_vec(), cut.train.document(i).to_vec());
    }
}

#[test]
fn bad_corpora_are_refused() {
    let folder = folder();
    let base = ingest(folder.path(), "out");
    let with = |name: &str, bytes: &[u8]| {
        let path = write(folder.path(), name, bytes);
        Ingest { inputs: vec![Input::File(path)], ..base.clone() }.run().unwrap_err()
    };
    assert!(matches!(with("empty.txt", b"\n \n"), IngestError::EmptyCorpus(_)));
    let error = with("latin1.txt", b"caf\xe9");
    assert!(matches!(error, IngestError::Source(SourceError::NotUtf8 { at: 3, .. })));
    let inputs = vec![Input::File("nowhere.txt".into())];
    let error = Ingest { inputs, ..base.clone() }.run().unwrap_err();
    assert!(matches!(error, IngestError::Source(SourceError::Missing(_))));
    let error = Ingest { heldout: 1.0, ..base.clone() }.run().unwrap_err();
    assert!(matches!(error, IngestError::HeldoutFraction(_)));
    let path = write(folder.path(), "one.txt", "a single document");
    let error = Ingest { inputs: vec![Input::File(path)], heldout: 0.999_999, ..base.clone() };
    assert!(matches!(error.run(), Err(IngestError::NothingToTrainOn(_))));
    // Nothing that opens was left behind.
    assert!(Dataset::open(&base.out, None).is_err());
    let file = write(folder.path(), "file", "");
    let error = Ingest { out: file.join("out"), ..base }.run().unwrap_err();
    assert!(matches!(error, IngestError::Io { .. }));
}

#[test]
fn a_data_set_is_replaced_only_when_told() {
    let folder = folder();
    let ingest = ingest(folder.path(), "out");
    Ingest { shard_tokens: 500, ..ingest.clone() }.run().unwrap();
    assert!(matches!(ingest.run(), Err(IngestError::Exists(_))));
    let manifest = Ingest { replace: true, ..ingest.clone() }.run().unwrap();
    let shards = fs::read_dir(&ingest.out)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "wws"));
    assert_eq!(shards.count(), manifest.train.shards.len() + manifest.heldout.shards.len());
}

#[test]
fn damaged_data_sets_are_refused() {
    let folder = folder();
    ingest(folder.path(), "out").run().unwrap();
    let out = folder.path().join("out");
    let open = || Dataset::open(&out, None).err().expect("refused");
    let shard = out.join("train-00000.wws");
    let bytes = fs::read(&shard).unwrap();

    fs::write(&shard, &bytes[..bytes.len() / 2]).unwrap();
    assert!(matches!(open(), DatasetError::Shard(ShardError::Truncated { .. })));
    fs::remove_file(&shard).unwrap();
    assert!(matches!(open(), DatasetError::Shard(ShardError::Io { .. })));
    let mut flipped = bytes.clone();
    flipped[200] ^= 1;
    fs::write(&shard, flipped).unwrap();
    let error = Dataset::open(&out, None).unwrap().verify(u64::MAX).unwrap_err();
    assert!(matches!(error, DatasetError::Shard(ShardError::Checksum(_))));
    fs::write(&shard, &bytes).unwrap();

    Tokenizer::train(["quite another text"; 9].iter(), 270).unwrap().save(&out).unwrap();
    assert!(matches!(open(), DatasetError::OtherTokenizer { .. }));

    let manifest = fs::read_to_string(out.join(MANIFEST)).unwrap();
    write(&out, MANIFEST, manifest.replace("\"version\": 1", "\"version\": 2"));
    assert!(matches!(open(), DatasetError::Version { found: 2, .. }));
    write(&out, MANIFEST, "{}");
    assert!(matches!(open(), DatasetError::Manifest { .. }));
    fs::remove_file(out.join(MANIFEST)).unwrap();
    assert!(matches!(open(), DatasetError::Unfinished(_)));
    let nothing = Dataset::open(&folder.path().join("nowhere"), None).err().unwrap();
    assert!(matches!(nothing, DatasetError::NotFound(_)));
}

#[test]
fn the_shipped_text_is_made_once() {
    let folder = folder();
    let (manifest, made) = shipped::prepare(folder.path(), 1024, 0.05).unwrap();
    assert!(made && manifest.train.documents + manifest.heldout.documents == 1067);
    let (again, made) = shipped::prepare(folder.path(), 1024, 0.05).unwrap();
    assert!(!made && again == manifest);
    let shard = folder.path().join("train-00000.wws");
    let mut bytes = fs::read(&shard).unwrap();
    bytes[1000] ^= 1;
    fs::write(&shard, bytes).unwrap();
    assert!(shipped::prepare(folder.path(), 1024, 0.05).unwrap().1, "damage is repaired");
    assert!(shipped::prepare(folder.path(), 512, 0.05).unwrap().1, "other settings");
}
