//! Files whose numbers promise more than there is.

use super::*;

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// What is said of a file of `tensors` and `pairs` whose bytes on disk are `body`, and whose
/// length is a terabyte.
fn refused(tensors: u64, pairs: u64, body: &[Vec<u8>]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    let head = [&MAGIC.to_le_bytes()[..], &3u32.to_le_bytes(), &tensors.to_le_bytes()].concat();
    std::fs::write(&path, [head, pairs.to_le_bytes().to_vec(), body.concat()].concat()).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    GgufFile::open(&path).unwrap_err().to_string()
}

fn array(kind: u32, count: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat()
}

fn tensor(name: &str, dims: &[u64], offset: u64) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|d| d.to_le_bytes()).collect();
    let count = (dims.len() as u32 / 8).to_le_bytes();
    [text(name), count.to_vec(), dims, 0u32.to_le_bytes().to_vec(), offset.to_le_bytes().to_vec()]
        .concat()
}

#[test]
fn numbers_that_the_file_cannot_keep_make_nothing() {
    let (list, string) = (9u32.to_le_bytes().to_vec(), 8u32.to_le_bytes().to_vec());
    let key = || text("k");
    let far = || (1u64 << 39).to_le_bytes().to_vec();
    for (said, words) in [
        (refused(1 << 60, 0, &[]), "at most 65536"),
        (refused(0, 1 << 60, &[]), "at most 65536"),
        (refused(0, 1, &[far()]), "header may have"),
        (refused(0, 1, &[key(), string, far()]), "header may have"),
        (refused(0, 1, &[key(), list.clone(), array(0, 1 << 50)]), "header may have"),
        (refused(0, 1, &[key(), list.clone(), array(0, 1 << 24)]), "more than 8388608 values"),
        (
            refused(0, 1, &[key(), list, [array(9, 9), array(0, (1 << 23) - 8)].concat()]),
            "more than",
        ),
        (refused(1, 0, &[tensor("t", &[1 << 40, 1 << 40], 0)]), "cannot be stored"),
        (refused(1, 0, &[tensor("t", &[1 << 62], 0)]), "cannot be stored"),
        (refused(1, 0, &[tensor("t", &[1 << 50], 0)]), "ends beyond"),
        (refused(1, 0, &[tensor("t", &[4], u64::MAX)]), "ends beyond"),
        (refused(3, 0, &["a", "b", "c"].map(|name| tensor(name, &[1 << 37], 0))), "overlap"),
    ] {
        assert!(said.contains(words), "no `{words}` in: {said}");
    }
}
