//! Releases in the store: which there are, what they say, and how the newest moves forward.
//!
//! A release exists once its manifest was *created* under its number: that is the compare-and-swap,
//! for the number is the newest's plus one. Its marker follows. A publisher that dies between the
//! two leaves a release that nobody sees yet; the next publisher finishes its step first
//! ([`Store::settle`]), so that no number is used twice and none is left out.

use crate::error::ArtifactError;
use crate::keys;
use crate::manifest::{decode_manifest, encode_manifest};
use crate::store::Store;
use bytes::Bytes;
use object_store::ObjectMeta;
use object_store::path::Path as Key;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::SystemTime;
use uspx_domain::{Digest, Manifest, ReleaseNumber};

/// A manifest of 128 MiB would list some 150 TB.
const LONGEST_MANIFEST: u64 = 128 << 20;

/// What a marker says.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    release: ReleaseNumber,
    manifest: Digest,
}

impl Store {
    /// The newest release, if any is published.
    ///
    /// # Errors
    /// The store's.
    pub async fn latest(&self) -> Result<Option<ReleaseNumber>, ArtifactError> {
        Ok(self.list().await?.pop())
    }

    /// All published releases, oldest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(&self) -> Result<Vec<ReleaseNumber>, ArtifactError> {
        Ok(self.published().await?.into_keys().collect())
    }

    /// All published releases, and since when this store has them: a store that was carried from
    /// another one says when that was.
    ///
    /// # Errors
    /// The store's.
    pub async fn published(&self) -> Result<BTreeMap<ReleaseNumber, SystemTime>, ArtifactError> {
        let markers = self.listed(keys::LATEST).await?;
        let one = |meta: &ObjectMeta| {
            Some((keys::release_of_marker(&meta.location)?, meta.last_modified.into()))
        };
        Ok(markers.iter().filter_map(one).collect())
    }

    /// What a published release says of itself, checked.
    ///
    /// # Errors
    /// The store's; [`ArtifactError::NoRelease`]; one that was changed since or cannot be right.
    pub async fn manifest(&self, release: ReleaseNumber) -> Result<Manifest, ArtifactError> {
        let marker = self.marker(release).await?;
        let (manifest, digest) = self.read_manifest(release).await?;
        if marker.manifest == digest {
            return Ok(manifest);
        }
        Err(self.corrupt(
            &keys::manifest(release),
            format!("its hash is {digest}, not the published {}", marker.manifest),
        ))
    }

    /// Finishes what a publisher that died left behind, then says which release is the newest.
    ///
    /// # Errors
    /// The store's; a manifest after the newest release that cannot be right.
    pub async fn settle(&self) -> Result<Option<ReleaseNumber>, ArtifactError> {
        let mut newest = self.latest().await?;
        loop {
            let next = newest.unwrap_or(0).saturating_add(1);
            if self.size(&keys::manifest(next)).await?.is_none() {
                return Ok(newest);
            }
            let (_, digest) = self.read_manifest(next).await?;
            tracing::info!(release = next, "a release was stored but not yet the newest");
            self.mark(next, digest).await?;
            newest = Some(next);
        }
    }

    /// Creates a release's manifest; false if another stands there.
    pub(crate) async fn create_manifest(&self, manifest: &Manifest) -> Result<bool, ArtifactError> {
        let key = keys::manifest(manifest.release);
        let bytes = self.encoded(manifest)?;
        let digest = Digest::of(&bytes);
        if !self.create_object(&key, Bytes::from(bytes).into()).await? {
            return Ok(false);
        }
        self.mark(manifest.release, digest).await?;
        Ok(true)
    }

    fn encoded(&self, manifest: &Manifest) -> Result<Vec<u8>, ArtifactError> {
        let key = keys::manifest(manifest.release);
        let bytes = encode_manifest(manifest).map_err(|e| unusable(&key, e.to_string()))?;
        // Read before it is written: nothing is published that could not be pulled.
        decode_manifest(&bytes).map_err(|reason| unusable(&key, reason))?;
        Ok(bytes)
    }

    /// Makes a release the newest. One that another has marked meanwhile is marked all the same.
    async fn mark(&self, release: ReleaseNumber, manifest: Digest) -> Result<(), ArtifactError> {
        let key = keys::latest(release);
        let marker = serde_json::to_vec(&Marker { release, manifest })
            .map_err(|e| unusable(&key, e.to_string()))?;
        let ours = self.create_object(&key, Bytes::from(marker).into()).await?;
        tracing::debug!(release, ours, "marked");
        Ok(())
    }

    async fn marker(&self, release: ReleaseNumber) -> Result<Marker, ArtifactError> {
        let key = keys::latest(release);
        let bytes = match self.read_small(&key).await {
            Ok(bytes) => bytes,
            Err(ArtifactError::NotFound { store, .. }) => {
                return Err(ArtifactError::NoRelease { store, release: Some(release) });
            }
            Err(error) => return Err(error),
        };
        match serde_json::from_slice::<Marker>(&bytes) {
            Ok(marker) if marker.release == release => Ok(marker),
            Ok(marker) => {
                Err(self.corrupt(&key, format!("it speaks of release {}", marker.release)))
            }
            Err(error) => Err(self.corrupt(&key, error.to_string())),
        }
    }

    async fn read_manifest(
        &self,
        release: ReleaseNumber,
    ) -> Result<(Manifest, Digest), ArtifactError> {
        let key = keys::manifest(release);
        let bytes = self.read_small(&key).await?;
        let manifest = decode_manifest(&bytes).map_err(|reason| unusable(&key, reason))?;
        if manifest.release != release {
            return Err(unusable(&key, format!("it speaks of release {}", manifest.release)));
        }
        Ok((manifest, Digest::of(&bytes)))
    }

    async fn read_small(&self, key: &Key) -> Result<Bytes, ArtifactError> {
        let answer = self.get(key).await?;
        let want = answer.meta.size;
        if want > LONGEST_MANIFEST {
            return Err(self.corrupt(key, format!("it has {want} bytes, which no manifest has")));
        }
        let bytes = self.body(key, answer, want).await?;
        let got = bytes.len() as u64;
        if got == want {
            return Ok(bytes);
        }
        Err(ArtifactError::Truncated {
            store: self.url().to_owned(),
            key: key.to_string(),
            got,
            want,
        })
    }
}

fn unusable(key: &Key, reason: String) -> ArtifactError {
    ArtifactError::Manifest { key: key.to_string(), reason }
}
