//! Text to token ids and back, over the `tokenizers` crate.
//!
//! One vocabulary serves both objectives, so one data set does too: a trained tokenizer always
//! begins with `[PAD] [UNK] [CLS] [SEP] [MASK] <|endoftext|>` (ids 0 to 5), then the 256 bytes,
//! then merges. Text in, ids out; packing decides which specials frame a sequence.
//!
//! Files that load: a Hugging Face `tokenizer.json`; a WordPiece `vocab.txt`; a byte-level BPE's
//! `vocab.json` + `merges.txt` (GPT-2's own names `encoder.json` + `vocab.bpe` too).

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::{BertNormalizer, NormalizerWrapper};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{
    AddedToken, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Tokenizer as Inner,
};
use xxhash_rust::xxh3::Xxh3;

use super::files;
use super::words::{self, WordCache};
use crate::model::arch::Arch;

/// Specials of a trained tokenizer, in the order of their ids.
const TRAINED_SPECIALS: [&str; 6] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<|endoftext|>"];

/// The smallest vocabulary that can be trained: the specials and every byte.
pub const MIN_VOCABULARY: usize = TRAINED_SPECIALS.len() + 256;

/// A text is encoded in parts of at most this many bytes, so memory is bounded whatever its length.
pub const MAX_PART: usize = 1 << 20;

/// Why a tokenizer could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error(
        "{0}: no tokenizer here; expected tokenizer.json, vocab.txt, or vocab.json + merges.txt"
    )]
    NotFound(PathBuf),
    #[error("{path}: not a tokenizer that the `tokenizers` library reads: {reason}")]
    Unreadable { path: PathBuf, reason: String },
    #[error(
        "a vocabulary of {asked} is too small: {MIN_VOCABULARY} entries are the special tokens \
         and the 256 bytes; ask for more"
    )]
    VocabularyTooSmall { asked: usize },
    #[error("training the tokenizer failed: {0}")]
    Training(String),
    #[error("encoding failed: {0}")]
    Encode(String),
    #[error("decoding failed: {0}")]
    Decode(String),
}

/// Ids of the special tokens, under whatever names the family gave them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Specials {
    /// `[PAD]`, `<pad>`
    pub pad: Option<u32>,
    /// `[UNK]`, `<unk>`
    pub unk: Option<u32>,
    /// `[CLS]`, `<s>`
    pub cls: Option<u32>,
    /// `[SEP]`, `</s>`
    pub sep: Option<u32>,
    /// `[MASK]`, `<mask>`
    pub mask: Option<u32>,
    /// `<|endoftext|>`, `<|end_of_text|>`
    pub eot: Option<u32>,
}

/// A token and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub id: u32,
    /// The bytes of the text that it stands for, without white space around them.
    pub bytes: Range<usize>,
    /// Whether it is the first of a word, as the tokenizer divides text.
    pub begins: bool,
}

impl Specials {
    /// By role: pad, unk, cls, sep, mask, eot.
    pub fn roles(&self) -> [Option<u32>; 6] {
        let Specials { pad, unk, cls, sep, mask, eot } = *self;
        [pad, unk, cls, sep, mask, eot]
    }
}

/// How the ids of a vocabulary show that a word begins.
enum WordRule {
    /// Byte-level BPE: a token begins a word unless its first byte continues letters or digits.
    ByteLevel,
    /// WordPiece: a token begins a word unless it carries the prefix (`##`).
    Prefix(String),
    /// SentencePiece: a token begins a word if it carries `▁`.
    Metaspace,
    /// None of these: every token is a word.
    EachToken,
}

/// A tokenizer and the few facts that batches need.
pub struct Tokenizer {
    /// Finds special tokens by name in text, as a prompt needs.
    inner: Inner,
    /// Treats their names as plain text, as a document needs.
    plain: Inner,
    /// Whether the ids of a text are those of its chunks (see `words`).
    by_words: bool,
    /// Caches that no thread is using.
    caches: Mutex<Vec<WordCache>>,
}

impl Tokenizer {
    fn wrap(mut inner: Inner) -> Self {
        inner.with_padding(None);
        inner.with_truncation(None).expect("no truncation is always valid");
        let mut plain = inner.clone();
        plain.set_encode_special_tokens(true);
        let by_words = encodes_by_words(&inner);
        Tokenizer { inner, plain, by_words, caches: Mutex::default() }
    }

    /// Trains a byte-level BPE of at most `vocabulary` entries (fewer if the text runs out of pairs
    /// that occur twice). Deterministic: the same texts in any order give the same tokenizer.
    pub fn train<S: AsRef<str>>(
        texts: impl Iterator<Item = S>,
        vocabulary: usize,
    ) -> Result<Self, TokenizerError> {
        if vocabulary < MIN_VOCABULARY {
            return Err(TokenizerError::VocabularyTooSmall { asked: vocabulary });
        }
        let failed = |reason: tokenizers::Error| TokenizerError::Training(reason.to_string());
        let specials = TRAINED_SPECIALS.map(|name| AddedToken::from(name, true));
        let trainer = BpeTrainer::builder()
            .vocab_size(vocabulary)
            .min_frequency(2)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(specials.to_vec())
            .build();
        let mut counts: HashMap<String, u64> = HashMap::new();
        for (chunk, count) in words::count(texts) {
            for word in pre_tokens(&chunk).map_err(failed)? {
                *counts.entry(word).or_default() += count;
            }
        }
        let counts = counts.into_iter().map(|(word, count)| (word.into(), count)).collect();
        let mut model = BPE::default();
        trainer.do_train(&counts, &mut model).map_err(failed)?;
        let mut inner = byte_level(model);
        inner.add_special_tokens(specials).map_err(failed)?;
        Ok(Self::wrap(inner))
    }

    /// Loads a tokenizer file, or the one that a folder holds.
    pub fn load(path: &Path) -> Result<Self, TokenizerError> {
        let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
        let name = if path.is_dir() {
            ["tokenizer.json", "vocab.txt", "vocab.json", "encoder.json"]
                .into_iter()
                .find(|name| path.join(name).is_file())
                .ok_or_else(|| TokenizerError::NotFound(path.into()))?
        } else {
            path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
        };
        let path = folder.join(name);
        let inner = match name {
            "vocab.txt" => word_piece(&path, lowercases(folder)?),
            "vocab.json" => bpe(&path, &folder.join("merges.txt")),
            "encoder.json" => bpe(&path, &folder.join("vocab.bpe")),
            _ => return Self::from_json(&read(&path)?, &path),
        };
        inner
            .map(Self::wrap)
            .map_err(|reason| TokenizerError::Unreadable { path, reason: reason.to_string() })
    }

    /// Reads the text of a `tokenizer.json`; `path` is named in errors.
    pub fn from_json(json: &[u8], path: &Path) -> Result<Self, TokenizerError> {
        Inner::from_bytes(json).map(Self::wrap).map_err(|reason| TokenizerError::Unreadable {
            path: path.into(),
            reason: reason.to_string(),
        })
    }

    /// The text of a `tokenizer.json`, which `transformers` loads as a `PreTrainedTokenizerFast`.
    pub fn to_json(&self) -> String {
        self.inner.to_string(true).expect("a tokenizer in memory serialises")
    }

    /// Writes `tokenizer.json` into `folder`, beside and renamed.
    pub fn save(&self, folder: &Path) -> Result<(), TokenizerError> {
        write(folder, "tokenizer.json", &self.to_json())
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json` into a model's folder, from which
    /// `AutoTokenizer` loads them. For a masked model they put `[CLS]` and `[SEP]` around a text,
    /// and between two texts as many as the family does, unless the tokenizer came with a template
    /// of its own; and for one with several token types they tell the first of two texts from the
    /// second.
    pub fn export(&self, folder: &Path, arch: &Arch) -> Result<(), TokenizerError> {
        let mut inner = self.inner.clone();
        let specials = self.specials();
        let bare =
            matches!(inner.get_post_processor(), None | Some(PostProcessorWrapper::ByteLevel(_)));
        let template = bare && !arch.causal;
        if let (true, Some(cls), Some(sep)) = (template, specials.cls, specials.sep) {
            let named = |id| (self.token(id).expect("a special token has a name"), id);
            inner.with_post_processor(Some(match arch.separators() {
                1 => PostProcessorWrapper::from(BertProcessing::new(named(sep), named(cls))),
                _ => RobertaProcessing::new(named(sep), named(cls)).into(),
            }));
        }
        let json = inner.to_string(true).expect("a tokenizer in memory serialises");
        let pad = specials.pad.or(specials.eot.filter(|_| arch.is_padded()));
        let mut config = serde_json::json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": arch.context,
            "model_input_names": match arch.token_types {
                0 | 1 => vec!["input_ids", "attention_mask"],
                _ => vec!["input_ids", "token_type_ids", "attention_mask"],
            },
        });
        for (role, id) in [
            ("pad_token", pad),
            ("unk_token", specials.unk),
            ("cls_token", specials.cls),
            ("sep_token", specials.sep),
            ("mask_token", specials.mask),
            ("eos_token", specials.eot),
        ] {
            if let Some(name) = id.and_then(|id| self.token(id)) {
                config[role] = name.into();
            }
        }
        write(folder, "tokenizer.json", &json)?;
        write(folder, "tokenizer_config.json", &format!("{config:#}\n"))
    }

    /// Ids of `text`, in which the names of special tokens (`[MASK]`) mean those tokens. No special
    /// token is added.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        encode_with(&self.inner, text)
    }

    /// The same with the place of each token.
    pub fn pieces(&self, text: &str) -> Result<Vec<Piece>, TokenizerError> {
        let failed = |e: tokenizers::Error| TokenizerError::Encode(e.to_string());
        let encoding = self.inner.encode(text, false).map_err(failed)?;
        let mut pieces: Vec<Piece> = Vec::with_capacity(encoding.len());
        // The last that was no white space alone: where it ended, and its word.
        let mut before: Option<(usize, Option<u32>)> = None;
        let places = encoding.get_offsets().iter().zip(encoding.get_word_ids());
        for (&id, (&(begin, end), &word)) in encoding.get_ids().iter().zip(places) {
            let part = text.get(begin..end).unwrap_or_default();
            let begin = begin + (part.len() - part.trim_start().len());
            let bytes = begin..begin + part.trim().len();
            // Not every tokenizer divides at white space.
            let goes_on = |(end, of): (usize, _)| end >= begin && word.is_some() && of == word;
            let begins = !before.is_some_and(goes_on);
            if !bytes.is_empty() {
                before = Some((bytes.end, word));
            }
            pieces.push(Piece { id, bytes, begins });
        }
        Ok(pieces)
    }

    /// Ids of a document, in which the names of special tokens are ordinary text: no corpus can
    /// forge an end of text. Where words do not encode by themselves (see `words`), a document
    /// above [`MAX_PART`] bytes is encoded in parts cut at ends of lines, which bounds memory; a
    /// token that would cross a cut becomes two.
    pub fn encode_document(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::with_capacity(text.len() / 4);
        if self.by_words {
            let idle = || self.caches.lock().expect("no thread panics while holding the caches");
            let mut cache = idle().pop().unwrap_or_default();
            cache.encode(text, &mut ids, |chunk| encode_with(&self.plain, chunk))?;
            idle().push(cache);
            return Ok(ids);
        }
        let mut rest = text;
        while rest.len() > MAX_PART {
            let (part, tail) = rest.split_at(part_end(rest));
            ids.extend(encode_with(&self.plain, part)?);
            rest = tail;
        }
        ids.extend(encode_with(&self.plain, rest)?);
        Ok(ids)
    }

    /// Text of `ids`, special tokens included by name.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        self.inner.decode(ids, false).map_err(|reason| TokenizerError::Decode(reason.to_string()))
    }

    /// The vocabulary's own spelling of an id (`Ġthe`, `##ing`).
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a spelling.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// One more than the largest id, which is what an embedding table needs.
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
    }

    /// Ids of the special tokens.
    pub fn specials(&self) -> Specials {
        let find = |names: &[&str]| names.iter().find_map(|name| self.inner.token_to_id(name));
        Specials {
            pad: find(&["[PAD]", "<pad>"]),
            unk: find(&["[UNK]", "<unk>"]),
            cls: find(&["[CLS]", "<s>"]),
            sep: find(&["[SEP]", "</s>"]),
            mask: find(&["[MASK]", "<mask>"]),
            eot: find(&["<|endoftext|>", "<|end_of_text|>"]),
        }
    }

    /// Ids that are special by the tokenizer's own account: `[V]`.
    pub fn is_special(&self) -> Vec<bool> {
        let mut special = vec![false; self.vocabulary()];
        for (id, token) in self.inner.get_added_tokens_decoder() {
            special[id as usize] = token.special;
        }
        special
    }

    /// Whether an id begins a word: `[V]`. Special tokens are words of their own.
    ///
    /// A table by id cannot see the token before, so in a byte-level vocabulary a line's first word
    /// belongs to its line break; punctuation begins a word, as in BERT's own splitting.
    pub fn word_starts(&self) -> Vec<bool> {
        let rule = self.word_rule();
        let mut starts = self.is_special();
        for (token, id) in self.inner.get_vocab(true) {
            starts[id as usize] |= rule.begins(&token);
        }
        starts
    }

    fn word_rule(&self) -> WordRule {
        match (self.inner.get_model(), self.inner.get_decoder()) {
            (ModelWrapper::WordPiece(model), _) => {
                WordRule::Prefix(model.continuing_subword_prefix.clone())
            }
            (_, Some(DecoderWrapper::ByteLevel(_))) => WordRule::ByteLevel,
            _ if self.inner.get_vocab(false).keys().any(|token| token.starts_with('▁')) => {
                WordRule::Metaspace
            }
            _ => WordRule::EachToken,
        }
    }

    /// XXH3 of the vocabulary (ids and spellings in the order of ids): equal for two tokenizers
    /// exactly if every id means the same text. Shards carry it.
    pub fn fingerprint(&self) -> u64 {
        let by_id: BTreeMap<u32, String> =
            self.inner.get_vocab(true).into_iter().map(|(token, id)| (id, token)).collect();
        let mut hash = Xxh3::new();
        for (id, token) in by_id {
            hash.update(&id.to_le_bytes());
            hash.update(&(token.len() as u64).to_le_bytes());
            hash.update(token.as_bytes());
        }
        hash.digest()
    }
}

impl WordRule {
    fn begins(&self, token: &str) -> bool {
        match self {
            // In the byte-level alphabet printable ASCII stands for itself, bytes of letters beyond
            // ASCII are U+00A1 to U+00FF or U+0122 on, and U+0100 to U+0121 are the control bytes,
            // space (`Ġ`) and delete.
            WordRule::ByteLevel => token.chars().next().is_some_and(|first| {
                first.is_ascii_punctuation() || ('\u{100}'..='\u{121}').contains(&first)
            }),
            WordRule::Prefix(prefix) => !token.starts_with(prefix.as_str()),
            WordRule::Metaspace => token.starts_with('▁'),
            WordRule::EachToken => true,
        }
    }
}

/// Whether the pipeline is GPT-2's or BERT's, whose pre-tokens never cross from one chunk to the
/// next, and no added token could.
fn encodes_by_words(inner: &Inner) -> bool {
    let splits = match (inner.get_pre_tokenizer(), inner.get_normalizer()) {
        (Some(PreTokenizerWrapper::ByteLevel(bytes)), None) => {
            bytes.use_regex && !bytes.add_prefix_space
        }
        (Some(PreTokenizerWrapper::BertPreTokenizer(_)), normalizer) => {
            matches!(normalizer, None | Some(NormalizerWrapper::BertNormalizer(_)))
        }
        _ => false,
    };
    splits && inner.get_added_tokens_decoder().values().all(|token| token.special)
}

/// Words of a chunk as the trainer counts them, in the byte-level alphabet.
fn pre_tokens(chunk: &str) -> Result<Vec<String>, tokenizers::Error> {
    let mut text = PreTokenizedString::from(chunk);
    bytes().pre_tokenize(&mut text)?;
    let splits = text.get_splits(OffsetReferential::Original, OffsetType::Byte);
    Ok(splits.into_iter().map(|(word, _, _)| word.to_owned()).collect())
}

fn encode_with(inner: &Inner, text: &str) -> Result<Vec<u32>, TokenizerError> {
    let encoding =
        inner.encode_fast(text, false).map_err(|e| TokenizerError::Encode(e.to_string()))?;
    Ok(encoding.get_ids().to_vec())
}

/// Where to end a part of at most [`MAX_PART`] bytes: after its last line break, else at the last
/// boundary of a character.
fn part_end(text: &str) -> usize {
    let limit = (0..=MAX_PART).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text[..limit].rfind('\n').map_or(limit, |at| at + 1)
}

/// GPT-2's splitting: no space put in front, offsets trimmed, its regular expression.
fn bytes() -> ByteLevel {
    ByteLevel::new(false, true, true)
}

/// GPT-2's pipeline around a BPE model: no normaliser, bytes as characters, nothing added.
fn byte_level(model: BPE) -> Inner {
    let mut inner = Inner::new(model);
    let bytes = bytes();
    inner
        .with_pre_tokenizer(Some(bytes))
        .with_decoder(Some(bytes))
        .with_post_processor(Some(bytes));
    inner
}

fn bpe(vocabulary: &Path, merges: &Path) -> Result<Inner, tokenizers::Error> {
    let [vocabulary, merges] = [vocabulary, merges].map(|path| path.to_string_lossy());
    let mut inner = byte_level(BPE::from_file(&vocabulary, &merges).build()?);
    register_specials(&mut inner)?;
    Ok(inner)
}

/// BERT's pipeline around a WordPiece vocabulary.
fn word_piece(path: &Path, lowercase: bool) -> Result<Inner, tokenizers::Error> {
    let model = WordPiece::from_file(&path.to_string_lossy()).build()?;
    let mut inner = Inner::new(model);
    inner.with_normalizer(Some(BertNormalizer::new(true, true, None, lowercase)))?;
    inner
        .with_pre_tokenizer(Some(BertPreTokenizer))
        .with_decoder(Some(tokenizers::decoders::wordpiece::WordPiece::default()));
    register_specials(&mut inner)?;
    Ok(inner)
}

/// Vocabulary files do not say which entries are special; their usual names do.
fn register_specials(inner: &mut Inner) -> Result<(), tokenizers::Error> {
    let names = ["<s>", "</s>", "<pad>", "<unk>", "<mask>", "<|end_of_text|>"];
    let present = TRAINED_SPECIALS.iter().chain(&names).filter(|n| inner.token_to_id(n).is_some());
    let tokens: Vec<AddedToken> = present.map(|name| AddedToken::from(*name, true)).collect();
    inner.add_special_tokens(tokens)?;
    Ok(())
}

/// `do_lower_case` of a `tokenizer_config.json` in `folder`; true where there is none, as for BERT.
fn lowercases(folder: &Path) -> Result<bool, TokenizerError> {
    let path = folder.join("tokenizer_config.json");
    if !path.is_file() {
        return Ok(true);
    }
    let config: serde_json::Value = serde_json::from_slice(&read(&path)?)
        .map_err(|e| TokenizerError::Unreadable { path, reason: e.to_string() })?;
    Ok(config.get("do_lower_case").and_then(|value| value.as_bool()).unwrap_or(true))
}

fn write(folder: &Path, name: &str, text: &str) -> Result<(), TokenizerError> {
    let path = folder.join(name);
    files::write(&path, text.as_bytes()).map_err(|source| TokenizerError::Io { path, source })
}

fn read(path: &Path) -> Result<Vec<u8>, TokenizerError> {
    std::fs::read(path).map_err(|source| TokenizerError::Io { path: path.into(), source })
}
