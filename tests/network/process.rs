//! Processes of the `uspx` binary: started with their output in files, looked after, killed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub use uspx_tests::uspx;

/// Waits until `what` comes true.
pub fn wait_for<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// How a process ended, and what it said.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// A process, killed with its handle.
pub struct Process {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    /// Starts `command` with its output in `NAME.out` and `NAME.err` of `folder`.
    pub fn start(mut command: Command, folder: &Path, name: &str) -> Self {
        let (out, err) = (folder.join(format!("{name}.out")), folder.join(format!("{name}.err")));
        let file = |path: &Path| Stdio::from(File::create(path).unwrap());
        let child = command.stdin(Stdio::null()).stdout(file(&out)).stderr(file(&err)).spawn();
        Self { child: child.unwrap_or_else(|e| panic!("{command:?}: {e}")), out, err }
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ctrl-C.
    pub fn interrupt(&self) {
        let done =
            Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its own end.
    pub fn end(&mut self, within: Duration) -> Ended {
        let mut status: Option<ExitStatus> = None;
        let end = Instant::now() + within;
        while status.is_none() && Instant::now() < end {
            status = self.child.try_wait().unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
        let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        let ended = Ended {
            code: status.and_then(|s| s.code()),
            out: read(&self.out),
            err: read(&self.err),
        };
        assert!(status.is_some(), "still there after {within:?}: {ended:?}");
        ended
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A page without the line breaks that a terminal's width makes.
pub fn on_one_line(page: &str) -> String {
    page.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Runs a command to its end.
pub fn run(args: &[&str], env: &[(String, String)]) -> Ended {
    let output = Command::new(uspx()).args(args).envs(env.iter().cloned()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}
