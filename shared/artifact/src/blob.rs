//! Blobs: bytes under the name of their own BLAKE3 hash. What is put is read back; what is got is
//! verified.

use crate::error::ArtifactError;
use crate::keys;
use crate::progress::{Meter, OnProgress, silent};
use crate::store::Store;
use bytes::{Bytes, BytesMut};
use futures::TryFutureExt;
use futures::stream::{self, FuturesUnordered, Stream, TryStreamExt};
use object_store::path::Path as Key;
use object_store::{MultipartUpload, ObjectStoreExt};
use std::ops::Range;
use std::pin::pin;
use uspx_domain::BlobRef;

/// Length of one part of a long transfer, in bytes. S3 wants at least 5 MiB; a 10,000-part upload
/// reaches 78 GiB.
pub(crate) const PART_BYTES: u64 = 8 << 20;
/// Parts of one object under way at once: with [`PART_BYTES`], the memory of a transfer.
const PARTS_AT_ONCE: usize = 3;

impl Store {
    /// Stores bytes as a blob and reads them back. Bytes that are there already, unharmed, are not
    /// sent again.
    ///
    /// # Errors
    /// The store's; [`ArtifactError::Corrupt`] where what was stored reads back differently.
    pub async fn put_blob(
        &self,
        content: Bytes,
        tell: OnProgress<'_>,
    ) -> Result<BlobRef, ArtifactError> {
        let blob = BlobRef::to(&content);
        self.store_blob(blob, content, &Meter::twice(&blob, tell)).await?;
        Ok(blob)
    }

    /// The same for bytes whose name is known. Whether they had to be sent.
    pub(crate) async fn store_blob(
        &self,
        blob: BlobRef,
        content: Bytes,
        meter: &Meter<'_>,
    ) -> Result<bool, ArtifactError> {
        if self.holds(&blob, meter).await? {
            return Ok(false);
        }
        let key = keys::blob(&blob);
        if blob.bytes <= PART_BYTES {
            self.put(&key, content.into()).await?;
            meter.moved(blob.bytes);
        } else {
            let parts = ranges(blob.bytes).map(|part| Ok(slice(&content, part)));
            self.upload(&key, stream::iter(parts), meter).await?;
        }
        self.read_through(&blob, meter).await?;
        Ok(true)
    }

    /// A blob's bytes, verified, if they are no more than `most`. All of them are in memory: see
    /// [`Store::get_file`] for large ones.
    ///
    /// # Errors
    /// The store's; [`ArtifactError::TooLarge`], before anything is asked for;
    /// [`ArtifactError::NotFound`]; [`ArtifactError::Corrupt`] for other bytes than the name says.
    pub async fn get_blob(
        &self,
        blob: &BlobRef,
        most: u64,
        tell: OnProgress<'_>,
    ) -> Result<Bytes, ArtifactError> {
        must_fit(blob, most)?;
        let meter = Meter::new(blob.bytes, tell);
        let mut reader = self.read_blob(blob, &meter);
        // Most blobs are one part, which is not copied.
        let first = reader.next().await?.unwrap_or_default();
        let Some(second) = reader.next().await? else { return Ok(first) };
        let mut whole = BytesMut::from(first);
        whole.extend_from_slice(&second);
        while let Some(part) = reader.next().await? {
            whole.extend_from_slice(&part);
        }
        Ok(whole.freeze())
    }

    /// Bytes of a range of a blob. Its length is checked, but a part cannot be verified by the
    /// whole's hash.
    ///
    /// # Errors
    /// The store's, or a range that leaves the blob.
    pub async fn get_blob_range(
        &self,
        blob: &BlobRef,
        range: Range<u64>,
    ) -> Result<Bytes, ArtifactError> {
        let key = keys::blob(blob);
        if range.end > blob.bytes || range.start > range.end {
            let reason =
                format!("bytes {} to {} of {} were asked for", range.start, range.end, blob.bytes);
            return Err(self.corrupt(&key, reason));
        }
        if range.is_empty() {
            Ok(Bytes::new())
        } else {
            self.read_part(&key, range, blob.bytes).await
        }
    }

    /// Whether the store has a blob of that name and length. Its content is not read.
    ///
    /// # Errors
    /// The store's.
    pub async fn has_blob(&self, blob: &BlobRef) -> Result<bool, ArtifactError> {
        Ok(self.size(&keys::blob(blob)).await? == Some(blob.bytes))
    }

    /// Reads a blob through, keeping a few parts of it in memory at a time.
    ///
    /// # Errors
    /// As [`Store::get_blob`].
    pub async fn verify_blob(&self, blob: &BlobRef) -> Result<(), ArtifactError> {
        self.read_through(blob, &Meter::new(blob.bytes, &silent)).await
    }

    pub(crate) async fn read_through(
        &self,
        blob: &BlobRef,
        meter: &Meter<'_>,
    ) -> Result<(), ArtifactError> {
        let mut reader = self.read_blob(blob, meter);
        while reader.next().await?.is_some() {}
        Ok(())
    }

    /// Removes a blob; one that is not there is no error.
    ///
    /// # Errors
    /// The store's.
    pub async fn delete_blob(&self, blob: &BlobRef) -> Result<(), ArtifactError> {
        self.delete(&keys::blob(blob)).await
    }

    /// Whether the blob is there and reads back right. A damaged one counts as missing, so that it
    /// is written anew. Its reading is told; if it is right, what need not be sent is, too.
    pub(crate) async fn holds(
        &self,
        blob: &BlobRef,
        meter: &Meter<'_>,
    ) -> Result<bool, ArtifactError> {
        if !self.has_blob(blob).await? {
            return Ok(false);
        }
        match self.read_through(blob, meter).await {
            Ok(()) => {
                meter.resumed(blob.bytes);
                Ok(true)
            }
            Err(ArtifactError::Corrupt { key, reason, .. }) => {
                tracing::warn!(%key, %reason, "a damaged blob is written anew");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes an object in parts. It appears when the last one is there; an error in `parts` leaves
    /// nothing behind.
    pub(crate) async fn upload(
        &self,
        key: &Key,
        parts: impl Stream<Item = Result<Bytes, ArtifactError>>,
        meter: &Meter<'_>,
    ) -> Result<(), ArtifactError> {
        let mut upload =
            self.inner.put_multipart(key).await.map_err(|e| self.write_failed(key, e))?;
        let sent = match self.send_parts(key, upload.as_mut(), parts, meter).await {
            Ok(()) => upload.complete().await.map(drop).map_err(|e| self.write_failed(key, e)),
            Err(error) => Err(error),
        };
        if sent.is_err()
            && let Err(error) = upload.abort().await
        {
            tracing::debug!(%key, %error, "an unfinished upload could not be taken back");
        }
        sent
    }

    async fn send_parts(
        &self,
        key: &Key,
        upload: &mut dyn MultipartUpload,
        parts: impl Stream<Item = Result<Bytes, ArtifactError>>,
        meter: &Meter<'_>,
    ) -> Result<(), ArtifactError> {
        let mut parts = pin!(parts);
        let mut sending = FuturesUnordered::new();
        while let Some(part) = parts.try_next().await? {
            if sending.len() >= PARTS_AT_ONCE {
                sending.try_next().await.map_err(|e| self.write_failed(key, e))?;
            }
            let bytes = part.len() as u64;
            sending.push(upload.put_part(part.into()).map_ok(move |()| meter.moved(bytes)));
        }
        sending.try_collect::<()>().await.map_err(|e| self.write_failed(key, e))
    }
}

/// Refuses a reference to more than its reader takes.
pub(crate) fn must_fit(blob: &BlobRef, most: u64) -> Result<(), ArtifactError> {
    if blob.bytes <= most {
        return Ok(());
    }
    Err(ArtifactError::TooLarge { key: keys::blob(blob).to_string(), bytes: blob.bytes, most })
}

/// The ranges of the parts of `bytes` bytes.
fn ranges(bytes: u64) -> impl Iterator<Item = Range<u64>> {
    (0..bytes.div_ceil(PART_BYTES))
        .map(move |at| at * PART_BYTES..((at + 1) * PART_BYTES).min(bytes))
}

/// A part of bytes that are in memory, sharing them. The range lies within them, so both casts
/// hold.
fn slice(content: &Bytes, range: Range<u64>) -> Bytes {
    content.slice(range.start as usize..range.end as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_every_byte_once() {
        for bytes in [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES] {
            let mut next = 0;
            for range in ranges(bytes) {
                assert_eq!(range.start, next);
                assert!(range.end - range.start <= PART_BYTES);
                next = range.end;
            }
            assert_eq!(next, bytes);
        }
    }
}
