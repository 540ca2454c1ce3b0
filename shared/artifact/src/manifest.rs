//! A manifest's one form in bytes, and everything that must hold of one before it is believed.

use crate::{CHUNK_BYTES, stamp};
use std::collections::HashSet;
use uspx_domain::{FileEntry, Manifest};

/// The format's version that is written, and the only one that is read.
const VERSION: u32 = 1;
/// Name of the manifest within a release's folder; no file of a release has it.
pub(crate) const FILE_NAME: &str = "manifest.json";
/// A longer chunk than uspx writes would have to be held in memory by whoever pulls.
pub(crate) const LONGEST_CHUNK: u64 = 4 * CHUNK_BYTES as u64;

/// A manifest's bytes: JSON without spaces, fields in the type's order.
///
/// # Errors
/// Never for a manifest of these types; the encoder's are passed on.
pub fn encode_manifest(manifest: &Manifest) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(manifest)
}

/// Reads a manifest and checks it.
///
/// # Errors
/// In words: what is wrong with it.
pub fn decode_manifest(bytes: &[u8]) -> Result<Manifest, String> {
    let manifest: Manifest =
        serde_json::from_slice(bytes).map_err(|e| format!("it is not a manifest: {e}"))?;
    check_manifest(&manifest)?;
    let again = encode_manifest(&manifest).map_err(|e| e.to_string())?;
    if again == bytes {
        Ok(manifest)
    } else {
        Err("it is not in canonical form, so uspx did not write it".to_owned())
    }
}

/// Checks what must hold of every manifest: version, numbers, paths that stay within the folder,
/// sums.
///
/// # Errors
/// In words: what is wrong, with the file's path.
pub fn check_manifest(manifest: &Manifest) -> Result<(), String> {
    if manifest.version != VERSION {
        return Err(format!(
            "its version is {}, this uspx reads {VERSION}: update uspx",
            manifest.version
        ));
    }
    if manifest.release == 0
        || manifest.previous != manifest.release.checked_sub(1).filter(|n| *n > 0)
    {
        return Err(format!("release {} cannot follow {:?}", manifest.release, manifest.previous));
    }
    if manifest.files.is_empty() {
        return Err("it lists no file".to_owned());
    }
    check_order(&manifest.files)?;
    let mut total = 0_u64;
    for file in &manifest.files {
        check_path(&file.path)
            .and_then(|()| check_chunks(file))
            .map_err(|e| format!("file `{}`: {e}", file.path))?;
        total = total.checked_add(file.bytes).ok_or("its files are longer than any disk")?;
    }
    check_collisions(&manifest.files)
}

fn check_order(files: &[FileEntry]) -> Result<(), String> {
    let mut pairs = files.iter().zip(files.iter().skip(1));
    match pairs.find(|(a, b)| a.path >= b.path) {
        Some((_, b)) => Err(format!("file `{}`: it is repeated or not in order", b.path)),
        None => Ok(()),
    }
}

/// Checks that a path names a file within the folder, on any system.
pub(crate) fn check_path(path: &str) -> Result<(), String> {
    if path.is_empty() || path.len() > 1024 {
        return Err("its path is empty or longer than 1,024 bytes".to_owned());
    }
    if path.chars().any(|c| c.is_control() || matches!(c, '\\' | ':')) {
        return Err("its path has a backslash, a colon or a control character".to_owned());
    }
    let first = path.split('/').next().unwrap_or(path);
    if [FILE_NAME, stamp::FILE_NAME].iter().any(|own| first.eq_ignore_ascii_case(own)) {
        return Err(format!("`{first}` is a name of the manifest's own folder"));
    }
    match path.split('/').find(|part| !is_plain(part)) {
        Some(part) => Err(format!("its path is absolute or leaves the folder (part `{part}`)")),
        None => Ok(()),
    }
}

/// A trailing dot or space is dropped by Windows, which would make two names one.
fn is_plain(part: &str) -> bool {
    !part.is_empty() && part.len() <= 255 && !part.ends_with(['.', ' '])
}

fn check_chunks(file: &FileEntry) -> Result<(), String> {
    if file.chunks.iter().any(|chunk| chunk.bytes == 0 || chunk.bytes > LONGEST_CHUNK) {
        return Err(format!("a chunk is empty or longer than {LONGEST_CHUNK} bytes"));
    }
    let sum = file.chunks.iter().try_fold(0_u64, |sum, chunk| sum.checked_add(chunk.bytes));
    if sum == Some(file.bytes) {
        Ok(())
    } else {
        Err(format!("its chunks do not add up to its {} bytes", file.bytes))
    }
}

/// Two names that differ only in case, and a file where another needs a folder, cannot both be
/// written everywhere.
fn check_collisions(files: &[FileEntry]) -> Result<(), String> {
    let mut names = HashSet::new();
    if let Some(file) = files.iter().find(|file| !names.insert(file.path.to_lowercase())) {
        return Err(format!("file `{}`: another differs from it only in case", file.path));
    }
    for file in files {
        let lower = file.path.to_lowercase();
        let mut folders = lower.match_indices('/').filter_map(|(at, _)| lower.get(..at));
        if let Some(folder) = folders.find(|folder| names.contains(*folder)) {
            return Err(format!("file `{}`: `{folder}` is a file, too", file.path));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use uspx_domain::{ChunkEntry, Digest, Fingerprint};

    fn entry(path: &str) -> FileEntry {
        let digest = Digest::of(b"abc");
        FileEntry {
            path: path.to_owned(),
            bytes: 3,
            digest,
            chunks: vec![ChunkEntry { bytes: 3, digest }],
        }
    }

    fn manifest(paths: &[&str]) -> Manifest {
        let print = Fingerprint(Digest::of(b"model"));
        let files = paths.iter().map(|path| entry(path)).collect();
        Manifest {
            version: 1,
            release: 2,
            colony: "c".into(),
            teacher: print,
            base: print,
            previous: Some(1),
            files,
        }
    }

    #[test]
    fn a_good_one_goes_through_bytes_and_back() {
        let good = manifest(&["report.json", "README.md", "gguf/student.gguf", "gptq/..weights"]);
        let mut sorted = good.clone();
        sorted.files.sort_by(|a, b| a.path.cmp(&b.path));
        assert!(check_manifest(&good).is_err(), "not in order");
        assert_eq!(decode_manifest(&encode_manifest(&sorted).unwrap()).unwrap(), sorted);
    }

    #[test]
    fn paths_that_leave_the_folder_are_refused() {
        for path in [
            "/etc/x",
            "../x",
            "a/../x",
            "a/./x",
            "a//x",
            "a/",
            "",
            "a\\x",
            "C:x",
            "a\nx",
            "manifest.json",
            "manifest.json/x",
            "Manifest.JSON/x/y",
            ".verified.json",
            "a./x",
        ] {
            let error = check_manifest(&manifest(&[path])).unwrap_err();
            assert!(error.contains("path") || error.contains("manifest"), "{path}: {error}");
        }
    }

    #[test]
    fn names_that_collide_are_refused() {
        for paths in [["a", "a"], ["A", "a"], ["a", "a/b"], ["A/b", "a"]] {
            assert!(check_manifest(&manifest(&paths)).is_err(), "{paths:?}");
        }
    }

    #[test]
    fn sums_and_numbers_must_fit() {
        let breaks: [fn(&mut Manifest); 8] = [
            |m| m.version = 2,
            |m| m.release = 0,
            |m| m.previous = None,
            |m| m.previous = Some(2),
            |m| m.files.clear(),
            |m| m.files[0].bytes = 4,
            |m| m.files[0].chunks.push(ChunkEntry { bytes: u64::MAX, digest: Digest::of(b"") }),
            |m| m.files[0].chunks[0].bytes = 0,
        ];
        for (at, break_it) in breaks.iter().enumerate() {
            let mut broken = manifest(&["a", "b"]);
            assert_eq!(check_manifest(&broken), Ok(()));
            break_it(&mut broken);
            assert!(check_manifest(&broken).is_err(), "break {at}");
        }
    }

    #[test]
    fn other_bytes_of_the_same_meaning_are_refused() {
        let bytes = encode_manifest(&manifest(&["a"])).unwrap();
        let spaced = [b" ".as_slice(), bytes.as_slice()].concat();
        assert!(decode_manifest(&spaced).unwrap_err().contains("canonical"));
        let text = String::from_utf8(bytes).unwrap();
        assert!(decode_manifest(text.replacen('{', "{\"new\":1,", 1).as_bytes()).is_err());
    }
}
