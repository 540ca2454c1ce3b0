//! A backend that goes wrong at one step, whichever: every call counts as one, and the one that is
//! named fails, panics or never ends, before or after its work is done.

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;
use uspx_artifact::Store;

/// What happens at the steps that go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An error, nothing being done.
    Denied,
    /// An error, whatever came of it.
    Forgotten,
    /// No answer ever, nothing being done.
    Stuck,
    /// No answer ever, whatever came of it.
    StuckAfter,
    /// A defect.
    Panic,
}

/// The backend.
#[derive(Debug)]
pub struct Steps {
    inner: Arc<dyn ObjectStore>,
    fault: Fault,
    at: Range<u64>,
    taken: AtomicU64,
    stuck: Notify,
}

impl Steps {
    /// A store whose calls go wrong at the steps `at`, and the backend to look at.
    pub fn over(store: &Store, fault: Fault, at: Range<u64>) -> (Store, Arc<Self>) {
        let (taken, stuck) = (AtomicU64::new(0), Notify::new());
        let shared = Arc::new(Self { inner: store.backend(), fault, at, taken, stuck });
        (Store::over(shared.clone(), "steps://"), shared)
    }

    /// Calls so far.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::SeqCst)
    }

    /// Returns once a call is stuck.
    pub async fn stuck(&self) {
        self.stuck.notified().await;
    }

    async fn step<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        if !self.at.contains(&self.taken.fetch_add(1, Ordering::SeqCst)) {
            return work.await;
        }
        match self.fault {
            Fault::Denied => Err(denied()),
            Fault::Forgotten => {
                let _ = work.await;
                Err(denied())
            }
            Fault::Stuck => self.hang().await,
            Fault::StuckAfter => {
                let _ = work.await;
                self.hang().await
            }
            Fault::Panic => panic!("a defect on purpose"),
        }
    }

    async fn hang<T>(&self) -> T {
        self.stuck.notify_one();
        std::future::pending().await
    }
}

fn denied() -> Error {
    Error::PermissionDenied { path: "somewhere".to_owned(), source: "denied on purpose".into() }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("steps")
    }
}

#[async_trait]
impl ObjectStore for Steps {
    async fn put_opts(&self, key: &Path, body: PutPayload, how: PutOptions) -> Result<PutResult> {
        self.step(self.inner.put_opts(key, body, how)).await
    }

    async fn put_multipart_opts(
        &self,
        key: &Path,
        how: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.step(self.inner.put_multipart_opts(key, how)).await
    }

    async fn get_opts(&self, key: &Path, how: GetOptions) -> Result<GetResult> {
        self.step(self.inner.get_opts(key, how)).await
    }

    fn delete_stream(
        &self,
        keys: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(keys)
    }

    /// Only the outcomes that need no waiting: a listing is not a call of its own in the trait.
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if !self.at.contains(&self.taken.fetch_add(1, Ordering::SeqCst)) {
            return self.inner.list(prefix);
        }
        match self.fault {
            Fault::Denied | Fault::Forgotten => stream::once(async { Err(denied()) }).boxed(),
            Fault::Stuck | Fault::StuckAfter => {
                self.stuck.notify_one();
                stream::pending().boxed()
            }
            Fault::Panic => panic!("a defect on purpose"),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, how: CopyOptions) -> Result<()> {
        self.step(self.inner.copy_opts(from, to, how)).await
    }
}
