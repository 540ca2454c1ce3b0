//! Progress bars. They never go backwards, and an ETA leaves out what a resume skipped.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;
use uspx_model::{ModelError, Pulse};
use uspx_runtime::Shutdown;

/// A bar that work beats on; Ctrl-C ends the work at the next beat.
pub struct Bar {
    bar: ProgressBar,
    shutdown: Shutdown,
}

const STYLE: &str = "{msg:<28} {bar:32} {percent:>3}%  {eta:>5}";

/// A bar of bytes, with its speed.
pub fn bytes(message: &str) -> ProgressBar {
    let bar = bar(message);
    let style = ProgressStyle::with_template("{msg:<28} {bar:32} {bytes}/{total_bytes} {bytes_per_sec} {eta:>5}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// An empty bar; hidden where stderr is no terminal.
pub fn bar(message: &str) -> ProgressBar {
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(1), target);
    bar.set_style(ProgressStyle::with_template(STYLE).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(message.to_owned());
    bar
}

impl Bar {
    /// A bar named `message`.
    pub fn new(message: &str, shutdown: &Shutdown) -> Self {
        let bar = bar(message);
        bar.enable_steady_tick(Duration::from_millis(500));
        Self { bar, shutdown: shutdown.clone() }
    }

    /// Leaves the full bar standing.
    pub fn finish(self) {
        self.bar.finish();
    }
}

impl Pulse for Bar {
    fn beat(&self, done: u64, total: u64) -> uspx_model::Result<()> {
        if self.shutdown.is_asked() {
            self.bar.abandon();
            return Err(ModelError::Stopped);
        }
        if self.bar.length() != Some(total) {
            self.bar.set_length(total);
        }
        if done > self.bar.position() {
            self.bar.set_position(done);
        }
        Ok(())
    }
}
