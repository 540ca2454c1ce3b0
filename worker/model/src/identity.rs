//! What a model is, whatever its folder is called: the digest of its files.

use crate::chat::ChatFiles;
use crate::checkpoint::shard_paths;
use crate::{ModelError, NoProgress, Progress, Result};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use uspx_domain::{Digest, Fingerprint};

/// Bytes read between two reports of progress.
const PIECE: usize = 1 << 20;

/// The digest of a folder's weights, configuration and all that determines its tokens (tokenizer,
/// template, special tokens), whatever the folder is called.
///
/// # Errors
/// A file that cannot be read.
pub fn fingerprint(folder: &Path) -> Result<Fingerprint> {
    fingerprint_of(&digests(folder, &NoProgress)?, &ChatFiles::read(folder)?)
}

/// The digests of a folder's weight files and of its config.json, in the order in which they
/// count. `progress` hears of bytes.
///
/// # Errors
/// A file that cannot be read; [`ModelError::Stopped`] where `progress` asks for it.
pub fn digests(folder: &Path, progress: &dyn Progress) -> Result<Vec<(PathBuf, Digest)>> {
    let mut files = shard_paths(folder)?;
    files.push(folder.join("config.json"));
    let size = |path: &PathBuf| Ok(std::fs::metadata(path).map_err(ModelError::read(path))?.len());
    let total = files.iter().map(size).sum::<Result<u64>>()?;
    let mut done = 0;
    let each = |path: PathBuf| {
        let digest = digest(&path, |bytes| {
            done += bytes as u64;
            progress.report(done, total.max(done))
        })?;
        Ok((path, digest))
    };
    files.into_iter().map(each).collect()
}

/// The digest of a file, read in pieces that `read` is told of.
fn digest(path: &Path, mut read: impl FnMut(usize) -> Result<()>) -> Result<Digest> {
    let mut file = File::open(path).map_err(ModelError::read(path))?;
    let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; PIECE]);
    loop {
        let bytes = match file.read(&mut buffer) {
            Ok(0) => return Ok(Digest(*hasher.finalize().as_bytes())),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ModelError::read(path)(error)),
        };
        hasher.update(buffer.get(..bytes).unwrap_or_default());
        read(bytes)?;
    }
}

/// The fingerprint that files of these digests and these tokens come to.
///
/// # Errors
/// Tokens that have no identity.
pub fn fingerprint_of(digests: &[(PathBuf, Digest)], files: &ChatFiles) -> Result<Fingerprint> {
    let mut whole = blake3::Hasher::new();
    for (path, digest) in digests {
        whole.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        whole.update(&digest.0);
    }
    whole.update(blake3::hash(&files.identity()?).as_bytes());
    Ok(Fingerprint(Digest(*whole.finalize().as_bytes())))
}
