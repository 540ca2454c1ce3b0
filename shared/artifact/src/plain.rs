//! Files and folders of a pull's own: where a symbolic link stands in their place, somebody else
//! put it there, and nothing is written through it.

use crate::error::ArtifactError;
use std::fs::{self, File, OpenOptions};
use std::path::Path;

/// Refuses a path if it, or a folder between it and `root`, or `root` itself, is a symbolic link.
pub(crate) fn no_links(root: &Path, path: &Path) -> Result<(), ArtifactError> {
    let within = |p: &&Path| p.starts_with(root);
    path.ancestors().take_while(within).try_for_each(no_link)
}

fn no_link(path: &Path) -> Result<(), ArtifactError> {
    if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink()) {
        return Err(ArtifactError::Link(path.to_owned()));
    }
    Ok(())
}

/// Opens a file; not the one that a symbolic link in its place leads to.
pub(crate) fn open(
    options: &mut OpenOptions,
    path: &Path,
    action: &'static str,
) -> Result<File, ArtifactError> {
    unfollowing(options).open(path).map_err(|error| {
        no_link(path).err().unwrap_or_else(|| ArtifactError::io(action, path)(error))
    })
}

#[cfg(unix)]
fn unfollowing(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
}

#[cfg(not(unix))]
fn unfollowing(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}
