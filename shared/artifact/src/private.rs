//! A folder as a store that only its owner may read: labels and tasks among its blobs hold prompts.
//! Folders are made with mode 0700, so that nobody reaches a file while it is written; files have
//! 0600 once they are there. Folders that are there already keep the modes that a person gave them.

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};
use uspx_runtime::folders::make_private;

/// The folder.
#[derive(Debug)]
pub(crate) struct PrivateFolder {
    files: LocalFileSystem,
    root: PathBuf,
}

impl PrivateFolder {
    /// Over an existing folder. What is written is on the disk before a call returns.
    pub fn open(root: &Path) -> Result<Self> {
        let files = LocalFileSystem::new_with_prefix(root)?.with_fsync(true);
        Ok(Self { files, root: root.to_owned() })
    }

    /// Where an object lies, its folders made.
    fn place(&self, key: &Key) -> Result<PathBuf> {
        let path = self.files.path_to_filesystem(key)?;
        if let Err(error) = make_parents(&self.root, key) {
            // Whoever writes there now meets the same, and says so.
            tracing::debug!(%error, "a folder of the store cannot be made");
        }
        Ok(path)
    }
}

impl fmt::Display for PrivateFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.files)
    }
}

/// Makes the folders of a key, each on the disk before the next.
fn make_parents(root: &Path, key: &Key) -> io::Result<()> {
    let mut folder = root.to_owned();
    let mut parts: Vec<_> = key.parts().collect();
    parts.pop();
    for part in parts {
        let above = folder.clone();
        folder.push(part.as_ref());
        if !folder.is_dir() {
            make_private(&folder)?;
            sync(&above)?;
        }
    }
    Ok(())
}

#[cfg(unix)]
fn sync(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync(_folder: &Path) -> io::Result<()> {
    Ok(())
}

/// Closes a file to others. Some file systems know no modes.
fn close_to_others(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if let Err(error) = fs::set_permissions(path, fs::Permissions::from_mode(0o600)) {
            tracing::debug!(%error, "a file of the store keeps its mode");
        }
    }
    #[cfg(not(unix))]
    let _ = path;
}

#[async_trait]
impl ObjectStore for PrivateFolder {
    async fn put_opts(
        &self,
        key: &Key,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let path = self.place(key)?;
        let put = self.files.put_opts(key, payload, options).await?;
        close_to_others(&path);
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        key: &Key,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let path = self.place(key)?;
        let upload = self.files.put_multipart_opts(key, options).await?;
        Ok(Box::new(PrivateUpload { upload, path }))
    }

    async fn get_opts(&self, key: &Key, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(key, options).await
    }

    fn delete_stream(
        &self,
        keys: BoxStream<'static, Result<Key>>,
    ) -> BoxStream<'static, Result<Key>> {
        self.files.delete_stream(keys)
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<()> {
        self.place(to)?;
        self.files.copy_opts(from, to, options).await
    }
}

/// A file that is written in parts.
#[derive(Debug)]
struct PrivateUpload {
    upload: Box<dyn MultipartUpload>,
    path: PathBuf,
}

#[async_trait]
impl MultipartUpload for PrivateUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.upload.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let put = self.upload.complete().await?;
        close_to_others(&self.path);
        Ok(put)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}
