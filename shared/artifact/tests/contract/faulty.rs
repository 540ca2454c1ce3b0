//! A backend that fails on purpose: after so many reads or writes, by cutting bodies short, by
//! flipping a bit, by waiting.

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result,
};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use tokio::sync::Semaphore;
use uspx_artifact::Store;

/// What goes wrong. Reads and writes are counted for keys that begin with `prefix` only.
#[derive(Debug)]
pub struct Faulty {
    pub inner: Arc<dyn ObjectStore>,
    pub prefix: &'static str,
    /// Reads that still succeed; negative from then on.
    pub reads_left: AtomicI64,
    /// Writes that still succeed; negative from then on.
    pub writes_left: AtomicI64,
    /// Whether bodies end half-way.
    pub cut: bool,
    /// What every write fails with.
    pub says: Option<fn() -> Box<dyn std::error::Error + Send + Sync>>,
    /// The system's error for writing only where there is nothing.
    pub links: Option<i32>,
    /// Whether bodies never end.
    pub endless: bool,
    /// Whether a bit is flipped in what is written.
    pub flip: bool,
    /// Reads wait for a permit of it.
    pub gate: Option<Semaphore>,
    /// Reads of bodies so far.
    pub reads: AtomicU64,
}

impl Faulty {
    pub fn over(store: &Store) -> Self {
        Self {
            inner: store.backend(),
            prefix: "blobs",
            reads_left: AtomicI64::new(i64::MAX),
            writes_left: AtomicI64::new(i64::MAX),
            cut: false,
            endless: false,
            says: None,
            links: None,
            flip: false,
            gate: None,
            reads: AtomicU64::new(0),
        }
    }

    /// A store over it, and the fault itself to look at.
    pub fn store(self) -> (Store, Arc<Self>) {
        let shared = Arc::new(self);
        (Store::over(shared.clone(), "faulty://"), shared)
    }

    /// The same where no write succeeds.
    pub fn store_without_writes(self) -> (Store, Arc<Self>) {
        Self { writes_left: AtomicI64::new(0), ..self }.store()
    }

    fn concerns(&self, key: &Path) -> bool {
        key.as_ref().starts_with(self.prefix)
    }

    fn spend(left: &AtomicI64) -> Result<()> {
        if left.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Ok(());
        }
        Err(Error::Generic { store: "faulty", source: "broken on purpose".into() })
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

async fn cut_short(answer: GetResult) -> Result<GetResult> {
    let (meta, range, attributes) =
        (answer.meta.clone(), answer.range.clone(), answer.attributes.clone());
    let extensions = answer.extensions.clone();
    let whole = answer.bytes().await?;
    let half = whole.slice(..whole.len() / 2);
    let payload = GetResultPayload::Stream(stream::once(async { Ok(half) }).boxed());
    Ok(GetResult { payload, meta, range, attributes, extensions })
}

fn without_end(answer: GetResult) -> GetResult {
    let piece = stream::repeat_with(|| Ok(vec![7; 1 << 20].into()));
    GetResult { payload: GetResultPayload::Stream(piece.boxed()), ..answer }
}

fn flipped(payload: &PutPayload) -> PutPayload {
    let mut bytes: Vec<u8> = payload.iter().flatten().copied().collect();
    if let Some(byte) = bytes.first_mut() {
        *byte ^= 1;
    }
    bytes.into()
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        key: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        if let (Some(errno), PutMode::Create) = (self.links, &options.mode) {
            let source = Box::new(std::io::Error::from_raw_os_error(errno));
            return Err(Error::Generic { store: "faulty", source });
        }
        let mut payload = payload;
        if self.concerns(key) {
            Self::spend(&self.writes_left)?;
            if let Some(says) = self.says {
                return Err(Error::Generic { store: "faulty", source: says() });
            }
            if self.flip {
                payload = flipped(&payload);
            }
        }
        self.inner.put_opts(key, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        key: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(key, options).await
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        if !self.concerns(key) || options.head {
            return self.inner.get_opts(key, options).await;
        }
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        Self::spend(&self.reads_left)?;
        self.reads.fetch_add(1, Ordering::SeqCst);
        let answer = self.inner.get_opts(key, options).await?;
        match (self.cut, self.endless) {
            (true, _) => cut_short(answer).await,
            (_, true) => Ok(without_end(answer)),
            _ => Ok(answer),
        }
    }

    fn delete_stream(
        &self,
        keys: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(keys)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
