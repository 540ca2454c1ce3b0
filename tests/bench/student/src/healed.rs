//! A student that is cut in steps, each healed by distilling again: half of its heads, then a third of its
//! channels. What is left is an ordinary folder, and is held against the same student uncut.

use crate::Prompts;
use crate::arms::Pair;
use crate::judged::judged;
use crate::taught;
use serde_json::json;
use std::path::{Path, PathBuf};
use uspx_bench_engine::cells::{Cells, Killed};
use uspx_bench_engine::error::Result;
use uspx_bench_engine::figure::{Bound, Figure, Report, median};
use uspx_bench_engine::program::number;

/// What is cut in each step, and what stays of it.
const STEPS: [(&str, &str); 2] = [("head", "0.5"), ("channel", "0.6667")];
/// Prompts that masks are made from.
const FIT: &str = "80";
/// Prompts that every student of this learns from, cut or not: what is cut comes back with data, not with passes.
const LEARNED: usize = 1900;
/// Rounds of new prompts beside them.
const DREAMS: &str = "2";
/// Turns of each student where speeds are compared.
const ROUNDS: usize = 5;

/// Cuts, heals, judges, and adds the figures.
///
/// # Errors
/// Those of the runs.
pub fn measure(cells: &Cells, pair: &Pair, prompts: &Prompts, report: &mut Report) -> Result<()> {
    let Prompts { train: (file, _), heldout } = prompts;
    let prompts = &Prompts { train: (file.clone(), LEARNED), heldout: heldout.clone() };
    let whole = healthy(cells, pair, &pair.student, prompts)?;
    let (mut left, mut cost) = (whole.clone(), Vec::new());
    for (kind, keep) in STEPS {
        left = cut(cells, &left, (kind, keep), prompts)?;
        let before = judged(cells, &left, prompts)?.bits_per_byte();
        left = healthy(cells, pair, &left, prompts)?;
        cost.push(json!({ "cut": kind, "cut_bits_per_byte": before }));
    }
    let [own, healed] = [&whole, &left].map(|folder| judged(cells, folder, prompts));
    let (own, healed) = (own?.bits_per_byte(), healed?.bits_per_byte());
    let detail = json!({ "uncut": own, "healed": healed, "steps": cost });
    let worse = (healed / own - 1.0) * 100.0;
    report.put(Figure::new(
        "cut and healed: worse by",
        worse,
        "percent",
        Bound::Below(5.0),
        detail,
    ));
    let speed = |folder: &Path| -> Result<f64> {
        let ([folder, file], count) =
            ([folder, &prompts.heldout.0].map(|p| p.to_string_lossy()), prompts.heldout.1);
        let args = ["eval", "--model", &folder, "--prompts", &file, "--limit", &count.to_string()];
        number("uspx", &cells.once("speed", &args)?, "tokens_per_second")
    };
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let (own, cut) = (speed(&whole)?, speed(&left)?);
        ratios.push(cut / own);
    }
    let detail = json!({ "ratios": ratios });
    let times = median(&ratios);
    report.put(Figure::new("cut and healed: faster", times, "times", Bound::AtLeast(1.3), detail));
    Ok(())
}

/// A student taught by adapters of its own width, which are merged: half of a model's heads do not come back
/// within a low rank.
fn healthy(cells: &Cells, pair: &Pair, student: &Path, prompts: &Prompts) -> Result<PathBuf> {
    let flags = ["--dreams", DREAMS, "--rank", &taught::width(student)?.to_string()];
    let adapter = taught::adapter(cells, (&pair.teacher, student), &flags, prompts)?;
    taught::exported(cells, (student, &adapter), &["--format", "hf"], prompts)
}

/// A student without the units that a mask cuts.
fn cut(
    cells: &Cells,
    student: &Path,
    (kind, keep): (&str, &str),
    prompts: &Prompts,
) -> Result<PathBuf> {
    let [student, train] = [student, &prompts.train.0].map(|p| p.to_string_lossy());
    let built = ["mask", "build", "--model", &student, "--prompts", &train, "--limit", FIT];
    let budget = ["--units", kind, "--keep", keep, "--spread", "uniform"];
    let mask = cells.made("mask", &[&built[..], &budget].concat(), Killed::Anew)?.0;
    let mask = mask.to_string_lossy();
    let export = ["mask", "export", "--model", &student, "--mask", &mask];
    Ok(cells.made("cut", &export, Killed::Anew)?.0)
}
