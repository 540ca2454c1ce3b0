//! Keys that a role cannot do without: all that are missing, at once, with every way to set them.

use super::table::{Key, Role, Usual, keys_of};
use crate::error::{CliError, Exit, Result};
use uspx_runtime::config::Sources;

/// The needed keys of a role that nothing sets.
pub(super) fn of(role: Role, sources: &Sources) -> Vec<&'static Key> {
    let needed = |key: &&Key| matches!(key.usual, Usual::Needed(_));
    keys_of(role).filter(needed).filter(|key| !sources.has(key.path)).collect()
}

/// Refuses to start where one is missing.
pub(super) fn refuse(role: Role, sources: &Sources) -> Result<()> {
    let missing = of(role, sources);
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|key| key.path).collect();
    let mut message = format!("a {role} needs to know {}", names.join(", "));
    for key in missing {
        message.push_str(&format!("\n  {}: {} ({})", key.path, key.says, key.ways()));
    }
    Err(CliError::new(Exit::Usage, message)
        .help("uspx config init writes a file with every key; name it with -c"))
}
