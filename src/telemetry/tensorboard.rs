//! TensorBoard event files, written by hand: the format is smaller than any library for it.
//!
//! A file is a sequence of TFRecords: `length u64 · crc(length) u32 · data · crc(data) u32`, little
//! endian, where crc is the masked CRC-32C. Each record's data is a protobuf `Event`:
//! ```text
//! Event      { double wall_time = 1; int64 step = 2; string file_version = 3;
//!              Summary summary = 5; SessionLog session_log = 7; }
//! Summary    { repeated Value value = 1; }    Value { string tag = 1; float simple_value = 2; }
//! SessionLog { Status status = 1; }           // START = 1
//! ```
//! Sources: tensorflow/core/util/event.proto, framework/summary.proto, lib/io/record_writer.h.
//!
//! A resumed run opens a second file whose first event says `START` at the step to be taken next;
//! TensorBoard then forgets what the first file said of that step and later ones.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::metrics::{EvalRecord, TrainRecord};
use super::{Error, Result};

/// Writes one event file; each event reaches the file before the call returns.
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Opens `events.out.tfevents.<unix seconds>.<host>.warpwright` in the directory `dir`.
    pub fn create(dir: &Path) -> Result<Self> {
        let (path, file) = open(dir)?;
        let mut writer = Self { path, file };
        writer.write(|event| bytes_field(event, 3, b"brain.Event:2"))?;
        Ok(writer)
    }

    /// As [`EventWriter::create`], for a run that goes on from the state after step `step`.
    pub fn resume(dir: &Path, step: u64) -> Result<Self> {
        let mut writer = Self::create(dir)?;
        writer.write(|event| {
            varint_field(event, 2, step + 1);
            message_field(event, 7, |log| varint_field(log, 1, 1));
        })?;
        Ok(writer)
    }

    /// `loss/train`, `loss/pair` (where there is one), `lr`, `grad_norm`, `tokens_per_s`.
    pub fn train(&mut self, record: &TrainRecord) -> Result<()> {
        let r = record;
        let scalars = [
            ("loss/train", Some(r.loss)),
            ("loss/pair", r.pair_loss),
            ("lr", Some(r.lr)),
            ("grad_norm", Some(r.grad_norm)),
            ("tokens_per_s", Some(r.tokens_per_s)),
        ];
        self.scalars(r.step, &scalars)
    }

    /// `loss/heldout`, `accuracy`, `accuracy/pair` (where there is one).
    pub fn eval(&mut self, record: &EvalRecord) -> Result<()> {
        let r = record;
        let scalars = [
            ("loss/heldout", Some(r.loss)),
            ("accuracy", Some(r.accuracy)),
            ("accuracy/pair", r.pair_accuracy),
        ];
        self.scalars(r.step, &scalars)
    }

    fn scalars(&mut self, step: u64, scalars: &[(&str, Option<f64>)]) -> Result<()> {
        self.write(|event| {
            varint_field(event, 2, step);
            message_field(event, 5, |summary| {
                for (tag, value) in scalars.iter().filter_map(|&(t, v)| Some((t, v?))) {
                    message_field(summary, 1, |entry| {
                        bytes_field(entry, 1, tag.as_bytes());
                        entry.push(2 << 3 | FIXED32);
                        entry.extend_from_slice(&(value as f32).to_le_bytes());
                    });
                }
            });
        })
    }

    /// Writes one event, stamped with the present time, whose other fields `fill` adds.
    fn write(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let mut event = vec![1 << 3 | FIXED64];
        event.extend_from_slice(&unix_time().to_le_bytes());
        fill(&mut event);
        self.file.write_all(&tf_record(&event)).map_err(Error::write(&self.path))
    }
}

/// Opens a new event file: the name of a second that is taken moves on to the next.
fn open(dir: &Path) -> Result<(PathBuf, File)> {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "localhost" } else { host.trim() };
    let mut second = unix_time() as u64;
    loop {
        let path = dir.join(format!("events.out.tfevents.{second}.{host}.warpwright"));
        match OpenOptions::new().append(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => second += 1,
            Err(error) => return Err(Error::write(&path)(error)),
        }
    }
}

/// Seconds since 1970, 0 on a clock set before it.
fn unix_time() -> f64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

fn tf_record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let (length_crc, data_crc) = (masked_crc(&length), masked_crc(data));
    [&length[..], &length_crc.to_le_bytes(), data, &data_crc.to_le_bytes()].concat()
}

/// A CRC of data that itself holds CRCs is weak, hence TFRecord's rotation and constant.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

// Protobuf: a field is a key, `number << 3 | wire type`, and its value. All numbers here are < 16,
// so each key is one byte.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const FIXED32: u8 = 5;

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_field(out: &mut Vec<u8>, number: u8, value: u64) {
    out.push(number << 3 | VARINT);
    varint(out, value);
}

fn bytes_field(out: &mut Vec<u8>, number: u8, value: &[u8]) {
    out.push(number << 3 | BYTES);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn message_field(out: &mut Vec<u8>, number: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut message = Vec::new();
    fill(&mut message);
    bytes_field(out, number, &message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_matches_published_values() {
        // RFC 3720, B.4.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        // The twelve bytes with which TensorFlow's own event files begin: 24 and its masked CRC.
        assert_eq!(masked_crc(&24u64.to_le_bytes()).to_le_bytes(), *b"\xa3\x7fK\"");
    }

    #[test]
    fn varint_matches_the_protobuf_guide() {
        let mut out = Vec::new();
        varint(&mut out, 150);
        varint(&mut out, u64::MAX);
        assert_eq!(out[..2], [0x96, 0x01]);
        assert_eq!(out[2..], [[0xff; 9].as_slice(), &[1]].concat());
    }
}
