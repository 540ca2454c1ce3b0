//! A part of the colony as a process: its output in files, its peak memory from the kernel, killed
//! with its handle.

use crate::error::{BenchError, Result};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A running process.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    peak: u64,
}

impl Process {
    /// Starts `command` with its messages in `NAME.err` of `folder`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(mut command: Command, folder: &Path, name: &str) -> Result<Self> {
        let (out, log) = (folder.join(format!("{name}.out")), folder.join(format!("{name}.err")));
        let create = |path: &Path| File::create(path).map_err(BenchError::file(path));
        command.stdin(Stdio::null()).stdout(create(&out)?).stderr(create(&log)?);
        let program = PathBuf::from(command.get_program());
        let child = command.spawn().map_err(BenchError::file(&program))?;
        Ok(Self { name: name.to_owned(), child, log, peak: 0 })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Looks at its memory.
    ///
    /// # Errors
    /// It has ended by itself.
    pub fn look(&mut self) -> Result<()> {
        if let Some(status) = self.ended() {
            let log = self.log.display();
            let why = format!("{} ended with {status}; its messages are in {log}", self.name);
            return Err(BenchError::Colony(why));
        }
        self.note_peak();
        Ok(())
    }

    fn note_peak(&mut self) {
        self.peak = self.peak.max(peak(self.child.id()).unwrap_or(0));
    }

    /// Waits until it has ended by itself, well.
    ///
    /// # Errors
    /// It ended badly, or not within `limit`.
    pub fn finish(&mut self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < limit {
            match self.ended() {
                Some(status) if status.success() => return Ok(()),
                Some(_) => return self.look(),
                None => self.note_peak(),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let why = format!("{} has not ended in {} s", self.name, limit.as_secs());
        Err(BenchError::Colony(why))
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The most memory that was seen resident, in bytes.
    pub fn peak(&self) -> u64 {
        self.peak
    }

    /// How long it has run on a core so far, in seconds.
    pub fn ran(&self) -> Option<f64> {
        ran(&self.child.id().to_string(), 11)
    }

    /// Ends it, and waits until it is gone.
    pub fn end(&mut self) {
        // One that has ended already cannot be killed: that is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The lines of its log that hold `what`.
    pub fn said(&self, what: &str) -> Vec<String> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().filter(|line| line.contains(what)).map(str::to_owned).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The kernel's account of the most memory that was resident (`VmHWM`), in bytes.
pub fn peak(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Clock ticks of a second in what the kernel tells programs (`USER_HZ`).
const TICKS: f64 = 100.0;

/// The kernel's account of the time that this process' children ran on a core, of those that have ended and were
/// waited for, in seconds.
pub fn children_seconds() -> Option<f64> {
    ran("self", 13)
}

/// The sum of two fields of a process' account, from so many after its name on (`man 5 proc_pid_stat`), in seconds.
fn ran(process: &str, fields: usize) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut after_name = text.rsplit_once(')')?.1.split_whitespace().skip(fields);
    let mut ticks = || after_name.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_watched_and_its_own_end_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let shell = |script: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            command
        };
        let mut sleeping =
            Process::start(shell("echo hello >&2; sleep 60"), folder.path(), "a").unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while sleeping.said("hello").is_empty() && std::time::Instant::now() < end {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(sleeping.said("hello"), ["hello"]);
        sleeping.look().unwrap();
        assert!(sleeping.peak() > 0);
        sleeping.end();
        let error = sleeping.look().unwrap_err().to_string();
        assert!(error.contains("a.err"), "{error}");
    }

    #[test]
    fn a_process_is_waited_for_and_its_failure_told() {
        let folder = tempfile::tempdir().unwrap();
        let run = |script: &str, limit: u64| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            let mut process = Process::start(command, folder.path(), "a").unwrap();
            process.finish(Duration::from_secs(limit)).map_err(|error| error.to_string())
        };
        run("exit 0", 20).unwrap();
        assert!(run("exit 3", 20).unwrap_err().contains("a.err"));
        assert!(run("sleep 60", 0).unwrap_err().contains("has not ended"));
    }

    #[test]
    fn the_kernel_tells_how_long_children_ran() {
        let before = children_seconds().unwrap();
        let spin = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("{spin}; sleep 60")]);
        let folder = tempfile::tempdir().unwrap();
        let mut spinning = Process::start(command, folder.path(), "a").unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while spinning.ran().unwrap() < 0.05 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        spinning.end();
        let ran = children_seconds().unwrap() - before;
        assert!((0.05..60.0).contains(&ran), "{ran}");
    }

    #[test]
    fn the_kernel_tells_this_process_s_peak() {
        let block = vec![1u8; 32 << 20];
        assert!(peak(std::process::id()).unwrap() >= block.len() as u64);
    }
}
