//! Training, loading and encoding.

use std::sync::LazyLock;

use crate::*;
const TEXTS: [&str; 3] = [
    "the whale, the white whale; the sea!\n\n  the sea is white.\tdon't",
    "naïve façade — Übergröße 北京 🐋  [MASK] <|endoftext|> x",
    "the the the whale whale 1234 12 1851",
];

fn trained() -> &'static Tokenizer {
    static TRAINED: LazyLock<Tokenizer> = LazyLock::new(|| {
        Tokenizer::train(TEXTS.iter().cycle().take(30), MIN_VOCABULARY + 40).unwrap()
    });
    &TRAINED
}

#[test]
fn every_text_comes_back() {
    let tokenizer = trained();
    for text in TEXTS {
        let ids = tokenizer.encode_document(text).unwrap();
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
}

#[test]
fn documents_cannot_forge_special_tokens() {
    let tokenizer = trained();
    let specials = tokenizer.specials();
    let plain = tokenizer.encode_document("a [MASK] <|endoftext|>").unwrap();
    assert!(plain.iter().all(|&id| id > 5));
    let prompt = tokenizer.encode("a [MASK]").unwrap();
    assert_eq!(prompt.last().copied(), specials.mask);
    let [pad, unk, cls, sep, mask, eot] = [0, 1, 2, 3, 4, 5].map(Some);
    assert_eq!(specials, Specials { pad, unk, cls, sep, mask, eot });
}

#[test]
fn training_is_deterministic_and_ignores_order() {
    let reversed = Tokenizer::train(TEXTS.iter().rev().cycle().take(30), MIN_VOCABULARY + 40);
    assert_eq!(trained().to_json(), reversed.unwrap().to_json());
}

#[test]
fn saved_and_loaded_is_the_same() {
    let folder = folder();
    let tokenizer = trained();
    tokenizer.save(folder.path()).unwrap();
    let loaded = Tokenizer::load(folder.path()).unwrap();
    assert_eq!(loaded.fingerprint(), tokenizer.fingerprint());
    assert_eq!(loaded.to_json(), tokenizer.to_json());
    assert_eq!(loaded.vocabulary(), tokenizer.vocabulary());
    let other = Tokenizer::train(["other words, others"; 9].iter(), MIN_VOCABULARY + 5);
    assert_ne!(other.unwrap().fingerprint(), tokenizer.fingerprint());
}

/// Encoding word by word must be the library's own encoding.
#[test]
fn words_encode_as_texts_do() {
    let folder = folder();
    let vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\nwhale\n##s\nnaive\nsea\n,\n.\n北";
    write(folder.path(), "vocab.txt", vocabulary);
    let text = TEXTS.concat().replace("[MASK]", "").replace("<|endoftext|>", "");
    for tokenizer in [trained(), &Tokenizer::load(folder.path()).unwrap()] {
        assert_eq!(tokenizer.encode_document(&text).unwrap(), tokenizer.encode(&text).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_text_encodes_by_words_and_comes_back(
        text in "[ a-z'\\n\\t0-9.,é\u{301}\u{3000}🐋]{0,60}"
    ) {
        let tokenizer = trained();
        let ids = tokenizer.encode_document(&text).unwrap();
        prop_assert_eq!(&ids, &tokenizer.encode(&text).unwrap());
        prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
}

#[test]
fn word_starts_of_each_family() {
    let folder = folder();
    write(folder.path(), "vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\nwhale\n##s\n.");
    let bert = Tokenizer::load(folder.path()).unwrap();
    assert_eq!(bert.encode("The whales.").unwrap(), [5, 6, 7, 8]);
    let starts = [true, true, true, true, true, true, true, false, true];
    assert_eq!(bert.word_starts(), starts);
    assert_eq!((bert.specials().mask, bert.specials().eot), (Some(4), None));

    let gpt = trained();
    let ids = gpt.encode("whale white, x\n").unwrap();
    let tokens: Vec<String> = ids.iter().map(|&id| gpt.token(id).unwrap()).collect();
    let starts = gpt.word_starts();
    for (id, token) in ids.iter().zip(tokens) {
        let expected = token.starts_with(['Ġ', ',', 'Ċ']);
        assert_eq!(starts[*id as usize], expected, "{token}");
    }
    assert!(starts[..6].iter().all(|&start| start));
}

#[test]
fn vocabulary_and_merges_of_gpt2_load() {
    let folder = folder();
    write(folder.path(), "vocab.json", r#"{"t":0,"h":1,"Ġ":2,"th":3,"<|endoftext|>":4}"#);
    write(folder.path(), "merges.txt", "#version: 0.2\nt h\n");
    let tokenizer = Tokenizer::load(folder.path()).unwrap();
    assert_eq!(tokenizer.encode("th th<|endoftext|>").unwrap(), [3, 2, 3, 4]);
    assert_eq!(tokenizer.specials().eot, Some(4));
}

#[test]
fn wrong_ones_are_refused() {
    let folder = folder();
    let load = || Tokenizer::load(folder.path()).err().unwrap();
    assert!(matches!(load(), TokenizerError::NotFound(_)));
    write(folder.path(), "tokenizer.json", "{}");
    assert!(matches!(load(), TokenizerError::Unreadable { .. }));
    let small = Tokenizer::train(["a"].iter(), 100).err().unwrap();
    assert!(matches!(small, TokenizerError::VocabularyTooSmall { asked: 100 }));
}

#[test]
fn an_export_frames_what_a_masked_model_reads() {
    let folder = folder();
    let tokenizer = trained();
    for (preset, framed, between) in [
        ("bert-tiny", vec![2, 0, 3], vec![3]),
        ("roberta-base", vec![2, 0, 3], vec![3, 3]),
        ("gpt2-tiny", vec![0], vec![]),
    ] {
        let arch = families::preset(preset).unwrap();
        tokenizer.export(folder.path(), &arch).unwrap();
        let path = folder.path().join("tokenizer.json");
        let theirs = ::tokenizers::Tokenizer::from_file(path).unwrap();
        let ids = theirs.encode("[PAD]", true).unwrap();
        assert_eq!(ids.get_ids(), framed);
        let pair = theirs.encode(("[PAD]", "[PAD]"), true).unwrap();
        let ends = [&framed[..framed.len() / 2 + 1], &between, &framed[framed.len() / 2..]];
        assert_eq!(pair.get_ids(), ends.concat(), "{preset}");
        assert_eq!(Tokenizer::load(folder.path()).unwrap().fingerprint(), tokenizer.fingerprint());
        let config = fs::read_to_string(folder.path().join("tokenizer_config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        assert_eq!(
            (&config["mask_token"], &config["pad_token"]),
            (&"[MASK]".into(), &"[PAD]".into())
        );
        assert_eq!(config["model_max_length"], arch.context);
        // transformers gives token types to no model that is not said to take them.
        let inputs = config["model_input_names"].as_array().unwrap();
        assert_eq!(inputs.contains(&"token_type_ids".into()), preset == "bert-tiny");
    }
}
