//! Hugging Face directories: configs of every family and version, real files byte by byte, and one
//! test per way a directory can be wrong.

mod config;
mod folders;
mod resize;
mod weights;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::TempDir;
use warpwright::hf::{
    Entry, FloatType, LoadError, LoadReport, ModelDir, SpecialIds, save_model, write_safetensors,
};
use warpwright::model::arch::{Arch, Family};
use warpwright::model::families::preset;
use warpwright::model::params::{Layout, Param, ParamTable};
use warpwright::ops::norm::NormKind;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn table(arch: &Arch) -> ParamTable {
    Layout::new(arch).table
}

/// Values that f32, f16 and bf16 all hold exactly, a different one at every place nearby.
fn arena(table: &ParamTable) -> Vec<f64> {
    (0..table.arena_len).map(|i| (i * 37 % 251) as f64 / 8.0 - 15.0).collect()
}

fn from(arena: &[f64]) -> impl FnMut(&Param, usize, &mut [f64]) {
    |param, start, out| out.copy_from_slice(&arena[param.span.start + start..][..out.len()])
}

fn save(dir: &Path, arch: &Arch, dtype: FloatType, arena: &[f64]) {
    save_model(dir, arch, &SpecialIds::default(), dtype, &table(arch), from(arena)).unwrap();
}

/// The directory's parameters in an arena of zeros, and the report.
fn load(dir: &Path) -> Result<(Vec<f64>, LoadReport), LoadError> {
    let model = ModelDir::open(dir)?;
    let table = table(&model.arch);
    let mut arena = vec![0.0; table.arena_len];
    let report = model.load(&table, |param, start, values| {
        arena[param.span.start + start..][..values.len()].copy_from_slice(values)
    })?;
    Ok((arena, report))
}

/// The arena as a load must return it: gaps at zero.
fn without_gaps(table: &ParamTable, arena: &[f64]) -> Vec<f64> {
    let mut clean = vec![0.0; arena.len()];
    table.params.iter().for_each(|p| clean[p.span.range()].copy_from_slice(&arena[p.span.range()]));
    clean
}

/// A small model of each family and of each variation that changes names or shapes.
fn variants() -> Vec<Arch> {
    let small = |name: &str| Arch { vocab: 40, context: 12, ..preset(name).unwrap() };
    let untied = |arch: &Arch| Arch { tied: false, ..arch.clone() };
    let tiny = ["gpt2-tiny", "bert-tiny", "roberta-tiny", "albert-tiny", "modernbert-tiny"];
    let mut all: Vec<Arch> = tiny.iter().map(|name| small(name)).collect();
    all.extend(tiny.iter().map(|name| untied(&small(name))));
    all.push(Arch { pair: true, ..small("bert-tiny") });
    let albert = small("albert-tiny");
    all.push(Arch { pair: true, groups: 3, group_depth: 2, layers: 14, ..albert });
    let modern = small("modernbert-tiny");
    all.push(Arch { bias: true, norm_bias: true, head_bias: true, ..modern.clone() });
    all.push(Arch { decoder_bias: false, window: None, global_every: 1, ..modern }.canonical());
    let family = Family::Custom;
    all.push(Arch { family, norm: NormKind::Rms, gated: true, ..small("gpt2-tiny") }.canonical());
    all
}

type Tensor = (safetensors::Dtype, Vec<usize>, Vec<u8>);
type Tensors = BTreeMap<String, Tensor>;

/// A file as the safetensors crate reads it.
fn tensors(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |(name, t): (&str, safetensors::tensor::TensorView)| {
        (name.to_string(), (t.dtype(), t.shape().to_vec(), t.data().to_vec()))
    };
    file.iter().map(tensor).collect()
}

/// Rewrites a directory's tensors under other names; `None` leaves one out.
fn rename(dir: &Path, to: impl Fn(&str) -> Option<String>) {
    let path = dir.join("model.safetensors");
    let stored = tensors(&path);
    let stored: Vec<_> = stored.iter().filter_map(|(n, t)| Some((to(n)?, t))).collect();
    write(&path, &stored);
}

fn write(path: &Path, stored: &[(String, &Tensor)]) {
    let entry = |(name, t): &(String, &Tensor)| {
        let (name, shape) = (name.clone(), t.1.clone());
        Entry { name, dtype: FloatType::F32, shape }
    };
    let entries: Vec<Entry> = stored.iter().map(entry).collect();
    write_safetensors(path, &[], &entries, |i, out| {
        let value = |b: &[u8]| f32::from_le_bytes(b.try_into().unwrap()) as f64;
        out.put(&stored[i].1.2.chunks(4).map(value).collect::<Vec<_>>())
    })
    .unwrap();
}

/// A saved `variants()`-like model, its arena, and its folder.
fn saved(name: &str) -> (TempDir, Vec<f64>) {
    let arch = Arch { vocab: 40, context: 12, ..preset(name).unwrap() };
    let table = table(&arch);
    let arena = without_gaps(&table, &arena(&table));
    let dir = TempDir::new().unwrap();
    save(dir.path(), &arch, FloatType::F32, &arena);
    (dir, arena)
}
