//! What can go wrong with a store, a release or a pull; each says what, where and what to do.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use uspx_domain::ReleaseNumber;

/// The cause beneath an error, whatever library it comes from.
pub(crate) type Cause = Box<dyn Error + Send + Sync>;

/// Why something in the store or a pulled folder did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArtifactError {
    /// The store's address or its settings make no sense.
    #[error("store `{url}`: {reason}")]
    Url {
        /// The address as given.
        url: String,
        /// What is wrong with it, and the remedy.
        reason: String,
    },
    /// A folder named as the store is not there.
    #[error("there is no store at {}: check the path; the coordinator creates the folder when it starts", .0.display())]
    NoFolder(PathBuf),
    /// The store does not answer, or broke off.
    #[error(
        "the store {store} cannot be reached (`{key}`): {}. Check the network and AWS_ENDPOINT_URL, then try again",
        chain(.source)
    )]
    Unreachable {
        /// The store.
        store: String,
        /// What was asked for.
        key: String,
        /// What the network said.
        #[source]
        source: Cause,
    },
    /// The store does not allow it.
    #[error(
        "the store {store} refuses access to `{key}`: check its credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, \
         and what they may do) or the folder's permissions. It says: {}",
        chain(.source)
    )]
    Denied {
        /// The store.
        store: String,
        /// What was asked for.
        key: String,
        /// What the store said.
        #[source]
        source: Cause,
    },
    /// The bucket does not exist.
    #[error(
        "the store {store} has no such bucket: create it, or correct the name or AWS_ENDPOINT_URL"
    )]
    NoBucket {
        /// The store.
        store: String,
    },
    /// An object is not in the store.
    #[error(
        "the store {store} has no `{key}`: it was deleted, or never stored there; check that this is the right store"
    )]
    NotFound {
        /// The store.
        store: String,
        /// Its key.
        key: String,
    },
    /// Any other failure of the store.
    #[error("the store {store} failed at `{key}`: {}", chain(.source))]
    Backend {
        /// The store.
        store: String,
        /// What was asked for.
        key: String,
        /// Whether another try may succeed.
        retryable: bool,
        /// What it said.
        #[source]
        source: Cause,
    },
    /// A body ended early.
    #[error(
        "`{key}` of {store} broke off after {got} of {want} bytes: try again; what is verified is kept"
    )]
    Truncated {
        /// The store.
        store: String,
        /// The object.
        key: String,
        /// Bytes that came.
        got: u64,
        /// Bytes that were announced.
        want: u64,
    },
    /// An object's content is not what its name says.
    #[error(
        "`{key}` of {store} is damaged or was tampered with ({reason}): have it published again, and check who can write there"
    )]
    Corrupt {
        /// The store.
        store: String,
        /// The object.
        key: String,
        /// What does not fit.
        reason: String,
    },
    /// A reference names more than its reader takes.
    #[error(
        "`{key}` is said to have {bytes} bytes, and {most} at most are taken here: it is not fetched; look at who names it"
    )]
    TooLarge {
        /// The object.
        key: String,
        /// Its length, as the reference has it.
        bytes: u64,
        /// The most that the reader takes.
        most: u64,
    },
    /// A manifest says something that cannot be.
    #[error("manifest `{key}` cannot be used: {reason}")]
    Manifest {
        /// Its key or path.
        key: String,
        /// What is wrong, with the file's path where it is about one.
        reason: String,
    },
    /// Nothing is published, or not this release.
    #[error("{}", no_release(.store, .release))]
    NoRelease {
        /// The store.
        store: String,
        /// The release asked for; `None`: the newest.
        release: Option<ReleaseNumber>,
    },
    /// Another publisher was faster.
    #[error(
        "release {found} was published meanwhile: judge the new student against it, then publish again"
    )]
    Superseded {
        /// The newest release that the publisher knew of.
        expected: Option<ReleaseNumber>,
        /// The newest release now.
        found: ReleaseNumber,
    },
    /// Another colony's release stands where ours is to be brought.
    #[error(
        "{store} holds another colony's {key}: name a store, or a prefix of one, that is empty or this colony's own"
    )]
    NotOurs {
        /// The store.
        store: String,
        /// Where in it.
        key: String,
    },
    /// A folder or file cannot be published.
    #[error("{} cannot be published: {reason}", .path.display())]
    Unfit {
        /// Which one.
        path: PathBuf,
        /// Why, and the remedy.
        reason: String,
    },
    /// Another pull works in the folder.
    #[error("another pull is running in {} ({}): wait for it, or choose another folder", .folder.display(), holder(.pid))]
    Locked {
        /// The folder.
        folder: PathBuf,
        /// Who holds it, where that can be read.
        pid: Option<u32>,
    },
    /// A symbolic link stands where a pull keeps files of its own.
    #[error(
        "{} is a symbolic link, which no pull makes: it is not followed; remove it, and pull again", .0.display()
    )]
    Link(PathBuf),
    /// The store's folder cannot create a file only where there is none.
    #[error(
        "the file system of the store {store} has no hard links, so two publishers could both take one number: \
         keep the store on one that has (not exFAT or FAT; of shares, NFS), or in a bucket"
    )]
    NoHardLinks {
        /// The store.
        store: String,
    },
    /// The disk is too full for the release.
    #[error("{} has room for {have} bytes, {need} are needed: free some space or choose another folder", .folder.display())]
    Room {
        /// The folder.
        folder: PathBuf,
        /// Bytes needed.
        need: u64,
        /// Bytes free.
        have: u64,
    },
    /// The store's newest release is older than the one in use.
    #[error(
        "the store's newest release is {latest}, but {current} is in use here: name the release to go back on purpose"
    )]
    Backwards {
        /// The store's newest.
        latest: ReleaseNumber,
        /// The one in use.
        current: ReleaseNumber,
    },
    /// The folder holds another colony's release of the same number.
    #[error("{} already holds another release {release} (colony `{colony}`): pull into another folder", .folder.display())]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// The number.
        release: ReleaseNumber,
        /// The colony whose release lies there.
        colony: String,
    },
    /// A release of the folder cannot be used as it is.
    #[error("release {release} does not lie whole in {}: {reason}", .folder.display())]
    NotWhole {
        /// The folder.
        folder: PathBuf,
        /// Which release.
        release: ReleaseNumber,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no release before the one in use.
    #[error("release {0} is in use, and it is the first: there is none to roll back to")]
    NothingBefore(ReleaseNumber),
    /// What is to be rolled back to is not earlier.
    #[error(
        "release {release} is not earlier than release {from}, from which to roll back: \
         `uspx pull --release {release}` goes there"
    )]
    NotEarlier {
        /// The release asked for.
        release: ReleaseNumber,
        /// The newest that is gone back from.
        from: ReleaseNumber,
    },
    /// No release was pulled into the folder yet.
    #[error("{} holds no release: run `uspx pull` into it first", .0.display())]
    NothingPulled(PathBuf),
    /// The local disk.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Classes of error, for exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// An address or setting is wrong.
    Usage,
    /// A folder or file given cannot be used.
    BadInput,
    /// Not there: bucket, release, object.
    NotFound,
    /// The store does not answer.
    Unreachable,
    /// A check refused it: damage, tampering, permission, a lock, a newer release.
    Refused,
    /// The local disk or the store failed otherwise.
    Failed,
}

impl ArtifactError {
    pub(crate) fn bad_url(url: &str, reason: &str) -> Self {
        Self::Url { url: url.to_owned(), reason: reason.to_owned() }
    }

    /// Whether the same call may succeed later, nothing else being changed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Truncated { .. } | Self::Locked { .. } => true,
            Self::Backend { retryable, .. } => *retryable,
            _ => false,
        }
    }

    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Url { .. } => ErrorKind::Usage,
            Self::Unfit { .. } | Self::NotEarlier { .. } => ErrorKind::BadInput,
            Self::NoFolder(_)
            | Self::NoBucket { .. }
            | Self::NotFound { .. }
            | Self::NoRelease { .. }
            | Self::NothingBefore(_)
            | Self::NothingPulled(_) => ErrorKind::NotFound,
            Self::Unreachable { .. } | Self::Truncated { .. } => ErrorKind::Unreachable,
            Self::Backend { .. } | Self::Io { .. } | Self::Room { .. } => ErrorKind::Failed,
            _ => ErrorKind::Refused,
        }
    }

    /// A closure that turns an I/O error into this crate's, saying what was tried on which file.
    pub(crate) fn io<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// The error of a blocking job that did not come to its end (the process is shutting down).
    pub(crate) fn stopped(path: &Path, cause: tokio::task::JoinError) -> Self {
        Self::io("finish work on", path)(io::Error::other(cause))
    }
}

/// All causes, the outermost first, each once: many libraries repeat the next one in their own
/// words.
fn chain(source: &Cause) -> String {
    let mut said = source.to_string();
    let mut next = source.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !said.contains(&words) {
            said = format!("{said}: {words}");
        }
        next = cause.source();
    }
    said
}

fn no_release(store: &str, release: &Option<ReleaseNumber>) -> String {
    match release {
        Some(number) => format!(
            "the store {store} has no release {number}: check that it is the right store, and was not emptied; \
             without a number the newest is pulled"
        ),
        None => format!(
            "nothing is published in the store {store} yet: wait for the colony's first student"
        ),
    }
}

fn holder(pid: &Option<u32>) -> String {
    pid.map_or_else(|| "its pid is not known".to_owned(), |pid| format!("pid {pid}"))
}
