//! Labelled data as files: rows with named columns.

use std::collections::HashSet;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::data::files;

/// Why a file of rows cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{0} is neither .csv, .tsv nor .jsonl: rename or convert it")]
    Kind(PathBuf),
    #[error("{path}, line {line}: {why}")]
    Row { path: PathBuf, line: u64, why: String },
    #[error("{path} has no column {column:?}; it has {}", .there.join(", "))]
    Column { path: PathBuf, column: String, there: Vec<String> },
    #[error("{0} has no rows")]
    Empty(PathBuf),
}

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// In its file, from 1.
    pub line: u64,
    fields: Map<String, Value>,
}

impl Record {
    /// The field of a column that need not be there.
    pub fn get(&self, column: &str) -> Option<&Value> {
        self.fields.get(column)
    }
}

/// The rows of a file.
#[derive(Debug, Clone)]
pub struct Table {
    pub path: PathBuf,
    pub records: Vec<Record>,
}

impl Table {
    /// Reads `.csv` and `.tsv` with a first row of names, and `.jsonl` of objects. A TSV has no
    /// quotes: a field is what is between two tabs.
    ///
    /// # Errors
    /// A file that cannot be read or has no rows; a row of another number of fields than the first,
    /// or that is not an object; its line is named.
    pub fn read(path: &Path) -> Result<Table, TableError> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        let records = match extension {
            "csv" => separated(path, b',', true)?,
            "tsv" => separated(path, b'\t', false)?,
            "jsonl" => objects(path)?,
            _ => return Err(TableError::Kind(path.into())),
        };
        if records.is_empty() {
            return Err(TableError::Empty(path.into()));
        }
        Ok(Table { path: path.into(), records })
    }

    /// A row's field; numbers and truth values as they are written.
    ///
    /// # Errors
    /// A row without it, or one that is null.
    pub fn text(&self, record: &Record, column: &str) -> Result<String, TableError> {
        match self.value(record, column)? {
            Value::String(text) => Ok(text.clone()),
            value @ (Value::Number(_) | Value::Bool(_)) => Ok(value.to_string()),
            value => Err(self.wrong(record, format!("{column} is {value}, not text"))),
        }
    }

    /// A row's list of names; numbers as they are written.
    ///
    /// # Errors
    /// A row without it, or where it is no such list.
    pub fn names(&self, record: &Record, column: &str) -> Result<Vec<String>, TableError> {
        let name = |value: &Value| match value {
            Value::String(name) => Some(name.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let list = self.value(record, column)?.as_array();
        let names = list.and_then(|list| list.iter().map(name).collect());
        names.ok_or_else(|| self.wrong(record, format!("{column} is not a list of names")))
    }

    /// The same of labels.
    ///
    /// # Errors
    /// A label that is empty, too.
    pub fn labels(&self, record: &Record, column: &str) -> Result<Vec<String>, TableError> {
        let labels = self.names(record, column)?;
        match labels.iter().any(|label| label.trim().is_empty()) {
            true => Err(self.wrong(record, format!("{column} has an empty one: name it"))),
            false => Ok(labels),
        }
    }

    /// A row's field as it is.
    ///
    /// # Errors
    /// A row without it; it is named where others have it.
    pub fn value<'a>(&self, record: &'a Record, column: &str) -> Result<&'a Value, TableError> {
        record.get(column).ok_or_else(|| {
            let there: Vec<String> = record.fields.keys().cloned().collect();
            match self.records.iter().any(|other| other.get(column).is_some()) {
                true => {
                    let there = there.join(", ");
                    self.wrong(record, format!("no {column:?} as in other rows; it has {there}"))
                }
                false => {
                    TableError::Column { path: self.path.clone(), column: column.into(), there }
                }
            }
        })
    }

    /// An error that names a row.
    pub fn wrong(&self, record: &Record, why: String) -> TableError {
        TableError::Row { path: self.path.clone(), line: record.line, why }
    }
}

fn separated(path: &Path, delimiter: u8, quotes: bool) -> Result<Vec<Record>, TableError> {
    let bytes =
        files::read_text(path).map_err(|source| TableError::Io { path: path.into(), source })?;
    let mut lines = Lines { bytes: &bytes, at: 0, line: 1 };
    let wrong = |line, why| TableError::Row { path: path.into(), line, why };
    let mut builder = csv::ReaderBuilder::new();
    builder.delimiter(delimiter).quoting(quotes).flexible(true).has_headers(false);
    let mut names: Option<Vec<String>> = None;
    let mut records = Vec::new();
    for row in builder.from_reader(&bytes[..]).into_byte_records() {
        // Of bytes in memory, in rows of any length, nothing can be wrong.
        let row = row.map_err(|error| wrong(lines.line, error.to_string()))?;
        let line = lines.of(row.position().map_or(0, csv::Position::byte) as usize);
        let row = csv::StringRecord::from_byte_record(row)
            .map_err(|error| wrong(line, format!("not UTF-8: {}", error.utf8_error())))?;
        let Some(names) = &names else {
            let mut known = HashSet::new();
            if let Some(name) = row.iter().find(|name| !known.insert(*name)) {
                return Err(wrong(line, format!("two columns are called {name:?}: rename one")));
            }
            names = Some(row.iter().map(str::to_string).collect());
            continue;
        };
        if row.len() != names.len() {
            let open = row.iter().any(|field| field.contains('\n'));
            let hint = if open { "; is a quote not closed?" } else { "" };
            let (got, want) = (row.len(), names.len());
            return Err(wrong(
                line,
                format!("{got} fields, where the first line names {want}{hint}"),
            ));
        }
        let fields = names.iter().zip(&row);
        let fields = fields.map(|(name, field)| (name.clone(), Value::from(field))).collect();
        records.push(Record { line, fields });
    }
    Ok(records)
}

/// Counts lines, whatever ends them (`\n`, `\r\n` or `\r`).
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line of the row before which `byte` stands, from 1; of no earlier row than the last.
    fn of(&mut self, byte: usize) -> u64 {
        while let Some(&now) = self.bytes.get(self.at) {
            let ends = now == b'\n' || now == b'\r';
            if self.at >= byte && !ends {
                break;
            }
            let next = self.bytes.get(self.at + 1);
            self.line += u64::from(ends && !(now == b'\r' && next == Some(&b'\n')));
            self.at += 1;
        }
        self.line
    }
}

/// What is wrong with a line of JSON, which for itself is the first.
fn in_line(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at column ")
}

fn objects(path: &Path) -> Result<Vec<Record>, TableError> {
    let io = |source| TableError::Io { path: path.into(), source };
    let reader = BufReader::new(File::open(path).map_err(io)?);
    let mut records = Vec::new();
    for line in files::lines(reader) {
        let (line, text) = line.map_err(io)?;
        if text.trim().is_empty() {
            continue;
        }
        let wrong = |why| TableError::Row { path: path.into(), line, why };
        match serde_json::from_str(&text).map_err(|e| wrong(in_line(&e)))? {
            Value::Object(fields) => records.push(Record { line, fields }),
            _ => return Err(wrong("not an object, {\"column\": value, …}".into())),
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn table(name: &str, text: &str) -> Result<Table, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        let shown = folder.path().display().to_string() + "/";
        Table::read(&path).map_err(|e| e.to_string().replace(&shown, ""))
    }

    #[test]
    fn rows_are_read_by_the_names_of_their_columns() {
        let csv = table("a.csv", "text,label\n\"Fine, \"\"really\"\"\ngood\",1\nbad,0\n").unwrap();
        let text = |t: &Table, i: usize, column: &str| t.text(&t.records[i], column).unwrap();
        assert_eq!(
            (text(&csv, 0, "text"), text(&csv, 1, "label")),
            ("Fine, \"really\"\ngood".into(), "0".into())
        );
        assert_eq!([csv.records[0].line, csv.records[1].line], [2, 4]);
        let tsv = table("a.tsv", "text\tlabel\nhe said \"no\t1\n").unwrap();
        assert_eq!(text(&tsv, 0, "text"), "he said \"no");
        let json = table(
            "a.jsonl",
            "\u{feff}{\"text\": \"x\", \"label\": 2}\n\n{\"text\": \"y\", \"label\": true}\n",
        )
        .unwrap();
        assert_eq!((text(&json, 0, "label"), text(&json, 1, "label")), ("2".into(), "true".into()));
        let missing = csv.text(&csv.records[0], "labels").unwrap_err().to_string();
        assert!(missing.contains("no column \"labels\"; it has text, label"), "{missing}");
        let uneven = table("a.jsonl", "{\"text\": \"x\"}\n\n{\"test\": \"y\"}\n").unwrap();
        let missing = uneven.text(&uneven.records[1], "text").unwrap_err().to_string();
        let said = "a.jsonl, line 3: no \"text\" as in other rows; it has test";
        assert!(missing.ends_with(said), "{missing}");
    }

    #[test]
    fn what_is_no_table_says_where() {
        for (name, text, said) in [
            ("a.csv", "a,b\n1,2\n1,2,3\n", "a.csv, line 3: 3 fields, where the first line names 2"),
            ("a.csv", "\r\n\na,b\r\n1,2\r\n\r\n1\r\n", "a.csv, line 6: 1 fields"),
            ("a.csv", "a,b\r1,2\r1\r", "a.csv, line 3: 1 fields"),
            (
                "a.csv",
                "a,b\n1,2\n\"1,2\n1,2\n",
                "a.csv, line 3: 1 fields, where the first line names 2; is a quote not closed?",
            ),
            ("a.csv", "a,b\n", "a.csv has no rows"),
            ("a.csv", "a,b,a\n1,2,3\n", "a.csv, line 1: two columns are called \"a\""),
            ("a.jsonl", "{}\n[1]\n", "a.jsonl, line 2: not an object"),
            ("a.jsonl", "{\"a\": 1\n", "a.jsonl, line 1: EOF while parsing an object at column 7"),
            ("a.jsonl", "{}\n\n1\n", "a.jsonl, line 3: not an object"),
            ("a.txt", "", "neither .csv, .tsv nor .jsonl"),
        ] {
            let why = table(name, text).unwrap_err();
            assert!(why.contains(said), "{why}");
        }
    }
}
