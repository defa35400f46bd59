//! Causal and held-out batches, capacities, the unigram baseline.

use crate::*;
#[test]
fn causal_targets_are_the_next_tokens() {
    let folder = folder();
    let dataset = dataset(folder.path(), &documents(&[5, 40, 9]));
    let loader = Loader::new(&dataset, &facts(), &Objective::Causal, 64, 16, 1).unwrap();
    for batch in (0..10).map(|k| loader.batch(k)) {
        assert_eq!((batch.ids.len(), batch.cu_seqlens[0]), (64, 0));
        assert!(batch.rows.is_none() && batch.pairs.is_empty());
        assert_eq!(batch.labelled(), 64 - batch.sequences());
        for s in batch.cu_seqlens.windows(2).map(|s| s[0] as usize..s[1] as usize) {
            assert_eq!(batch.targets[s.end - 1], IGNORE);
            assert_eq!(batch.targets[s.start..s.end - 1], batch.ids[s.start + 1..s.end]);
            let positions: Vec<i32> = (0..s.len() as i32).collect();
            assert_eq!(batch.positions[s], positions);
        }
    }
}

#[test]
fn an_end_of_text_closes_only_what_ends() {
    let folder = folder();
    let documents = documents(&[5, 40]);
    let dataset = dataset(folder.path(), &documents);
    let total = 45 + 1 + 3 + 2; // tokens, pieces before (40 tokens in rooms of 14), ends
    let loader = Loader::new(&dataset, &facts(), &Objective::Causal, total, 16, 1).unwrap();
    assert_eq!(loader.epoch().tokens, total as u64);
    let batch = loader.batch(0);
    for s in batch.cu_seqlens.windows(2).map(|s| &batch.ids[s[0] as usize..s[1] as usize]) {
        let last = documents.iter().any(|d| *d.last().unwrap() as i32 == s[s.len() - 2]);
        assert_eq!(s[0], EOT as i32);
        assert_eq!(s[s.len() - 1] == EOT as i32, last);
    }
}

#[test]
fn general_data_take_their_share_of_the_batches() {
    let (own, other) = (folder(), folder());
    let dataset = dataset(own.path(), &documents(&[90, 40]));
    let general = corpus(other.path(), &documents(&[50, 70]));
    for objective in [Objective::Causal, masked(Unit::Token, 0.3)] {
        let alone =
            |dataset: &Dataset| Loader::new(dataset, &facts(), &objective, 32, 16, 1).unwrap();
        let mut mixed = alone(&dataset);
        mixed.mix(&general, 0.3);
        let ours = alone(&dataset);
        let theirs = alone(&Dataset { train: general.clone(), heldout: None, tokenizer: None });
        let (mut a, mut b) = (0, 0);
        for k in 0..100 {
            let batch = mixed.batch(k);
            if batch == theirs.batch(b) {
                b += 1;
            } else {
                assert_eq!(batch, ours.batch(a), "{k}");
                a += 1;
            }
            assert!((b as f64 - 0.3 * (k + 1) as f64).abs() < 1.0, "{k}: {b}");
        }
    }
}

#[test]
fn capacities_hold() {
    let folder = folder();
    let dataset = dataset(folder.path(), &documents(&[1; 300]));
    for objective in
        [Objective::Causal, masked(Unit::Word, 0.3), paired(Pair::Order), paired(Pair::Next)]
    {
        let loader = Loader::new(&dataset, &facts(), &objective, 101, 32, 1).unwrap();
        for batch in (0..50).map(|k| loader.batch(k)) {
            assert!(batch.sequences() <= loader.sequence_capacity());
            assert!(batch.targets.len() <= loader.row_capacity());
        }
    }
}

#[test]
fn held_out_batches_have_each_token_once() {
    let folder = folder();
    let documents = documents(&[30, 7, 55, 12]);
    let dataset = dataset(folder.path(), &documents);
    let loader = |seed, objective: &Objective| {
        Loader::new(&dataset, &facts(), objective, 50, 20, seed).unwrap()
    };
    let causal = loader(1, &Objective::Causal);
    let batches = causal.heldout(u64::MAX).unwrap();
    let total = causal.epoch().tokens;
    assert_eq!(batches.len() as u64, total.div_ceil(50));
    let tokens = batches.iter().flat_map(|b| &b.ids).take(total as usize);
    let mut text: Vec<u32> = tokens.map(|&id| id as u32).filter(|&id| id >= TEXT).collect();
    text.sort_unstable();
    let mut expected = documents.concat();
    expected.sort_unstable();
    assert_eq!(text, expected);
    // Past the end nothing counts: no target looks across it, and no row lies beyond it.
    let labelled: usize = batches.iter().map(Batch::labelled).sum();
    assert!(labelled < total as usize);
    let masked = masked(Unit::Token, 0.9);
    let last = loader(1, &masked).heldout(u64::MAX).unwrap().pop().unwrap();
    let end = loader(1, &masked).epoch().tokens as i32 % 50;
    assert!(last.rows.unwrap().iter().all(|&row| row < end));
    // Another seed trains in another order but is judged on the same batches.
    assert_eq!(loader(2, &masked).heldout(80).unwrap(), loader(1, &masked).heldout(80).unwrap());
    assert_eq!(loader(1, &masked).heldout(80).unwrap().len(), 2);
}

#[test]
fn unigram_baseline_by_hand() {
    let folder = folder();
    let path = folder.path().join("a.wws");
    write_shard(&path, &[vec![10, 10, 10, 11]], 12);
    let train = Arc::new(Corpus::open(&[path], None).unwrap());
    let dataset = Dataset { heldout: Some(train.clone()), train, tokenizer: None };
    let facts = Facts::bare(12, Some(5));
    let loader = Loader::new(&dataset, &facts, &Objective::Causal, 8, 8, 0).unwrap();
    // Targets of the held-out batch: 10 10 10 11 5, and what follows is filling. Counts with one
    // added: 4, 4, 4, 2, 2 of 5 + 12.
    let nll = loader.unigram_nll(&loader.heldout(100).unwrap());
    let expected = (3.0 * (17.0f64 / 4.0).ln() + 2.0 * (17.0f64 / 2.0).ln()) / 5.0;
    assert!((nll - expected).abs() < 1e-12, "{nll} {expected}");
}
