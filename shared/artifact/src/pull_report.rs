//! What is asked of a pull, and what it says that it did.

use std::path::PathBuf;
use uspx_domain::ReleaseNumber;

/// How to pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullOptions {
    /// Which release; `None`: the newest.
    pub release: Option<ReleaseNumber>,
    /// Of the newest: whether to take it although the folder was rolled back from it.
    pub newest: bool,
    /// Whether to read a release that is here already through, whatever its files look like, and
    /// mend it.
    pub repair: bool,
    /// Chunks under way at once; with the chunks' 4 MiB, the memory that a pull takes.
    pub at_once: usize,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self { release: None, newest: false, repair: false, at_once: 8 }
    }
}

/// What a pull came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulled {
    /// The release was fetched and is in use now.
    Fetched,
    /// It was here already, and is in use now.
    Switched,
    /// It was in use already: nothing was done.
    UpToDate,
}

/// How it is known that the release's files are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// All of them were read and hashed now.
    Hashed,
    /// They have the sizes, times and inodes that they had when they were last hashed; their
    /// content was not read.
    Unchanged,
}

/// What a pull did.
#[derive(Debug, Clone, PartialEq)]
pub struct PullReport {
    /// What it came to.
    pub outcome: Pulled,
    /// What was made sure of.
    pub checked: Checked,
    /// The release in use now.
    pub release: ReleaseNumber,
    /// The one in use before.
    pub previous: Option<ReleaseNumber>,
    /// The newest one that the folder was rolled back from: a pull that is not told otherwise stays
    /// until a newer one is published.
    pub rolled_back_from: Option<ReleaseNumber>,
    /// The release's folder.
    pub folder: PathBuf,
    /// Its files.
    pub files: usize,
    /// Its length in bytes.
    pub bytes: u64,
    /// Bytes transferred now.
    pub fetched: u64,
    /// Bytes that were here: of an interrupted pull, or the same in another release.
    pub resumed: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
}
