//! Where a person's programs keep what they remember, by the XDG base directory specification.

use std::path::PathBuf;

/// This program's folder there, which need not exist; none where there is no home. By the
/// specification, a variable that is empty is not set.
pub fn folder() -> Option<PathBuf> {
    let named = |variable| std::env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = named("XDG_STATE_HOME").or_else(|| Some(named("HOME")?.join(".local/state")))?;
    Some(base.join("uspx"))
}
