//! A teacher larger than memory: a coordinator and two workers, each a process that may use little
//! of it, on a checkpoint of gpt-oss-20b's exact shapes. Its prompts are traced and some attributed;
//! then the colony is stopped, for all else costs more of the same.

use crate::Args;
use crate::error::{BenchError, Result};
use crate::ledger::{Measured, measured};
use crate::place::Place;
use crate::process::{Process, peak};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use uspx_bench_engine::checkpoint::{self, Shape};
use uspx_bench_engine::figure::{Bound, Figure, Report};
use uspx_bus::server::NatsServer;

/// The workers.
const WORKERS: [&str; 2] = ["worker-1", "worker-2"];
/// How often the processes are looked at.
const EVERY: Duration = Duration::from_millis(200);
/// The longest that all of it may take.
const WITHIN: Duration = Duration::from_secs(40 * 60);
/// Prompts of the splits that nothing is measured on here.
const OTHERS: usize = 4;

/// Runs the colony and reports what it took.
///
/// # Errors
/// A part of it cannot be started, ends by itself, or takes too long.
pub fn measure(args: &Args, place: &Place, report: &mut Report) -> Result<()> {
    let teacher = place.work.join("20b");
    eprintln!("a checkpoint of gpt-oss-20b's shapes: {}", teacher.display());
    let bytes = checkpoint::write(&teacher, &Shape::default(), 0)?;
    let folder = place.run("streamed")?;
    let server = NatsServer::start(&folder.join("nats"), None)?;
    configure(args, place, &folder, &server.url())?;
    let mut colony = Colony::start(args, place, (&folder, &teacher), &server.url())?;
    let times = colony.wait_for_masks(&folder.join("state/status.json"))?;
    let nats = server.pid().and_then(peak);
    colony.processes.iter_mut().for_each(Process::end);
    let found = measured(&folder.join("state/ledger"))?;
    tell(args, &colony, (&times, &found), report);
    let detail = json!({"nats_server_peak_bytes": nats, "checkpoint_bytes": bytes});
    let gib = bytes as f64 / f64::from(1 << 30);
    report.put(Figure::new("checkpoint", gib, "GiB", Bound::None, detail));
    Ok(())
}

/// The coordinator's configuration: two tasks of traces, so that each worker has one; how large the
/// others are follows from how fast the workers were at those.
fn configure(args: &Args, place: &Place, folder: &Path, nats: &str) -> Result<()> {
    let here = |name: &str| folder.join(name);
    let (train, validation, gate) =
        (here("train.jsonl"), here("validation.jsonl"), here("gate.jsonl"));
    place.prompts(&[(&train, args.traced), (&validation, OTHERS), (&gate, OTHERS)])?;
    let text = format!(
        "colony = 'own'\nnats = '{nats}'\nstore = '{}'\nstate = '{}'\n\
         train = '{}'\nvalidation = '{}'\ngate = '{}'\n\
         [campaign]\nname = 'streamed'\n\
         [campaign.probe]\ntrace_batch = {}\npatch_prompts = {}\nexact_pairs = 0\nexact_least = 0\n",
        here("store").display(),
        here("state").display(),
        train.display(),
        validation.display(),
        gate.display(),
        args.traced.div_ceil(WORKERS.len()).max(1),
        args.attributed,
    );
    let path = here("uspx.toml");
    std::fs::write(&path, text).map_err(BenchError::file(&path))
}

/// The processes: the coordinator first, then the workers.
struct Colony {
    processes: Vec<Process>,
    began: Instant,
}

/// When, in seconds from the start, a stage was first seen.
type Times = Vec<(String, f64)>;

impl Colony {
    fn start(
        args: &Args,
        place: &Place,
        (folder, teacher): (&Path, &Path),
        nats: &str,
    ) -> Result<Self> {
        let mut command = Command::new(&place.uspx);
        command.args(["coordinator", "-c"]).arg(folder.join("uspx.toml"));
        let began = Instant::now();
        let mut processes = vec![Process::start(command, folder, "coordinator")?];
        let models = format!("{},{}", teacher.display(), place.student().display());
        for name in WORKERS {
            let mut command = Command::new(&place.uspx);
            command.args(["worker", "--name", name, "--nats", nats, "--models", &models]);
            command.arg("--store").arg(folder.join("store"));
            command.arg("--state").arg(folder.join(name));
            command.args(["--memory", &args.memory.as_u64().to_string()]);
            command.args(["--threads", &args.threads.to_string()]);
            processes.push(Process::start(command, folder, name)?);
        }
        Ok(Self { processes, began })
    }

    /// Waits until masks are judged: prompts are traced and attributed then.
    fn wait_for_masks(&mut self, status: &Path) -> Result<Times> {
        let mut times = Times::new();
        while self.began.elapsed() < WITHIN {
            self.processes.iter_mut().try_for_each(Process::look)?;
            if let Some(stage) = stage(status).filter(|s| times.last().is_none_or(|(t, _)| t != s))
            {
                let seconds = self.began.elapsed().as_secs_f64();
                eprintln!("{seconds:>6.0} s: {stage}");
                times.push((stage.clone(), seconds));
                if stage == "judge masks" {
                    return Ok(times);
                }
            }
            std::thread::sleep(EVERY);
        }
        Err(BenchError::Colony(format!("not done within {} minutes", WITHIN.as_secs() / 60)))
    }
}

/// The stage in the status that the coordinator last wrote.
fn stage(path: &Path) -> Option<String> {
    let status: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    Some(status.get("stage")?.as_str()?.to_owned())
}

fn tell(args: &Args, colony: &Colony, (times, found): (&Times, &Measured), report: &mut Report) {
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    for process in &colony.processes {
        let is_worker = WORKERS.contains(&process.name());
        let bound = if is_worker { Bound::Below(gib(args.memory.as_u64())) } else { Bound::None };
        let detail = json!({"peak_rss_bytes": process.peak(), "plans": process.said("GiB")});
        let name = format!("{}_peak", process.name().replace('-', "_"));
        report.put(Figure::new(name, gib(process.peak()), "GiB", bound, detail));
    }
    let counts =
        [("trace", "prompts_traced", args.traced), ("atp", "prompts_attributed", args.attributed)];
    for (work, name, wanted) in counts {
        let count = found.prompts.get(work).copied().unwrap_or(0) as f64;
        let detail = json!({"largest_task": found.largest.get(work), "answered": found.answered});
        report.put(Figure::new(name, count, "prompts", Bound::AtLeast(wanted as f64), detail));
    }
    report.put(Figure::new(
        "failed_attempts",
        found.failed as f64,
        "attempts",
        Bound::Below(1.0),
        json!({}),
    ));
    for (stage, next, name) in
        [("trace", "patch", "trace_seconds"), ("patch", "judge masks", "patch_seconds")]
    {
        let at =
            |wanted: &str| times.iter().find(|(s, _)| s == wanted).map_or(f64::NAN, |(_, t)| *t);
        let detail = json!({"threads_per_worker": args.threads});
        report.put(Figure::new(name, at(next) - at(stage), "s", Bound::None, detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stage_is_read_from_what_the_coordinator_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status.json");
        assert_eq!(stage(&path), None);
        std::fs::write(&path, "{\"stage\": \"patch\", \"epoch\": 2}").unwrap();
        assert_eq!(stage(&path).as_deref(), Some("patch"));
    }
}
