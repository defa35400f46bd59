//! What masking promises.

use crate::*;
const N: usize = 4096;
const BATCHES: u64 = 60;

fn batches(unit: Unit, rate: f32) -> (Vec<Batch>, Facts) {
    let folder = folder();
    let lengths: Vec<usize> = (0..200).map(|i| 30 + i * 7 % 300).collect();
    let dataset = dataset(folder.path(), &documents(&lengths));
    let loader = Loader::new(&dataset, &facts(), &masked(unit, rate), N, 128, 11).unwrap();
    ((0..BATCHES).map(|k| loader.batch(k)).collect(), facts())
}

/// Share of maskable tokens that were selected.
fn share(batches: &[Batch]) -> (f64, f64) {
    let rows: usize = batches.iter().map(Batch::labelled).sum();
    let text = |batch: &Batch| restored(batch).iter().filter(|&&id| id >= TEXT as i32).count();
    let text: usize = batches.iter().map(text).sum();
    (rows as f64 / text as f64, text as f64)
}

#[test]
fn rates_hold_for_every_unit() {
    // Five standard deviations; what is chosen in runs of length ~r varies r times as much.
    for (unit, run) in [(Unit::Token, 1.0), (Unit::Word, 3.0), (Unit::Span, 5.0)] {
        for rate in [0.15, 0.4] {
            let (share, n) = share(&batches(unit, rate).0);
            let rate = f64::from(rate);
            let bound = 5.0 * (run * rate * (1.0 - rate) / n).sqrt();
            assert!((share - rate).abs() < bound, "{unit:?} {rate}: {share} ± {bound}");
        }
    }
}

#[test]
fn specials_are_never_masked_and_rows_ascend() {
    for unit in [Unit::Token, Unit::Word, Unit::Span] {
        for batch in batches(unit, 0.5).0 {
            let rows = batch.rows.as_ref().unwrap();
            assert!(rows.windows(2).all(|two| two[0] < two[1]));
            assert!(batch.targets.iter().all(|&id| id >= TEXT as i32));
            assert_eq!(batch.labelled(), rows.len());
        }
    }
}

#[test]
fn eighty_ten_ten() {
    let (batches, _) = batches(Unit::Token, 0.15);
    let (mut mask, mut same, mut other) = (0f64, 0f64, 0f64);
    for batch in &batches {
        for (&row, &target) in batch.rows.as_ref().unwrap().iter().zip(&batch.targets) {
            match batch.ids[row as usize] {
                id if id == MASK as i32 => mask += 1.0,
                id if id == target => same += 1.0,
                _ => other += 1.0,
            }
        }
    }
    let n = mask + same + other;
    // A random token is the same or the mask one time in a thousand each.
    for (count, share) in [(mask, 0.8 + 1e-4), (same, 0.1 + 1e-4), (other, 0.1 - 2e-4)] {
        let bound = 5.0 * (n * share * (1.0 - share)).sqrt();
        assert!((count - n * share).abs() < bound, "{count} of {n}, expected {share}");
    }
}

#[test]
fn words_are_masked_whole() {
    let (batches, facts) = batches(Unit::Word, 0.3);
    for batch in &batches {
        let ids = restored(batch);
        let selected: std::collections::HashSet<i32> =
            batch.rows.as_ref().unwrap().iter().copied().collect();
        for s in batch.cu_seqlens.windows(2) {
            for row in s[0] + 1..s[1] {
                let [before, here] = [row - 1, row].map(|row| ids[row as usize] as usize);
                if !facts.word_starts[here] && !facts.special[before] {
                    assert_eq!(selected.contains(&row), selected.contains(&(row - 1)));
                }
            }
        }
    }
}

#[test]
fn spans_are_runs() {
    let mean_run = |unit| {
        let (mut rows, mut runs) = (0, 0);
        for batch in batches(unit, 0.15).0 {
            let chosen = batch.rows.unwrap();
            rows += chosen.len();
            runs += 1 + chosen.windows(2).filter(|two| two[1] != two[0] + 1).count();
        }
        rows as f64 / runs as f64
    };
    // Single tokens run 1/(1 − 0.15) on average. Spans have a mean of Σ 0.8^j = 4.46, and run
    // longer where they meet, shorter where a sequence ends.
    assert!((mean_run(Unit::Token) - 1.18).abs() < 0.03);
    let span = mean_run(Unit::Span);
    assert!((4.2..5.6).contains(&span), "{span}");
}

/// A mask depends on the place in the stream, not on how the stream is cut into batches.
#[test]
fn masks_do_not_depend_on_the_batch_size() {
    let folder = folder();
    let dataset = dataset(folder.path(), &documents(&[50; 100]));
    let rows = |n: usize| -> Vec<usize> {
        let objective = masked(Unit::Span, 0.2);
        let loader = Loader::new(&dataset, &facts(), &objective, n, 52, 0).unwrap();
        let row = |k: usize, row: &i32| k * n + *row as usize;
        let rows = |k: usize| loader.batch(k as u64).rows.unwrap();
        (0..1040 / n).flat_map(|k| rows(k).iter().map(|r| row(k, r)).collect::<Vec<_>>()).collect()
    };
    assert_eq!(rows(1040), rows(104));
}
