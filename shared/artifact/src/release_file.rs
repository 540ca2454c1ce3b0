//! Single files of a published release, for whoever wants to know of it without pulling it.

use crate::error::ArtifactError;
use crate::keys;
use crate::progress::silent;
use crate::store::Store;
use bytes::{Bytes, BytesMut};
use uspx_domain::{BlobRef, Manifest};

impl Store {
    /// A file of a release, verified, if it is no longer than `most`; `None` where the release has
    /// no file of that path.
    ///
    /// # Errors
    /// As [`Store::get_blob`].
    pub async fn release_file(
        &self,
        manifest: &Manifest,
        path: &str,
        most: u64,
    ) -> Result<Option<Bytes>, ArtifactError> {
        let Some(entry) = manifest.files.iter().find(|file| file.path == path) else {
            return Ok(None);
        };
        let key = || format!("{path} of {}", keys::manifest(manifest.release));
        if entry.bytes > most {
            return Err(ArtifactError::TooLarge { key: key(), bytes: entry.bytes, most });
        }
        let mut whole = BytesMut::new();
        for chunk in &entry.chunks {
            let blob = BlobRef { digest: chunk.digest, bytes: chunk.bytes };
            whole.extend_from_slice(&self.get_blob(&blob, most, &silent).await?);
        }
        if BlobRef::to(&whole).digest == entry.digest {
            return Ok(Some(whole.freeze()));
        }
        let reason = "every chunk is right, but not the whole".to_owned();
        Err(ArtifactError::Manifest { key: key(), reason })
    }
}
