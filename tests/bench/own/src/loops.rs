//! A person's own loop: `uspx up` from nothing to its end on their models and so many of their
//! prompts; what was foretold against what it took; and after that end another share of the units,
//! which must go on from the same evidence.

use crate::Args;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Instant;
use uspx_bench_engine::figure::{Bound, Figure, Report};
use uspx_bench_engine::place::Place;
use uspx_bench_own::error::{BenchError, Result};
use uspx_colony::{Record, Stage};
use uspx_coordinator::ledger::survey;

/// How far what was foretold may lie from what it took, either way, as a share of the latter.
const WITHIN: f64 = 0.3;
/// A share of the units that the first campaign did not keep.
const ANOTHER_SHARE: &str = "0.6";

/// Runs the loop for each number of prompts.
pub fn measure(args: &Args, place: &Place, report: &mut Report) {
    let (Some(models), Some(prompts)) = (&args.models, &args.prompts) else {
        let why = "name a folder with `teacher` and `student` (--models) and a file of prompts (--prompts)";
        return report.skip("loop", why.to_owned());
    };
    for count in &args.loops {
        let name = format!("loop-{count}");
        if let Err(error) = one(place, (models, prompts), *count, report) {
            report.fail(&name, error.to_string());
        }
    }
}

fn one(
    place: &Place,
    (models, prompts): (&Path, &Path),
    count: usize,
    report: &mut Report,
) -> Result<()> {
    let folder = place.work.join(format!("loop-{count}"));
    if folder.exists() {
        std::fs::remove_dir_all(&folder).map_err(BenchError::file(&folder))?;
    }
    std::fs::create_dir_all(&folder).map_err(BenchError::file(&folder))?;
    let mine = folder.join("mine.jsonl");
    let text = std::fs::read_to_string(prompts).map_err(BenchError::file(prompts))?;
    let lines: Vec<&str> = text.lines().take(count).collect();
    std::fs::write(&mine, lines.join("\n")).map_err(BenchError::file(&mine))?;
    let up = |more: &[&str]| -> Result<(Output, f64)> {
        let mut command = Command::new(&place.uspx);
        command.arg("up").arg("--teacher").arg(models.join("teacher"));
        command.arg("--student").arg(models.join("student")).arg("--prompts").arg(&mine);
        command.arg("--out").arg(folder.join("out")).arg("--json").args(more);
        let start = Instant::now();
        let output = command.stdin(Stdio::null()).output();
        Ok((output.map_err(BenchError::file(&place.uspx))?, start.elapsed().as_secs_f64()))
    };
    let (first, wall) = up(&[])?;
    let page = page(&first)?;
    tell(report, &format!("loop-{count}"), (&first, &page, wall))?;
    let traced = epochs(&folder, Stage::Trace)?;
    let (second, _) = up(&["--keep", ANOTHER_SHARE])?;
    let again = self::page(&second)?;
    let goes_on = epochs(&folder, Stage::Trace)? == traced
        && at(&again, "/mask/kept_fraction") != at(&page, "/mask/kept_fraction");
    let detail = json!({"ending": at(&again, "/ending"), "reason": at(&again, "/reason"), "mask": at(&again, "/mask")});
    let name = format!("loop-{count}: goes on");
    report.put(Figure::new(name, f64::from(u8::from(goes_on)), "", Bound::AtLeast(1.0), detail));
    Ok(())
}

/// The figures of a first campaign.
fn tell(report: &mut Report, name: &str, (said, page, wall): (&Output, &Value, f64)) -> Result<()> {
    let foretold = foretold(said).ok_or_else(|| broken("foretold nothing", said))?;
    // Pulling the student and asking it come after the campaign; measuring came before it.
    let taken = at(page, "/seconds").as_f64().ok_or_else(|| broken("told no time", said))?;
    let off = (at(&foretold, "/seconds").as_f64().unwrap_or(f64::NAN) - taken).abs() / taken;
    let ended = matches!(at(page, "/ending").as_str(), Some("published" | "refused"));
    let figures = at(page, "/student/gptq_bits_per_byte").is_number();
    let detail = json!({
        "ending": at(page, "/ending"), "reason": at(page, "/reason"), "student": at(page, "/student"),
        "mask": at(page, "/mask"), "wall_seconds": wall,
    });
    let whole = f64::from(u8::from(ended && figures));
    report.put(Figure::new(
        format!("{name}: an end with figures"),
        whole,
        "",
        Bound::AtLeast(1.0),
        detail,
    ));
    let detail = json!({"foretold": foretold, "taken": taken});
    let bound = Bound::Below(WITHIN);
    report.put(Figure::new(format!("{name}: foretold off by"), off, "of the time", bound, detail));
    let peak = at(page, "/peak_rss_bytes").as_f64().unwrap_or(f64::NAN) / f64::from(1 << 20);
    report.put(Figure::new(format!("{name}: peak memory"), peak, "MiB", Bound::None, json!({})));
    Ok(())
}

/// The value at a path of a JSON document; null where there is none.
fn at(value: &Value, path: &str) -> Value {
    value.pointer(path).cloned().unwrap_or_default()
}

/// What was told before the campaign began.
fn foretold(said: &Output) -> Option<Value> {
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.into_iter().find(|line| at(line, "/stages").is_array())
}

fn page(said: &Output) -> Result<Value> {
    serde_json::from_slice(&said.stdout).map_err(|_| broken("gave no page", said))
}

fn broken(what: &str, said: &Output) -> BenchError {
    let words = String::from_utf8_lossy(&said.stderr);
    let last = words.lines().last().unwrap_or_default();
    BenchError::Colony(format!("uspx up {what} ({}): {last}", said.status))
}

fn epochs(folder: &Path, stage: Stage) -> Result<usize> {
    let mut count = 0;
    survey(&folder.join("out/colony/ledger"), |record| {
        let is_one = matches!(record, Record::EpochOpened { stage: s, .. } if s == stage);
        count += usize::from(is_one);
    })?;
    Ok(count)
}
