//! A file of tensors whose header says first what lies where: they are then written in whatever order they
//! are made, in pieces, and none needs to be whole in memory.

use crate::{ExportError, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Where a tensor's bytes lie in its file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Its first byte.
    pub offset: u64,
    /// Its size.
    pub bytes: u64,
}

/// A file on its way.
#[derive(Debug)]
pub(crate) struct TensorFile {
    path: PathBuf,
    file: File,
    places: BTreeMap<String, Place>,
    /// Bytes of each tensor that are still to come.
    left: BTreeMap<String, u64>,
}

impl TensorFile {
    /// Begins the file of `length` bytes with its header.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn create(
        path: &Path,
        header: &[u8],
        places: BTreeMap<String, Place>,
        length: u64,
    ) -> Result<Self> {
        let file = File::create(path).map_err(ExportError::writing(path))?;
        let begun = file.set_len(length).and_then(|()| file.write_all_at(header, 0));
        begun.map_err(ExportError::writing(path))?;
        let left = places.iter().map(|(name, place)| (name.clone(), place.bytes)).collect();
        Ok(Self { path: path.to_owned(), file, places, left })
    }

    /// Writes a piece of a tensor, from its byte `at` on. No byte comes twice.
    ///
    /// # Errors
    /// A tensor that the header does not name, a piece that leaves it, a file that cannot be written.
    pub fn put(&mut self, name: &str, at: u64, bytes: &[u8]) -> Result<()> {
        let missing = || ExportError::MissingTensor(name.to_owned());
        let place = self.places.get(name).ok_or_else(missing)?;
        let left = self.left.get_mut(name).ok_or_else(missing)?;
        let size = bytes.len() as u64;
        let ends = at.checked_add(size).filter(|end| *end <= place.bytes);
        let (Some(_), Some(after)) = (ends, left.checked_sub(size)) else {
            let reason = format!("tensor `{name}` has more bytes than its {}", place.bytes);
            return Err(ExportError::format(&self.path, reason));
        };
        *left = after;
        let written = self.file.write_all_at(bytes, place.offset + at);
        written.map_err(ExportError::writing(&self.path))
    }

    /// Ends it.
    ///
    /// # Errors
    /// [`ExportError::MissingTensor`] where a tensor was not written whole.
    pub fn finish(&self) -> Result<()> {
        match self.left.iter().find(|(_, left)| **left > 0) {
            Some((name, _)) => Err(ExportError::MissingTensor(name.clone())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_land_where_the_header_says_and_none_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let place = |offset, bytes| Place { offset, bytes };
        let places = BTreeMap::from([("a".to_owned(), place(2, 3)), ("b".to_owned(), place(6, 2))]);
        let mut file = TensorFile::create(&path, b"he", places, 8).unwrap();
        file.put("b", 0, b"BB").unwrap();
        file.put("a", 1, b"aa").unwrap();
        assert!(matches!(file.finish(), Err(ExportError::MissingTensor(name)) if name == "a"));
        assert!(file.put("a", 2, b"aa").is_err() && file.put("c", 0, b"").is_err());
        assert!(file.put("b", 0, b"B").is_err(), "it has come already");
        file.put("a", 0, b"A").unwrap();
        file.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"heAaa\0BB");
    }
}
