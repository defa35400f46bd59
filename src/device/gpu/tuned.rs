//! Cuts of products that were measured (`warpwright bench gemm --tune`), which a GPU takes in place
//! of the host's choice: a file a kind of GPU, in the user's cache.
//!
//! The file is a help, never a need: one that is damaged, or of another GPU, is left out with a
//! warning, and what it does not list is cut as the host chooses. Another cut may add in another
//! order: results repeat to the bit under one file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::driver::Properties;
use super::{Gemm, Gpu, ProductCut};

/// Which product of training, by the op that asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    Linear,
    LinearAct,
    LinearDx,
    LinearDxAct,
    LinearDw,
}

/// c [m, n] = Σ over k of one op.
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
    products: Vec<Entry>,
}

/// Of the file, and of the tiles that it numbers.
const VERSION: u32 = 1;

impl Tuned {
    /// None yet, for such a GPU.
    pub fn new(gpu: &Properties) -> Tuned {
        let (name, processors) = (gpu.name.clone(), gpu.processors);
        Tuned { version: VERSION, gpu: name, processors, products: Vec::new() }
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

    /// What a file holds for such a GPU; of a file that is not there, nothing.
    ///
    /// # Errors
    /// Why the file is of no use.
    pub fn read(path: &Path, gpu: &Properties) -> Result<Tuned, String> {
        let text = match fs::read_to_string(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Tuned::new(gpu)),
            text => text.map_err(|e| e.to_string())?,
        };
        let tuned: Tuned = serde_json::from_str(&text).map_err(|e| format!("damaged: {e}"))?;
        if tuned.version != VERSION {
            return Err(format!("of version {}, not {VERSION}", tuned.version));
        }
        if (&tuned.gpu, tuned.processors) != (&gpu.name, gpu.processors) {
            let (name, here) = (&tuned.gpu, &gpu.name);
            return Err(format!("of {name} with {} multiprocessors, not {here}", tuned.processors));
        }
        match tuned.products.iter().find(|entry| !entry.cut.exists(gpu)) {
            None => Ok(tuned),
            Some(entry) => Err(format!("damaged: no kernel makes {:?}", entry.cut)),
        }
    }

    /// Writes it beside `path`, then in its place.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", std::process::id()));
        fs::write(&beside, serde_json::to_string_pretty(self)? + "\n")?;
        fs::rename(beside, path)
    }

    /// The fastest cut of a product, if it was measured.
    pub fn find(&self, key: &Key) -> Option<ProductCut> {
        self.products.iter().find(|entry| entry.key == *key).map(|entry| entry.cut)
    }

    /// Keeps a measurement, in the place of an earlier one of the same product.
    pub fn keep(&mut self, entry: Entry) {
        self.products.retain(|known| known.key != entry.key);
        self.products.push(entry);
    }
}

impl ProductCut {
    /// Whether there is such a kernel, and so many blocks at once.
    fn exists(&self, gpu: &Properties) -> bool {
        const MOST_SPLITS: usize = 64;
        match *self {
            ProductCut::Portable { tile, splits } => {
                tile < 3 && (1..=MOST_SPLITS).contains(&splits)
            }
            ProductCut::Hopper { tile, cluster, splits, blocks } => {
                let clusters = (1..=2).contains(&cluster);
                let fits = (cluster..=gpu.processors as usize).contains(&blocks);
                tile < 4 && clusters && fits && (1..=MOST_SPLITS).contains(&splits)
            }
        }
    }
}

impl Gpu {
    /// Cuts products from now on as they were measured to be fastest, where they were.
    pub fn use_tuned(&self, tuned: Option<Tuned>) {
        *self.state.tuned.borrow_mut() = tuned;
    }

    /// Takes what is kept for this GPU, with a warning where it is of no use.
    pub fn load_tuned(&self, path: &Path) {
        match Tuned::read(path, self.driver().properties()) {
            Ok(tuned) => self.use_tuned(Some(tuned)),
            Err(why) => eprintln!(
                "warning: {} is left out: it is {why}; bench gemm --tune makes it anew",
                path.display()
            ),
        }
    }

    /// [`Gpu::load_tuned`] from where such files are kept.
    pub fn load_kept(&self) {
        if let Some(path) = Tuned::place(self.driver().properties()) {
            self.load_tuned(&path);
        }
    }

    /// How a product is cut, unless the host is to choose: as was fixed, or else measured, by
    /// kernels that were asked for.
    pub(crate) fn cut_of(&self, key: &Key) -> Option<ProductCut> {
        let asked = |cut: &ProductCut| match self.gemm() {
            Gemm::Auto => true,
            Gemm::Portable => matches!(cut, ProductCut::Portable { .. }),
            Gemm::Hopper => matches!(cut, ProductCut::Hopper { .. }),
        };
        let tuned = || self.state.tuned.borrow().as_ref().and_then(|tuned| tuned.find(key));
        self.fixed_products().or_else(|| tuned().filter(asked))
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
    fn a_file_that_is_damaged_or_foreign_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("products.json");
        let why = |name: &str| Tuned::read(&path, &gpu(name)).unwrap_err();
        let here = gpu("NVIDIA H200");
        assert_eq!(Tuned::read(&path, &here).unwrap(), Tuned::new(&here));
        kept().write(&path).unwrap();
        assert!(why("NVIDIA H100").contains("of NVIDIA H200"), "{}", why("NVIDIA H100"));
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("\"tile\": 2", "\"tile\": 4")).unwrap();
        assert!(why("NVIDIA H200").contains("no kernel"), "{}", why("NVIDIA H200"));
        fs::write(&path, text.replace("\"blocks\": 132", "\"blocks\": 133")).unwrap();
        assert!(why("NVIDIA H200").contains("no kernel"));
        fs::write(&path, text.replace("\"version\": 1", "\"version\": 2")).unwrap();
        assert!(why("NVIDIA H200").contains("version"));
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert!(why("NVIDIA H200").contains("damaged"));
    }
}
