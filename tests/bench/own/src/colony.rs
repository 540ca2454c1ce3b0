//! A colony of processes: a coordinator and workers that are each told what of the machine they may
//! use.

use crate::error::{BenchError, Result};
use crate::process::Process;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use uspx_bench_engine::place::Place;
use uspx_bus::server::NatsServer;

/// How often the processes are looked at.
const EVERY: Duration = Duration::from_millis(200);
/// How often, where a moment is to be met.
const SOON: Duration = Duration::from_millis(20);
/// The longest that a colony may take.
const WITHIN: Duration = Duration::from_secs(40 * 60);

/// A worker as it is started.
pub struct Member {
    /// What it is called.
    pub name: &'static str,
    /// Where it computes.
    pub device: String,
    /// Bytes of memory that it may use: the device's own, where it has some.
    pub memory: Option<u64>,
    /// Its threads.
    pub threads: usize,
    /// The only core that it may run on, where it is kept to one.
    pub core: Option<usize>,
}

/// The processes.
pub struct Colony {
    /// The server between them.
    pub server: NatsServer,
    /// The coordinator.
    pub coordinator: Process,
    /// The workers, in the order in which they were named.
    pub workers: Vec<Process>,
    began: Instant,
    state: PathBuf,
}

/// When, in seconds from the start, a stage was first seen.
pub type Times = Vec<(String, f64)>;

impl Colony {
    /// Starts all of it in `folder`: a coordinator with these lines of configuration, which need
    /// not say where server, store and state are, and the workers with `models`.
    ///
    /// # Errors
    /// A part that cannot be started.
    pub fn start(
        place: &Place,
        folder: &Path,
        campaign: &str,
        (models, members): (&[PathBuf], &[Member]),
    ) -> Result<Self> {
        let server = NatsServer::start(&folder.join("nats"), None)?;
        let (store, state) = (folder.join("store"), folder.join("state"));
        let config = folder.join("uspx.toml");
        let text = format!(
            "colony = 'own'\nnats = '{}'\nstore = '{}'\nstate = '{}'\n{campaign}",
            server.url(),
            store.display(),
            state.display()
        );
        std::fs::write(&config, text).map_err(BenchError::file(&config))?;
        let began = Instant::now();
        let mut command = Command::new(&place.uspx);
        command.args(["coordinator", "-c"]).arg(config);
        let coordinator = Process::start(command, folder, "coordinator")?;
        let models: Vec<String> = models.iter().map(|m| m.display().to_string()).collect();
        let worker = |member: &Member| {
            let mut command = on_core(member.core, &place.uspx);
            command.args(["worker", "--name", member.name, "--nats", &server.url()]);
            command.args(["--models", &models.join(","), "--device", &member.device]);
            command.args(["--threads", &member.threads.to_string()]);
            command.arg("--store").arg(&store).arg("--state").arg(folder.join(member.name));
            if let Some(memory) = member.memory {
                command.args(["--memory", &memory.to_string()]);
            }
            Process::start(command, folder, member.name)
        };
        let workers = members.iter().map(worker).collect::<Result<_>>()?;
        Ok(Self { server, coordinator, workers, began, state })
    }

    /// Waits until a stage is reached, and says when each was.
    ///
    /// # Errors
    /// A process ended by itself, or it took too long.
    pub fn wait_for(&mut self, last: &str) -> Result<Times> {
        let status = self.state.join("status.json");
        let mut times = Times::new();
        while self.began.elapsed() < WITHIN {
            self.coordinator.look()?;
            self.workers.iter_mut().try_for_each(Process::look)?;
            if let Some(stage) = stage(&status).filter(|s| times.last().is_none_or(|(t, _)| t != s))
            {
                let seconds = self.began.elapsed().as_secs_f64();
                eprintln!("{seconds:>6.0} s: {stage}");
                times.push((stage.clone(), seconds));
                if stage == last {
                    return Ok(times);
                }
            }
            std::thread::sleep(EVERY);
        }
        Err(too_long())
    }

    /// Waits until work has begun: the seconds from the start.
    ///
    /// # Errors
    /// A process ended by itself, or it took too long.
    pub fn wait_for_work(&mut self) -> Result<f64> {
        let status = self.state.join("status.json");
        while self.began.elapsed() < WITHIN {
            self.coordinator.look()?;
            self.workers.iter_mut().try_for_each(Process::look)?;
            if has_begun(&status) {
                return Ok(self.began.elapsed().as_secs_f64());
            }
            std::thread::sleep(SOON);
        }
        Err(too_long())
    }

    /// Waits until the coordinator ends by itself: its exit code, and the seconds from the start.
    ///
    /// # Errors
    /// A worker ended before it, or it took too long.
    pub fn wait_for_end(&mut self) -> Result<(Option<i32>, f64)> {
        while self.began.elapsed() < WITHIN {
            if let Some(status) = self.coordinator.ended() {
                return Ok((status.code(), self.began.elapsed().as_secs_f64()));
            }
            self.workers.iter_mut().try_for_each(Process::look)?;
            std::thread::sleep(EVERY);
        }
        Err(too_long())
    }

    /// Ends all processes but the server.
    pub fn end(&mut self) {
        self.coordinator.end();
        self.workers.iter_mut().for_each(Process::end);
    }
}

fn too_long() -> BenchError {
    BenchError::Colony(format!("not done within {} minutes", WITHIN.as_secs() / 60))
}

/// A program that may run on one core alone, where one is named (`man 1 taskset`).
pub fn on_core(core: Option<usize>, program: &Path) -> Command {
    let Some(core) = core else { return Command::new(program) };
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &core.to_string()]).arg(program);
    command
}

/// The stage in the status that the coordinator last wrote.
fn stage(path: &Path) -> Option<String> {
    Some(status(path)?.get("stage")?.as_str()?.to_owned())
}

/// Whether work has gone out, by the status that the coordinator last wrote.
pub fn has_begun(path: &Path) -> bool {
    status(path).and_then(|s| s.get("epoch")?.as_u64()).is_some_and(|epoch| epoch > 0)
}

fn status(path: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_program_is_kept_to_a_core() {
        let said =
            on_core(Some(0), Path::new("/bin/cat")).arg("/proc/self/status").output().unwrap();
        let text = String::from_utf8(said.stdout).unwrap();
        let cores = text.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap();
        assert_eq!(cores.trim(), "0");
        assert_eq!(on_core(None, Path::new("/bin/cat")).get_program(), "/bin/cat");
    }

    #[test]
    fn the_stage_is_read_from_what_the_coordinator_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status.json");
        assert!(stage(&path).is_none() && !has_begun(&path));
        std::fs::write(&path, "{\"stage\": \"waiting for workers\", \"epoch\": 0}").unwrap();
        assert!(!has_begun(&path));
        std::fs::write(&path, "{\"stage\": \"patch\", \"epoch\": 2}").unwrap();
        assert_eq!(stage(&path).as_deref(), Some("patch"));
        assert!(has_begun(&path));
    }
}
