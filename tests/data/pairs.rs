//! Sentence order and next sentence.

use crate::*;
/// Documents of forty tokens: document d holds d·40 + 10 on.
fn batches(pair: Pair) -> (TempDir, Vec<Batch>) {
    let folder = folder();
    let dataset = dataset(folder.path(), &documents(&[40; 24]));
    let mut objective = paired(pair);
    if let Objective::Masked { masking, .. } = &mut objective {
        masking.rate = 0.01;
    }
    let loader = Loader::new(&dataset, &facts(), &objective, 430, 43, 5).unwrap();
    let batches = (0..60).map(|k| loader.batch(k)).collect();
    (folder, batches)
}

/// (label, A, B) of every whole pair; checks frame and types.
fn halves(batches: &[Batch]) -> Vec<(i32, Vec<i32>, Vec<i32>)> {
    let mut pairs = Vec::new();
    for batch in batches {
        let ids = restored(batch);
        assert_eq!(batch.pairs.len(), batch.sequences());
        for (s, &label) in batch.cu_seqlens.windows(2).zip(&batch.pairs) {
            let (s, types) = (&ids[s[0] as usize..s[1] as usize], &batch.types[s[0] as usize..]);
            assert_eq!(s.len(), 43);
            assert_eq!((s[0], s[21], s[42]), (CLS as i32, SEP as i32, SEP as i32));
            assert!(types[..22].iter().all(|&t| t == 0) && types[22..43].iter().all(|&t| t == 1));
            pairs.push((label, s[1..21].to_vec(), s[22..42].to_vec()));
        }
    }
    pairs
}

fn follows(a: &[i32], b: &[i32]) -> bool {
    b[0] == a[19] + 1
}

fn half_of(pairs: &[(i32, Vec<i32>, Vec<i32>)]) {
    let ones = pairs.iter().filter(|(label, ..)| *label == 1).count() as f64;
    let n = pairs.len() as f64;
    assert!((ones - n / 2.0).abs() < 5.0 * (n / 4.0).sqrt(), "{ones} of {n}");
}

#[test]
fn sentence_order() {
    let (_folder, batches) = batches(Pair::Order);
    let pairs = halves(&batches);
    for (label, a, b) in &pairs {
        match label {
            0 => assert!(follows(a, b)),
            _ => assert!(*label == 1 && follows(b, a)),
        }
    }
    half_of(&pairs);
}

#[test]
fn next_sentence() {
    let (_folder, batches) = batches(Pair::Next);
    let pairs = halves(&batches);
    let document = |id: i32| (id - TEXT as i32) / 40;
    for (label, a, b) in &pairs {
        assert!(b.windows(2).all(|two| two[1] == two[0] + 1));
        match label {
            0 => assert!(follows(a, b)),
            _ => assert_ne!(document(a[0]), document(b[0])),
        }
    }
    half_of(&pairs);
}

#[test]
fn a_cut_pair_has_no_label() {
    let folder = folder();
    let dataset = dataset(folder.path(), &documents(&[40; 24]));
    let loader = Loader::new(&dataset, &facts(), &paired(Pair::Order), 100, 43, 5).unwrap();
    let batch = loader.batch(0);
    assert_eq!(batch.cu_seqlens, [0, 43, 86, 100]);
    assert_eq!(batch.pairs[2], IGNORE);
    assert_ne!(batch.pairs[0], IGNORE);
    let next = loader.batch(1);
    assert_eq!((next.cu_seqlens[1], next.pairs[0]), (29, IGNORE));
    // The second sequence continues the first one's types.
    assert_eq!(next.types[..29].iter().filter(|&&t| t == 1).count(), 21);
}
