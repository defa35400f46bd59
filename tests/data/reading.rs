//! Text files to documents.

use crate::*;
use std::io::Write;

fn read(path: &Path, rules: &Rules) -> Result<Vec<String>, SourceError> {
    let inputs = [Input::File(path.into())];
    let progress = indicatif::ProgressBar::hidden();
    sources::Documents::new(&inputs, rules, progress).map(|part| Ok(part?.text)).collect()
}

fn rules(separator: &str) -> Rules {
    Rules { separator: separator.parse().unwrap(), ..Rules::default() }
}

#[test]
fn separators() {
    let folder = folder();
    let text = "\u{feff}\n\na\r\nb\n\nc\n\n\n\nd\n<|end|>\ne  \n\n\n";
    let path = write(folder.path(), "a.txt", text);
    let read = |separator| read(&path, &rules(separator)).unwrap();
    assert_eq!(read("blanks"), ["a\nb\n\nc", "d\n<|end|>\ne  "]);
    assert_eq!(read("blank"), ["a\nb", "c", "d\n<|end|>\ne  "]);
    assert_eq!(read("<|end|>"), ["a\nb\n\nc\n\n\n\nd", "e  "]);
    assert_eq!(read("file").len(), 1);
    assert_eq!("blank".parse::<Separator>().unwrap(), Separator::BlankLines(1));
}

#[test]
fn json_lines_and_compression() {
    let folder = folder();
    let lines = "{\"text\": \"one\\ntwo\", \"id\": 1}\n\n{\"text\": \"\"}\n{\"text\": \"three\"}";
    let expected = ["one\ntwo", "three"];
    let plain = write(folder.path(), "a.jsonl", lines);
    let zst = zstd::encode_all(lines.as_bytes(), 3).unwrap();
    let zst = write(folder.path(), "b.jsonl.zst", zst);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(lines.as_bytes()).unwrap();
    let gz = write(folder.path(), "c.jsonl.gz", gz.finish().unwrap());
    for path in [plain, zst, gz] {
        assert_eq!(read(&path, &Rules::default()).unwrap(), expected);
    }
    write(folder.path(), "ignored.csv", "x");
    assert_eq!(sources::find(&[folder.path().into()]).unwrap().len(), 3);
}

#[test]
fn a_long_document_comes_in_parts() {
    let folder = folder();
    let line = "all work and no play\n";
    let path = write(folder.path(), "a.txt", line.repeat(150_000));
    let inputs = [Input::File(path)];
    let rules = Rules::default();
    let parts = sources::Documents::new(&inputs, &rules, indicatif::ProgressBar::hidden());
    let parts: Vec<_> = parts.map(Result::unwrap).collect();
    assert_eq!(parts.len(), 4);
    assert_eq!(
        parts.iter().map(|p| p.text.as_str()).collect::<String>() + "\n",
        line.repeat(150_000)
    );
    assert!(parts[0].first && !parts[1].first && !parts[2].last && parts[3].last);
    assert!(parts.iter().all(|part| part.text.len() <= (1 << 20) + line.len()));
}

#[test]
fn what_is_wrong_is_named() {
    let folder = folder();
    let missing = sources::find(&[folder.path().join("no.txt")]).unwrap_err();
    assert!(matches!(missing, SourceError::Missing(_)));
    let empty = sources::find(&[folder.path().into()]).unwrap_err();
    assert!(matches!(empty, SourceError::EmptyFolder(_)));
    let unknown = write(folder.path(), "a.pdf", "x");
    assert!(matches!(sources::find(&[unknown]), Err(SourceError::UnknownKind(_))));

    let path = write(folder.path(), "a.txt", b"good line\nbad \xff line\n");
    let error = read(&path, &Rules::default()).unwrap_err();
    assert!(matches!(error, SourceError::NotUtf8 { at: 14, .. }), "{error}");
    assert!(error.to_string().contains("a.txt"));

    let path = write(folder.path(), "a.jsonl", "{\"text\": \"a\"}\n{\"body\": \"b\"}\n");
    let error = read(&path, &Rules::default()).unwrap_err();
    assert!(matches!(&error, SourceError::NoField { line: 2, .. }), "{error}");
    let path = write(folder.path(), "b.jsonl", "{\"text\": \n");
    let error = read(&path, &Rules::default()).unwrap_err();
    assert!(matches!(error, SourceError::NotJson { line: 1, .. }));
    let path = write(folder.path(), "c.txt.zst", b"not compressed at all");
    assert!(matches!(read(&path, &Rules::default()), Err(SourceError::Io { .. })));
}
