//! Training tokens a second beside PyTorch with peft, which trains the same adapters on the same prompts;
//! the two take turns.

use crate::Prompts;
use serde_json::json;
use std::path::Path;
use uspx_bench_engine::cells::Cells;
use uspx_bench_engine::error::Result;
use uspx_bench_engine::figure::{Bound, Figure, Report, median};
use uspx_bench_engine::program::{number, parity};

/// Turns of each.
const ROUNDS: usize = 3;
/// Prompts of a turn.
const COUNT: &str = "200";
/// The adapters' rank, and the tokens of a step.
const RANK: &str = "64";
const STEP: &str = "512";

/// Measures, and adds the figure.
///
/// # Errors
/// A run that fails, or no Python with peft.
pub fn measure(
    cells: &Cells,
    (root, student): (&Path, &Path),
    (prompts, threads): (&Prompts, usize),
    report: &mut Report,
) -> Result<()> {
    let logs = cells.folder().join("logs");
    let [model, file] = [student, &prompts.train.0].map(|p| p.to_string_lossy());
    let same = ["--limit", COUNT, "--rank", RANK, "--step-tokens", STEP];
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let out = cells.fresh("pace")?;
        let out = out.to_string_lossy();
        // The text alone needs no teacher's word: the student stands in for one.
        let whom = ["distill", "--teacher", &model, "--student", &model, "--prompts", &file];
        let how = ["--teacher-weight", "0", "--epochs", "2", "--learning-rate", "1e-4"];
        let own = cells.once("pace", &[&whom[..], &how, &same, &["--out", &out]].concat())?;
        ours.push(number("uspx", &own, "trained_tokens_per_second")?);
        let peer = parity("peft", (root, &logs), "bench/peers/train.py", threads)?;
        let peer = peer.arg(student).arg(&prompts.train.0).args(same);
        let peer = peer.arg("--threads").arg(threads.to_string()).json()?;
        theirs.push(peer.number("tokens_per_second")?);
    }
    let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(own, peer)| own / peer).collect();
    let detail = json!({ "tokens_per_second": ours, "peft": theirs });
    let ratio = median(&ratios);
    report.put(Figure::new("training beside peft", ratio, "times", Bound::AtLeast(1.0), detail));
    Ok(())
}
