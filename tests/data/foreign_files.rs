//! Files of llm.c and nanoGPT.

use crate::*;
fn llm_c(magic: i32, version: i32, count: i32, tokens: &[u8]) -> Vec<u8> {
    let mut header = vec![0i32; 256];
    header[..3].copy_from_slice(&[magic, version, count]);
    let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend_from_slice(tokens);
    bytes
}

fn u16s(tokens: &[u16]) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.to_le_bytes()).collect()
}

fn documents_of(shard: &Shard) -> Vec<Vec<u32>> {
    (0..shard.document_count()).map(|i| shard.tokens(shard.document(i)).to_vec()).collect()
}

fn open(name: &str, bytes: Vec<u8>, eot: Option<u32>) -> Result<Vec<Vec<u32>>, ShardError> {
    let folder = folder();
    formats::open(&write(folder.path(), name, bytes), eot).map(|shard| documents_of(&shard))
}

#[test]
fn llm_c_and_nanogpt_give_the_same_documents() {
    let expected = vec![vec![1, 2], vec![3]];
    let before = u16s(&[50256, 1, 2, 50256, 3]);
    assert_eq!(open("a.bin", llm_c(20240520, 1, 5, &before), None).unwrap(), expected);
    let after = u16s(&[1, 2, 50256, 3, 50256]);
    assert_eq!(open("train.bin", after, None).unwrap(), expected);
    let llama: Vec<u8> =
        [128_000u32, 1, 2, 128_000, 3].iter().flat_map(|t| t.to_le_bytes()).collect();
    assert_eq!(open("a.bin", llm_c(20240801, 7, 5, &llama), None).unwrap(), expected);
    let characters = u16s(&[1, 2, 9, 3]);
    assert_eq!(open("train.bin", characters.clone(), None).unwrap(), [vec![1, 2, 9, 3]]);
    assert_eq!(open("train.bin", characters, Some(9)).unwrap(), expected);
}

#[test]
fn their_size_is_held_to() {
    let tokens = u16s(&[1, 2, 3]);
    let open = |bytes| open("a.bin", bytes, None).unwrap_err();
    assert!(matches!(
        open(llm_c(20240520, 1, 4, &tokens)),
        ShardError::Truncated { tokens: 4, .. }
    ));
    assert!(matches!(open(llm_c(20240520, 1, 2, &tokens)), ShardError::Trailing { .. }));
    assert!(matches!(open(llm_c(20240520, 2, 3, &tokens)), ShardError::Version { .. }));
    assert!(matches!(
        open(llm_c(20240520, 1, 3, &tokens)[..1000].to_vec()),
        ShardError::HeaderCut { .. }
    ));
    assert!(matches!(open(vec![1, 0, 2]), ShardError::Trailing { extra: 1, .. }));
}

#[test]
fn a_folder_of_them_trains_a_gpt() {
    let folder = folder();
    write(folder.path(), "x_train_000001.bin", u16s(&[9, 1, 2, 3, 9, 4, 5, 6, 7]));
    write(folder.path(), "x_val_000000.bin", u16s(&[9, 1, 2]));
    let dataset = Dataset::open(folder.path(), Some(9)).unwrap();
    dataset.verify(10).unwrap();
    let beyond = dataset.verify(7).unwrap_err();
    assert!(matches!(
        beyond,
        DatasetError::Shard(ShardError::TokenBeyondVocabulary { token: 9 | 7, .. })
    ));
    let facts = Facts::bare(10, Some(9));
    let loader = Loader::new(&dataset, &facts, &Objective::Causal, 11, 8, 0).unwrap();
    assert_eq!(loader.epoch().tokens, 7 + 4);
    let mut ids = loader.batch(0).ids;
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6, 7, 9, 9, 9, 9]);
}
