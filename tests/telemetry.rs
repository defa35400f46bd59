//! Telemetry from outside: logs that were cut short or are resumed, event files read back by a
//! second implementation of their format, and a report that stands alone whatever the run held.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::tempdir;
use warpwright::cli::report::{ReportArgs, run};
use warpwright::telemetry::metrics::{self, *};
use warpwright::telemetry::{Error, EventWriter, Telemetry, report};

fn facts() -> RunRecord {
    RunRecord {
        preset: "demo".into(),
        family: "bert".into(),
        objective: "masked".into(),
        parameters: 3_000_000,
        tokens_per_step: 8192,
        steps: 100,
        device: "cpu f32".into(),
        threads: 2,
        started: 1_793_714_700,
        version: "0.1.0".into(),
        baseline: Some(6.25),
    }
}

fn train(step: u64) -> TrainRecord {
    TrainRecord {
        step,
        loss: 8.0 / step as f64,
        pair_loss: None,
        lr: 0.001,
        grad_norm: 1.5,
        tokens: 8192 * step,
        tokens_per_s: 50_000.0,
        seconds: 0.25 * step as f64,
        skipped: 0,
    }
}

fn eval(step: u64) -> EvalRecord {
    EvalRecord { step, loss: 4.5, accuracy: 0.25, pair_accuracy: Some(0.75), tokens: 1000 }
}

fn note(step: u64, text: &str) -> Record {
    Record::Note(NoteRecord { step, text: text.into() })
}

/// One record of each kind and form.
fn every_kind() -> Vec<Record> {
    let op = OpTime { op: "linear".into(), calls: 9, seconds: 0.5, flops: 1 << 40, bytes: 1 << 30 };
    let filled = Sample::Filled {
        text: "Call me [MASK].".into(),
        answer: Some("Ishmael".into()),
        guesses: vec![Guess { token: " Ishmael".into(), probability: 0.5 }],
    };
    let generated = Sample::Generated { prompt: "Call".into(), text: " me Ishmael.".into() };
    vec![
        Record::Run(facts()),
        Record::Train(train(1)),
        Record::Train(TrainRecord { pair_loss: Some(0.5), ..train(2) }),
        Record::Eval(eval(2)),
        Record::Ops(OpsRecord { step: 2, steps: 1, ops: vec![op] }),
        note(2, "interrupted"),
        Record::Samples(SamplesRecord { step: 2, items: vec![filled, generated] }),
    ]
}

fn write_log(dir: &Path, records: &[Record]) -> PathBuf {
    let path = dir.join(metrics::FILE);
    let mut log = Metrics::create(&path).unwrap();
    records.iter().for_each(|record| log.append(record).unwrap());
    path
}

mod log {
    use super::*;

    #[test]
    fn every_kind_of_record_reads_back() {
        let dir = tempdir().unwrap();
        let path = write_log(dir.path(), &every_kind());
        let log = metrics::read(&path).unwrap();
        assert_eq!(log.records, every_kind());
        assert_eq!(log.last_train().unwrap().step, 2);
        assert!(!log.torn);
    }

    #[test]
    fn what_is_not_finite_is_null_and_reads_as_nan() {
        let dir = tempdir().unwrap();
        let record = TrainRecord { loss: f64::NAN, grad_norm: f64::INFINITY, ..train(1) };
        let path = write_log(dir.path(), &[Record::Train(record)]);
        let text = fs::read_to_string(&path).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(json["loss"].is_null() && json["grad_norm"].is_null());
        let log = metrics::read(&path).unwrap();
        let read = log.last_train().unwrap();
        assert!(read.loss.is_nan() && read.grad_norm.is_nan());
    }

    /// Killed at any byte of the last line: whole lines stay, and the next resume mends the log.
    #[test]
    fn a_torn_last_line_is_left_out() {
        let dir = tempdir().unwrap();
        let path = write_log(dir.path(), &every_kind());
        let whole = fs::read(&path).unwrap();
        let last = whole[..whole.len() - 1].iter().rposition(|&b| b == b'\n').unwrap() + 1;
        for end in last + 1..whole.len() - 1 {
            fs::write(&path, &whole[..end]).unwrap();
            let log = metrics::read(&path).unwrap();
            assert!(log.torn && log.records.len() == every_kind().len() - 1, "cut at {end}");
        }
        let (mut resumed, _) = Metrics::resume(&path, 2).unwrap();
        resumed.append(every_kind().last().unwrap()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole);
    }

    #[test]
    fn a_last_line_that_lacks_only_its_newline_is_kept() {
        let dir = tempdir().unwrap();
        let path = write_log(dir.path(), &every_kind());
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(!metrics::read(&path).unwrap().torn);
        Metrics::resume(&path, 2).unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole);
    }

    #[test]
    fn a_bad_line_elsewhere_is_named() {
        let dir = tempdir().unwrap();
        let path = write_log(dir.path(), &every_kind());
        let text = fs::read_to_string(&path).unwrap().replacen("\"kind\":\"eval\"", "oops", 1);
        fs::write(&path, text).unwrap();
        let error = metrics::read(&path).unwrap_err();
        assert!(matches!(error, Error::Line { line: 4, .. }), "{error}");
        assert!(error.to_string().contains("line 4 of "));
        assert!(Metrics::resume(&path, 2).is_err());
    }

    #[test]
    fn resuming_drops_later_steps_as_if_never_stopped() {
        let never_stopped = tempdir().unwrap();
        let steps: Vec<_> = (1..=20).map(|step| Record::Train(train(step))).collect();
        let wanted = fs::read(write_log(never_stopped.path(), &steps)).unwrap();

        let dir = tempdir().unwrap();
        let path = write_log(dir.path(), &steps[..15]);
        for checkpoint in [10, 12, 0, 12] {
            let (mut log, kept) = Metrics::resume(&path, checkpoint).unwrap();
            let taken = kept.last_train().map_or(0, |r| r.step);
            assert!(taken <= checkpoint);
            steps[taken as usize..].iter().for_each(|record| log.append(record).unwrap());
            assert_eq!(fs::read(&path).unwrap(), wanted);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside the log");
    }

    #[test]
    fn resuming_without_a_log_starts_one() {
        let dir = tempdir().unwrap();
        let (mut log, kept) = Metrics::resume(&dir.path().join(metrics::FILE), 5).unwrap();
        assert!(kept.records.is_empty());
        log.append(&Record::Train(train(6))).unwrap();
    }

    #[test]
    fn a_folder_that_is_not_there_says_what_to_check() {
        let error = Metrics::create(Path::new("/nonexistent/metrics.jsonl")).err().unwrap();
        assert!(error.to_string().contains("check that the folder is writable"), "{error}");
    }
}

mod tensorboard {
    use super::*;

    /// CRC-32C bit by bit, from its polynomial.
    fn crc32c(data: &[u8]) -> u32 {
        let mut crc = !0u32;
        for &byte in data {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
            }
        }
        !crc
    }

    fn masked(data: &[u8]) -> [u8; 4] {
        let crc = crc32c(data);
        crc.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
    }

    /// The data of each TFRecord, checksums verified.
    fn records(mut file: &[u8]) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        while !file.is_empty() {
            let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
            assert_eq!(file[8..12], masked(&file[..8]));
            let data = &file[12..12 + length];
            assert_eq!(file[12 + length..16 + length], masked(data));
            records.push(data.to_vec());
            file = &file[16 + length..];
        }
        records
    }

    #[derive(Debug, PartialEq)]
    enum Value {
        Int(u64),
        Fixed(Vec<u8>),
        Bytes(Vec<u8>),
    }

    /// (number, value) of each field of a protobuf message.
    fn fields(mut message: &[u8]) -> Vec<(u64, Value)> {
        fn varint(message: &mut &[u8]) -> u64 {
            let end = message.iter().position(|b| b & 0x80 == 0).unwrap();
            let (bytes, rest) = message.split_at(end + 1);
            *message = rest;
            bytes.iter().rev().fold(0, |value, b| value << 7 | u64::from(b & 0x7f))
        }
        fn take(message: &mut &[u8], length: usize) -> Vec<u8> {
            let (bytes, rest) = message.split_at(length);
            *message = rest;
            bytes.to_vec()
        }
        let mut fields = Vec::new();
        while !message.is_empty() {
            let key = varint(&mut message);
            let value = match key & 7 {
                0 => Value::Int(varint(&mut message)),
                1 => Value::Fixed(take(&mut message, 8)),
                5 => Value::Fixed(take(&mut message, 4)),
                2 => {
                    let length = varint(&mut message) as usize;
                    Value::Bytes(take(&mut message, length))
                }
                wire => panic!("wire type {wire}"),
            };
            fields.push((key >> 3, value));
        }
        fields
    }

    fn bytes(fields: &[(u64, Value)], number: u64) -> Option<&[u8]> {
        fields.iter().find_map(|(n, value)| match value {
            Value::Bytes(bytes) if *n == number => Some(bytes.as_slice()),
            _ => None,
        })
    }

    /// (step, tag, value) of every scalar of an event.
    fn scalars(event: &[u8]) -> Vec<(u64, String, f32)> {
        let event = fields(event);
        let step = event.iter().find_map(|(n, v)| match v {
            Value::Int(step) if *n == 2 => Some(*step),
            _ => None,
        });
        let summary = fields(bytes(&event, 5).unwrap());
        let entry = |(_, value): &(u64, Value)| {
            let Value::Bytes(entry) = value else { panic!("{value:?}") };
            let entry = fields(entry);
            let tag = String::from_utf8(bytes(&entry, 1).unwrap().into()).unwrap();
            let Value::Fixed(value) = &entry[1].1 else { panic!("{entry:?}") };
            (step.unwrap(), tag, f32::from_le_bytes(value[..].try_into().unwrap()))
        };
        summary.iter().map(entry).collect()
    }

    fn event_files(dir: &Path) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        files
    }

    #[test]
    fn crc_of_the_parser_matches_rfc_3720() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn scalars_read_back() {
        let dir = tempdir().unwrap();
        let mut events = EventWriter::create(dir.path()).unwrap();
        events.train(&TrainRecord { pair_loss: Some(0.5), ..train(300) }).unwrap();
        events.eval(&eval(300)).unwrap();

        let files = event_files(dir.path());
        let name = files[0].file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("events.out.tfevents.") && name.ends_with(".warpwright"));
        let records = records(&fs::read(&files[0]).unwrap());
        assert_eq!(bytes(&fields(&records[0]), 3), Some(&b"brain.Event:2"[..]));
        let read: Vec<_> = records[1..].iter().flat_map(|event| scalars(event)).collect();
        let wanted = [
            ("loss/train", (8.0f64 / 300.0) as f32),
            ("loss/pair", 0.5),
            ("lr", 0.001),
            ("grad_norm", 1.5),
            ("tokens_per_s", 50_000.0),
            ("loss/heldout", 4.5),
            ("accuracy", 0.25),
            ("accuracy/pair", 0.75),
        ];
        assert_eq!(read, wanted.map(|(tag, value)| (300, tag.to_string(), value)));
    }

    #[test]
    fn a_resumed_run_says_from_which_step() {
        let dir = tempdir().unwrap();
        EventWriter::create(dir.path()).unwrap();
        EventWriter::resume(dir.path(), 640).unwrap();
        let files = event_files(dir.path());
        assert_eq!(files.len(), 2, "both in the same second, neither lost");
        let records = records(&fs::read(&files[1]).unwrap());
        let start = fields(&records[1]);
        assert!(start.contains(&(2, Value::Int(641))));
        assert_eq!(fields(bytes(&start, 7).unwrap()), [(1, Value::Int(1))]);
    }
}

mod page {
    use super::*;

    /// Every tag that is opened is closed, in order, quotes pair up, and nothing is from elsewhere.
    fn check(html: &str) {
        let mut open = Vec::new();
        let (_, body) = html.split_once("<!DOCTYPE html>").unwrap();
        for tag in body.split('<').skip(1) {
            let (tag, text) = tag.split_once('>').unwrap();
            assert!(tag == "style" || !text.contains('>'), "stray > after <{tag}>");
            assert_eq!(tag.matches('\'').count() % 2, 0, "<{tag}>");
            let name = tag.split_ascii_whitespace().next().unwrap();
            match name.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None if tag.ends_with('/') || name == "meta" => {}
                None => open.push(name),
            }
        }
        assert!(open.is_empty(), "{open:?} left open");
        for outside in ["http:", "https:", "src=", "href=", "url(", "@import", "<script"] {
            assert!(!html.contains(outside), "{outside}");
        }
        assert!(!html.contains("NaN") && !html.contains("inf%"));
    }

    #[test]
    fn every_kind_of_record_is_shown() {
        let html = report::render(&every_kind());
        check(&html);
        let shown = ["demo", "masked", "3.00M", "unigram 6.250", "4.500", "linear", "Ishmael"];
        for text in shown.into_iter().chain(["interrupted", "Pair loss", "2 of 100 steps"]) {
            assert!(html.contains(text), "{text}");
        }
    }

    #[test]
    fn runs_that_barely_began() {
        let all = every_kind();
        for records in [&[][..], &all[..1], &all[..2], &all[1..2], &all[3..4]] {
            check(&report::render(records));
        }
    }

    #[test]
    fn figures_that_are_not_finite() {
        let nan = f64::NAN;
        let broken = |step| TrainRecord {
            loss: nan,
            grad_norm: f64::INFINITY,
            tokens_per_s: nan,
            skipped: step,
            ..train(step)
        };
        let op = OpTime { op: "none".into(), calls: 0, seconds: nan, flops: 0, bytes: 0 };
        let idle = OpTime { op: "idle".into(), calls: 1, seconds: 0.0, flops: 1, bytes: 1 };
        let records = [
            Record::Train(broken(1)),
            Record::Train(broken(2)),
            Record::Eval(EvalRecord { loss: nan, accuracy: nan, ..eval(2) }),
            Record::Ops(OpsRecord { step: 2, steps: 0, ops: vec![op, idle] }),
        ];
        check(&report::render(&records));
        // The same among good ones.
        let good = (3..50).map(|step| Record::Train(train(step)));
        check(&report::render(&records.into_iter().chain(good).collect::<Vec<_>>()));
    }

    #[test]
    fn a_long_run_makes_a_small_page() {
        let mut records: Vec<_> = (1..=200_000).map(|s| Record::Train(train(s))).collect();
        records.extend((1..=200).map(|i| note(i * 1000, "resumed")));
        let html = report::render(&records);
        check(&html);
        assert!(html.len() < 400_000, "{} bytes", html.len());
        assert!(html.contains("160 earlier events"));
    }

    #[test]
    fn text_is_escaped() {
        let nasty = "<script>alert(\"&'\")</script>\0";
        let filled = Sample::Filled {
            text: nasty.into(),
            answer: Some(nasty.into()),
            guesses: vec![Guess { token: nasty.into(), probability: 1.0 }],
        };
        let generated = Sample::Generated { prompt: nasty.into(), text: nasty.into() };
        let op = OpTime { op: nasty.into(), calls: 1, seconds: 1.0, flops: 1, bytes: 1 };
        let n = || nasty.to_string();
        let records = [
            Record::Run(RunRecord { preset: n(), family: n(), objective: n(), ..facts() }),
            Record::Run(RunRecord { device: n(), version: n(), ..facts() }),
            Record::Train(train(1)),
            Record::Ops(OpsRecord { step: 1, steps: 1, ops: vec![op] }),
            Record::Samples(SamplesRecord { step: 1, items: vec![filled, generated] }),
            note(1, nasty),
        ];
        check(&report::render(&records[1..]));
        check(&report::render(&[&records[..1], &records[2..]].concat()));
    }

    #[test]
    fn the_command_writes_where_it_is_told() {
        let dir = tempdir().unwrap();
        write_log(dir.path(), &every_kind());
        run(ReportArgs { run: dir.path().into(), output: None }).unwrap();
        let elsewhere = dir.path().join("page.html");
        run(ReportArgs { run: dir.path().into(), output: Some(elsewhere.clone()) }).unwrap();
        let page = fs::read_to_string(elsewhere).unwrap();
        assert_eq!(page, fs::read_to_string(dir.path().join(report::FILE)).unwrap());
    }

    #[test]
    fn a_folder_without_records_is_refused_with_advice() {
        let dir = tempdir().unwrap();
        let refusal = || report::write(dir.path(), None).unwrap_err();
        assert!(matches!(refusal(), Error::Missing { .. }));
        assert!(refusal().to_string().contains("name a run directory"));
        fs::write(dir.path().join(metrics::FILE), "").unwrap();
        assert!(matches!(refusal(), Error::Empty { .. }));
        fs::write(dir.path().join(metrics::FILE), "{\"kind\":\"tr").unwrap();
        assert!(matches!(refusal(), Error::Empty { .. }));
    }
}

#[test]
fn one_stream_feeds_log_and_events() {
    let dir = tempdir().unwrap();
    let mut telemetry = Telemetry::start(dir.path(), 100).unwrap();
    every_kind().iter().for_each(|record| telemetry.record(record).unwrap());
    telemetry.progress.finish();
    let (_, kept) = Telemetry::resume(dir.path(), 100, 1).unwrap();
    assert_eq!(kept.records, every_kind()[..2]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
}
