//! What an error says: every cause beneath it, once.

use crate::faulty::Faulty;
use libtest_mimic::Trial;
use std::error::Error;
use std::fmt;
use std::path::Path;
use uspx_artifact::{ArtifactError, Store, silent};
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    trials![every_cause_is_said_once, a_folder_that_takes_nothing_says_why]
}

/// An error with another beneath it, which it repeats or not.
#[derive(Debug)]
struct Layer {
    words: &'static str,
    repeats: bool,
    beneath: Option<Box<Layer>>,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.beneath.as_ref().filter(|_| self.repeats) {
            Some(beneath) => write!(f, "{}: {beneath}", self.words),
            None => f.write_str(self.words),
        }
    }
}

impl Error for Layer {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.beneath.as_deref().map(|layer| layer as _)
    }
}

fn layers() -> Layer {
    let layer = |words, repeats, beneath| Layer { words, repeats, beneath };
    let deepest = layer("quota of 5 TB is used up", false, None);
    let third = layer("status 507", true, Some(Box::new(deepest)));
    let second = layer("request failed", false, Some(Box::new(third)));
    layer("cannot put", true, Some(Box::new(second)))
}

#[tokio::main(flavor = "current_thread")]
async fn every_cause_is_said_once() {
    let inner = Store::memory();
    let failing = || -> Box<dyn Error + Send + Sync> { Box::new(layers()) };
    let (store, _) = Faulty { says: Some(failing), ..Faulty::over(&inner) }.store();
    let error = store.put_blob("x".into(), &silent).await.unwrap_err();
    assert!(matches!(error, ArtifactError::Backend { .. }), "{error:?}");
    for words in ["cannot put", "request failed", "status 507", "quota of 5 TB is used up"] {
        assert_eq!(error.to_string().matches(words).count(), 1, "{words}: {error}");
    }
}

/// Of a system's own folder, which lets nobody create anything, root neither.
#[tokio::main(flavor = "current_thread")]
async fn a_folder_that_takes_nothing_says_why() {
    let folder = tempfile::tempdir().unwrap();
    // Where there is no /sys: a file stands where a folder is needed.
    std::fs::write(folder.path().join("blobs"), "").unwrap();
    let sys = Path::new("/sys/kernel");
    let path = if sys.is_dir() { sys } else { folder.path() };
    let error = Store::folder(path).unwrap().put_blob("x".into(), &silent).await.unwrap_err();
    assert_eq!(error.to_string().matches("os error").count(), 1, "{error}");
    assert!(error.to_string().contains("blobs/"), "{error}");
}
