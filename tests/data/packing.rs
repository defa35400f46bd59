//! What packing promises: each token once an epoch, any batch at any time.

use crate::*;
/// Every token of the corpus, as often as it occurs, must be in the epoch's stream.
fn check_epochs(lengths: &[usize], context: usize, n: usize, seed: u64) {
    let folder = folder();
    let documents = documents(lengths);
    let corpus = corpus(folder.path(), &documents);
    for frame in [
        Frame::None,
        Frame::Causal { eot: EOT },
        Frame::Pair { cls: CLS, sep: SEP },
        Frame::Masked { cls: CLS, sep: SEP },
    ] {
        let packing = Packing::new(corpus.clone(), frame, context, Philox::new(seed));
        let total = packing.epoch_tokens();
        let mut covered: HashMap<(u32, u64), Vec<(usize, usize)>> = HashMap::new();
        for k in 0..(3 * total).div_ceil(n as u64) {
            let spans = packing.spans(k * n as u64, n);
            assert_eq!(spans.iter().map(|span| span.framed.len()).sum::<usize>(), n);
            for span in spans {
                let piece = packing.piece(span.piece.number);
                assert_eq!(piece, span.piece);
                let len = packing.framed_len(&piece) as usize;
                assert!(!span.framed.is_empty() && span.framed.end <= len && len <= context);
                let key = (span.epoch, piece.number);
                covered.entry(key).or_default().push((span.framed.start, span.framed.end));
            }
        }
        // Spans come in stream order, so those of a piece must join up.
        for epoch in 0..3 {
            for number in 0..packing.pieces() {
                let parts = &covered[&(epoch, number)];
                let end = parts.iter().fold(0, |at, part| {
                    assert_eq!(part.0, at);
                    part.1
                });
                assert_eq!(end as u64, packing.framed_len(&packing.piece(number)));
            }
        }
        let mut pieces: Vec<_> = (0..packing.pieces()).map(|i| packing.piece(i)).collect();
        pieces.sort_by_key(|piece| (piece.document, piece.begin));
        let tokens: Vec<u32> = pieces
            .iter()
            .flat_map(|p| corpus.document_part(p.document, p.begin, p.len).to_vec())
            .collect();
        assert_eq!(tokens, documents.concat());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn an_epoch_has_each_token_once(
        lengths in prop::collection::vec(1usize..80, 1..60),
        context in 4usize..40,
        n in 1usize..300,
        seed: u64,
    ) {
        check_epochs(&lengths, context, n, seed);
    }
}

#[test]
fn epochs_differ_and_seeds_differ() {
    let folder = folder();
    let dataset = dataset(folder.path(), &documents(&[20; 64]));
    let batch = |seed, k| {
        let loader = Loader::new(&dataset, &facts(), &Objective::Causal, 22 * 64, 32, seed);
        loader.unwrap().batch(k).ids
    };
    assert_eq!(batch(1, 0), batch(1, 0));
    assert_ne!(batch(1, 0), batch(1, 1));
    assert_ne!(batch(1, 0), batch(2, 0));
    let sorted = |mut ids: Vec<i32>| {
        ids.sort_unstable();
        ids
    };
    assert_eq!(sorted(batch(1, 0)), sorted(batch(1, 1)));
}

#[test]
fn batches_do_not_depend_on_what_was_asked_before() {
    let folder = folder();
    let dataset = dataset(folder.path(), &documents(&[7, 300, 41, 2, 90, 13]));
    let make = || Loader::new(&dataset, &facts(), &masked(Unit::Span, 0.3), 100, 50, 3).unwrap();
    let forward: Vec<Batch> = (0..40).map(|k| make().batch(k)).collect();
    let one = make();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (one, forward) = (&one, &forward);
            scope.spawn(move || {
                for k in (0..40).rev().filter(|k| k % 4 == thread) {
                    assert_eq!(one.batch(k), forward[k as usize]);
                }
            });
        }
    });
}

#[test]
fn long_documents_are_split_and_counted() {
    let folder = folder();
    let dataset = dataset(folder.path(), &documents(&[62, 63, 200]));
    let loader = Loader::new(&dataset, &facts(), &masked(Unit::Token, 0.15), 64, 64, 0);
    let epoch = loader.unwrap().epoch();
    assert_eq!((epoch.documents, epoch.pieces, epoch.split_documents), (3, 1 + 2 + 4, 2));
    assert!(epoch.to_string().contains("2 documents longer than the context of 64 are split"));
}
