//! Writes a model as a Hugging Face directory: `config.json` and `model.safetensors`.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::config::{ConfigError, SpecialIds, write_config};
use super::names::{Piece, pieces, twin};
use super::safe::{Entry, FloatType, SafeError, TensorWriter, write_error, write_safetensors};
use crate::model::arch::Arch;
use crate::model::params::{Param, ParamTable};

/// Elements in flight at once, but for transposed pieces, which are held whole.
pub(super) const CHUNK: usize = 1 << 20;

/// Why a model cannot be saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Write(#[from] SafeError),
    #[error("{} is not a folder: create it first", .0.display())]
    NotADirectory(PathBuf),
}

/// Writes `config.json` and `model.safetensors` into `dir`, and syncs both and the folder.
///
/// `source(param, start, out)` fills `out` with the parameter's values from element `start` on,
/// in our layout. Not atomic: write to a fresh folder and rename it.
///
/// # Errors
/// An arch that its family cannot describe (nothing is written then), or a failing disk.
pub fn save_model(
    dir: &Path,
    arch: &Arch,
    ids: &SpecialIds,
    dtype: FloatType,
    table: &ParamTable,
    mut source: impl FnMut(&Param, usize, &mut [f64]),
) -> Result<(), SaveError> {
    let config = write_config(arch, ids, dtype)?;
    if !dir.is_dir() {
        return Err(SaveError::NotADirectory(dir.to_path_buf()));
    }
    let stored = with_twins(arch, pieces(arch, table));
    let entry = |p: &Piece| Entry { name: p.name.clone(), dtype, shape: p.shape.clone() };
    let entries: Vec<Entry> = stored.iter().map(entry).collect();
    // transformers refuses a file whose metadata does not name a framework.
    let path = dir.join("model.safetensors");
    write_safetensors(&path, &[("format", "pt")], &entries, |i, out| {
        put_piece(out, &table.params[stored[i].param], &stored[i], &mut source)
    })?;
    let path = dir.join("config.json");
    let write = || -> io::Result<()> {
        let mut file = File::create(&path)?;
        writeln!(file, "{config:#}")?;
        file.sync_all()?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|source| write_error(&path, source))?;
    Ok(())
}

/// An untied head's bias under both its names, so that every version of transformers finds it.
fn with_twins(arch: &Arch, pieces: Vec<Piece>) -> Vec<Piece> {
    let twin_of = |p: &Piece| {
        let name = twin(&p.name).filter(|_| !arch.tied)?.to_string();
        Some(Piece { name, ..p.clone() })
    };
    pieces.into_iter().flat_map(|p| [twin_of(&p), Some(p)].into_iter().flatten()).collect()
}

/// Writes one stored tensor in its layout, from a parameter's values in ours.
///
/// `source` as for [`save_model`]; any other values of the parameter's shape, such as its
/// gradient, will do.
pub fn put_piece(
    out: &mut TensorWriter,
    param: &Param,
    piece: &Piece,
    source: &mut impl FnMut(&Param, usize, &mut [f64]),
) -> io::Result<()> {
    let n_in: usize = param.shape[1..].iter().product();
    let (start, end) = (piece.rows.start * n_in, piece.rows.end * n_in);
    if !piece.transposed {
        let mut values = vec![0.0; CHUNK.min(end - start)];
        for at in (start..end).step_by(CHUNK) {
            let values = &mut values[..CHUNK.min(end - at)];
            source(param, at, values);
            out.put(values)?;
        }
        return Ok(());
    }
    let mut ours = vec![0.0; end - start]; // [n_out, n_in]
    source(param, start, &mut ours);
    let mut theirs = vec![0.0; ours.len()]; // [n_in, n_out]
    transpose(&ours, n_in, &mut theirs);
    out.put(&theirs)
}

/// `to` [cols, rows] = `from` [rows, cols] transposed, in tiles that fit the first cache.
pub(super) fn transpose(from: &[f64], cols: usize, to: &mut [f64]) {
    const TILE: usize = 16;
    let rows = from.len() / cols;
    for r0 in (0..rows).step_by(TILE) {
        for c0 in (0..cols).step_by(TILE) {
            for c in c0..cols.min(c0 + TILE) {
                for r in r0..rows.min(r0 + TILE) {
                    to[c * rows + r] = from[r * cols + c];
                }
            }
        }
    }
}
