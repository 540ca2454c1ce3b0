//! The store's handle: opening it from an address, and its few plain operations with errors that
//! name the key.

use crate::error::{ArtifactError, Cause};
use crate::private::PrivateFolder;
use crate::{keys, s3};
use futures::TryStreamExt;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{
    GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use url::Url;
use uspx_runtime::folders::make_private;

/// An object store: a folder, a bucket, or memory. Clones share the same store.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) inner: Arc<dyn ObjectStore>,
    url: Arc<str>,
}

impl Store {
    /// Opens an existing store: a folder's path, `file:///…`, `s3://bucket/prefix` or `memory://`
    /// (new and empty each time).
    ///
    /// No request is made yet; see [`Store::check`]. A bucket's credentials and endpoint come from
    /// the `AWS_…` environment.
    ///
    /// # Errors
    /// An address that makes no sense, settings that are missing, a folder that is not there.
    pub fn open(url: &str) -> Result<Self, ArtifactError> {
        Self::open_with(url, std::env::vars())
    }

    /// The same with the environment's variables given.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(
        url: &str,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ArtifactError> {
        match url.split_once("://") {
            None if url.is_empty() => Err(ArtifactError::bad_url(
                url,
                "it is empty: name a folder or an s3://bucket/prefix",
            )),
            None => Self::folder(Path::new(url)),
            Some(("memory", _)) => Ok(Self::memory()),
            Some(("file", _)) => Self::folder(&file_path(url)?),
            Some(("s3", _)) => Ok(Self::over(s3::open(url, env)?, url)),
            Some((scheme, _)) => Err(ArtifactError::bad_url(
                url,
                &format!(
                    "`{scheme}://` is not known: use a folder, file:///…, s3://… or memory://"
                ),
            )),
        }
    }

    /// Opens a store, making its folder where it is one that does not exist yet.
    ///
    /// # Errors
    /// As [`Store::open`], and a folder that cannot be made.
    pub fn create(url: &str) -> Result<Self, ArtifactError> {
        let folder = match url.split_once("://") {
            None if !url.is_empty() => Some(PathBuf::from(url)),
            Some(("file", _)) => Some(file_path(url)?),
            _ => None,
        };
        if let Some(folder) = folder {
            make_private(&folder).map_err(ArtifactError::io("create the folder", &folder))?;
        }
        Self::open(url)
    }

    /// A new, empty store in memory.
    pub fn memory() -> Self {
        Self::over(Arc::new(InMemory::new()), "memory://")
    }

    /// A store in an existing folder. What is written there is on the disk (fsync) before a call
    /// returns, and its owner's alone.
    ///
    /// # Errors
    /// A folder that is not there or not readable.
    pub fn folder(path: &Path) -> Result<Self, ArtifactError> {
        if !path.is_dir() {
            return Err(ArtifactError::NoFolder(path.to_owned()));
        }
        let url = path.display().to_string();
        match PrivateFolder::open(path) {
            Ok(files) => Ok(Self::over(Arc::new(files), &url)),
            Err(error) => Err(ArtifactError::bad_url(&url, &error.to_string())),
        }
    }

    /// A store over any backend; `url` names it in errors. For wrappers that inject faults.
    pub fn over(inner: Arc<dyn ObjectStore>, url: &str) -> Self {
        Self { inner, url: Arc::from(url) }
    }

    /// The backend beneath, to wrap it or to look at what is stored.
    pub fn backend(&self) -> Arc<dyn ObjectStore> {
        self.inner.clone()
    }

    /// The address that it was opened with. It holds no credentials.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks the store for something, to learn now whether it is there and lets us in.
    ///
    /// # Errors
    /// Unreachable, denied, or no such bucket.
    pub async fn check(&self) -> Result<(), ArtifactError> {
        let prefix = Key::from(keys::LATEST);
        match self.inner.list(Some(&prefix)).try_next().await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.listing_failed(&prefix, error).await),
        }
    }

    /// Starts reading an object.
    pub(crate) async fn get(&self, key: &Key) -> Result<GetResult, ArtifactError> {
        self.inner.get(key).await.map_err(|e| self.failed(key, e))
    }

    /// An object's length; `None` where there is no such object.
    pub(crate) async fn size(&self, key: &Key) -> Result<Option<u64>, ArtifactError> {
        match self.inner.head(key).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(key, error)),
        }
    }

    /// Writes an object, replacing it.
    pub(crate) async fn put(&self, key: &Key, content: PutPayload) -> Result<(), ArtifactError> {
        self.inner.put(key, content).await.map(drop).map_err(|e| self.write_failed(key, e))
    }

    /// Writes an object only if there is none of that key; whether it was this call that did.
    pub(crate) async fn create_object(
        &self,
        key: &Key,
        content: PutPayload,
    ) -> Result<bool, ArtifactError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.inner.put_opts(key, content, options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) if refuses_links(&error) && self.takes_others(key).await => {
                Err(ArtifactError::NoHardLinks { store: self.url.to_string() })
            }
            Err(error) => Err(self.write_failed(key, error)),
        }
    }

    /// Removes an object; one that is not there is no error.
    pub(crate) async fn delete(&self, key: &Key) -> Result<(), ArtifactError> {
        match self.inner.delete(key).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed(key, error)),
        }
    }

    /// Whether an object can be written beside `key` in the ordinary way.
    async fn takes_others(&self, key: &Key) -> bool {
        let beside = Key::from(format!("{key}.probe"));
        let taken = self.inner.put(&beside, PutPayload::new()).await.is_ok();
        if let Err(error) = self.inner.delete(&beside).await {
            tracing::debug!(%error, %beside, "a probe stays behind");
        }
        taken
    }

    /// What lies under a prefix.
    pub(crate) async fn listed(&self, prefix: &str) -> Result<Vec<ObjectMeta>, ArtifactError> {
        let prefix = Key::from(prefix);
        match self.inner.list(Some(&prefix)).try_collect().await {
            Ok(metas) => Ok(metas),
            Err(error) => Err(self.listing_failed(&prefix, error).await),
        }
    }

    /// The error of listing. The library does not say which answer an S3 listing failed with, so
    /// one object is asked for: "denied" goes for both, and where that is merely not found although
    /// listing fails, the bucket is missing.
    async fn listing_failed(&self, prefix: &Key, error: object_store::Error) -> ArtifactError {
        let error = self.failed(prefix, error);
        if !matches!(error, ArtifactError::Backend { .. }) {
            return error;
        }
        match self.inner.head(prefix).await.map_err(|e| self.failed(prefix, e)) {
            Err(denied @ ArtifactError::Denied { .. }) => denied,
            Err(ArtifactError::NotFound { .. }) => self.no_bucket(),
            _ => error,
        }
    }

    /// The error of writing: a bucket that is not there answers "not found" to it, which an object
    /// cannot.
    pub(crate) fn write_failed(&self, key: &Key, error: object_store::Error) -> ArtifactError {
        match error {
            object_store::Error::NotFound { .. } => self.no_bucket(),
            error => self.failed(key, error),
        }
    }

    /// This crate's error for one of the backend's.
    pub(crate) fn failed(&self, key: &Key, error: object_store::Error) -> ArtifactError {
        use object_store::Error as E;
        let (store, key) = (self.url.to_string(), key.to_string());
        match error {
            E::NotFound { .. } => ArtifactError::NotFound { store, key },
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
                ArtifactError::Denied { store, key, source: Box::new(error) }
            }
            error => by_cause(store, key, Box::new(error)),
        }
    }

    fn no_bucket(&self) -> ArtifactError {
        ArtifactError::NoBucket { store: self.url.to_string() }
    }
}

/// Sorts a general failure by what lies beneath it: the network, the disk, or the server's own
/// trouble.
fn by_cause(store: String, key: String, source: Cause) -> ArtifactError {
    if let Some(http) = beneath::<HttpError>(source.as_ref()) {
        return match http.kind() {
            HttpErrorKind::Unknown => {
                ArtifactError::Backend { store, key, retryable: false, source }
            }
            _ => ArtifactError::Unreachable { store, key, source },
        };
    }
    match beneath::<io::Error>(source.as_ref()).map(io::Error::kind) {
        Some(io::ErrorKind::PermissionDenied) => ArtifactError::Denied { store, key, source },
        Some(_) => ArtifactError::Backend { store, key, retryable: false, source },
        // Neither network nor disk: the server's answer. Its 5xx and 429 come out here.
        None => ArtifactError::Backend { store, key, retryable: true, source },
    }
}

/// Whether it may be a folder without hard links, by which alone a file appears there only if there
/// was none: systems call it forbidden or unsupported.
fn refuses_links(error: &object_store::Error) -> bool {
    let kind = beneath::<io::Error>(error).map(io::Error::kind);
    matches!(kind, Some(io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported))
}

/// The first error of type `E` in the chain of causes.
fn beneath<'a, E: std::error::Error + 'static>(
    top: &'a (dyn std::error::Error + 'static),
) -> Option<&'a E> {
    std::iter::successors(Some(top), |error| error.source())
        .find_map(|error| error.downcast_ref::<E>())
}

fn file_path(url: &str) -> Result<PathBuf, ArtifactError> {
    let parsed = Url::parse(url).map_err(|e| ArtifactError::bad_url(url, &e.to_string()))?;
    parsed.to_file_path().map_err(|()| {
        ArtifactError::bad_url(url, "write file:///absolute/path, with three slashes")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn addresses_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        assert!(Store::open(path).is_ok());
        assert!(Store::open(&format!("file://{path}")).is_ok());
        assert!(Store::open("memory://").is_ok());
        assert_eq!(Store::open("gs://bucket").unwrap_err().kind(), ErrorKind::Usage);
        assert_eq!(Store::open("").unwrap_err().kind(), ErrorKind::Usage);
        assert_eq!(Store::open(&format!("{path}/none")).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(Store::create(&format!("{path}/none/deep")).is_ok());
    }
}
