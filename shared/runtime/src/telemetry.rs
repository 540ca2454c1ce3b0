//! Logs: to stderr, quiet by default, for people or as JSON lines. Prompts never enter them
//! (invariant 7).

use std::ffi::OsString;
use std::io::IsTerminal;
use tracing_subscriber::{EnvFilter, fmt};

/// The variable that chooses what is logged, in `tracing`'s filter syntax.
pub const LOG_VARIABLE: &str = "USPX_LOG";

/// The target of what a coordinator or a worker tells its person unasked: what it does and what it
/// waits for, a handful of lines in a campaign. To be logged at the level of information.
pub const TOLD: &str = "told";

/// The filter of commands that tell: warnings, and that.
pub const TELLING: &str = "warn,told=info";

/// Starts logging. `level` counts where the variable is not set.
///
/// Safe to call twice: the first call wins.
pub fn start(level: &str, json: bool) {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new(level));
    let colours = is_coloured(std::io::stderr().is_terminal(), std::env::var_os("NO_COLOR"));
    let builder = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_target(true);
    let started = if json { builder.json().try_init() } else { builder.compact().try_init() };
    if let Err(error) = started {
        tracing::debug!(%error, "logging was started before");
    }
}

/// Escape codes are for terminals, and for people who did not ask for none
/// (<https://no-color.org>).
fn is_coloured(terminal: bool, no_color: Option<OsString>) -> bool {
    terminal && no_color.is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::is_coloured;

    #[test]
    fn only_a_terminal_gets_colours_and_not_where_they_are_unwanted() {
        assert!(is_coloured(true, None) && is_coloured(true, Some("".into())));
        assert!(!is_coloured(true, Some("1".into())) && !is_coloured(false, None));
    }
}
