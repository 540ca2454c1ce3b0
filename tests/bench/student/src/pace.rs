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
/// Passes of a turn.
const EPOCHS: &str = "2";

/// How both train.
#[derive(Clone, Copy)]
pub struct Same<'a> {
    /// The student's folder.
    pub student: &'a Path,
    /// A model whose words nobody listens to: the text alone needs no teacher.
    pub teacher: &'a Path,
    /// Prompts of a turn.
    pub count: &'a str,
    /// The adapters' rank.
    pub rank: &'a str,
    /// Tokens of a step.
    pub step: &'a str,
    /// What our side is told besides.
    pub own: &'a [&'a str],
    /// What the peer is.
    pub peer: &'a [&'a str],
}

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
    let same = Same {
        student,
        teacher: student,
        count: "200",
        rank: "64",
        step: "512",
        own: &[],
        peer: &[],
    };
    let figure = ("training beside peft", Bound::AtLeast(1.0));
    beside(cells, (root, same), (prompts, threads), (figure, report))
}

/// The same of any training.
///
/// # Errors
/// A run that fails, or no Python with peft.
pub fn beside(
    cells: &Cells,
    (root, same): (&Path, Same<'_>),
    (prompts, threads): (&Prompts, usize),
    ((name, bound), report): ((&str, Bound), &mut Report),
) -> Result<()> {
    let logs = cells.folder().join("logs");
    let files = [same.student, same.teacher, &prompts.train.0].map(|p| p.to_string_lossy());
    let [model, teacher, file] = &files;
    let both = ["--limit", same.count, "--rank", same.rank, "--step-tokens", same.step];
    let both = [&both[..], &["--epochs", EPOCHS]].concat();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let out = cells.fresh("pace")?;
        let out = out.to_string_lossy();
        let whom = ["distill", "--teacher", teacher, "--student", model, "--prompts", file];
        let how = ["--teacher-weight", "0", "--learning-rate", "1e-4", "--out", &out];
        let own = cells.once("pace", &[&whom[..], &how, &both, same.own].concat())?;
        ours.push(number("uspx", &own, "trained_tokens_per_second")?);
        let peer = parity("peft", (root, &logs), "bench/peers/train.py", threads)?;
        let peer = peer.arg(same.student).arg(&prompts.train.0).args(&both).args(same.peer);
        let peer = peer.arg("--threads").arg(threads.to_string()).json()?;
        theirs.push(peer.number("tokens_per_second")?);
    }
    let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(own, peer)| own / peer).collect();
    let detail = json!({ "tokens_per_second": ours, "peft": theirs });
    report.put(Figure::new(name, median(&ratios), "times", bound, detail));
    Ok(())
}
