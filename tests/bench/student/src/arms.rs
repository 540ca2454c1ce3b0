//! Every way to teach a student, over seeds: held-out bits per byte and exact match of its 4-bit file,
//! with and without the quantisation-aware finish.

use crate::Prompts;
use crate::judged::{Judged, judged};
use crate::taught;
use serde_json::json;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use uspx_bench_engine::cells::Cells;
use uspx_bench_engine::error::Result;
use uspx_bench_engine::figure::{Bound, Figure, Report};
use uspx_bench_engine::paired::{Difference, Losses, difference};

/// A teacher and its base student.
pub struct Pair {
    /// The teacher's folder.
    pub teacher: PathBuf,
    /// The base student's.
    pub student: PathBuf,
    /// Trainings of every way.
    pub seeds: u64,
}

impl Pair {
    /// Its folder's name.
    pub fn name(&self) -> String {
        let folder = self.student.parent().and_then(Path::file_name);
        folder.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }
}

/// A way to teach, and how `uspx distill` is told of it.
struct Arm {
    name: &'static str,
    flags: &'static [&'static str],
}

/// The first is the default.
const ARMS: [Arm; 6] = [
    Arm { name: "hybrid", flags: &[] },
    Arm { name: "text", flags: &["--teacher-weight", "0"] },
    Arm { name: "alm", flags: &["--loss", "alm"] },
    Arm { name: "gold", flags: &["--loss", "gold"] },
    Arm { name: "sampled", flags: &["--sampled", "50"] },
    Arm { name: "on-policy", flags: &["--on-policy", "4"] },
];

/// Passes of the finish, as in a campaign.
const FINISH: &str = "4";

/// A 4-bit file of a student without and with the finish.
struct FourBit {
    plain: Judged,
    finished: Judged,
}

/// What came of one training.
struct Taught {
    floats: Judged,
    gptq: FourBit,
    gguf: FourBit,
}

/// Measures, prints the table, and adds the figures.
///
/// # Errors
/// Those of the runs.
pub fn measure(
    cells: &Cells,
    (pair, jobs): (&Pair, usize),
    prompts: &Prompts,
    report: &mut Report,
) -> Result<()> {
    teach_together(cells, (pair, jobs), prompts)?;
    let base = judged(cells, &pair.student, prompts)?;
    let (name, count) = (pair.name(), prompts.train.1);
    println!(
        "\n{name}, {count} prompts, {} seeds: bits per held-out byte (base as floats {:.4})",
        pair.seeds,
        base.bits_per_byte()
    );
    let mut arms = Vec::new();
    for arm in &ARMS {
        let taught = (1..=pair.seeds).map(|seed| teach(cells, pair, (arm, seed), prompts));
        let taught: Vec<Taught> = taught.collect::<Result<_>>()?;
        row(arm, &taught);
        arms.push((arm.name, taught));
    }
    if let Some((default, others)) = arms.split_first() {
        for (peer, taught) in others {
            beside(&name, (&default.1, &base), (peer, taught), report);
        }
        finished(&name, &arms, report);
    }
    Ok(())
}

/// Teaches every student, some at once; what comes of it is kept.
fn teach_together(cells: &Cells, (pair, jobs): (&Pair, usize), prompts: &Prompts) -> Result<()> {
    let all: Vec<(&Arm, u64)> =
        (1..=pair.seeds).flat_map(|seed| ARMS.iter().map(move |arm| (arm, seed))).collect();
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            teach(cells, pair, *one, prompts)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let at_work: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
        let ended =
            at_work.into_iter().map(|job| job.join().unwrap_or_else(|panic| resume_unwind(panic)));
        ended.collect::<Vec<Result<()>>>().into_iter().collect()
    })
}

/// Trains, exports, and judges.
fn teach(
    cells: &Cells,
    pair: &Pair,
    (arm, seed): (&Arm, u64),
    prompts: &Prompts,
) -> Result<Taught> {
    let seed = seed.to_string();
    let flags = [&["--seed", &seed], arm.flags].concat();
    let adapter = taught::adapter(cells, (&pair.teacher, &pair.student), &flags, prompts)?;
    let written = |flags: &[&str]| {
        let model = taught::exported(cells, (&pair.student, &adapter), flags, prompts)?;
        judged(cells, &model, prompts)
    };
    let four_bit = |format: &str| -> Result<FourBit> {
        let finish = |passes| written(&["--format", format, "--finish", passes]);
        Ok(FourBit { plain: finish("0")?, finished: finish(FINISH)? })
    };
    let floats = written(&["--format", "hf"])?;
    Ok(Taught { floats, gptq: four_bit("gptq")?, gguf: four_bit("gguf")? })
}

/// A mean over seeds.
fn mean(taught: &[Taught], of: impl Fn(&Taught) -> f64) -> f64 {
    taught.iter().map(of).sum::<f64>() / taught.len().max(1) as f64
}

fn row(arm: &Arm, taught: &[Taught]) {
    let bits = |of: fn(&Taught) -> &Judged| mean(taught, |t| of(t).bits_per_byte());
    let exact = mean(taught, |t| t.gptq.finished.exact);
    println!(
        "  {:<9} floats {:.4}   GPTQ {:.4}, finished {:.4}   GGUF {:.4}, finished {:.4}   exact match {exact:.3}",
        arm.name,
        bits(|t| &t.floats),
        bits(|t| &t.gptq.plain),
        bits(|t| &t.gptq.finished),
        bits(|t| &t.gguf.plain),
        bits(|t| &t.gguf.finished),
    );
}

/// Differences of two ways on the same prompts, seed by seed.
fn apart<'a>(a: &'a [Taught], b: &'a [Taught]) -> Difference {
    let bits = |t: &'a Taught| -> &'a Losses { &t.gptq.finished.bits };
    difference(&a.iter().map(bits).zip(b.iter().map(bits)).collect::<Vec<_>>())
}

/// The default beside another way: it may be better, but not significantly worse.
fn beside(
    pair: &str,
    (default, base): (&[Taught], &Judged),
    (peer, taught): (&str, &[Taught]),
    report: &mut Report,
) {
    let found = apart(default, taught);
    let detail = json!({ "difference": found, "base": base.bits_per_byte() });
    let what = format!("{pair}: hybrid less {peer}, lower end");
    report.put(Figure::new(what, found.low, "bits/byte", Bound::Below(0.0), detail));
}

/// What share of the 4 bits' cost the finish brings back, over all ways and seeds.
fn finished(pair: &str, arms: &[(&str, Vec<Taught>)], report: &mut Report) {
    for (format, of) in
        [("GPTQ", (|t| &t.gptq) as fn(&Taught) -> &FourBit), ("GGUF", |t: &Taught| &t.gguf)]
    {
        let (mut cost, mut back) = (0.0, 0.0);
        for t in arms.iter().flat_map(|(_, taught)| taught) {
            let (plain, finished) = (&of(t).plain, &of(t).finished);
            cost += plain.bits_per_byte() - t.floats.bits_per_byte();
            back += plain.bits_per_byte() - finished.bits_per_byte();
        }
        let students = arms.iter().map(|(_, taught)| taught.len()).sum::<usize>();
        let detail = json!({ "cost": cost / students as f64, "back": back / students as f64 });
        let what = format!("{pair}: {format}'s cost that is back");
        report.put(Figure::new(what, back / cost, "share", Bound::AtLeast(0.5), detail));
    }
}
