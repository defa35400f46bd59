//! Checkpoints at sizes that they were not stored in.

use crate::*;
use warpwright::data::Tokenizer;
use warpwright::model::arch::Positions;

/// A small model of a family with learnt positions.
fn small(name: &str, vocab: usize) -> Arch {
    let arch = preset(name).unwrap();
    Arch { vocab, context: 6, width: 8, embed_width: 8, heads: 2, inner: 8, ..arch }
}

fn tokenizer(text: &str, vocabulary: usize) -> Tokenizer {
    Tokenizer::train([text].into_iter(), vocabulary).unwrap()
}

/// The parameters at the sizes of `dir.arch`, by name.
fn parameters(dir: &ModelDir) -> BTreeMap<String, Vec<f64>> {
    let table = table(&dir.arch);
    let mut arena = vec![0.0; table.arena_len];
    dir.load(&table, |param, start, values| {
        arena[param.span.start + start..][..values.len()].copy_from_slice(values)
    })
    .unwrap();
    let of = |param: &Param| (param.name.clone(), arena[param.span.range()].to_vec());
    table.params.iter().map(of).collect()
}

fn row(values: &[f64], row: usize, width: usize) -> &[f64] {
    &values[row * width..][..width]
}

#[test]
fn positions_beyond_the_learnt_ones_are_copies_of_them() {
    for (name, offset) in [("gpt2-tiny", 0), ("roberta-base", 2)] {
        let arch = Arch { layers: 2, groups: 2, ..small(name, 64) };
        let folder = TempDir::new().unwrap();
        save(folder.path(), &arch, FloatType::F32, &arena(&table(&arch)));
        let mut dir = ModelDir::open(folder.path()).unwrap();
        let stored = parameters(&dir);
        dir.set_positions(15);
        let grown = parameters(&dir);
        let (before, now) = (&stored["embed.positions"], &grown["embed.positions"]);
        assert_eq!(now.len(), (15 + offset) * 8);
        for at in 0..offset {
            assert_eq!(row(now, at, 8), row(before, at, 8), "{name} {at}");
        }
        for at in 0..15 {
            assert_eq!(row(now, offset + at, 8), row(before, offset + at % 6, 8), "{name} {at}");
        }
        // All else is as it was.
        let others = |of: &BTreeMap<String, Vec<f64>>| {
            let mut of = of.clone();
            of.remove("embed.positions");
            of
        };
        assert_eq!(others(&grown), others(&stored));
        dir.set_positions(6);
        assert_eq!(parameters(&dir), stored);
    }
}

#[test]
fn tokens_keep_their_rows_by_spelling_and_new_ones_begin_at_the_mean() {
    let own = tokenizer("the whale the whale the whale saw saw", 270);
    let other = tokenizer("the sea the sea the sea saw saw", 270);
    let arch = Arch { layers: 2, groups: 2, ..small("bert-tiny", own.vocabulary()) };
    let folder = TempDir::new().unwrap();
    save(folder.path(), &arch, FloatType::F32, &arena(&table(&arch)));
    let mut dir = ModelDir::open(folder.path()).unwrap();
    let stored = parameters(&dir);
    let known = dir.set_tokenizer(&own, &other);
    assert_eq!(dir.arch.vocab, other.vocabulary());
    assert!(known > 262 && known < other.vocabulary(), "{known}");
    let grown = parameters(&dir);
    for (name, width) in [("embed.tokens", 8), ("decoder.bias", 1)] {
        let (before, now) = (&stored[name], &grown[name]);
        assert_eq!(now.len(), other.vocabulary() * width, "{name}");
        let rows = before.len() / width;
        let mean: Vec<f64> = (0..width)
            .map(|i| (0..rows).map(|r| before[r * width + i]).sum::<f64>() / rows as f64)
            .collect();
        for id in 0..other.vocabulary() {
            let kept = own.id(&other.token(id as u32).unwrap());
            let wanted = kept.map_or(&mean[..], |kept| row(before, kept as usize, width));
            let close = row(now, id, width).iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-12);
            assert!(close, "{name} {id}");
        }
    }
}

#[test]
fn a_special_token_keeps_the_row_of_its_role() {
    let own = tokenizer("the whale", 262);
    let json =
        own.to_json().replace("[CLS]", "<s>").replace("[SEP]", "</s>").replace("[PAD]", "<pad>");
    let other = Tokenizer::from_json(json.as_bytes(), Path::new("tokenizer.json")).unwrap();
    let arch = Arch { layers: 2, groups: 2, ..small("roberta-base", 262) };
    let folder = TempDir::new().unwrap();
    save(folder.path(), &arch, FloatType::F32, &arena(&table(&arch)));
    let mut dir = ModelDir::open(folder.path()).unwrap();
    let stored = parameters(&dir);
    assert_eq!(dir.set_tokenizer(&own, &other), 262);
    assert_eq!(dir.ids.cls, own.specials().cls.map(|id| id as usize));
    assert_eq!(parameters(&dir)["embed.tokens"], stored["embed.tokens"]);
    // RoBERTa's first position comes after its padding's id, 0 here and 1 where it was stored.
    assert_eq!(dir.arch.positions, Positions::Learned { offset: 1 });
    let (before, now) = (&stored["embed.positions"], &parameters(&dir)["embed.positions"]);
    assert_eq!(row(now, 1, 8), row(before, 2, 8));
    assert_eq!(now.len(), 7 * 8);
}

#[test]
fn weights_that_are_no_numbers_are_refused() {
    let arch = Arch { layers: 2, groups: 2, ..small("bert-tiny", 64) };
    let mut values = arena(&table(&arch));
    let param = table(&arch).get("layers.1.fc.weight").unwrap().clone();
    for bad in [f64::NAN, f64::INFINITY] {
        values[param.span.start + 3] = bad;
        let folder = TempDir::new().unwrap();
        save(folder.path(), &arch, FloatType::F32, &values);
        match load(folder.path()) {
            Err(LoadError::NotFinite { name, .. }) => {
                assert_eq!(name, "bert.encoder.layer.1.intermediate.dense.weight");
            }
            other => panic!("{:?}", other.map(|(_, report)| report)),
        }
    }
}
