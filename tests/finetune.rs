//! How `finetune` reads sentences and questions and finds answers, beside transformers: the cases
//! of `tests/golden/reading.py`. And completions, by what they are to teach.

use std::ops::Range;
use std::path::Path;
use std::sync::LazyLock;

use serde::de::DeserializeOwned;
use serde_json::Value;
use warpwright::data::{IGNORE, Tokenizer};
use warpwright::finetune::completions;
use warpwright::finetune::examples::{Columns, Example};
use warpwright::finetune::frame::Frame;
use warpwright::finetune::questions::{self, Answer, Decoding, Question, Questions, decode};
use warpwright::finetune::sentences::{self, joined};
use warpwright::finetune::table::Table;
use warpwright::model::arch::{Arch, TaskKind};
use warpwright::model::families::preset;

static GOLDEN: LazyLock<Value> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/reading.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
});

fn cases(section: &str) -> &'static Vec<Value> {
    GOLDEN[section].as_array().unwrap()
}

fn get<T: DeserializeOwned>(case: &Value, key: &str) -> T {
    serde_json::from_value(case[key].clone()).unwrap_or_else(|e| panic!("{key}: {e} in {case}"))
}

/// A BERT with the fixture's tokenizer.
fn bert() -> (Arch, Tokenizer) {
    let json = GOLDEN["tokenizer"].to_string();
    let tokenizer = Tokenizer::from_json(json.as_bytes(), Path::new("tokenizer.json")).unwrap();
    let arch = Arch { vocab: tokenizer.vocabulary(), ..preset("bert-tiny").unwrap() };
    (arch, tokenizer)
}

/// The question of a case, with an answer at a character or with none.
fn read(case: &Value, answer: Option<(usize, String)>) -> Example {
    let (arch, tokenizer) = bert();
    let frame = Frame::new(&arch, &tokenizer, get(case, "longest")).unwrap();
    let answers = answer.map(|(start, text)| Answer { text, start: Some(start) });
    let question = Question {
        line: 1,
        question: get(case, "question"),
        context: get(case, "context"),
        answers: answers.into_iter().collect(),
    };
    let (example, remark) = questions::example(&frame, question, get(case, "stride")).unwrap();
    assert!(!remark.cut && !remark.astray, "{case}");
    example
}

#[test]
fn contexts_are_read_in_the_windows_of_transformers() {
    for case in cases("windows") {
        for answer in case["answers"].as_array().unwrap() {
            let text: Option<String> = get(answer, "text");
            let example = read(case, text.map(|text| (get(answer, "start"), text)));
            let windows = case["windows"].as_array().unwrap();
            assert_eq!(example.sequences.len(), windows.len(), "{case}");
            let ends: Vec<Vec<i32>> = get(answer, "ends");
            for ((sequence, window), ends) in example.sequences.iter().zip(windows).zip(ends) {
                assert_eq!(sequence.ids, get::<Vec<u32>>(window, "ids"));
                assert_eq!(sequence.types, get::<Vec<i32>>(window, "types"));
                assert_eq!(sequence.targets, ends, "{answer} in {:?}", example.text);
            }
        }
    }
}

#[test]
fn answers_are_those_of_run_qa() {
    for case in cases("decodings") {
        let example = read(case, None);
        let how = Decoding {
            best: get(case, "best"),
            longest: get(case, "longest_answer"),
            threshold: get(case, "threshold"),
        };
        let logits = get::<Vec<Vec<[f64; 2]>>>(case, "logits").concat().concat();
        let decoded = decode(&example.sequences, &logits, &how);
        let text = |bytes: &Range<usize>| &example.text[bytes.clone()];
        let said = decoded.answer().map_or("", |found| text(&found.bytes));
        assert_eq!(said, get::<String>(case, "answer"), "{case}");
        let spans: Vec<&str> = decoded.spans.iter().map(|found| text(&found.bytes)).collect();
        assert_eq!(spans, get::<Vec<String>>(case, "spans"), "{case}");
        let close = |got: f64, wanted: f64| assert!((got - wanted).abs() < 1e-9, "{got}: {case}");
        close(decoded.probability(), get(case, "probability"));
        if how.threshold.is_some() {
            close(decoded.doubt(), get(case, "doubt"));
        }
    }
}

#[test]
fn a_words_label_is_its_first_tokens() {
    let (arch, tokenizer) = bert();
    for case in cases("sentences") {
        let (words, ids): (Vec<String>, Vec<u32>) = (get(case, "words"), get(case, "ids"));
        let (text, places) = joined(&words);
        let classes: Vec<usize> = (0..words.len()).collect();
        let whole = Frame::new(&arch, &tokenizer, 64).unwrap();
        let read = |frame: &Frame| {
            let (text, places, classes) = (text.clone(), places.clone(), classes.clone());
            sentences::example(frame, 1, text, places, classes).unwrap()
        };
        let (example, cut) = read(&whole);
        assert_eq!((example.sequences.len(), cut), (1, 0));
        let mut targets = vec![IGNORE; ids.len()];
        for (class, at) in get::<Vec<usize>>(case, "firsts").into_iter().enumerate() {
            targets[at] = class as i32;
        }
        assert_eq!((&example.sequences[0].ids, &example.sequences[0].targets), (&ids, &targets));
        // In sequences of four tokens each word is still there once, and only 1814 is cut.
        let (example, cut) = read(&Frame::new(&arch, &tokenizer, 4).unwrap());
        assert_eq!(cut, words.iter().filter(|word| *word == "1814").count());
        let firsts = example.sequences.iter().flat_map(|s| &s.targets).filter(|&&t| t != IGNORE);
        assert!(firsts.eq((0..words.len() as i32).collect::<Vec<_>>().iter()));
        assert!(example.sequences.iter().all(|sequence| sequence.ids.len() <= 4));
    }
}

/// SQuAD's own evaluation, too, takes an answer of no text for none.
#[test]
fn empty_answers_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("squad.json");
    let asked = |answers: Value| serde_json::json!({"question": "Who?", "answers": answers});
    let answer = |text: &str| serde_json::json!({"text": text, "answer_start": 0});
    let qas = [
        asked(serde_json::json!([])),
        asked(serde_json::json!([answer("")])),
        asked(serde_json::json!([answer(" "), answer("Ahab")])),
    ];
    let squad = serde_json::json!({"data": [{"paragraphs": [{"context": "Ahab.", "qas": qas}]}]});
    std::fs::write(&path, squad.to_string()).unwrap();
    let columns = Columns::of_task(Some(TaskKind::Spans), [None; 3]);
    let read = Questions::read(&path, &columns).unwrap().questions;
    let texts = |question: &Question| {
        question.answers.iter().map(|answer| &*answer.text).collect::<Vec<_>>().join("|")
    };
    assert_eq!(read.iter().map(texts).collect::<Vec<_>>(), ["", "", "Ahab"]);
}

/// Of so many tokens each, in sequences of 12: what is kept of both, and whether the end is learnt.
#[test]
fn completions_are_cut_where_the_least_is_lost() {
    const EOT: u32 = 2;
    const WORDS: [&str; 2] = ["the", "whale"];
    let (arch, tokenizer) = bert();
    let arch = Arch { causal: true, ..arch };
    let frame = Frame::new(&arch, &tokenizer, 12).unwrap();
    let columns = Columns::of_task(None, [None; 3]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    let text = |i: usize, count: usize| vec![WORDS[i]; count].join(" ");
    let [asked, said] = [0, 1].map(|i| {
        let pieces = frame.pieces(WORDS[i]).unwrap();
        assert_eq!(pieces.len(), 1);
        pieces[0].id
    });
    for ([prompt, completion], [before, after], end) in [
        ([3, 4], [3, 4], true),
        ([0, 10], [0, 10], true),
        ([30, 4], [6, 4], true),
        ([2, 9], [2, 8], false),
        ([30, 30], [2, 8], false),
    ] {
        let row = serde_json::json!({"prompt": text(0, prompt), "completion": text(1, completion)});
        std::fs::write(&path, row.to_string()).unwrap();
        let table = Table::read(&path).unwrap();
        let of_row = (&frame, &table, &table.records[0]);
        let (example, cut) =
            completions::example(of_row.0, of_row.1, of_row.2, &columns, Some(EOT)).unwrap();
        assert_eq!(cut, prompt + completion > 10);
        let ending = if end { vec![EOT] } else { vec![] };
        let learnt = [vec![said; after], ending].concat();
        let sequence = &example.sequences[0];
        assert_eq!(sequence.ids, [vec![EOT], vec![asked; before], learnt.clone()].concat());
        let ignored = sequence.targets.iter().filter(|&&target| target == IGNORE).count();
        assert_eq!(ignored, sequence.ids.len() - learnt.len());
        let first = before..before + learnt.len();
        let targets: Vec<u32> = sequence.targets[first].iter().map(|&id| id as u32).collect();
        assert_eq!(targets, learnt, "{prompt} and {completion}");
    }
}
