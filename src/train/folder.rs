//! The run directory: made once, owned by one process at a time, never overwritten by accident.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::config::{Config, ConfigError};
use crate::data::dataset::MANIFEST;
use crate::telemetry::{metrics, report};

const CONFIG: &str = "config.toml";
const UNFINISHED: &str = "config.toml.partial";
const LOCK: &str = "lock";
const CHECKPOINTS: &str = "checkpoints";
const PRODUCTS: &str = "products.json";

/// Why a run directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("{path} cannot be used: {source}; name another run directory with --out")]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{0} already holds a run: go on with it by --resume, replace it by --force, or name \
         another with --out"
    )]
    Exists(PathBuf),
    #[error(
        "{0} holds files but no run, so it is not touched, not by --force: name another with \
         --out"
    )]
    NotARun(PathBuf),
    #[error("{0} holds no run to resume (no config.toml): leave out --resume")]
    NothingToResume(PathBuf),
    #[error("another process is training in {0}: wait for it, or name another with --out")]
    Busy(PathBuf),
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// A run directory, locked while this value lives.
#[derive(Debug)]
pub struct RunFolder {
    pub path: PathBuf,
    _lock: File,
}

impl RunFolder {
    /// Makes the directory of a new run, with its configuration. With `force` a run that is there
    /// makes way, but not before [`RunFolder::begin`].
    pub fn create(path: &Path, config: &Config, force: bool) -> Result<RunFolder, FolderError> {
        let is_run = path.join(CONFIG).exists();
        // Before its first record a run has nothing to lose, and a second try needs no flag.
        let begun = [metrics::FILE, CHECKPOINTS].iter().any(|name| path.join(name).exists());
        let is_empty = match fs::read_dir(path) {
            // What a process leaves that was killed before it wrote the configuration.
            Ok(entries) => entries
                .flatten()
                .all(|entry| entry.file_name() == LOCK || entry.file_name() == UNFINISHED),
            Err(e) if e.kind() == io::ErrorKind::NotFound => true,
            Err(source) => return Err(FolderError::Io { path: path.to_path_buf(), source }),
        };
        if is_run && begun && !force {
            return Err(FolderError::Exists(path.to_path_buf()));
        }
        if !is_run && !is_empty {
            return Err(FolderError::NotARun(path.to_path_buf()));
        }
        let folder = RunFolder::lock(path)?;
        if !is_run {
            folder.write(config)?;
        } else if !config.data.text.is_empty() {
            folder.forget_text()?;
        }
        Ok(folder)
    }

    /// Takes the directory over for a run that is sure to start: what an earlier one left goes.
    pub fn begin(&self, config: &Config) -> Result<(), FolderError> {
        self.clear()?;
        self.write(config)
    }

    fn write(&self, config: &Config) -> Result<(), FolderError> {
        let path = self.path.join(CONFIG);
        let io = |source| FolderError::Io { path: path.clone(), source };
        crate::data::files::write(&path, config.to_toml().as_bytes()).map_err(io)
    }

    /// Opens the directory of a run that was started, and reads its configuration.
    pub fn resume(path: &Path) -> Result<(RunFolder, Config), FolderError> {
        let file = path.join(CONFIG);
        if !file.exists() {
            return Err(FolderError::NothingToResume(path.to_path_buf()));
        }
        let folder = RunFolder::lock(path)?;
        let config = Config::read(&file)?;
        Ok((folder, config))
    }

    pub fn checkpoints(&self) -> PathBuf {
        self.path.join(CHECKPOINTS)
    }

    /// The cuts of products that the run trains by, if they were measured.
    pub fn products(&self) -> PathBuf {
        self.path.join(PRODUCTS)
    }

    /// Where text given to the run is kept as tokens.
    pub fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    fn lock(path: &Path) -> Result<RunFolder, FolderError> {
        let io = |path: &Path| {
            let path = path.to_path_buf();
            move |source| FolderError::Io { path, source }
        };
        fs::create_dir_all(path).map_err(io(path))?;
        let name = path.join(LOCK);
        let lock = File::create(&name).map_err(io(&name))?;
        match lock.try_lock() {
            Ok(()) => Ok(RunFolder { path: path.to_path_buf(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(FolderError::Busy(path.to_path_buf())),
            Err(TryLockError::Error(source)) => Err(FolderError::Io { path: name, source }),
        }
    }

    /// Has the tokens of an earlier run's text made again: this run's text may be another. (The
    /// text that ships with the program knows its own tokens.)
    fn forget_text(&self) -> Result<(), FolderError> {
        let path = self.data().join(MANIFEST);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(FolderError::Io { path, source })
            }
            _ => Ok(()),
        }
    }

    /// Removes what a run writes, and nothing else. The configuration stays until another is
    /// renamed over it, so that a start cut short at any moment can be made again.
    fn clear(&self) -> Result<(), FolderError> {
        let io = |source| FolderError::Io { path: self.path.clone(), source };
        let gone = |result: io::Result<()>| match result {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io(e)),
            _ => Ok(()),
        };
        gone(fs::remove_dir_all(self.checkpoints()))?;
        for name in [metrics::FILE, report::FILE, PRODUCTS] {
            gone(fs::remove_file(self.path.join(name)))?;
        }
        for entry in fs::read_dir(&self.path).map_err(io)? {
            let entry = entry.map_err(io)?;
            if entry.file_name().to_string_lossy().starts_with("events.out.tfevents.") {
                gone(fs::remove_file(entry.path()))?;
            }
        }
        Ok(())
    }
}
