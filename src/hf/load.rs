//! Opens a Hugging Face directory and streams its tensors into a model's parameters.
//!
//! Lenient about names, strict about shapes. Files from the last eight years differ: the base
//! model's prefix may be missing, norms may be called gamma and beta, buffers and tied duplicates
//! may be stored. Every tensor is found and its shape checked before the first value is handed
//! over, so a failed load changes nothing.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::config::{ConfigError, SpecialIds, read_config, read_ids};
use super::names::{Piece, base_prefix, decoder_weight, pieces, twin};
use super::resize::{self, Rows};
use super::safe::{SafeError, SafeFile, Stored};
use super::save::{CHUNK, transpose};
use crate::data::files;
use crate::device::{Buffer, Device};
use crate::model::arch::{Arch, ArchError, TaskKind};
use crate::model::params::{Layout, Param, ParamTable};
use crate::model::transformer::Model;

/// Why a directory cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(
        "{} does not exist: give the folder that holds a model's config.json and \
         model.safetensors (nothing is downloaded)", .0.display()
    )]
    NotFound(PathBuf),
    #[error("{} is not a folder: give the folder that holds the model's config.json", .0.display())]
    NotADirectory(PathBuf),
    #[error("{} has no config.json: is it a model's folder?", .0.display())]
    NoConfig(PathBuf),
    #[error("{} cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not JSON ({source}): copy or download it again", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{}: {source}", dir.display())]
    Config { dir: PathBuf, source: ConfigError },
    #[error("tensor {name} is in both {} and {}: remove it from one", a.display(), b.display())]
    Twice { name: String, a: PathBuf, b: PathBuf },
    #[error(
        "{} has a config.json but no model.safetensors: copy the weights there too", .0.display()
    )]
    NoWeights(PathBuf),
    #[error(
        "{0} has its weights only as a pickle (pytorch_model.bin), which can run code when read: \
         convert it with\n  python -c \"from transformers import {1} as M; \
         M.from_pretrained('{0}').save_pretrained('{0}')\"", dir.display(), class
    )]
    Pickle { dir: PathBuf, class: &'static str },
    #[error("{} has no usable weight_map ({why}): copy or download it again", path.display())]
    Index { path: PathBuf, why: String },
    #[error("{} is named by model.safetensors.index.json but absent: copy it there", .0.display())]
    NoShard(PathBuf),
    #[error(transparent)]
    File(#[from] SafeError),
    #[error(
        "{} has no tensor {name}{}: are config.json and the weights of the same model?",
        dir.display(), and_more(*.others)
    )]
    Missing { dir: PathBuf, name: String, others: usize },
    #[error(
        "tensor {name} of {} is {got:?}, but config.json makes it {want:?}: are they of the same \
         model?", path.display()
    )]
    Shape { path: PathBuf, name: String, got: Vec<usize>, want: Vec<usize> },
    #[error(
        "tensor {name} of {} holds values that are not numbers (NaN or infinite): the model went \
         astray in its training; take an earlier checkpoint of it", path.display()
    )]
    NotFinite { path: PathBuf, name: String },
}

fn and_more(others: usize) -> String {
    if others == 0 { String::new() } else { format!(" (nor {others} others)") }
}

/// What a load left over on either side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Tensors of heads that the files lack, or have for another task: their parameters were not
    /// touched and keep their initial values.
    pub missing: Vec<String>,
    /// Tensors of the files that this model has no use for.
    pub leftover: Vec<String>,
    /// Whether it has a head of which the files have nothing, as those of a bare encoder.
    pub headless: bool,
}

impl LoadReport {
    /// A tensor that is missing, but for those of a pair's head, which most have no use for.
    pub fn without_pairs(&self) -> Option<&String> {
        let of_pairs = ["pooler", "seq_relationship", "sop_classifier"];
        self.missing.iter().find(|name| !of_pairs.iter().any(|part| name.contains(part)))
    }
}

/// A Hugging Face directory, its `config.json` understood and its weights mapped.
#[derive(Debug)]
pub struct ModelDir {
    /// At the sizes that it is to have (see `resize`).
    pub arch: Arch,
    pub ids: SpecialIds,
    /// `config.json` as it is.
    pub config: Value,
    /// At the sizes that it is stored in.
    pub(super) stored: Arch,
    /// By id, the stored id whose rows it takes, where the vocabulary is another.
    pub(super) tokens: Option<Rows>,
    dir: PathBuf,
    files: Vec<SafeFile>,
    /// Tensor name → its file.
    places: HashMap<String, usize>,
}

impl ModelDir {
    /// Reads `config.json` and maps `model.safetensors`, or the files that
    /// `model.safetensors.index.json` names.
    ///
    /// # Errors
    /// Anything but [`LoadError::Missing`] and [`LoadError::Shape`].
    pub fn open(dir: &Path) -> Result<ModelDir, LoadError> {
        if !dir.exists() {
            return Err(LoadError::NotFound(dir.to_path_buf()));
        }
        if !dir.is_dir() {
            return Err(LoadError::NotADirectory(dir.to_path_buf()));
        }
        let path = dir.join("config.json");
        if !path.exists() {
            return Err(LoadError::NoConfig(dir.to_path_buf()));
        }
        let config = read_json(&path)?;
        let arch = read_config(&config)
            .map_err(|source| LoadError::Config { dir: dir.to_path_buf(), source })?;
        let paths = weight_files(dir, &arch)?;
        let files = paths.iter().map(|p| SafeFile::open(p)).collect::<Result<Vec<_>, _>>()?;
        let mut places: HashMap<String, usize> = HashMap::new();
        for (i, file) in files.iter().enumerate() {
            for name in file.names() {
                if let Some(other) = places.insert(name.clone(), i) {
                    let [a, b] = [other, i].map(|i| paths[i].clone());
                    return Err(LoadError::Twice { name, a, b });
                }
            }
        }
        if paths[0].file_name() != Some(SINGLE.as_ref()) {
            check_index(&dir.join(INDEX), &paths, &places)?;
        }
        let ids = read_ids(&config);
        let (dir, stored, tokens) = (dir.to_path_buf(), arch.clone(), None);
        Ok(ModelDir { arch, ids, config, stored, tokens, dir, files, places })
    }

    /// The model on a device, with this folder's weights.
    pub fn model<D: Device, E: From<LoadError> + From<ArchError>>(
        &self,
        dev: &D,
    ) -> Result<(Model<D>, LoadReport), E> {
        self.fits(&self.arch, &Layout::new(&self.arch).table)?;
        let mut model = Model::new(dev, &self.arch)?;
        let params = &mut model.params;
        let report = self.load(&model.layout.table, |param, start, values| {
            params.write(param.span.start + start, values);
        })?;
        Ok((model, report))
    }

    /// Streams every parameter of `table` (that of [`ModelDir::arch`]) into
    /// `sink(param, start, values)`, where `values` are the parameter's elements from `start` on,
    /// in our layout, at most about a million at a time or one row.
    ///
    /// # Errors
    /// [`LoadError::Missing`], [`LoadError::Shape`] or [`LoadError::File`], before the first call
    /// of `sink`; [`LoadError::NotFinite`], which only the values show, after it.
    pub fn load(
        &self,
        table: &ParamTable,
        sink: impl FnMut(&Param, usize, &[f64]),
    ) -> Result<LoadReport, LoadError> {
        self.load_as(&self.arch, table, sink)
    }

    /// The same into `table` of `arch`, which has the body of [`ModelDir::arch`] and may have
    /// another head.
    ///
    /// # Errors
    /// As [`ModelDir::load`].
    pub fn load_as(
        &self,
        arch: &Arch,
        table: &ParamTable,
        mut sink: impl FnMut(&Param, usize, &[f64]),
    ) -> Result<LoadReport, LoadError> {
        let (found, report) = self.matched(arch, table)?;
        for (piece, stored) in found {
            let param = &table.params[piece.param];
            let mut finite = true;
            let mut checked = |param: &Param, start: usize, values: &[f64]| {
                finite &= values.iter().all(|value| value.is_finite());
                sink(param, start, values);
            };
            match self.rows(&param.name) {
                Some(rows) => resize::stream(&piece, param, &stored, &rows, &mut checked),
                None => stream(&piece, param, &stored, &mut checked),
            }
            if !finite {
                let (path, name) = (self.dir.clone(), piece.name);
                return Err(LoadError::NotFinite { path, name });
            }
        }
        Ok(report)
    }

    /// Whether the files have the tensors of `table`, before there is memory for them.
    ///
    /// # Errors
    /// [`LoadError::Missing`], [`LoadError::Shape`] or [`LoadError::File`].
    pub fn fits(&self, arch: &Arch, table: &ParamTable) -> Result<(), LoadError> {
        self.matched(arch, table).map(drop)
    }

    /// The stored tensor of each piece that has one; and what is left over on either side.
    fn matched(
        &self,
        arch: &Arch,
        table: &ParamTable,
    ) -> Result<(Vec<(Piece, Stored<'_>)>, LoadReport), LoadError> {
        let mut report = LoadReport::default();
        let mut found: Vec<(Piece, Stored)> = Vec::new();
        let mut used = BTreeSet::new();
        let mut absent = Vec::new();
        // One that answers something else is no beginning, even if it has as many outputs.
        let both = self.stored.task.as_ref().zip(arch.task.as_ref());
        let answers_as = both.is_some_and(|(stored, task)| stored.answers_as(task));
        for piece in pieces(arch, table) {
            let param = &table.params[piece.param];
            let useful = answers_as || !param.name.starts_with("task.classifier");
            let stored = if useful { self.find(&piece, param, &mut used)? } else { None };
            match stored {
                Some(stored) => found.push((piece, stored)),
                None if may_be_missing(param) => report.missing.push(piece.name),
                None => absent.push(piece.name),
            }
        }
        if let Some(name) = absent.first() {
            let (dir, name) = (self.dir.clone(), name.clone());
            return Err(LoadError::Missing { dir, name, others: absent.len() - 1 });
        }
        let names = self.places.keys().filter(|n| !used.contains(*n) && !self.is_redundant(n));
        report.leftover = names.cloned().collect();
        report.leftover.sort();
        let of_head = |(piece, _): &(Piece, Stored)| may_be_missing(&table.params[piece.param]);
        report.headless = !report.missing.is_empty() && !found.iter().any(of_head);
        Ok((found, report))
    }

    /// The piece's tensor under any of the names it goes by, its shape checked.
    fn find(
        &self,
        piece: &Piece,
        param: &Param,
        used: &mut BTreeSet<String>,
    ) -> Result<Option<Stored<'_>>, LoadError> {
        let names = self.aliases(&piece.name);
        let Some((name, &at)) = names.iter().find_map(|n| self.places.get_key_value(n)) else {
            return Ok(None);
        };
        let file = &self.files[at];
        let Some(stored) = file.get(name)? else { return Ok(None) };
        let mut want = piece.shape.clone();
        want[0] = self.stored_rows(&param.name).unwrap_or(want[0]);
        if stored.shape != want {
            let got = stored.shape.to_vec();
            let (path, name) = (file.path.clone(), name.clone());
            return Err(LoadError::Shape { path, name, got, want });
        }
        used.insert(name.clone());
        Ok(Some(stored))
    }

    /// A tensor's names, the current one first: without the base model's prefix, with gamma and
    /// beta for a norm's weight and bias, with the other name of a head's bias.
    fn aliases(&self, name: &str) -> Vec<String> {
        let mut names = vec![name.to_string()];
        names.extend(name.strip_prefix(base_prefix(self.arch.family)).map(str::to_string));
        let legacy = |n: &String| match n.rsplit_once('.')? {
            (module, "weight") if module.ends_with("LayerNorm") => Some(format!("{module}.gamma")),
            (module, "bias") if module.ends_with("LayerNorm") => Some(format!("{module}.beta")),
            _ => None,
        };
        let old: Vec<String> = names.iter().filter_map(legacy).collect();
        names.extend(old);
        names.extend(twin(name).map(str::to_string));
        names
    }

    /// Whether a tensor says nothing that the model does not know: a buffer, or a tied duplicate.
    fn is_redundant(&self, name: &str) -> bool {
        const BUFFERS: [&str; 4] =
            ["position_ids", ".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq"];
        let tied = self.arch.tied && name == decoder_weight(self.arch.family);
        tied || twin(name).is_some() || BUFFERS.iter().any(|buffer| name.ends_with(buffer))
    }
}

fn read_json(path: &Path) -> Result<Value, LoadError> {
    let read = |source| LoadError::Read { path: path.to_path_buf(), source };
    let text = files::read_text(path).map_err(read)?;
    let json = |source| LoadError::Json { path: path.to_path_buf(), source };
    serde_json::from_slice(&text).map_err(json)
}

/// The tensors of a model in one file, and where those of a model in several are.
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Whether tensors are where an index, which names no other files, says.
fn check_index(
    index: &Path,
    paths: &[PathBuf],
    places: &HashMap<String, usize>,
) -> Result<(), LoadError> {
    let json = read_json(index)?;
    for (name, file) in json["weight_map"].as_object().into_iter().flatten() {
        let at = places.get(name).and_then(|&i| paths[i].file_name()?.to_str());
        if at != file.as_str() {
            let why = format!("tensor {name} is not in {file}, where it says");
            return Err(LoadError::Index { path: index.into(), why });
        }
    }
    Ok(())
}

/// The safetensors files of a directory.
fn weight_files(dir: &Path, arch: &Arch) -> Result<Vec<PathBuf>, LoadError> {
    let single = dir.join(SINGLE);
    if single.exists() {
        return Ok(vec![single]);
    }
    let index = dir.join(INDEX);
    if index.exists() {
        return shards(dir, &index);
    }
    let pickles = ["pytorch_model.bin", "pytorch_model.bin.index.json"];
    if pickles.iter().any(|name| dir.join(name).exists()) {
        let class = match arch.task.as_ref().map(|task| task.kind) {
            Some(TaskKind::Tokens) => "AutoModelForTokenClassification",
            Some(TaskKind::Spans) => "AutoModelForQuestionAnswering",
            Some(_) => "AutoModelForSequenceClassification",
            _ if arch.causal => "AutoModelForCausalLM",
            _ if arch.pair => "AutoModelForPreTraining",
            _ => "AutoModelForMaskedLM",
        };
        return Err(LoadError::Pickle { dir: dir.to_path_buf(), class });
    }
    Err(LoadError::NoWeights(dir.to_path_buf()))
}

/// The files that an index names, each once.
fn shards(dir: &Path, index: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let wrong = |why: &str| LoadError::Index { path: index.to_path_buf(), why: why.to_string() };
    let json = read_json(index)?;
    let map = json.get("weight_map").and_then(Value::as_object);
    let map = map.filter(|m| !m.is_empty()).ok_or_else(|| wrong("it is absent or empty"))?;
    let mut names = BTreeSet::new();
    for value in map.values() {
        let name = value.as_str().ok_or_else(|| wrong("a file name is not a string"))?;
        if Path::new(name).file_name() != Some(name.as_ref()) {
            return Err(wrong(&format!("{name} is not a name in this folder")));
        }
        names.insert(name);
    }
    let paths: Vec<PathBuf> = names.into_iter().map(|name| dir.join(name)).collect();
    match paths.iter().find(|path| !path.exists()) {
        Some(path) => Err(LoadError::NoShard(path.clone())),
        None => Ok(paths),
    }
}

/// Heads may start afresh on a pretrained body; the body may not.
fn may_be_missing(param: &Param) -> bool {
    ["head.", "decoder.", "pooler.", "pair.", "task."]
        .iter()
        .any(|head| param.name.starts_with(head))
}

/// Hands one stored tensor over in our layout, some rows at a time.
fn stream(
    piece: &Piece,
    param: &Param,
    stored: &Stored,
    sink: &mut impl FnMut(&Param, usize, &[f64]),
) {
    let n_in: usize = param.shape[1..].iter().product();
    let n_out = piece.rows.len();
    let step = (CHUNK / n_in).clamp(1, n_out);
    let mut values = vec![0.0; step * n_in];
    let mut theirs = vec![0.0; if piece.transposed { step * n_in } else { 0 }];
    for first in (0..n_out).step_by(step) {
        let rows = step.min(n_out - first);
        let values = &mut values[..rows * n_in];
        if piece.transposed {
            // Stored [n_in, n_out]: the columns first..first + rows of each stored row.
            let theirs = &mut theirs[..rows * n_in];
            for (i, row) in theirs.chunks_exact_mut(rows).enumerate() {
                stored.read(i * n_out + first, row);
            }
            transpose(theirs, rows, values);
        } else {
            stored.read(first * n_in, values);
        }
        sink(param, (piece.rows.start + first) * n_in, values);
    }
}
