//! Files that are whole or absent: written beside under `NAME.partial`, synced, then renamed; and
//! text as files have it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

/// A file under its temporary name; removed on drop unless finished.
pub struct Partial {
    target: PathBuf,
    temporary: PathBuf,
}

impl Partial {
    /// Creates `target`'s partial file, emptying one that a killed run left.
    pub fn create(target: &Path) -> io::Result<(Self, File)> {
        let mut name = OsString::from(target);
        name.push(".partial");
        let temporary = PathBuf::from(name);
        let file = File::create(&temporary)?;
        Ok((Partial { target: target.into(), temporary }, file))
    }

    /// The temporary name.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Syncs `file`, renames it to its own name, and syncs the folder so the name lasts too.
    pub fn finish(self, file: File) -> io::Result<()> {
        file.sync_all()?;
        fs::rename(&self.temporary, &self.target)?;
        let folder = self.target.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After a rename there is nothing to remove, and an error here has no one to go to.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Writes a whole file.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (partial, mut file) = Partial::create(path)?;
    file.write_all(bytes)?;
    partial.finish(file)
}

/// The byte order mark that some editors put before UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// A text file's bytes, without a byte order mark.
pub fn read_text(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = fs::read(path)?;
    if bytes.starts_with(MARK) {
        bytes.drain(..MARK.len());
    }
    Ok(bytes)
}

/// Lines and their numbers, from 1, without what ends them (`\n` or `\r\n`) and without a byte
/// order mark before the first.
pub fn lines(reader: impl BufRead) -> impl Iterator<Item = io::Result<(u64, String)>> {
    (1..).zip(reader.split(b'\n')).map(|(number, line)| {
        let line = line?;
        let mut text = line.strip_suffix(b"\r").unwrap_or(&line);
        if number == 1 {
            text = text.strip_prefix(MARK).unwrap_or(text);
        }
        let text = str::from_utf8(text).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidData, format!("line {number} is not UTF-8"))
        })?;
        Ok((number, text.to_string()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_numbers_and_neither_mark_nor_ends() {
        let read = |bytes: &[u8]| -> io::Result<Vec<(u64, String)>> { lines(bytes).collect() };
        let line = |number, text: &str| (number, text.to_string());
        let text = "\u{feff}a\r\n\n\u{feff}b";
        let want = vec![line(1, "a"), line(2, ""), line(3, "\u{feff}b")];
        assert_eq!(read(text.as_bytes()).unwrap(), want);
        assert_eq!(read(b"").unwrap(), []);
        assert_eq!(read("\u{feff}\n".as_bytes()).unwrap(), [line(1, "")]);
        let error = read(b"a\nb\xff\n").unwrap_err().to_string();
        assert_eq!(error, "line 2 is not UTF-8");
    }
}
