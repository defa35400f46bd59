//! `warpwright export`: a model as a folder that transformers loads.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use super::card::CardArgs;
use super::say;
use crate::card::{self, Origin};
use crate::checkpoint::model_folder;
use crate::data::Tokenizer;
use crate::data::tokenizer::TokenizerError;
use crate::hf::{FloatType, ModelDir, SpecialIds, save_model};
use crate::model::arch::Arch;
use crate::model::params::{Layout, Param};
use crate::model::transformer::initial;

/// Write a model as a folder that Hugging Face's transformers loads
///
/// Takes a run directory (its best checkpoint) or any folder with a config.json and a model's
/// weights, head included, of whatever age and naming, and writes config.json, model.safetensors
/// and the tokenizer's files under today's names; and a README.md, the model's card for the Hub,
/// with what is known of its data, training and results.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    warpwright export runs/masked                      into runs/masked-hf\n  \
    warpwright export old-bert/ --to new-bert --dtype bf16\n  \
    warpwright export runs/masked --to my-model --license mit --evaluation eval.json\n\n\
    In Python: transformers.AutoModelForMaskedLM.from_pretrained('my-model')")]
pub struct ExportArgs {
    /// A run directory, or a model's folder
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// The folder to make [default: MODEL-hf, beside it]
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// What to write
    #[arg(long, value_enum, default_value = "hf")]
    pub format: Format,
    /// The type of the stored weights
    #[arg(long, value_enum, default_value = "f32")]
    pub dtype: Stored,
    #[command(flatten)]
    pub card: CardArgs,
}

/// What an export can be.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Format {
    /// A Hugging Face folder
    Hf,
}

/// A type of stored weights.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Stored {
    F32,
    Bf16,
}

/// Seed of the parameters that a model lacks.
const SEED: u64 = 1;

/// Writes the folder beside, and renames it when it is whole.
pub fn run(args: ExportArgs) -> Result<()> {
    let ExportArgs { model, to, format: Format::Hf, dtype, card } = args;
    let dtype = match dtype {
        Stored::F32 => FloatType::F32,
        Stored::Bf16 => FloatType::Bf16,
    };
    let to = to.unwrap_or_else(|| beside(&model, "-hf"));
    let known = card.known(&to);
    known.check()?;
    let making = Making::begin(&to)?;
    let from = model_folder(&model);
    let dir = ModelDir::open(&from)?;
    let layout = Layout::new(&dir.arch);
    dir.fits(&dir.arch, &layout.table)?;
    let mut arena = vec![0.0; layout.table.arena_len];
    for index in 0..layout.table.params.len() {
        let (span, values) = initial(&layout, SEED, index);
        arena[span.range()].copy_from_slice(&values);
    }
    let report = dir.load(&layout.table, |param, start, values| {
        arena[param.span.start + start..][..values.len()].copy_from_slice(values);
    })?;

    ensure!(
        !report.headless,
        "{} is an encoder without a head, and an export would draw one at random: finetune it, or \
         train it further with `warpwright pretrain --init`, and export that",
        from.display()
    );
    let (tokenizer, origin) = (tokenizer(&from)?, Origin::of(&model)?);
    making.finish(|folder| {
        put_model(folder, (&dir.arch, &dir.ids, dtype), &arena, tokenizer.as_ref())?;
        Ok(card::write(folder, &dir.arch, &origin, &known)?)
    })?;

    say(format_args!("wrote {}", to.display()))?;
    if tokenizer.is_none() {
        say(format_args!("{} has no tokenizer, so neither has the export", from.display()))?;
    }
    if !report.missing.is_empty() {
        say(format_args!("not in the model, drawn at random: {}", report.missing.join(", ")))?;
    }
    if !report.leftover.is_empty() {
        say(format_args!("left out, of no use to it: {}", report.leftover.join(", ")))?;
    }
    Ok(())
}

/// A model's folder in the making: beside its place until it is whole.
pub(super) struct Making {
    partial: PathBuf,
    to: PathBuf,
    /// Of the mark, as long as it is in the making.
    _lock: File,
}

/// By this a folder in the making is known; it is locked by the process that makes it.
const MARK: &str = ".warpwright-partial";

impl Making {
    /// # Errors
    /// A folder that exists; a place that cannot be written to.
    pub fn begin(to: &Path) -> Result<Making> {
        let io = || format!("{} cannot be written", to.display());
        if fs::symlink_metadata(to).is_ok() {
            bail!("{} exists: name a folder that does not", to.display());
        }
        let partial = beside(to, ".partial");
        let mark = partial.join(MARK);
        ensure!(
            !partial.exists() || mark.exists(),
            "{} is in the way, and not of this program's making: move it",
            partial.display()
        );
        fs::create_dir_all(&partial).with_context(io)?;
        let lock = File::create(&mark).with_context(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("{} is being written by another process: name another folder", to.display())
            }
            Err(TryLockError::Error(source)) => return Err(source).with_context(io),
        }
        // What a killed process left.
        for entry in fs::read_dir(&partial).with_context(io)? {
            let path = entry.with_context(io)?.path();
            if path != mark {
                fs::remove_file(&path).with_context(io)?;
            }
        }
        Ok(Making { partial, to: to.into(), _lock: lock })
    }

    /// Has `put` fill the folder, and gives it its name.
    pub fn finish(self, put: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        put(&self.partial)?;
        let done = fs::remove_file(self.partial.join(MARK))
            .and_then(|()| fs::rename(&self.partial, &self.to));
        done.with_context(|| format!("{} cannot be written", self.to.display()))
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        // Of a folder that has its name there is nothing left, and an error has no one to go to.
        let _ = fs::remove_dir_all(&self.partial);
    }
}

/// Writes a model whose parameters lie in `arena`, and its tokenizer.
pub(super) fn put_model(
    folder: &Path,
    (arch, ids, dtype): (&Arch, &SpecialIds, FloatType),
    arena: &[f64],
    tokenizer: Option<&Tokenizer>,
) -> Result<()> {
    let source = |param: &Param, start: usize, out: &mut [f64]| {
        out.copy_from_slice(&arena[param.span.start + start..][..out.len()]);
    };
    let mut ids = *ids;
    if arch.is_padded() {
        let eot = tokenizer.and_then(|tokenizer| tokenizer.specials().eot);
        ids.pad = ids.pad.or(ids.eos).or(eot.map(|id| id as usize));
    }
    save_model(folder, arch, &ids, dtype, &Layout::new(arch).table, source)?;
    if let Some(tokenizer) = tokenizer {
        tokenizer.export(folder, arch)?;
    }
    Ok(())
}

/// A path with more at the end of its name.
pub(super) fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name = path.components().as_path().as_os_str().to_os_string();
    name.push(more);
    name.into()
}

/// The tokenizer of a model's folder, if there is one.
fn tokenizer(from: &Path) -> Result<Option<Tokenizer>> {
    match Tokenizer::load(from) {
        Ok(tokenizer) => Ok(Some(tokenizer)),
        Err(TokenizerError::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_the_making_is_one_process_s() {
        let folder = tempfile::tempdir().unwrap();
        let (to, partial) = (folder.path().join("to"), folder.path().join("to.partial"));
        let making = Making::begin(&to).unwrap();
        let busy = Making::begin(&to).map(drop).unwrap_err().to_string();
        assert!(busy.contains("written by another process") && partial.exists(), "{busy}");
        fs::write(partial.join("left"), "").unwrap();
        let left = folder.path().join("left");
        fs::rename(&partial, &left).unwrap();
        drop(making);
        // As a killed process leaves it.
        fs::rename(&left, &partial).unwrap();
        let making = Making::begin(&to).unwrap();
        assert!(!partial.join("left").exists());
        making.finish(|folder| Ok(fs::write(folder.join("whole"), "")?)).unwrap();
        assert!(to.join("whole").exists() && !to.join(MARK).exists() && !partial.exists());
    }
}
