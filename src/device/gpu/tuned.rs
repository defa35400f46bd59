//! Cuts of products that were measured (`warpwright bench gemm --tune`), which a GPU takes in place
//! of the host's choice where it is asked to (`--tuned`): a file for a kind of GPU, in the user's
//! cache, and a copy in the directory of each run that trains by it.
//!
//! Another cut may add in another order, so results repeat to the bit under one file alone; a file
//! that is lost, damaged or of another GPU is an error, never a silent return to the host's choice.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::driver::Properties;
use super::{Gpu, ProductCut};
use crate::data::files;

/// Which product of training, by the op that asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    Linear,
    LinearAct,
    LinearGate,
    LinearRope,
    LinearDx,
    LinearDxAct,
    LinearDxGate,
    LinearDw,
}

impl Op {
    /// Whether there are kernels that split k.
    pub(crate) fn may_split(self) -> bool {
        matches!(self, Op::LinearDx | Op::LinearDw)
    }
}

/// c [m, n] = Σ over k of one op; a gate's n counts both halves, its gradient's one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    pub op: Op,
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

/// A product and its fastest cut.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub key: Key,
    pub cut: ProductCut,
    /// What it took [s].
    pub seconds: f64,
}

/// The fastest cuts on one kind of GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuned {
    version: u32,
    gpu: String,
    processors: u32,
    /// Of `products`: see [`digest`].
    digest: String,
    products: Vec<Entry>,
}

/// Of the file, and of the tiles that it numbers.
const VERSION: u32 = 1;

/// Why a file of cuts cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TunedError {
    #[error("{path}, the cuts of products, cannot be read: {why}")]
    Io { path: PathBuf, why: io::Error },
    #[error("{path}, the cuts of products, is damaged: {why}")]
    Damaged { path: PathBuf, why: String },
    #[error("{path}, the cuts of products, is of version {version}; this program's are {VERSION}")]
    Version { path: PathBuf, version: u32 },
    #[error("{path}, the cuts of products, was measured on {gpu} ({processors} multiprocessors)")]
    Foreign { path: PathBuf, gpu: String, processors: u32 },
}

/// What shows that entries are those that were written.
fn digest(products: &[Entry]) -> String {
    let text = serde_json::to_string(products).expect("entries serialise");
    blake3::hash(text.as_bytes()).to_string()
}

impl Tuned {
    /// None yet, for such a GPU.
    pub fn new(gpu: &Properties) -> Tuned {
        let (name, processors) = (gpu.name.clone(), gpu.processors);
        let (digest, products) = (digest(&[]), Vec::new());
        Tuned { version: VERSION, gpu: name, processors, digest, products }
    }

    /// Where they are kept: `warpwright/products-NAME.json` in the user's cache, if there is one.
    pub fn place(gpu: &Properties) -> Option<PathBuf> {
        let named = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let cache =
            named("XDG_CACHE_HOME").or_else(|| named("HOME").map(|home| home.join(".cache")))?;
        let name: String =
            gpu.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        Some(cache.join("warpwright").join(format!("products-{name}.json")))
    }

    /// What a file holds for such a GPU.
    pub fn read(path: &Path, gpu: &Properties) -> Result<Tuned, TunedError> {
        let damaged = |why: String| TunedError::Damaged { path: path.into(), why };
        let io = |why| TunedError::Io { path: path.into(), why };
        let text = fs::read_to_string(path).map_err(io)?;
        let tuned: Tuned = serde_json::from_str(&text).map_err(|e| damaged(e.to_string()))?;
        let Tuned { version, gpu: name, processors, .. } = &tuned;
        if *version != VERSION {
            return Err(TunedError::Version { path: path.into(), version: *version });
        }
        if tuned.digest != digest(&tuned.products) {
            return Err(damaged("its entries are not those of its digest".into()));
        }
        if (name, *processors) != (&gpu.name, gpu.processors) {
            let (path, gpu) = (path.into(), name.clone());
            return Err(TunedError::Foreign { path, gpu, processors: *processors });
        }
        Ok(tuned)
    }

    /// Writes a whole file, in a folder that is made if it is not there.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let text = serde_json::to_string_pretty(self)? + "\n";
        files::write(path, text.as_bytes())
    }

    /// The fastest cut of a product, if it was measured.
    pub fn find(&self, key: &Key) -> Option<ProductCut> {
        self.products.iter().find(|entry| entry.key == *key).map(|entry| entry.cut)
    }

    /// Keeps a measurement, in the place of an earlier one of the same product.
    pub fn keep(&mut self, entry: Entry) {
        self.products.retain(|known| known.key != entry.key);
        self.products.push(entry);
        self.digest = digest(&self.products);
    }
}

impl Gpu {
    /// Cuts products from now on as they were measured to be fastest, where they were.
    pub fn use_tuned(&self, tuned: Option<Tuned>) {
        *self.state.tuned.borrow_mut() = tuned;
    }

    /// What was given to [`Gpu::use_tuned`].
    pub fn tuned(&self) -> Option<Tuned> {
        self.state.tuned.borrow().clone()
    }

    /// How a product is cut, unless the host is to choose: as was fixed, or else measured, by
    /// kernels that were asked for.
    pub(crate) fn cut_of(&self, key: &Key) -> Option<ProductCut> {
        let tuned = || self.state.tuned.borrow().as_ref().and_then(|tuned| tuned.find(key));
        self.fixed_products().or_else(|| tuned().filter(|cut| self.gemm().makes(cut)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(name: &str) -> Properties {
        Properties {
            name: name.into(),
            capability: (9, 0),
            processors: 132,
            memory: 0,
            shared_per_block: 0,
        }
    }

    const KEY: Key = Key { op: Op::LinearDw, m: 768, n: 768, k: 65_536 };
    const CUT: ProductCut = ProductCut::Hopper { tile: 2, cluster: 2, splits: 11, blocks: 132 };

    fn kept() -> Tuned {
        let mut tuned = Tuned::new(&gpu("NVIDIA H200"));
        let slower = ProductCut::Portable { tile: 0, splits: 1 };
        tuned.keep(Entry { key: KEY, cut: slower, seconds: 2e-3 });
        tuned.keep(Entry { key: KEY, cut: CUT, seconds: 1e-3 });
        tuned
    }

    #[test]
    fn what_is_written_is_read_and_the_last_measurement_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache/products.json");
        kept().write(&path).unwrap();
        let read = Tuned::read(&path, &gpu("NVIDIA H200")).unwrap();
        assert_eq!(read, kept());
        assert_eq!(read.find(&KEY), Some(CUT));
        assert_eq!(read.find(&Key { m: 769, ..KEY }), None);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_lost_damaged_or_foreign_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("products.json");
        let why = |name: &str| Tuned::read(&path, &gpu(name)).unwrap_err().to_string();
        assert!(why("NVIDIA H200").contains("cannot be read"), "{}", why("NVIDIA H200"));
        kept().write(&path).unwrap();
        assert!(why("NVIDIA H100").contains("measured on NVIDIA H200 (132"));
        let text = fs::read_to_string(&path).unwrap();
        for (from, to, said) in [
            ("\"splits\": 11", "\"splits\": 12", "digest"),
            ("\"version\": 1", "\"version\": 2", "version 2"),
            ("\"products\"", "\"product\"", "unknown field"),
        ] {
            assert!(text.contains(from), "{text}");
            fs::write(&path, text.replace(from, to)).unwrap();
            assert!(why("NVIDIA H200").contains(said), "{}", why("NVIDIA H200"));
        }
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert!(why("NVIDIA H200").contains("damaged: EOF"), "{}", why("NVIDIA H200"));
    }
}
