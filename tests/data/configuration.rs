//! Objectives in TOML, and impossible ones.

use crate::*;
#[test]
fn objectives_in_toml() {
    #[derive(serde::Deserialize, Debug)]
    struct Config {
        objective: Objective,
    }
    let parse = |text: &str| toml::from_str::<Config>(text).map(|config| config.objective);
    assert_eq!(parse("objective = { kind = \"causal\" }").unwrap(), Objective::Causal);
    let text = "[objective]\nkind = \"masked\"\npair = \"order\"\n\
                [objective.masking]\nrate = 0.3\nunit = \"word\"";
    let masking = Masking { rate: 0.3, unit: Unit::Word, ..Masking::default() };
    let objective = Objective::Masked { masking, pair: Some(Pair::Order) };
    assert_eq!(parse(text).unwrap(), objective);
    assert_eq!(parse("objective = { kind = \"masked\" }").unwrap(), masked(Unit::Token, 0.15));
    for wrong in [
        "objective = { kind = \"masked\", rat = 1 }",
        "objective = { kind = \"masked\", masking = { rat = 0.1 } }",
        "objective = { kind = \"causal\", rate = 0.1 }",
        "objective = { kind = \"other\" }",
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
    let back = toml::to_string(&objective).unwrap();
    assert_eq!(toml::from_str::<Objective>(&back).unwrap(), objective);
}

#[test]
fn impossible_ones_are_refused() {
    let folder = folder();
    let dataset = dataset(folder.path(), &documents(&[9]));
    let refused = |objective: &Objective, n, context| {
        Loader::new(&dataset, &facts(), objective, n, context, 0).err().expect("refused")
    };
    let causal = Objective::Causal;
    assert!(matches!(
        refused(&causal, 31, 32),
        LoaderError::BatchShorterThanSequence { tokens: 31, context: 32 }
    ));
    assert!(matches!(
        refused(&paired(Pair::Order), 32, 4),
        LoaderError::ContextTooShort { needed: 5, .. }
    ));
    assert!(matches!(refused(&paired(Pair::Next), 32, 32), LoaderError::OneDocument));
    for rate in [0.0, 1.0, -1.0, f32::NAN] {
        let error = refused(&masked(Unit::Token, rate), 32, 32);
        assert!(matches!(error, LoaderError::MaskingRate { field: "rate", .. }), "{rate}");
    }
    let mut facts = facts();
    facts.specials.mask = None;
    let objective = masked(Unit::Token, 0.15);
    let error = Loader::new(&dataset, &facts, &objective, 32, 32, 0).err().unwrap();
    assert!(matches!(error, LoaderError::MissingSpecial { token: "[MASK]" }));
    facts.vocabulary = 500;
    let error = Loader::new(&dataset, &facts, &causal, 32, 32, 0).err().unwrap();
    assert!(matches!(error, LoaderError::Vocabulary { shards: 1000, tokenizer: 500 }));
    let bare = Dataset { heldout: None, train: dataset.train.clone(), tokenizer: None };
    let loader = Loader::new(&bare, &self::facts(), &causal, 32, 32, 0).unwrap();
    assert!(matches!(loader.heldout(10), Err(LoaderError::NoHeldout)));
}
