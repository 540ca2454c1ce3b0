//! What workers beside each other are worth: one measuring campaign of real processes, a coordinator, a
//! nats-server, and 1, 2 and 4 workers of a thread and a core each, beside one process that does all of it on one
//! core.
//!
//! Workers share the cores that there are (worker i is on core i modulo their number); coordinator and server run
//! wherever there is room. So on two cores 4 workers cannot be faster than 2: what is shown is what they lose. Each
//! way is measured twice, taking turns, and the quicker run counts: what else the machine does can only add. Where it
//! does much, the clock says little; the time that the processes ran on cores says what each way costs all the same.

use crate::failed;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use uspx_bench_engine::error::{BenchError, Result};
use uspx_bench_engine::figure::{Bound, Figure, Report};
use uspx_bench_engine::place::Place;
use uspx_bench_own::colony::{Colony, Member, has_begun, on_core};
use uspx_bench_own::ledger::{Measured, measured};
use uspx_bench_own::process::{Process, children_seconds};
use uspx_bench_own::split::split;

/// Prompts to learn from, to choose by, and to judge by.
const SPLIT: [usize; 3] = [800, 24, 300];
/// The mask alone; all exact runs are spent, so that every way has as much to do.
const CAMPAIGN: &str = "[campaign]\nname = 'scaling'\nstop_at_mask = true\n\
                        [campaign.probe]\nexact_pairs = 32768\nexact_least = 32768\n";
/// The workers of each colony.
const WORKERS: [usize; 3] = [1, 2, 4];
const NAMES: [&str; 4] = ["worker-1", "worker-2", "worker-3", "worker-4"];
/// How many times as fast as one process a colony of one worker must be: server and coordinator take a little.
const ONE: f64 = 0.85;
/// As one worker, two that have a core each.
const TWO: f64 = 1.6;
/// As two workers, four: twice as fast where each has a core, but for what two have lost; where two share a core,
/// nothing is won and little lost.
const FOUR: f64 = 1.6;
const FOUR_ON_TWO: f64 = 0.85;
/// How many times the time on cores of one process a colony may take, where no two workers share a core.
const COST: f64 = 1.3;
/// How often each way is measured.
const TURNS: usize = 2;
/// The longest that one may take.
const LIMIT: Duration = Duration::from_secs(600);
/// How often a process is looked at while its first work is waited for.
const SOON: Duration = Duration::from_millis(20);

/// A campaign that was run.
struct Run {
    /// From its first work to its end.
    seconds: f64,
    /// How long its processes ran on cores.
    on_cores: f64,
    found: Measured,
}

impl Run {
    /// Tokens a second, each prompt counted as often as it ran: smaller tasks run the clean prompts oftener.
    fn pace(&self) -> f64 {
        self.found.tokens as f64 / self.seconds
    }

    fn detail(&self, load: f64) -> Value {
        let worked = self.found.worked.values().sum::<u64>() as f64 / 1e3;
        let workers = self.found.worked.len().max(1) as f64;
        json!({"seconds": self.seconds, "seconds_on_cores": self.on_cores, "tokens": self.found.tokens,
               "answered": self.found.answered, "failed_attempts": self.found.failed,
               "share_of_workers_time_at_work": worked / workers / self.seconds, "load_before": load})
    }
}

/// Runs all of them and reports their paces.
///
/// # Errors
/// There is only one core, a part of a colony cannot be started, ends by itself, or takes too long.
pub fn measure(place: &Place, report: &mut Report) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        return Err(BenchError::Absent("scaling over cores asks for two at least".into()));
    }
    let load = load();
    let (mut alone, mut colonies) = (None, [const { None }; WORKERS.len()]);
    for turn in 0..TURNS {
        let folder = place.run(&format!("scaling-alone-{turn}"))?;
        keep(&mut alone, counted(|| one_process(place, &folder))?);
        for (workers, best) in WORKERS.into_iter().zip(&mut colonies) {
            let folder = place.run(&format!("scaling-{workers}-{turn}"))?;
            keep(best, counted(|| colony(place, &folder, (workers, cores)))?);
        }
    }
    let (Some(alone), [Some(one), Some(two), Some(four)]) = (alone, colonies) else {
        return Ok(());
    };
    for (name, run) in [
        ("one_process", &alone),
        ("one_worker", &one),
        ("two_workers", &two),
        ("four_workers", &four),
    ] {
        let (name, detail) = (format!("{name}_pace"), run.detail(load));
        report.put(Figure::new(name, run.pace(), "tokens/s", Bound::None, detail));
    }
    let four_least = if cores < 4 { FOUR_ON_TWO } else { FOUR };
    for (name, run, other, least) in [
        ("one_worker_against_one_process", &one, &alone, ONE),
        ("two_workers_against_one", &two, &one, TWO),
        ("four_workers_against_two", &four, &two, four_least),
    ] {
        let detail =
            json!({"seconds": [run.seconds, other.seconds], "cores": cores, "load_before": load});
        let times = other.seconds / run.seconds;
        report.put(Figure::new(name, times, "times", Bound::AtLeast(least), detail));
    }
    for (name, run, bound) in [
        ("one_worker", &one, Bound::Below(COST)),
        ("two_workers", &two, Bound::Below(COST)),
        ("four_workers", &four, Bound::None),
    ] {
        let (name, times) = (format!("{name}_time_on_cores"), run.on_cores / alone.on_cores);
        report.put(Figure::new(name, times, "times", bound, json!({})));
    }
    Ok(())
}

/// The quicker of two.
fn keep(best: &mut Option<Run>, run: Run) {
    if best.as_ref().is_none_or(|best| run.seconds < best.seconds) {
        *best = Some(run);
    }
}

/// Processes that ran or waited for a core in the last minute, on average (`man 5 proc_loadavg`); NaN where the
/// system does not tell.
fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}

/// A run with the time that its processes, all of which have ended with it, ran on cores; what it says itself is added.
fn counted(run: impl FnOnce() -> Result<Run>) -> Result<Run> {
    let ran = || children_seconds().unwrap_or(f64::NAN);
    let before = ran();
    let run = run()?;
    Ok(Run { on_cores: ran() - before + run.on_cores, ..run })
}

/// The campaign on so many workers.
fn colony(place: &Place, folder: &Path, (workers, cores): (usize, usize)) -> Result<Run> {
    let campaign = split(place, folder, SPLIT).map_err(failed)? + CAMPAIGN;
    let member = |(at, name): (usize, &'static str)| Member {
        name,
        device: "cpu".to_owned(),
        memory: None,
        threads: 1,
        core: Some(at % cores),
    };
    let members: Vec<Member> = NAMES.into_iter().take(workers).enumerate().map(member).collect();
    let models = [teacher(place)];
    let mut colony =
        Colony::start(place, folder, &campaign, (&models, &members)).map_err(failed)?;
    let began = colony.wait_for_work().map_err(failed)?;
    let (code, ended) = colony.wait_for_end().map_err(failed)?;
    if code != Some(0) {
        let folder = folder.display();
        return Err(failed(format!("the coordinator ended with {code:?}; see {folder}")));
    }
    let found = measured(&folder.join("state/ledger")).map_err(failed)?;
    Ok(Run { seconds: ended - began, on_cores: 0.0, found })
}

/// The campaign in one process, on one core.
fn one_process(place: &Place, folder: &Path) -> Result<Run> {
    let (config, out) = (folder.join("uspx.toml"), folder.join("out"));
    let text = split(place, folder, SPLIT).map_err(failed)? + CAMPAIGN;
    std::fs::write(&config, text).map_err(BenchError::file(&config))?;
    let mut command = on_core(Some(0), &place.uspx);
    command.args(["up", "--workers", "1", "--threads", "1", "--json", "--config"]).arg(config);
    command.arg("--teacher").arg(teacher(place)).arg("--out").arg(&out);
    let mut process = Process::start(command, folder, "up").map_err(failed)?;
    let (begun, status) = (Instant::now(), out.join("colony/status.json"));
    while !has_begun(&status) && begun.elapsed() < LIMIT {
        process.look().map_err(failed)?;
        std::thread::sleep(SOON);
    }
    // What it measured of the machine before is no work.
    let (begun, before) = (Instant::now(), process.ran().unwrap_or(f64::NAN));
    process.finish(LIMIT).map_err(failed)?;
    let seconds = begun.elapsed().as_secs_f64();
    let found = measured(&out.join("colony/ledger")).map_err(failed)?;
    Ok(Run { seconds, on_cores: -before, found })
}

/// The small teacher that ships with uspx.
fn teacher(place: &Place) -> PathBuf {
    place.root.join("cli/assets/nano/teacher")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quicker_of_two_runs_counts_with_its_own_time_on_cores() {
        let mut best = None;
        for (seconds, wanted) in [(4.0, 25.0), (2.0, 50.0), (5.0, 50.0)] {
            let found = Measured { tokens: 100, ..Measured::default() };
            let run = counted(|| Ok(Run { seconds, on_cores: 1.0, found })).unwrap();
            assert!(run.on_cores >= 1.0);
            keep(&mut best, run);
            assert_eq!(best.as_ref().map(Run::pace), Some(wanted));
        }
        assert!(load() >= 0.0);
    }
}
