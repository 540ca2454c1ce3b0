//! Every key of the store, in one place. Digests and numbers only.

use object_store::path::Path;
use uspx_domain::{BlobRef, ReleaseNumber, TaskId};

/// Where the markers of published releases lie.
pub(crate) const LATEST: &str = "latest";
/// Where it says which states jobs under way have.
pub(crate) const STATES: &str = "states";

/// A blob's key: two digits of its digest as a folder, so that no folder grows without bound.
pub(crate) fn blob(blob: &BlobRef) -> Path {
    let hex = blob.digest.hex();
    let folder: String = hex.chars().take(2).collect();
    Path::from_iter(["blobs", folder.as_str(), hex.as_str()])
}

/// A release's manifest.
pub(crate) fn manifest(release: ReleaseNumber) -> Path {
    Path::from_iter(["releases", release.to_string().as_str(), "manifest.json"])
}

/// The marker that makes a release the newest.
pub(crate) fn latest(release: ReleaseNumber) -> Path {
    Path::from_iter([LATEST, release.to_string().as_str()])
}

/// The release that a marker's key names; `None` for a key that is not a marker.
pub(crate) fn release_of_marker(key: &Path) -> Option<ReleaseNumber> {
    let number: ReleaseNumber = key.filename()?.parse().ok()?;
    (number > 0 && latest(number) == *key).then_some(number)
}

/// What says which state a task has.
pub(crate) fn state(task: TaskId) -> Path {
    Path::from_iter([STATES, task.to_string().as_str()])
}

/// The task that a state's key names; `None` for a key that is not a state's.
pub(crate) fn task_of_state(key: &Path) -> Option<TaskId> {
    let task: TaskId = key.filename()?.parse().ok()?;
    (state(task) == *key).then_some(task)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_documented_form() {
        let blob_key = blob(&BlobRef::to(b"x"));
        assert_eq!(blob_key.as_ref().len(), "blobs/ab/".len() + 64);
        assert_eq!(manifest(7).as_ref(), "releases/7/manifest.json");
        assert_eq!(release_of_marker(&latest(12)), Some(12));
        assert_eq!(release_of_marker(&Path::from("latest/012")), None);
        assert_eq!(release_of_marker(&Path::from("latest/x")), None);
        let task = TaskId::derived(b"x");
        assert_eq!(state(task).as_ref(), format!("states/{task}"));
        assert_eq!(task_of_state(&state(task)), Some(task));
        assert_eq!(task_of_state(&Path::from("states/x")), None);
    }
}
