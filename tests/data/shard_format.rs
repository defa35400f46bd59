//! Our shard: round trips, and every way the file can lie.

use crate::*;
#[test]
fn what_is_written_is_read() {
    for vocabulary in [1000, 1 << 16, (1 << 16) + 1, 200_000] {
        let folder = folder();
        let path = folder.path().join("a.wws");
        let documents: Vec<Vec<u32>> =
            vec![vec![1, 2, vocabulary - 1], vec![], vec![0], (0..999).collect()];
        write_shard(&path, &documents, vocabulary);
        let shard = Shard::open(&path).unwrap();
        shard.verify().unwrap();
        assert_eq!(shard.width(), if vocabulary <= 1 << 16 { 2 } else { 4 });
        assert_eq!((shard.token_count(), shard.document_count()), (1003, 3));
        let read: Vec<Vec<u32>> =
            (0..3).map(|i| shard.tokens(shard.document(i)).to_vec()).collect();
        let kept: Vec<_> = documents.into_iter().filter(|d| !d.is_empty()).collect();
        assert_eq!(read, kept);
    }
}

/// A file of 2^32 + 10 tokens of four bytes, nearly all of it a hole.
#[test]
fn above_four_billion_tokens() {
    use std::io::{Seek, SeekFrom, Write};
    let folder = folder();
    let path = folder.path().join("big.wws");
    let tokens = (1u64 << 32) + 10;
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(&header(4, 200_000, tokens, 2, 0)).unwrap();
    file.seek(SeekFrom::Start(64 + 4 * (tokens - 1))).unwrap();
    file.write_all(&77u32.to_le_bytes()).unwrap();
    for boundary in [0, tokens - 3, tokens] {
        file.write_all(&u64::to_le_bytes(boundary)).unwrap();
    }
    let corpus = Corpus::open(&[path], None).unwrap();
    assert_eq!(corpus.tokens(), tokens);
    assert_eq!(corpus.document(1).to_vec(), [0, 0, 77]);
    let packing = Packing::new(Arc::new(corpus), Frame::None, 1 << 20, Philox::new(0));
    let last = packing.piece(packing.pieces() - 2);
    assert_eq!((last.document, last.begin + last.len), (0, tokens - 3));
}

#[test]
fn a_dropped_writer_leaves_nothing() {
    let folder = folder();
    let mut writer = ShardWriter::create(&folder.path().join("a.wws"), 100, 0).unwrap();
    writer.push(&[1, 2]).unwrap();
    drop(writer);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// A partial file that leads to `/dev/full`, where every write fails as on a full disk.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    let folder = folder();
    let path = folder.path().join("a.wws");
    std::os::unix::fs::symlink("/dev/full", folder.path().join("a.wws.partial")).unwrap();
    let mut writer = ShardWriter::create(&path, 100, 0).unwrap();
    writer.push(&[1; 1000]).unwrap();
    let error = writer.finish().unwrap_err();
    assert!(matches!(&error, ShardError::Io { source, .. }
        if source.kind() == std::io::ErrorKind::StorageFull));
    assert!(error.to_string().contains("a.wws"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

fn header(width: u32, vocabulary: u64, tokens: u64, documents: u64, checksum: u64) -> Vec<u8> {
    let mut bytes = b"WARPTOKS".to_vec();
    bytes.extend(1u32.to_le_bytes());
    bytes.extend(width.to_le_bytes());
    for word in [vocabulary, 7, tokens, documents, checksum] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    bytes
}

/// A shard of documents [1, 2, 3] and [4, 5], then changed; checksums are made good again
/// unless `keep_sums`.
fn lie(keep_sums: bool, change: impl FnOnce(&mut Vec<u8>)) -> ShardError {
    let folder = folder();
    let path = folder.path().join("a.wws");
    write_shard(&path, &[vec![1, 2, 3], vec![4, 5]], 100);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    if !keep_sums && bytes.len() >= 64 {
        let payload = xxh3_64(&bytes[64..]);
        bytes[48..56].copy_from_slice(&payload.to_le_bytes());
        let header = xxh3_64(&bytes[..56]);
        bytes[56..64].copy_from_slice(&header.to_le_bytes());
    }
    fs::write(&path, bytes).unwrap();
    match Shard::open(&path) {
        Ok(shard) => shard.verify().expect_err("the lie is found"),
        Err(error) => error,
    }
}

fn set(at: usize, word: u64) -> impl FnOnce(&mut Vec<u8>) {
    move |bytes| bytes[at..at + 8].copy_from_slice(&word.to_le_bytes())
}

macro_rules! refused {
    ($name:ident, $keep_sums:expr, $change:expr, $error:pat) => {
        #[test]
        fn $name() {
            let error = lie($keep_sums, $change);
            assert!(matches!(error, $error), "{error:?}");
        }
    };
}

// Tokens lie at 64 to 74, boundaries [0, 3, 5] at 80, 88, 96; the file has 104 bytes.
refused!(empty, true, |b| b.clear(), ShardError::HeaderCut { found: 0, .. });
refused!(cut_in_the_header, true, |b| b.truncate(63), ShardError::HeaderCut { found: 63, .. });
refused!(cut_in_the_tokens, true, |b| b.truncate(70), ShardError::Truncated { .. });
refused!(cut_by_a_byte, true, |b| b.truncate(103), ShardError::Truncated { expected: 104, .. });
refused!(longer, true, |b| b.push(0), ShardError::Trailing { extra: 1, .. });
refused!(wrong_magic, false, |b| b[0] = b'w', ShardError::Magic(_));
refused!(newer_version, false, |b| b[8] = 2, ShardError::Version { found: 2, .. });
refused!(flipped_bit_in_the_header, true, |b| b[33] ^= 4, ShardError::HeaderChecksum(_));
refused!(odd_width, false, |b| b[12] = 3, ShardError::Width { width: 3, .. });
refused!(more_tokens_than_bytes, false, set(32, 100), ShardError::Truncated { .. });
refused!(count_that_overflows, false, set(32, u64::MAX), ShardError::Truncated { .. });
refused!(documents_that_overflow, false, set(40, u64::MAX), ShardError::Truncated { .. });
refused!(fewer_tokens_than_bytes, false, set(40, 1), ShardError::Trailing { extra: 8, .. });
refused!(boundary_out_of_order, false, set(88, 6), ShardError::BoundaryOrder { document: 1, .. });
refused!(empty_document, false, set(88, 0), ShardError::BoundaryOrder { document: 0, .. });
refused!(boundary_before_the_end, false, set(96, 4), ShardError::BoundaryEnds { end: 4, .. });
refused!(boundary_after_zero, false, set(80, 1), ShardError::BoundaryEnds { begin: 1, .. });
refused!(flipped_bit_in_a_token, true, |b| b[64] ^= 2, ShardError::Checksum(_));
refused!(flipped_bit_in_the_filling, true, |b| b[75] ^= 1, ShardError::Checksum(_));
refused!(
    token_beyond_the_vocabulary,
    false,
    |b| b[70] = 100,
    ShardError::TokenBeyondVocabulary { index: 3, token: 100, vocabulary: 100, .. }
);

#[test]
fn a_missing_file_is_named() {
    let error = Shard::open(Path::new("nowhere.wws")).unwrap_err();
    assert!(matches!(error, ShardError::Io { .. }));
    assert!(error.to_string().contains("nowhere.wws"));
}
