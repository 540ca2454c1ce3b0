//! Reading blobs, part by part: each of the length that was asked for, the whole of the right hash.

use crate::blob::PART_BYTES;
use crate::error::ArtifactError;
use crate::keys;
use crate::progress::Meter;
use crate::store::Store;
use backon::{ExponentialBuilder, Retryable};
use blake3::Hasher;
use bytes::{Bytes, BytesMut};
use futures::stream::TryStreamExt;
use object_store::path::Path as Key;
use object_store::{GetOptions, GetResult, GetResultPayload, ObjectStore};
use std::ops::Range;
use std::time::Duration;
use uspx_domain::{BlobRef, Digest};

impl Store {
    /// Reads a blob part by part.
    pub(crate) fn read_blob<'a>(&'a self, blob: &BlobRef, meter: &'a Meter<'a>) -> BlobReader<'a> {
        let (key, hash) = (keys::blob(blob), Hasher::new());
        BlobReader { store: self, key, blob: *blob, hash, meter }
    }

    /// A range of an object that is `whole` bytes long. Broken-off transfers are begun again a few
    /// times.
    pub(crate) async fn read_part(
        &self,
        key: &Key,
        range: Range<u64>,
        whole: u64,
    ) -> Result<Bytes, ArtifactError> {
        (|| self.read_part_once(key, range.clone(), whole))
            .retry(
                ExponentialBuilder::new()
                    .with_min_delay(Duration::from_millis(100))
                    .with_max_times(2)
                    .with_jitter(),
            )
            .when(ArtifactError::is_retryable)
            .notify(|error, after| tracing::warn!(%error, ?after, "reading again"))
            .await
    }

    async fn read_part_once(
        &self,
        key: &Key,
        range: Range<u64>,
        whole: u64,
    ) -> Result<Bytes, ArtifactError> {
        let want = range.end.saturating_sub(range.start);
        let answer = match self.inner.get_opts(key, GetOptions::new().with_range(Some(range))).await
        {
            Ok(answer) => answer,
            Err(error) => return Err(self.unreadable(key, whole, error).await),
        };
        if answer.meta.size != whole {
            return Err(self.wrong_length(key, answer.meta.size, whole));
        }
        let part = self.body(key, answer, want).await?;
        let got = part.len() as u64;
        if got == want {
            return Ok(part);
        }
        Err(ArtifactError::Truncated {
            store: self.url().to_owned(),
            key: key.to_string(),
            got,
            want,
        })
    }

    /// An object that is too short answers a range with some error of the backend's: this says what
    /// is wrong with it.
    async fn unreadable(&self, key: &Key, whole: u64, error: object_store::Error) -> ArtifactError {
        let error = self.failed(key, error);
        if !matches!(error, ArtifactError::Backend { .. }) {
            return error;
        }
        match self.size(key).await {
            Ok(Some(size)) if size != whole => self.wrong_length(key, size, whole),
            _ => error,
        }
    }

    fn wrong_length(&self, key: &Key, got: u64, want: u64) -> ArtifactError {
        self.corrupt(key, format!("it has {got} bytes instead of {want}"))
    }

    pub(crate) fn corrupt(&self, key: &Key, reason: String) -> ArtifactError {
        ArtifactError::Corrupt { store: self.url().to_owned(), key: key.to_string(), reason }
    }

    /// An answer's body, which is given up when it has more bytes than were asked for.
    pub(crate) async fn body(
        &self,
        key: &Key,
        answer: GetResult,
        most: u64,
    ) -> Result<Bytes, ArtifactError> {
        // A file's range is read at once and has its bounds.
        if let GetResultPayload::File(..) = &answer.payload {
            return answer.bytes().await.map_err(|e| self.failed(key, e));
        }
        let mut pieces = answer.into_stream();
        let mut whole = BytesMut::new();
        while let Some(piece) = pieces.try_next().await.map_err(|e| self.failed(key, e))? {
            if (whole.len() + piece.len()) as u64 > most {
                return Err(self.corrupt(key, format!("more than {most} bytes were sent of it")));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }
}

/// A blob on its way in. Its bytes are to be believed when the end was reached.
pub(crate) struct BlobReader<'a> {
    store: &'a Store,
    key: Key,
    blob: BlobRef,
    hash: Hasher,
    meter: &'a Meter<'a>,
}

impl BlobReader<'_> {
    /// The next part; at the end `None`, or an error if these were not the blob's bytes.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ArtifactError> {
        let start = self.hash.count();
        let end = start.saturating_add(PART_BYTES).min(self.blob.bytes);
        if start == end {
            return self.finish().await;
        }
        let part = self.store.read_part(&self.key, start..end, self.blob.bytes).await?;
        self.hash.update(&part);
        self.meter.moved(part.len() as u64);
        Ok(Some(part))
    }

    async fn finish(&self) -> Result<Option<Bytes>, ArtifactError> {
        // Of an empty blob nothing was read yet: is it there, and empty?
        if self.blob.bytes == 0 {
            match self.store.size(&self.key).await? {
                Some(0) => {}
                Some(size) => return Err(self.store.wrong_length(&self.key, size, 0)),
                None => {
                    let store = self.store.url().to_owned();
                    return Err(ArtifactError::NotFound { store, key: self.key.to_string() });
                }
            }
        }
        let found = Digest(*self.hash.finalize().as_bytes());
        if found == self.blob.digest {
            return Ok(None);
        }
        Err(self.store.corrupt(&self.key, format!("its hash is {found}")))
    }
}
