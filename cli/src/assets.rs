//! What ships inside the binary: the small teacher and student, and the prompts, with their
//! provenance.

use crate::error::{CliError, Result};
use rust_embed::RustEmbed;
use std::path::Path;

#[derive(RustEmbed)]
#[folder = "assets"]
struct Assets;

/// Lays the shipped files out in `folder`. A file that is there with the same content is left
/// alone.
pub fn lay_out(folder: &Path) -> Result<()> {
    for name in Assets::iter() {
        let Some(file) = Assets::get(&name) else { continue };
        let path = folder.join(name.as_ref());
        if std::fs::read(&path).is_ok_and(|there| there == *file.data) {
            continue;
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|e| CliError::file(parent, &e))?;
        }
        std::fs::write(&path, file.data).map_err(|e| CliError::file(&path, &e))?;
    }
    Ok(())
}
