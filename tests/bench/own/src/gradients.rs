//! Gradients of a teacher larger than memory, by the command line: a backward pass over as many
//! prompts as its plan takes at once, which a colony's tasks may or may not be cut to.

use crate::Args;
use crate::streamed::{gib, is_gpu, large};
use serde_json::json;
use std::process::Command;
use std::time::{Duration, Instant};
use uspx_bench_engine::device;
use uspx_bench_engine::figure::{Bound, Figure, Report};
use uspx_bench_engine::place::Place;
use uspx_bench_own::error::Result;
use uspx_bench_own::process::Process;

/// It takes 4 minutes on two cores.
const LIMIT: Duration = Duration::from_secs(1800);

/// Attributes the prompts and reports the most memory that it took.
///
/// # Errors
/// It cannot be started, or fails.
pub fn measure(args: &Args, place: &Place, report: &mut Report) -> Result<()> {
    let (teacher, _) = large(place)?;
    let folder = place.run("gradients")?;
    let mut command = Command::new(&place.uspx);
    command.args(["probe", "patch", "--method", "atp", "--stream", "--model"]).arg(teacher);
    command.arg("--prompts").arg(place.root.join("cli/assets/prompts/cli-train.jsonl"));
    command.args(["--limit", &args.at_once.to_string(), "--device", &args.device]);
    command.args(["--memory", &args.memory.as_u64().to_string()]);
    command.args(["--threads", &args.threads.to_string()]);
    let start = Instant::now();
    let mut process = Process::start(command, &folder, "patch")?;
    let (ended, on_device) = device::watched(|| process.finish(LIMIT));
    ended?;
    let bound = Bound::Below(gib(args.memory.as_u64()));
    let taken = if is_gpu(args) { on_device } else { process.peak() };
    let detail = json!({
        "bytes": taken, "peak_rss_bytes": process.peak(), "prompts": args.at_once,
        "plan": process.said("GiB"), "seconds": start.elapsed().as_secs_f64(),
        "device": args.device, "threads": args.threads,
    });
    report.put(Figure::new("gradients_peak", gib(taken), "GiB", bound, detail));
    Ok(())
}
