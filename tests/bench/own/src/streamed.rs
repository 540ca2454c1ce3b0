//! A teacher larger than memory: a coordinator and workers, each a process that may use little of it,
//! on a checkpoint of gpt-oss-20b's exact shapes: two on the CPU, or one on a GPU. Its prompts are
//! traced and some attributed; then the colony is stopped, for all else costs more of the same.

use crate::Args;
use serde_json::json;
use std::path::{Path, PathBuf};
use uspx_bench_engine::checkpoint::{self, GptOss};
use uspx_bench_engine::device;
use uspx_bench_engine::figure::{Bound, Figure, Report};
use uspx_bench_engine::place::Place;
use uspx_bench_own::colony::{Colony, Member, Times};
use uspx_bench_own::error::Result;
use uspx_bench_own::ledger::{Measured, measured};
use uspx_bench_own::process::{Process, peak};
use uspx_bench_own::split::split;

/// Prompts of the splits that nothing is measured on here.
const OTHERS: usize = 4;

/// Runs the colony and reports what it took.
///
/// # Errors
/// A part of it cannot be started, ends by itself, or takes too long.
pub fn measure(args: &Args, place: &Place, report: &mut Report) -> Result<()> {
    let (teacher, bytes) = large(place)?;
    let folder = place.run("streamed")?;
    let members = members(args);
    let campaign = campaign(args, place, &folder, members.len())?;
    let models = [teacher, place.student()];
    let mut colony = Colony::start(place, &folder, &campaign, (&models, &members))?;
    let (times, on_device) = device::watched(|| colony.wait_for("judge masks"));
    let (times, nats) = (times?, colony.server.pid().and_then(peak));
    colony.end();
    let found = measured(&folder.join("state/ledger"))?;
    tell(args, &colony, (&times, &found), report);
    if is_gpu(args) {
        let (peak, bound) = (gib(on_device), Bound::Below(gib(args.memory.as_u64())));
        report.put(Figure::new("device_peak", peak, "GiB", bound, json!({"bytes": on_device})));
    }
    let detail = json!({"nats_server_peak_bytes": nats, "checkpoint_bytes": bytes});
    report.put(Figure::new("checkpoint", gib(bytes), "GiB", Bound::None, detail));
    Ok(())
}

/// The checkpoint, written where it is not there yet, and its bytes.
pub fn large(place: &Place) -> Result<(PathBuf, u64)> {
    let teacher = place.work.join("20b");
    eprintln!("a checkpoint of gpt-oss-20b's shapes: {}", teacher.display());
    let bytes = checkpoint::write(&teacher, &GptOss::default(), 0)?;
    Ok((teacher, bytes))
}

pub fn is_gpu(args: &Args) -> bool {
    args.device != "cpu"
}

pub fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// Two workers on the CPU; one on a GPU, which belongs to one process.
fn members(args: &Args) -> Vec<Member> {
    let names: &[&'static str] =
        if is_gpu(args) { &["worker-1"] } else { &["worker-1", "worker-2"] };
    let member = |name: &&'static str| Member {
        name,
        device: args.device.clone(),
        memory: Some(args.memory.as_u64()),
        threads: args.threads,
        core: None,
    };
    names.iter().map(member).collect()
}

/// The campaign's configuration: as many tasks of traces as workers, so that each has one; how large
/// the others are follows from how fast the workers were at those.
fn campaign(args: &Args, place: &Place, folder: &Path, workers: usize) -> Result<String> {
    let files = split(place, folder, [args.traced, OTHERS, OTHERS])?;
    Ok(format!(
        "{files}[campaign]\nname = 'streamed'\n\
         [campaign.probe]\ntrace_batch = {}\npatch_prompts = {}\nexact_pairs = 0\nexact_least = 0\n",
        args.traced.div_ceil(workers).max(1),
        args.attributed,
    ))
}

fn tell(args: &Args, colony: &Colony, (times, found): (&Times, &Measured), report: &mut Report) {
    let mut memory = |process: &Process, bound| {
        let detail = json!({"peak_rss_bytes": process.peak(), "plans": process.said("GiB")});
        let name = format!("{}_peak", process.name().replace('-', "_"));
        report.put(Figure::new(name, gib(process.peak()), "GiB", bound, detail));
    };
    memory(&colony.coordinator, Bound::None);
    // What a worker on a GPU is told is the device's memory.
    let bound = if is_gpu(args) { Bound::None } else { Bound::Below(gib(args.memory.as_u64())) };
    colony.workers.iter().for_each(|worker| memory(worker, bound));
    let counts =
        [("trace", "prompts_traced", args.traced), ("atp", "prompts_attributed", args.attributed)];
    for (work, name, wanted) in counts {
        let count = found.prompts.get(work).copied().unwrap_or(0) as f64;
        let (largest, folded) = (found.largest.get(work), found.folded);
        let detail = json!({"largest_task": largest, "answered": found.answered, "not_counted_records": folded});
        report.put(Figure::new(name, count, "prompts", Bound::AtLeast(wanted as f64), detail));
    }
    let (failed, none) = (found.failed as f64, Bound::Below(1.0));
    report.put(Figure::new("failed_attempts", failed, "attempts", none, json!({})));
    for (stage, next, name) in
        [("trace", "patch", "trace_seconds"), ("patch", "judge masks", "patch_seconds")]
    {
        let at =
            |wanted: &str| times.iter().find(|(s, _)| s == wanted).map_or(f64::NAN, |(_, t)| *t);
        let detail = json!({"device": args.device, "threads_per_worker": args.threads});
        report.put(Figure::new(name, at(next) - at(stage), "s", Bound::None, detail));
    }
}
