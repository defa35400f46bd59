//! Files that are whole or absent: written beside under `NAME.partial`, synced, then renamed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
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
