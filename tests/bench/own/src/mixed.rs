//! One GPU and one CPU together: a whole campaign on the person's models, once on two workers of the
//! CPU and once with the GPU in place of one of them. The second must not take longer.

use crate::Args;
use serde_json::{Value, json};
use uspx_bench_engine::device;
use uspx_bench_engine::figure::{Bound, Figure, Report};
use uspx_bench_engine::place::Place;
use uspx_bench_own::colony::{Colony, Member};
use uspx_bench_own::error::{BenchError, Result};
use uspx_bench_own::split::split;

/// Prompts to learn from, to choose by, and to judge by.
const SPLIT: [usize; 3] = [240, 24, 60];
/// Exit codes of a campaign that came to its end: a release, a refusal.
const ENDS: [i32; 2] = [0, 6];

/// Runs both campaigns and reports their times.
///
/// # Errors
/// A part of a colony cannot be started, ends by itself, or takes too long.
pub fn measure(args: &Args, place: &Place, report: &mut Report) -> Result<()> {
    let Some(models) = &args.models else {
        report.skip("mixed", "name a folder with `teacher` and `student` (--models)".to_owned());
        return Ok(());
    };
    if args.device == "cpu" || device::used().is_none() {
        report.skip("mixed", "name a GPU that answers here (--device cuda:0)".to_owned());
        return Ok(());
    }
    let models = ["teacher", "student"].map(|name| models.join(name));
    let run = |name: &str, devices: [&str; 2]| -> Result<(f64, Value)> {
        let folder = place.run(name)?;
        let campaign = format!("{}[campaign]\nname = 'mixed'\n", split(place, &folder, SPLIT)?);
        let member = |(device, name): (&str, &'static str)| Member {
            name,
            device: device.to_owned(),
            memory: None,
            threads: args.threads,
            core: None,
        };
        let members: Vec<Member> =
            devices.into_iter().zip(["worker-1", "worker-2"]).map(member).collect();
        let mut colony = Colony::start(place, &folder, &campaign, (&models, &members))?;
        let (code, seconds) = colony.wait_for_end()?;
        if code.is_none_or(|code| !ENDS.contains(&code)) {
            let why = format!("the coordinator ended with {code:?}; see {}", folder.display());
            return Err(BenchError::Colony(why));
        }
        let path = folder.join("state/report.json");
        let page = std::fs::read(&path).map_err(BenchError::file(&path))?;
        Ok((seconds, serde_json::from_slice(&page).unwrap_or_default()))
    };
    let (slow, of_cpus) = run("mixed-cpu", ["cpu", "cpu"])?;
    let (fast, of_both) = run("mixed-gpu", [&args.device, "cpu"])?;
    let detail = json!({
        "two_cpu_workers_seconds": slow, "gpu_and_cpu_worker_seconds": fast,
        "two_cpu_workers_ended": of_cpus.get("ending"), "gpu_and_cpu_worker_ended": of_both.get("ending"),
        "threads_per_worker": args.threads,
    });
    let (ratio, bound) = (fast / slow, Bound::Below(1.0));
    report.put(Figure::new("gpu_and_cpu_against_two_cpus", ratio, "times", bound, detail));
    Ok(())
}
