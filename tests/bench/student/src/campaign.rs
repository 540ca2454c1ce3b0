//! A person's first campaigns, by the defaults: how much better than its base the student is that they
//! publish, on prompts of nobody's campaign.

use crate::Prompts;
use crate::arms::Pair;
use crate::judged::judged;
use serde_json::{Value, json};
use std::path::Path;
use uspx_bench_engine::cells::{Cells, Killed};
use uspx_bench_engine::error::Result;
use uspx_bench_engine::figure::{Bound, Figure, Report};

/// Prompts of a campaign, and by how many bits per byte its student is to be better.
const CAMPAIGNS: [(usize, f64); 3] = [(300, 0.05), (1000, 0.10), (2000, 0.15)];

/// Runs them one after another, each from where it was, and adds the figures.
///
/// # Errors
/// Those of the runs.
pub fn measure(cells: &Cells, pair: &Pair, prompts: &Prompts, report: &mut Report) -> Result<()> {
    let base = judged(cells, &pair.student, prompts)?.bits_per_byte();
    let [teacher, student] = [&pair.teacher, &pair.student].map(|p| p.to_string_lossy());
    for (count, target) in CAMPAIGNS {
        let own = cells.first_lines(&prompts.train.0, count)?;
        let own = own.to_string_lossy();
        let args = ["up", "--teacher", &teacher, "--student", &student, "--prompts", &own];
        let (_, found) = cells.made("up", &args, Killed::GoesOn)?;
        let release = found.get("release").and_then(Value::as_str);
        // A refused student is nobody's: the person has the base.
        let gain = match release {
            Some(folder) => {
                base - judged(cells, &Path::new(folder).join("gptq"), prompts)?.bits_per_byte()
            }
            None => 0.0,
        };
        let what = format!("{count} prompts, better than the base");
        let said = |key: &str| found.get(key).cloned().unwrap_or_default();
        let detail =
            json!({ "ending": said("ending"), "reason": said("reason"), "gate": said("student") });
        report.put(Figure::new(what, gain, "bits/byte", Bound::AtLeast(target), detail));
    }
    Ok(())
}
