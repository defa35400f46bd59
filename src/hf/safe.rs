//! safetensors files, read in place and written as a stream.
//!
//! Layout: the header's length (u64, little-endian), the header (JSON: name → dtype, shape, byte
//! range), the data. Values cross this interface as f64, into which every stored type here fits
//! exactly; a reader decodes from the mapped file into the caller's buffer, a writer encodes what
//! it is given at once, so neither holds a tensor whole.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value, json};

/// How a tensor's values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatType {
    F64,
    F32,
    F16,
    Bf16,
}

impl FloatType {
    pub fn bytes(self) -> usize {
        match self {
            FloatType::F64 => 8,
            FloatType::F32 => 4,
            FloatType::F16 | FloatType::Bf16 => 2,
        }
    }

    /// As `config.json` names it.
    pub fn torch_name(self) -> &'static str {
        match self {
            FloatType::F64 => "float64",
            FloatType::F32 => "float32",
            FloatType::F16 => "float16",
            FloatType::Bf16 => "bfloat16",
        }
    }

    /// As a safetensors header names it.
    fn header_name(self) -> &'static str {
        match self {
            FloatType::F64 => "F64",
            FloatType::F32 => "F32",
            FloatType::F16 => "F16",
            FloatType::Bf16 => "BF16",
        }
    }

    /// Whether a value, rounded to this type, is still finite.
    fn holds(self, value: f64) -> bool {
        match self {
            FloatType::F64 => value.is_finite(),
            FloatType::F32 => (value as f32).is_finite(),
            FloatType::F16 => f16::from_f32(value as f32).is_finite(),
            FloatType::Bf16 => bf16::from_f32(value as f32).is_finite(),
        }
    }

    fn of(dtype: Dtype) -> Option<FloatType> {
        Some(match dtype {
            Dtype::F64 => FloatType::F64,
            Dtype::F32 => FloatType::F32,
            Dtype::F16 => FloatType::F16,
            Dtype::BF16 => FloatType::Bf16,
            _ => return None,
        })
    }
}

/// Why a safetensors file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SafeError {
    #[error("{} cannot be opened: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error(
        "{} is truncated or longer than its header says: copy or download it again",
        path.display()
    )]
    Length { path: PathBuf },
    #[error("{} is not a safetensors file, or is damaged ({source}): copy or download it again",
        path.display())]
    Header { path: PathBuf, source: SafeTensorError },
    #[error("{}: tensor {name} {why}: the file is damaged, copy or download it again",
        path.display())]
    Lie { path: PathBuf, name: String, why: &'static str },
    #[error(
        "{}: tensor {name} is stored as {dtype:?}: convert the model to F64, F32, F16 or BF16",
        path.display()
    )]
    Dtype { path: PathBuf, name: String, dtype: Dtype },
    #[error("no space left to write {}: free some, or write elsewhere", path.display())]
    Full { path: PathBuf },
    #[error("{} may not be written: check the folder's permissions", path.display())]
    Denied { path: PathBuf },
    #[error("{} cannot be written: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// An error of writing `path`, by its cause.
pub(crate) fn write_error(path: &Path, source: io::Error) -> SafeError {
    let path = path.to_path_buf();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SafeError::Full { path },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            SafeError::Denied { path }
        }
        _ => SafeError::Write { path, source },
    }
}

// ---- reading ------------------------------------------------------------------------------------

/// A mapped safetensors file whose header has been checked against its length.
#[derive(Debug)]
pub struct SafeFile {
    pub path: PathBuf,
    map: Mmap,
    /// Byte at which the data begins.
    data: usize,
    header: Metadata,
}

/// One tensor of a file.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    pub dtype: FloatType,
    pub shape: &'a [usize],
    bytes: &'a [u8],
}

impl SafeFile {
    /// Maps a file and checks its header.
    ///
    /// # Errors
    /// [`SafeError::Open`], [`SafeError::Length`] or [`SafeError::Header`].
    pub fn open(path: &Path) -> Result<SafeFile, SafeError> {
        let open = |source| SafeError::Open { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(open)?;
        // SAFETY: the map is only read. The file must not be cut while it is mapped: checkpoints
        // are written beside and renamed, never in place, so an open file keeps its contents.
        let map = unsafe { Mmap::map(&file) }.map_err(open)?;
        let lie = |(name, why)| SafeError::Lie { path: path.to_path_buf(), name, why };
        let (header_len, header) = SafeTensors::read_metadata(&map).map_err(|source| {
            let path = path.to_path_buf();
            match source {
                SafeTensorError::HeaderTooSmall
                | SafeTensorError::InvalidHeaderLength
                | SafeTensorError::MetadataIncompleteBuffer => SafeError::Length { path },
                SafeTensorError::InvalidOffset(name) => {
                    lie((name, "does not begin where the one before it ends"))
                }
                source => found_lie(&map).map_or(SafeError::Header { path, source }, lie),
            }
        })?;
        found_lie(&map).map(lie).map_or(Ok(()), Err)?;
        Ok(SafeFile { path: path.to_path_buf(), map, data: 8 + header_len, header })
    }

    /// The tensors' names, in the order that they are stored.
    pub fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// The tensor of this name, if there is one.
    ///
    /// # Errors
    /// [`SafeError::Dtype`] where it does not hold floating-point numbers.
    pub fn get(&self, name: &str) -> Result<Option<Stored<'_>>, SafeError> {
        let Some(info) = self.header.info(name) else { return Ok(None) };
        let dtype = FloatType::of(info.dtype).ok_or_else(|| SafeError::Dtype {
            path: self.path.clone(),
            name: name.to_string(),
            dtype: info.dtype,
        })?;
        let (start, end) = info.data_offsets;
        let bytes = &self.map[self.data + start..self.data + end];
        Ok(Some(Stored { dtype, shape: &info.shape, bytes }))
    }
}

/// A header's entries in the order that they stand; a name may stand twice.
struct Entries(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entries, D::Error> {
        deserializer.deserialize_map(Entries(Vec::new()))
    }
}

impl<'de> Visitor<'de> for Entries {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Entries, A::Error> {
        while let Some(entry) = map.next_entry()? {
            self.0.push(entry);
        }
        Ok(self)
    }
}

/// The first tensor about which a header, if it can be read at all, says what cannot be.
fn found_lie(file: &[u8]) -> Option<(String, &'static str)> {
    let len = u64::from_le_bytes(file.get(..8)?.try_into().ok()?);
    let header = file.get(8..)?.get(..usize::try_from(len).ok()?)?;
    let Entries(entries) = serde_json::from_slice(header).ok()?;
    let mut names = HashSet::new();
    entries.into_iter().filter(|(name, _)| name != "__metadata__").find_map(|(name, info)| {
        let why = match serde_json::from_value::<TensorInfo>(info) {
            _ if !names.insert(name.clone()) => "stands twice in the header",
            Err(_) => "has no type, shape and place that can be read",
            Ok(TensorInfo { dtype, shape, data_offsets: (start, end) }) => {
                let times = |product: usize, n: &usize| product.checked_mul(*n);
                let bits = shape.iter().try_fold(dtype.bitsize(), times);
                if bits.is_some_and(|bits| Some(bits / 8) == end.checked_sub(start)) {
                    return None;
                }
                "has a place of another length than its type and shape take"
            }
        };
        Some((name, why))
    })
}

impl Stored<'_> {
    /// Number of elements.
    pub fn count(&self) -> usize {
        self.bytes.len() / self.dtype.bytes()
    }

    /// Decodes the `out.len()` elements from `start` on.
    pub fn read(&self, start: usize, out: &mut [f64]) {
        let size = self.dtype.bytes();
        let bytes = &self.bytes[start * size..(start + out.len()) * size];
        match self.dtype {
            FloatType::F64 => decode(bytes, out, f64::from_le_bytes),
            FloatType::F32 => decode(bytes, out, |b| f32::from_le_bytes(b).into()),
            FloatType::F16 => decode(bytes, out, |b| f16::from_le_bytes(b).into()),
            FloatType::Bf16 => decode(bytes, out, |b| bf16::from_le_bytes(b).into()),
        }
    }
}

fn decode<const SIZE: usize>(bytes: &[u8], out: &mut [f64], value: impl Fn([u8; SIZE]) -> f64) {
    for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<SIZE>().0) {
        *out = value(*bytes);
    }
}

// ---- writing ------------------------------------------------------------------------------------

/// A tensor to be written.
#[derive(Debug, Clone)]
pub struct Entry {
    pub name: String,
    pub dtype: FloatType,
    pub shape: Vec<usize>,
}

/// Takes the values of the tensors, in order.
pub struct TensorWriter {
    file: BufWriter<File>,
    name: String,
    dtype: FloatType,
    /// Elements that the current tensor still wants.
    left: usize,
    encoded: Vec<u8>,
}

impl TensorWriter {
    /// Appends values to the current tensor, rounded to its type (to nearest, ties to even).
    ///
    /// # Errors
    /// A finite value that the type does not hold; a failing disk.
    pub fn put(&mut self, values: &[f64]) -> io::Result<()> {
        assert!(values.len() <= self.left, "{} values for {} left", values.len(), self.left);
        self.left -= values.len();
        for values in values.chunks(1 << 16) {
            if let Some(v) = values.iter().find(|v| v.is_finite() && !self.dtype.holds(**v)) {
                let (name, dtype) = (&self.name, self.dtype.torch_name());
                let why = format!("{v:e} in tensor {name} is beyond {dtype}: choose another");
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            self.encoded.clear();
            let out = &mut self.encoded;
            match self.dtype {
                FloatType::F64 => values.iter().for_each(|v| out.extend(v.to_le_bytes())),
                FloatType::F32 => values.iter().for_each(|&v| out.extend((v as f32).to_le_bytes())),
                // By way of f32: the half crate's direct conversions cut the f64 before rounding.
                FloatType::F16 => {
                    values.iter().for_each(|&v| out.extend(f16::from_f32(v as f32).to_le_bytes()))
                }
                FloatType::Bf16 => {
                    values.iter().for_each(|&v| out.extend(bf16::from_f32(v as f32).to_le_bytes()))
                }
            }
            self.file.write_all(&self.encoded)?;
        }
        Ok(())
    }
}

/// Writes a safetensors file and syncs it: the header, then each entry's values as `fill(i, out)`
/// puts them (exactly as many as its shape says).
///
/// # Errors
/// [`SafeError::Full`], [`SafeError::Denied`] or [`SafeError::Write`], which a value is, too, that
/// its type does not hold; the file is then incomplete and the caller's to remove.
pub fn write_safetensors(
    path: &Path,
    metadata: &[(&str, &str)],
    entries: &[Entry],
    mut fill: impl FnMut(usize, &mut TensorWriter) -> io::Result<()>,
) -> Result<(), SafeError> {
    let mut write = || -> io::Result<()> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        let header = header(metadata, entries);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        let (name, dtype) = (String::new(), FloatType::F64);
        let mut out = TensorWriter { file, name, dtype, left: 0, encoded: Vec::new() };
        for (i, entry) in entries.iter().enumerate() {
            out.name.clone_from(&entry.name);
            out.dtype = entry.dtype;
            out.left = entry.shape.iter().product();
            fill(i, &mut out)?;
            assert_eq!(out.left, 0, "tensor {} was not filled", entry.name);
        }
        out.file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    };
    write().map_err(|source| write_error(path, source))
}

/// The JSON header, padded with spaces so that the data is aligned to 8 bytes.
fn header(metadata: &[(&str, &str)], entries: &[Entry]) -> Vec<u8> {
    let mut map = Map::new();
    if !metadata.is_empty() {
        let pairs = metadata.iter().map(|&(key, value)| (key.to_string(), json!(value)));
        map.insert("__metadata__".into(), Value::Object(pairs.collect()));
    }
    let mut end = 0;
    for Entry { name, dtype, shape } in entries {
        let start = end;
        end += shape.iter().product::<usize>() * dtype.bytes();
        let value = json!({
            "dtype": dtype.header_name(), "shape": shape, "data_offsets": [start, end],
        });
        let before = map.insert(name.clone(), value);
        assert!(before.is_none(), "two tensors are called {name}");
    }
    let mut header = Value::Object(map).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Neither is easy to provoke where tests run as root.
    #[test]
    fn a_full_disk_and_a_read_only_one_are_told_apart() {
        let error = |kind: io::ErrorKind| write_error(Path::new("x"), kind.into());
        assert!(matches!(error(io::ErrorKind::StorageFull), SafeError::Full { .. }));
        assert!(matches!(error(io::ErrorKind::ReadOnlyFilesystem), SafeError::Denied { .. }));
        assert!(matches!(error(io::ErrorKind::PermissionDenied), SafeError::Denied { .. }));
        assert!(matches!(error(io::ErrorKind::TimedOut), SafeError::Write { .. }));
    }
}
