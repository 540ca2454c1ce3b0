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

/// The bar takes what the words leave of the terminal's width.
const STYLE: &str = "{msg:<38} {wide_bar} {percent:>3}%  {eta:>5}";
const BYTES: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta:>5}";

/// A bar of bytes, with its speed.
pub fn bytes(message: &str) -> ProgressBar {
    shown_on(target(), BYTES, message)
}

/// An empty bar; hidden where stderr is not a terminal.
pub fn bar(message: &str) -> ProgressBar {
    shown_on(target(), STYLE, message)
}

fn target() -> ProgressDrawTarget {
    if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    }
}

fn shown_on(target: ProgressDrawTarget, style: &str, message: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(1), target);
    bar.set_style(
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::TermLike;
    use std::io;
    use std::sync::Arc;

    /// A terminal of 80 columns that remembers what was written.
    #[derive(Debug, Clone, Default)]
    struct Terminal(Arc<Mutex<Vec<String>>>);

    impl TermLike for Terminal {
        fn width(&self) -> u16 {
            80
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push(text.to_owned());
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_bar_is_wider_than_the_terminal() {
        let longest = "exact expert ablations, round by round";
        for (style, message, length) in
            [(STYLE, longest, 1000), (BYTES, "bringing the store along", 123 << 40)]
        {
            let terminal = Terminal::default();
            let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
            let bar = shown_on(target, style, message);
            bar.set_length(length);
            bar.set_position(length / 3);
            bar.tick();
            let written = terminal.0.lock().unwrap().clone();
            assert!(written.iter().any(|text| text.contains(message)), "{written:?}");
            for text in written {
                let columns = text.chars().count();
                assert!(columns <= 80, "{columns} columns: {text}");
            }
        }
    }
}
