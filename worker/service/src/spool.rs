//! Finished work on this machine's disk, until its answer is with the broker and beyond: neither an
//! outage nor a restart makes a worker do it again.
//!
//! ```text
//! <task>/answer       the message
//! <task>/answer.id    the id that it is posted under, and the message's hash
//! <task>/<digest>     each blob that it names
//! <task>/posted       the broker has it
//! <task>.part/        being written
//! ```
//!
//! A task's name binds its content, so finished work answers the same task whenever it is asked
//! again. What was posted is kept within a bound, oldest out first; what was not is never dropped.

use crate::product::Blob;
use bytes::Bytes;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use uspx_domain::{BlobRef, Digest, TaskId};

/// Bytes of posted work that are kept.
const KEPT: u64 = 2 << 30;

/// The folder of finished work.
#[derive(Debug, Clone)]
pub struct Spool {
    folder: PathBuf,
}

/// Finished work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// The id to post the answer under.
    pub message_id: String,
    /// The answer's message.
    pub message: Bytes,
    /// Files of the blobs that it names.
    pub blobs: Vec<PathBuf>,
    /// Whether the broker has it.
    pub posted: bool,
}

const ANSWER: &str = "answer";
const ID: &str = "answer.id";
const POSTED: &str = "posted";

impl Spool {
    /// Opens the folder, and clears what a crash left half written.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(&folder)?.flatten() {
            if entry.file_name().to_string_lossy().ends_with(".part") {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(Self { folder })
    }

    /// Keeps finished work. It is there whole, and synced, or not at all.
    ///
    /// # Errors
    /// The disk's.
    pub fn keep(
        &self,
        task: TaskId,
        message_id: &str,
        message: &[u8],
        blobs: Vec<Blob>,
    ) -> io::Result<()> {
        self.make_room();
        let (part, whole) = (self.folder.join(format!("{task}.part")), self.place(task));
        if part.exists() {
            fs::remove_dir_all(&part)?;
        }
        fs::create_dir_all(&part)?;
        for blob in blobs {
            put(&part, blob)?;
        }
        let id = format!("{message_id}\n{}", Digest::of(message));
        write_synced(&part.join(ID), id.as_bytes())?;
        write_synced(&part.join(ANSWER), message)?;
        File::open(&part)?.sync_all()?;
        if whole.exists() {
            fs::remove_dir_all(&whole)?;
        }
        fs::rename(&part, &whole)?;
        File::open(&self.folder)?.sync_all()
    }

    /// The finished work on a task. Damaged work is none: it is removed, and done again.
    pub fn get(&self, task: TaskId) -> Option<Finished> {
        let folder = self.place(task);
        if !folder.exists() {
            return None;
        }
        match read(&folder) {
            Ok(finished) => Some(finished),
            Err(error) => {
                tracing::warn!(%task, %error, "finished work is damaged: it is done again");
                let _ = fs::remove_dir_all(&folder);
                None
            }
        }
    }

    /// Work whose answer is not with the broker yet, oldest first.
    pub fn pending(&self) -> Vec<TaskId> {
        let mut all: Vec<_> = self.all().into_iter().filter(|e| !e.posted).collect();
        all.sort_by_key(|e| e.made);
        all.into_iter().map(|e| e.task).collect()
    }

    /// Says that the broker has the answer, under this id.
    ///
    /// # Errors
    /// The disk's.
    pub fn posted(&self, task: TaskId) -> io::Result<()> {
        write_synced(&self.place(task).join(POSTED), b"")
    }

    fn place(&self, task: TaskId) -> PathBuf {
        self.folder.join(task.to_string())
    }

    /// Drops the oldest posted work beyond the bound.
    fn make_room(&self) {
        let mut posted: Vec<_> = self.all().into_iter().filter(|e| e.posted).collect();
        posted.sort_by_key(|e| std::cmp::Reverse(e.made));
        let mut sum = 0u64;
        for entry in posted {
            sum = sum.saturating_add(entry.bytes);
            if sum > KEPT {
                let _ = fs::remove_dir_all(self.place(entry.task));
            }
        }
    }

    fn all(&self) -> Vec<Entry> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| Entry::of(&entry.path())).collect()
    }
}

/// Work in the folder, at a glance.
struct Entry {
    task: TaskId,
    made: SystemTime,
    bytes: u64,
    posted: bool,
}

impl Entry {
    fn of(folder: &Path) -> Option<Self> {
        let task = TaskId(folder.file_name()?.to_str()?.parse().ok()?);
        let files = fs::read_dir(folder).ok()?.flatten();
        let bytes = files.filter_map(|f| f.metadata().ok()).map(|m| m.len()).sum();
        let made = fs::metadata(folder.join(ANSWER)).and_then(|m| m.modified()).ok()?;
        Some(Self { task, made, bytes, posted: folder.join(POSTED).exists() })
    }
}

fn put(folder: &Path, blob: Blob) -> io::Result<()> {
    match blob {
        Blob::Bytes(content) => {
            let name = Digest::of(&content).to_string();
            write_synced(&folder.join(name), &content)
        }
        Blob::File(path, blob) => {
            let place = folder.join(blob.digest.to_string());
            // The same disk, as a rule; another one is copied to.
            if fs::rename(&path, &place).is_err() {
                fs::copy(&path, &place)?;
            }
            File::open(&place)?.sync_all()
        }
    }
}

fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn read(folder: &Path) -> io::Result<Finished> {
    let mut blobs = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if [ANSWER, ID, POSTED].contains(&name.as_str()) {
            continue;
        }
        if BlobRef::to_all_of(File::open(entry.path())?)?.digest.to_string() != name {
            return Err(io::Error::other("a blob has other bytes than its name says"));
        }
        blobs.push(entry.path());
    }
    let message = fs::read(folder.join(ANSWER))?;
    let id = fs::read_to_string(folder.join(ID))?;
    let (message_id, digest) = id.split_once('\n').unwrap_or_default();
    if digest != Digest::of(&message).to_string() {
        return Err(io::Error::other("the answer has other bytes than were written"));
    }
    Ok(Finished {
        message_id: message_id.to_owned(),
        message: message.into(),
        blobs,
        posted: folder.join(POSTED).exists(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool() -> (tempfile::TempDir, Spool) {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path().join("spool")).unwrap();
        (folder, spool)
    }

    fn task(name: &str) -> TaskId {
        TaskId::derived(name.as_bytes())
    }

    #[test]
    fn what_is_kept_comes_back_after_a_restart_and_is_pending_until_posted() {
        let (folder, spool) = spool();
        let file = folder.path().join("big");
        fs::write(&file, b"a file").unwrap();
        let blobs =
            vec![Blob::Bytes("bytes".into()), Blob::File(file.clone(), BlobRef::to(b"a file"))];
        spool.keep(task("a"), "id", b"answer", blobs).unwrap();
        assert!(!file.exists(), "a file is taken over, not copied");
        let again = Spool::open(folder.path().join("spool")).unwrap();
        let found = again.get(task("a")).unwrap();
        let contents: std::collections::BTreeSet<Vec<u8>> =
            found.blobs.iter().map(|p| fs::read(p).unwrap()).collect();
        assert_eq!(contents, [b"bytes".to_vec(), b"a file".to_vec()].into());
        assert_eq!((found.message_id.as_str(), &found.message[..]), ("id", &b"answer"[..]));
        assert_eq!(again.pending(), [task("a")]);
        again.posted(task("a")).unwrap();
        assert!(again.pending().is_empty() && again.get(task("a")).unwrap().posted);
        assert_eq!(again.get(task("b")), None);
    }

    #[test]
    fn what_a_crash_left_half_written_or_a_disk_changed_is_no_finished_work() {
        let (folder, spool) = spool();
        spool.keep(task("a"), "id", b"answer", vec![Blob::Bytes("bytes".into())]).unwrap();
        let home = folder.path().join("spool").join(task("a").to_string());
        let blob = home.join(Digest::of(b"bytes").to_string());
        fs::write(&blob, b"bites").unwrap();
        assert_eq!(spool.get(task("a")), None);
        assert!(!home.exists());
        let part = folder.path().join("spool").join(format!("{}.part", task("b")));
        fs::create_dir(&part).unwrap();
        Spool::open(folder.path().join("spool")).unwrap();
        assert!(!part.exists());
    }
}
