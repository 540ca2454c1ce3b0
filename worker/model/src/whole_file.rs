//! Files that appear whole or not at all.

use safetensors::tensor::{Dtype, TensorView};
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

/// A tensor on its way to a file: name, dtype, shape, little-endian bytes.
pub type Named = (String, Dtype, Vec<usize>, Vec<u8>);

/// A tensor of floats.
pub fn floats(name: impl Into<String>, shape: &[usize], values: &[f32]) -> Named {
    let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    (name.into(), Dtype::F32, shape.to_vec(), bytes)
}

/// Writes a safetensors file, `header` under one key of its metadata.
///
/// # Errors
/// The disk's, or tensors that do not fit their shapes.
pub fn tensors(path: &Path, all: &[Named], header: Option<(&str, String)>) -> io::Result<()> {
    let mut views = Vec::with_capacity(all.len());
    for (name, dtype, shape, bytes) in all {
        views
            .push((name, TensorView::new(*dtype, shape.clone(), bytes).map_err(io::Error::other)?));
    }
    let header = header.map(|(key, text)| HashMap::from([(key.to_owned(), text)]));
    bytes(path, &safetensors::serialize(views, header).map_err(io::Error::other)?)
}

/// Writes a file under another name, and gives it its own when its bytes are on the disk.
///
/// # Errors
/// The disk's.
pub fn bytes(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut part = tempfile::Builder::new();
    part.prefix(".uspx-");
    // Readable as the person's other files.
    #[cfg(unix)]
    part.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut part = part.tempfile_in(folder)?;
    part.write_all(bytes)?;
    part.as_file().sync_all()?;
    part.persist(path).map(drop).map_err(|e| e.error)
}
