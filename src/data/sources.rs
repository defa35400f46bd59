//! Text files to documents, as a stream.
//!
//! | file | documents |
//! |---|---|
//! | `.txt` | cut at the separator: two or more blank lines unless told otherwise |
//! | `.jsonl` | one a line: the text in one field of the object |
//! | either with `.gz` or `.zst` | decompressed on the way |
//!
//! Memory: a line and at most [`MAX_PART`] bytes of a document, since a longer document is handed
//! on in parts. Line ends become `\n`; blank lines at either end of a document are dropped.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use flate2::read::MultiGzDecoder;
use indicatif::ProgressBar;

use super::tokenizer::MAX_PART;

/// Why text could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{0}: no such file or folder; check the path")]
    Missing(PathBuf),
    #[error("{0}: holds no .txt or .jsonl file (.gz and .zst of them count too)")]
    EmptyFolder(PathBuf),
    #[error("{0}: unknown kind of file; expected .txt or .jsonl, or .gz or .zst of them")]
    UnknownKind(PathBuf),
    #[error("{path}: not UTF-8 at byte {at} of the text; convert it, for example with `iconv`")]
    NotUtf8 { path: PathBuf, at: u64 },
    #[error("{path}, line {line}: not JSON: {reason}")]
    NotJson { path: PathBuf, line: u64, reason: String },
    #[error(
        "{path}, line {line}: no text in the field \"{field}\"; name the right one with --field"
    )]
    NoField { path: PathBuf, line: u64, field: String },
}

/// Where one document ends and the next begins in a `.txt` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Separator {
    /// At this many blank lines or more.
    BlankLines(usize),
    /// At a line of just this text, which belongs to neither.
    Line(String),
    /// Nowhere: a file is a document.
    File,
}

impl FromStr for Separator {
    type Err = std::convert::Infallible;

    /// `blanks` (two), `blank` (one), `file`, or the text of the separating line.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Ok(match name {
            "blanks" => Separator::BlankLines(2),
            "blank" => Separator::BlankLines(1),
            "file" => Separator::File,
            line => Separator::Line(line.into()),
        })
    }
}

/// How documents are found in files.
#[derive(Clone, Debug)]
pub struct Rules {
    pub separator: Separator,
    /// The field of a JSON line that holds the text.
    pub field: String,
}

impl Default for Rules {
    fn default() -> Self {
        Rules { separator: Separator::BlankLines(2), field: "text".into() }
    }
}

/// A text to read: a file, or bytes that the program carries.
#[derive(Clone, Debug)]
pub enum Input {
    File(PathBuf),
    /// Bytes under the name of the file they would be.
    Memory {
        name: &'static str,
        bytes: &'static [u8],
    },
}

impl Input {
    pub fn path(&self) -> &Path {
        match self {
            Input::File(path) => path,
            Input::Memory { name, .. } => Path::new(name),
        }
    }

    /// Bytes as stored.
    pub fn size(&self) -> Result<u64, SourceError> {
        match self {
            Input::File(path) => Ok(std::fs::metadata(path).map_err(io_at(path))?.len()),
            Input::Memory { bytes, .. } => Ok(bytes.len() as u64),
        }
    }
}

fn io_at(path: &Path) -> impl Fn(io::Error) -> SourceError + '_ {
    move |source| match source.kind() {
        io::ErrorKind::NotFound => SourceError::Missing(path.into()),
        _ => SourceError::Io { path: path.into(), source },
    }
}

/// Files as given, folders searched to the bottom for the kinds above, in the order of names.
pub fn find(paths: &[PathBuf]) -> Result<Vec<Input>, SourceError> {
    let mut inputs = Vec::new();
    for path in paths {
        if !path.is_dir() {
            if !path.exists() {
                return Err(SourceError::Missing(path.clone()));
            }
            kind(path).ok_or_else(|| SourceError::UnknownKind(path.clone()))?;
            inputs.push(Input::File(path.clone()));
            continue;
        }
        let before = inputs.len();
        search(path, &mut inputs)?;
        if inputs.len() == before {
            return Err(SourceError::EmptyFolder(path.clone()));
        }
    }
    Ok(inputs)
}

fn search(folder: &Path, inputs: &mut Vec<Input>) -> Result<(), SourceError> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(io_at(folder))?;
    entries.sort();
    for path in entries {
        if path.is_dir() && !path.is_symlink() {
            search(&path, inputs)?;
        } else if path.is_file() && kind(&path).is_some() {
            inputs.push(Input::File(path));
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Format {
    Text,
    JsonLines,
}

#[derive(Clone, Copy)]
enum Packed {
    Plain,
    Gzip,
    Zstd,
}

fn kind(path: &Path) -> Option<(Format, Packed)> {
    let name = path.file_name()?.to_str()?;
    let (name, packed) = match name.rsplit_once('.')? {
        (stem, "gz") => (stem, Packed::Gzip),
        (stem, "zst") => (stem, Packed::Zstd),
        _ => (name, Packed::Plain),
    };
    match name.rsplit_once('.')?.1 {
        "txt" => Some((Format::Text, packed)),
        "jsonl" => Some((Format::JsonLines, packed)),
        _ => None,
    }
}

/// A document, or a part of one too long to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Index of the input it comes from.
    pub input: usize,
    pub text: String,
    /// Whether the document begins here.
    pub first: bool,
    /// Whether the document ends here.
    pub last: bool,
}

/// The documents of `inputs`, one after another. Ends at the first error.
pub struct Documents<'a> {
    inputs: &'a [Input],
    rules: &'a Rules,
    progress: ProgressBar,
    next_input: usize,
    open: Option<Lines>,
    /// Text of the document being read.
    text: String,
    /// Whether parts of it have been handed on.
    continued: bool,
    /// Blank lines read since `text`.
    blanks: usize,
}

impl<'a> Documents<'a> {
    /// `progress` advances by bytes as stored.
    pub fn new(inputs: &'a [Input], rules: &'a Rules, progress: ProgressBar) -> Self {
        Documents {
            inputs,
            rules,
            progress,
            next_input: 0,
            open: None,
            text: String::new(),
            continued: false,
            blanks: 0,
        }
    }

    fn advance(&mut self) -> Result<Option<Part>, SourceError> {
        loop {
            let Some(lines) = &mut self.open else {
                let Some(input) = self.inputs.get(self.next_input) else { return Ok(None) };
                self.open = Some(Lines::open(input, &self.progress)?);
                self.next_input += 1;
                continue;
            };
            let format = lines.format;
            let part = match lines.next()? {
                None => {
                    self.open = None;
                    self.end_document()
                }
                Some(()) if format == Format::Text => self.text_line(),
                Some(()) => {
                    let lines = self.open.as_ref().expect("a file is open");
                    self.text = lines.json_text(&self.rules.field)?;
                    self.end_document()
                }
            };
            if part.is_some() {
                return Ok(part);
            }
        }
    }

    /// Takes in a line of a `.txt` file; returns what it completes.
    fn text_line(&mut self) -> Option<Part> {
        let line = self.open.as_ref().expect("a file is open").line.as_str();
        let blank = line.trim().is_empty();
        let ends = match &self.rules.separator {
            Separator::BlankLines(n) => !blank && self.blanks >= *n,
            Separator::Line(separator) => line.trim_end() == separator,
            Separator::File => false,
        };
        let line = line.to_owned();
        let done = if ends { self.end_document() } else { None };
        if blank {
            self.blanks += 1;
        } else if !(ends && matches!(self.rules.separator, Separator::Line(_))) {
            if !self.text.is_empty() || self.continued {
                self.text.extend(std::iter::repeat_n('\n', self.blanks));
            }
            self.blanks = 0;
            self.text.push_str(&line);
        }
        done.or_else(|| (self.text.len() >= MAX_PART).then(|| self.part(false)))
    }

    fn end_document(&mut self) -> Option<Part> {
        self.blanks = 0;
        self.text.truncate(self.text.trim_end_matches('\n').len());
        (self.continued || !self.text.trim().is_empty()).then(|| self.part(true))
    }

    fn part(&mut self, last: bool) -> Part {
        let first = !std::mem::replace(&mut self.continued, !last);
        let text = std::mem::take(&mut self.text);
        Part { input: self.next_input - 1, text, first, last }
    }
}

impl Iterator for Documents<'_> {
    type Item = Result<Part, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        let part = self.advance().transpose();
        if let Some(Err(_)) = part {
            self.next_input = self.inputs.len();
            self.open = None;
        }
        part
    }
}

/// The lines of one file, held to UTF-8.
struct Lines {
    path: PathBuf,
    format: Format,
    reader: Box<dyn BufRead + Send>,
    /// The current line with its `\n`.
    line: String,
    number: u64,
    /// Bytes of text before the current line.
    at: u64,
    next_at: u64,
}

impl Lines {
    fn open(input: &Input, progress: &ProgressBar) -> Result<Self, SourceError> {
        let path = input.path();
        let (format, packed) =
            kind(path).ok_or_else(|| SourceError::UnknownKind(path.to_path_buf()))?;
        let stored: Box<dyn Read + Send> = match input {
            Input::File(path) => Box::new(File::open(path).map_err(io_at(path))?),
            Input::Memory { bytes, .. } => Box::new(*bytes),
        };
        let stored = BufReader::with_capacity(1 << 16, progress.wrap_read(stored));
        let reader: Box<dyn BufRead + Send> = match packed {
            Packed::Plain => Box::new(stored),
            Packed::Gzip => Box::new(BufReader::new(MultiGzDecoder::new(stored))),
            Packed::Zstd => {
                Box::new(BufReader::new(zstd::Decoder::with_buffer(stored).map_err(io_at(path))?))
            }
        };
        let (path, line) = (path.to_path_buf(), String::new());
        Ok(Lines { path, format, reader, line, number: 0, at: 0, next_at: 0 })
    }

    /// Reads the next line into `self.line`; `None` at the end of the file.
    fn next(&mut self) -> Result<Option<()>, SourceError> {
        let mut bytes = std::mem::take(&mut self.line).into_bytes();
        bytes.clear();
        let read = self.reader.read_until(b'\n', &mut bytes).map_err(io_at(&self.path))?;
        if read == 0 {
            return Ok(None);
        }
        (self.at, self.next_at, self.number) =
            (self.next_at, self.next_at + read as u64, self.number + 1);
        self.line = String::from_utf8(bytes).map_err(|error| SourceError::NotUtf8 {
            path: self.path.clone(),
            at: self.at + error.utf8_error().valid_up_to() as u64,
        })?;
        if self.line.ends_with("\r\n") {
            self.line.truncate(self.line.len() - 2);
            self.line.push('\n');
        }
        if self.number == 1 && self.line.starts_with('\u{feff}') {
            self.line.drain(..'\u{feff}'.len_utf8());
        }
        Ok(Some(()))
    }

    /// The text in `field` of the current line; empty for a blank line.
    fn json_text(&self, field: &str) -> Result<String, SourceError> {
        if self.line.trim().is_empty() {
            return Ok(String::new());
        }
        let (path, line) = (|| self.path.clone(), self.number);
        let value: serde_json::Value = serde_json::from_str(&self.line).map_err(|error| {
            SourceError::NotJson { path: path(), line, reason: error.to_string() }
        })?;
        match value.get(field) {
            Some(serde_json::Value::String(text)) => Ok(text.clone()),
            _ => Err(SourceError::NoField { path: path(), line, field: field.into() }),
        }
    }
}
