//! Logs: to stderr, quiet by default, for people or as JSON lines. Prompts never enter them (invariant 7).

use tracing_subscriber::{EnvFilter, fmt};

/// The variable that chooses what is logged, in `tracing`'s filter syntax.
pub const LOG_VARIABLE: &str = "USPX_LOG";

/// Starts logging. `level` counts where the variable is not set.
///
/// Safe to call twice: the first call wins.
pub fn start(level: &str, json: bool) {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new(level));
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(true);
    let started = if json { builder.json().try_init() } else { builder.compact().try_init() };
    if let Err(error) = started {
        tracing::debug!(%error, "logging was started before");
    }
}
