//! Progress: bars on a terminal, JSON lines on stderr beside `--json`. It never goes backwards, and
//! an ETA leaves out what a resume skipped.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use uspx_model::{ModelError, Progress};
use uspx_runtime::Shutdown;

/// A bar that work beats on; Ctrl-C ends the work at the next beat.
pub struct Bar {
    bar: ProgressBar,
    lines: Option<Lines>,
    shutdown: Shutdown,
}

/// Progress for programs: one JSON document a line, twice a second at most.
struct Lines {
    stage: String,
    started: Instant,
    last: Mutex<Option<Instant>>,
}

/// One line of progress.
#[derive(Serialize)]
struct Line<'a> {
    stage: &'a str,
    done: u64,
    total: u64,
    seconds: f64,
}

impl Lines {
    fn tell(&self, done: u64, total: u64) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if done < total && last.is_some_and(|at| at.elapsed() < Duration::from_millis(500)) {
            return;
        }
        *last = Some(Instant::now());
        let line =
            Line { stage: &self.stage, done, total, seconds: self.started.elapsed().as_secs_f64() };
        if let Ok(text) = serde_json::to_string(&line) {
            crate::output::note(&text);
        }
    }
}

const STYLE: &str = "{msg:<28} {bar:32} {percent:>3}%  {eta:>5}";

/// A bar of bytes, with its speed.
pub fn bytes(message: &str) -> ProgressBar {
    let bar = bar(message);
    let style = ProgressStyle::with_template(
        "{msg:<28} {bar:32} {bytes}/{total_bytes} {bytes_per_sec} {eta:>5}",
    );
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// An empty bar; hidden where stderr is not a terminal.
pub fn bar(message: &str) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(1), target);
    bar.set_style(
        ProgressStyle::with_template(STYLE).unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar.set_message(message.to_owned());
    bar
}

impl Bar {
    /// A bar named `message`; JSON lines instead where the command answers in JSON.
    pub fn new(message: &str, json: bool, shutdown: &Shutdown) -> Self {
        let lines = json.then(|| Lines {
            stage: message.to_owned(),
            started: Instant::now(),
            last: Mutex::new(None),
        });
        let bar = if json { ProgressBar::hidden() } else { bar(message) };
        if !json {
            bar.enable_steady_tick(Duration::from_millis(500));
        }
        Self { bar, lines, shutdown: shutdown.clone() }
    }

    /// Leaves the full bar standing.
    pub fn finish(self) {
        self.bar.finish();
    }
}

impl Progress for Bar {
    fn report(&self, done: u64, total: u64) -> uspx_model::Result<()> {
        if self.shutdown.is_cancelled() {
            self.bar.abandon();
            return Err(ModelError::Stopped);
        }
        if self.bar.length() != Some(total) {
            self.bar.set_length(total);
        }
        if done > self.bar.position() {
            self.bar.set_position(done);
            self.lines.iter().for_each(|lines| lines.tell(done, total));
        }
        Ok(())
    }
}
