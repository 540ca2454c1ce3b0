//! A person's first campaigns, by the defaults: how much better than its base the student is that they
//! publish, on prompts of nobody's campaign.

use crate::Prompts;
use crate::arms::Pair;
use crate::judged::judged;
use crate::taught;
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
        let missed = gain < target;
        let evidence =
            if missed { evidence(cells, pair, (prompts, count), base)? } else { json!(null) };
        let detail = json!({
            "ending": said("ending"),
            "reason": said("reason"),
            "gate": said("student"),
            "others_gain": evidence,
        });
        report.put(Figure::new(what, gain, "bits/byte", Bound::AtLeast(target), detail));
    }
    Ok(())
}

/// What other ways gain from the same prompts, as floats: references alone, the teacher's text alone, and adapters
/// of the student's own width, which can move its weights anywhere, with twice as many new prompts.
fn evidence(
    cells: &Cells,
    pair: &Pair,
    (prompts, count): (&Prompts, usize),
    base: f64,
) -> Result<Value> {
    let Prompts { train: (file, _), heldout } = prompts;
    let prompts = &Prompts { train: (file.clone(), count), heldout: heldout.clone() };
    let gain = |flags: &[&str]| -> Result<f64> {
        let adapter = taught::adapter(cells, (&pair.teacher, &pair.student), flags, prompts)?;
        let whom = (pair.student.as_path(), adapter.as_path());
        let model = taught::exported(cells, whom, &["--format", "hf"], prompts)?;
        Ok(base - judged(cells, &model, prompts)?.bits_per_byte())
    };
    let text = ["--teacher-weight", "0", "--dreams"];
    let width = taught::width(&pair.student)?.to_string();
    Ok(json!({
        "references alone": gain(&[&text[..], &["0"]].concat())?,
        "the teacher's text alone": gain(&[&text[..], &["8", "--target", "teacher"]].concat())?,
        "as wide as the student": gain(&["--dreams", "16", "--rank", &width])?,
    }))
}
