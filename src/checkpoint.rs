//! Checkpoints: everything that a run needs to go on, or a model to be used.
//!
//! ```text
//! checkpoints/step-000400/   config.json  model.safetensors  tokenizer.json   a Hugging Face model
//!                            optimizer.safetensors                            moments by parameter
//!                            state.json                                       step, digests
//! checkpoints/last, best     links to two of them
//! ```
//! A checkpoint is written under another name, synced file by file, and renamed: under its own name
//! it is whole. `state.json` holds the BLAKE3 of every other file, so damage is found on loading.
//! Order, masks, dropout and rounding are functions of the step, so nothing of them is stored.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::data::Tokenizer;
use crate::data::tokenizer::TokenizerError;
use crate::device::{Buffer, Device, Format};
use crate::hf::{
    Entry, FloatType, LoadError, ModelDir, SafeError, SafeFile, SaveError, SpecialIds, save_model,
    write_safetensors,
};
use crate::model::params::Param;
use crate::model::transformer::Model;
use crate::ops::optimizer::stored_by_chance;
use crate::train::step::{State, Trainer};

/// The version of what `state.json` means; a reader takes its own and older.
const VERSION: u32 = 1;
const STATE: &str = "state.json";
const OPTIMIZER: &str = "optimizer.safetensors";
const MOMENTS: [&str; 2] = ["m", "v"];

/// Where a run stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps taken.
    pub step: u64,
    /// Of them, applied and skipped as not finite.
    pub applied: u64,
    pub skipped: u64,
    /// Steps skipped in a row, up to now.
    pub skipped_in_a_row: u64,
    /// Tokens read.
    pub tokens: u64,
    /// Time spent training [s].
    pub seconds: f64,
    /// Held-out loss here [nats].
    pub heldout: Option<f64>,
    /// The checkpoint with the lowest held-out loss so far: its step and that loss.
    pub best: Option<(u64, f64)>,
}

#[derive(Serialize, Deserialize)]
struct StateFile {
    version: u32,
    progress: Progress,
    /// BLAKE3 of the other files.
    files: BTreeMap<String, String>,
}

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("{path}: {source}; nothing that was there is lost")]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Save(#[from] SaveError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    File(#[from] SafeError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error("{0} holds no checkpoint to resume from: start again with --force")]
    None(PathBuf),
    #[error(
        "none of the checkpoints in {path} is whole (the newest: {why}): put a copy of one there, \
         or start again with --force"
    )]
    AllDamaged { path: PathBuf, why: String },
    #[error("{path} is not a checkpoint's state ({why}): resume from another, or start again")]
    State { path: PathBuf, why: String },
    #[error("{path} is of version {found}, this program reads up to {VERSION}: update it")]
    Newer { path: PathBuf, found: u32 },
    #[error("{0} differs from its checksum: the file is damaged; remove this checkpoint")]
    Damaged(PathBuf),
    #[error(
        "{path} holds another architecture than the run's config.toml: use the config that it was \
         trained with"
    )]
    Architecture { path: PathBuf },
    #[error("{path} lacks {name}: it is not of this model")]
    Missing { path: PathBuf, name: String },
}

/// What goes into a checkpoint besides the trainer.
pub struct Contents<'a> {
    pub progress: &'a Progress,
    pub tokenizer: Option<&'a Tokenizer>,
    pub ids: SpecialIds,
    /// How `Acc`, and so every tensor, is stored.
    pub dtype: FloatType,
}

/// The folder of a step.
pub fn folder(checkpoints: &Path, step: u64) -> PathBuf {
    checkpoints.join(format!("step-{step:06}"))
}

/// Writes a checkpoint of `contents.progress.step`, points `last` and `best` at it as they should,
/// and removes all but the newest `keep` and the best. On an error all that was there remains.
pub fn save<D: Device>(
    checkpoints: &Path,
    trainer: &Trainer<D>,
    contents: &Contents,
    keep: usize,
) -> Result<PathBuf, CheckpointError> {
    let step = contents.progress.step;
    let (target, partial) = (folder(checkpoints, step), checkpoints.join(".partial"));
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| CheckpointError::Io { path, source }
    };
    remove(&partial)?;
    fs::create_dir_all(&partial).map_err(io(&partial))?;
    let written = write_files(&partial, trainer, contents)
        .and_then(|()| sync(&partial))
        // A step saved again (interrupted where it had just been saved) replaces itself.
        .and_then(|()| remove(&target))
        .and_then(|()| fs::rename(&partial, &target).map_err(io(&target)))
        .and_then(|()| sync(checkpoints));
    if let Err(error) = written {
        // The first error is the one to tell; what it left is no checkpoint.
        let _ = fs::remove_dir_all(&partial);
        return Err(error);
    }
    settle(checkpoints, contents.progress, keep)?;
    Ok(target)
}

/// Points `last` and `best` at the checkpoints that `progress` says, and removes the old ones. A
/// save ends so; a resumed run begins so, as its last save may have been killed before its end.
pub fn settle(checkpoints: &Path, progress: &Progress, keep: usize) -> Result<(), CheckpointError> {
    point(checkpoints, "last", progress.step)?;
    if let Some((best, _)) = progress.best {
        point(checkpoints, "best", best)?;
    }
    prune(checkpoints, progress, keep)
}

fn write_files<D: Device>(
    dir: &Path,
    trainer: &Trainer<D>,
    contents: &Contents,
) -> Result<(), CheckpointError> {
    let (model, state) = (&trainer.model, &trainer.state);
    let table = &model.layout.table;
    let source = |param: &Param, start: usize, out: &mut [f64]| {
        state.master.read(param.span.start + start, out);
    };
    save_model(dir, &model.arch, &contents.ids, contents.dtype, table, source)?;
    if let Some(tokenizer) = contents.tokenizer {
        tokenizer.export(dir, &model.arch)?;
    }
    let entries: Vec<Entry> = MOMENTS
        .iter()
        .flat_map(|moment| table.params.iter().map(move |p| (moment, p)))
        .map(|(moment, p)| Entry {
            name: format!("{moment}.{}", p.name),
            dtype: contents.dtype,
            shape: p.shape.clone(),
        })
        .collect();
    write_safetensors(&dir.join(OPTIMIZER), &[], &entries, |i, out| {
        let arena = [&state.m, &state.v][i / table.params.len()];
        let span = table.params[i % table.params.len()].span;
        let mut values = vec![0.0; span.len];
        arena.read(span.start, &mut values);
        out.put(&values)
    })?;
    let file =
        StateFile { version: VERSION, progress: contents.progress.clone(), files: digests(dir)? };
    let json = serde_json::to_vec_pretty(&file).expect("plain data serialises");
    write(&dir.join(STATE), &json)
}

/// The newest checkpoint of a run whose files are whole, and those passed over as damaged.
pub fn newest(checkpoints: &Path) -> Result<(PathBuf, Progress, Vec<String>), CheckpointError> {
    let mut passed_over = Vec::new();
    for (_, dir) in steps(checkpoints)?.into_iter().rev() {
        match verify(&dir) {
            Ok(mut progress) => {
                // A later best, now passed over, may have had this one's best removed.
                progress.best.take_if(|(best, _)| !folder(checkpoints, *best).exists());
                return Ok((dir, progress, passed_over));
            }
            Err(error) => passed_over.push(error.to_string()),
        }
    }
    let path = checkpoints.to_path_buf();
    match passed_over.into_iter().next() {
        Some(why) => Err(CheckpointError::AllDamaged { path, why }),
        None => Err(CheckpointError::None(path)),
    }
}

/// Reads a checkpoint's state and holds every file to its digest.
pub fn verify(dir: &Path) -> Result<Progress, CheckpointError> {
    let path = dir.join(STATE);
    let io = |source| CheckpointError::Io { path: path.clone(), source };
    let json = fs::read(&path).map_err(io)?;
    let why =
        |e: serde_json::Error| CheckpointError::State { path: path.clone(), why: e.to_string() };
    let value: serde_json::Value = serde_json::from_slice(&json).map_err(why)?;
    let found = value["version"].as_u64().unwrap_or(0) as u32;
    if found > VERSION {
        return Err(CheckpointError::Newer { path, found });
    }
    let state: StateFile = serde_json::from_value(value).map_err(why)?;
    for (name, digest) in &state.files {
        let path = dir.join(name);
        if digest_of(&path)? != *digest {
            return Err(CheckpointError::Damaged(path));
        }
    }
    Ok(state.progress)
}

/// Fills a trainer, made for the run's architecture, from a checkpoint. `chance` is the seed of
/// weights that are stored by chance (`Update::stochastic`).
pub fn load<D: Device>(
    dev: &D,
    trainer: &mut Trainer<D>,
    dir: &Path,
    progress: &Progress,
    chance: Option<u64>,
) -> Result<(), CheckpointError> {
    let model = ModelDir::open(dir)?;
    if model.arch.canonical() != trainer.model.arch.canonical() {
        return Err(CheckpointError::Architecture { path: dir.to_path_buf() });
    }
    let Trainer { model: Model { layout, params, .. }, state, .. } = trainer;
    let State { master, m, v, control, .. } = state;
    let report = model.load(&layout.table, |param, start, values| {
        master.write(param.span.start + start, values);
    })?;
    if let Some(name) = report.missing.into_iter().next() {
        return Err(CheckpointError::Missing { path: dir.to_path_buf(), name });
    }
    dev.store(params, master);
    // Before the first update they are stored to nearest; types as wide as the sums round nothing.
    if let (Some(seed), 1.., Format::BF16) = (chance, progress.applied, dev.x_format()) {
        for Param { span, .. } in &layout.table.params {
            let mut values = vec![0.0; span.len];
            master.read(span.start, &mut values);
            let step = progress.applied as u32;
            params.write(span.start, &stored_by_chance(&values, seed, step, span.start));
        }
    }
    let path = dir.join(OPTIMIZER);
    let file = SafeFile::open(&path)?;
    for (moment, arena) in MOMENTS.iter().zip([m, v]) {
        for param in &layout.table.params {
            let name = format!("{moment}.{}", param.name);
            let stored = file.get(&name)?.filter(|stored| stored.count() == param.span.len);
            let Some(stored) = stored else {
                return Err(CheckpointError::Missing { path, name });
            };
            let mut values = vec![0.0; param.span.len];
            stored.read(0, &mut values);
            arena.write(param.span.start, &values);
        }
    }
    control.write(0, &[0.0, 1.0, progress.applied as f64, progress.skipped as f64]);
    Ok(())
}

/// The model folder that a user's path means: itself, or a run's best, else last, checkpoint.
pub fn model_folder(path: &Path) -> PathBuf {
    let links = ["best", "last"].map(|link| path.join("checkpoints").join(link));
    links.into_iter().find(|link| link.exists()).unwrap_or_else(|| path.to_path_buf())
}

/// The checkpoints of a run, oldest first.
fn steps(checkpoints: &Path) -> Result<Vec<(u64, PathBuf)>, CheckpointError> {
    let io = |source| CheckpointError::Io { path: checkpoints.to_path_buf(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(checkpoints).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(step) = name.strip_prefix("step-").and_then(|step| step.parse().ok()) {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Removes all but the newest `keep` and the best. Later ones than `progress` were passed over as
/// damaged: they count for nothing, and are replaced when their step is taken again.
fn prune(checkpoints: &Path, progress: &Progress, keep: usize) -> Result<(), CheckpointError> {
    let mut steps = steps(checkpoints)?;
    steps.retain(|(step, _)| *step <= progress.step);
    let old = steps.len().saturating_sub(keep.max(1));
    for (step, dir) in &steps[..old] {
        if progress.best.is_none_or(|(best, _)| *step != best) {
            remove(dir)?;
        }
    }
    Ok(())
}

/// Makes the link `name` point at a step, in one rename.
fn point(checkpoints: &Path, name: &str, step: u64) -> Result<(), CheckpointError> {
    let (link, beside) = (checkpoints.join(name), checkpoints.join(format!(".{name}")));
    let io = |source| CheckpointError::Io { path: link.clone(), source };
    match fs::remove_file(&beside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io(e)),
        _ => {}
    }
    symlink(folder(Path::new(""), step), &beside).map_err(io)?;
    fs::rename(&beside, &link).map_err(io)
}

fn remove(dir: &Path) -> Result<(), CheckpointError> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(CheckpointError::Io { path: dir.to_path_buf(), source: e })
        }
        _ => Ok(()),
    }
}

fn sync(dir: &Path) -> Result<(), CheckpointError> {
    let io = |source| CheckpointError::Io { path: dir.to_path_buf(), source };
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    let io = |source| CheckpointError::Io { path: path.to_path_buf(), source };
    fs::write(path, bytes).map_err(io)?;
    File::open(path).and_then(|file| file.sync_all()).map_err(io)
}

fn digests(dir: &Path) -> Result<BTreeMap<String, String>, CheckpointError> {
    let io = |source| CheckpointError::Io { path: dir.to_path_buf(), source };
    let mut digests = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        digests.insert(name, digest_of(&entry.path())?);
    }
    Ok(digests)
}

fn digest_of(path: &Path) -> Result<String, CheckpointError> {
    let io = |source| CheckpointError::Io { path: path.to_path_buf(), source };
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path).map_err(io)?).map_err(io)?;
    Ok(hasher.finalize().to_hex().to_string())
}
