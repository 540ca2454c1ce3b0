//! Who may read what lies in a folder: the store's owner alone; a pulled student whom the person's
//! umask lets.

use crate::samples::publish;
use libtest_mimic::Trial;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use uspx_artifact::{PullOptions, Store, pull, silent};
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    trials![
        a_store_s_folders_and_files_are_its_owner_s_alone,
        a_folder_that_is_there_keeps_its_mode
    ]
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

/// Everything below a folder, itself included.
fn all(root: &Path) -> Vec<PathBuf> {
    let below = |path: PathBuf| if path.is_dir() { all(&path) } else { vec![path] };
    let entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(below).chain([root.to_owned()]).collect()
}

#[tokio::main(flavor = "current_thread")]
async fn a_store_s_folders_and_files_are_its_owner_s_alone() {
    let home = tempfile::tempdir().unwrap();
    let (root, dest) = (home.path().join("new/store"), home.path().join("laptop"));
    let store = Store::create(root.to_str().unwrap()).unwrap();
    store.put_blob(b"a label".to_vec().into(), &silent).await.unwrap();
    publish(&store, 1, None).await;
    let paths = all(&root);
    assert!(paths.len() > 10, "{paths:?}");
    for path in &paths {
        assert_eq!(mode(path) & 0o077, 0, "{} has {:o}", path.display(), mode(path));
    }

    let pulled = pull(&store, &dest, &PullOptions::default(), &silent).await.unwrap();
    let plain = home.path().join("plain");
    fs::write(&plain, "").unwrap();
    assert_eq!(mode(&pulled.folder.join("gptq/model.safetensors")), mode(&plain));
    assert_eq!(mode(&pulled.folder.join("README.md")), mode(&plain));
}

#[tokio::main(flavor = "current_thread")]
async fn a_folder_that_is_there_keeps_its_mode() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("shared");
    fs::DirBuilder::new().mode(0o750).create(&root).unwrap();
    let store = Store::create(root.to_str().unwrap()).unwrap();
    store.put_blob(b"a label".to_vec().into(), &silent).await.unwrap();
    assert_eq!((mode(&root), mode(&root.join("blobs"))), (0o750, 0o700));
}
