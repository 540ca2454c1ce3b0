//! A student of Llama-3.1-8B's shapes, of random weights: what a step of its training in NF4 takes, and how fast
//! it trains beside PyTorch, which holds the weights dequantised: all of it on a GPU, on the CPU two of its layers.

use crate::Prompts;
use crate::pace::{Same, beside};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use uspx_bench_engine::cells::Cells;
use uspx_bench_engine::checkpoint::{self, Llama};
use uspx_bench_engine::device::watched;
use uspx_bench_engine::error::{BenchError, Result};
use uspx_bench_engine::figure::{Bound, Figure, Report};
use uspx_bench_engine::program::number;

/// What an 8 GB laptop, or its GPU, has left for a training.
const ROOM: f64 = 7.0;
/// Tokens of the step on the CPU: short prompts together.
const SHORT: &str = "128";
/// The same on a GPU, where one sequence has nearly all of them.
const LONG: usize = 1024;
/// Tokens of the shipped tokenizer for a prompt of the command lines, about, with its answer.
const OF_A_PROMPT: usize = 32;
/// PyTorch on a GPU, with layers run once more for the gradient as ours are.
const PEER: [&str; 5] = ["--device", "cuda", "--dtype", "bfloat16", "--checkpointing"];

/// Whom the GPU learns from, and the small student on which it is held against the CPU.
pub struct Who<'a> {
    /// The repository.
    pub root: &'a Path,
    /// A teacher, of which nothing is learned but that it is there.
    pub teacher: &'a Path,
    /// A small student.
    pub small: &'a Path,
    /// Where: cpu, or cuda:0.
    pub device: &'a str,
}

/// Measures, and adds the figures.
///
/// # Errors
/// A run that fails, or a disk without room for the checkpoint (16 GB).
pub fn measure(
    cells: &Cells,
    who: &Who<'_>,
    (prompts, threads): (&Prompts, usize),
    report: &mut Report,
) -> Result<()> {
    let Who { root, teacher, device, .. } = *who;
    if device != "cpu" {
        agree(cells, who, prompts, report)?;
    }
    let whole = cells.folder().join("llama-8b");
    checkpoint::write(&whole, &Llama::default(), 0)?;
    step(cells, (teacher, &whole, device), prompts, report)?;
    if device == "cpu" {
        let two = cells.folder().join("llama-8b-2");
        checkpoint::write(&two, &Llama { layers: 2, ..Llama::default() }, 0)?;
        let same = Same {
            student: &two,
            teacher,
            count: "24",
            rank: "16",
            step: "512",
            own: &["--nf4"],
            peer: &[],
        };
        let figure = ("8B: two layers in NF4 beside floats", Bound::None);
        return beside(cells, (root, same), (prompts, threads), (figure, report));
    }
    let own = ["--nf4", "--device", device];
    let same = Same {
        student: &whole,
        teacher,
        count: "300",
        rank: "16",
        step: "1024",
        own: &own,
        peer: &PEER,
    };
    let figure = ("8B on a GPU: in NF4 beside bf16", Bound::None);
    beside(cells, (root, same), (prompts, threads), (figure, report))
}

/// The same training of a small student on the CPU and on the GPU, in f32.
fn agree(cells: &Cells, who: &Who<'_>, prompts: &Prompts, report: &mut Report) -> Result<()> {
    let [teacher, student, train] =
        [who.teacher, who.small, &prompts.train.0].map(|p| p.to_string_lossy());
    let whom = ["distill", "--nf4", "--teacher", &teacher, "--student", &student];
    let what = ["--prompts", &train, "--limit", "60", "--epochs", "2", "--learning-rate", "1e-3"];
    let loss = |device: &str, dtype: &[&str]| -> Result<f64> {
        let out = cells.fresh("agree")?;
        let on = ["--device", device, "--out", &out.to_string_lossy()];
        number(
            "uspx",
            &cells.once("agree", &[&whom[..], &what, &on, dtype].concat())?,
            "loss_after",
        )
    };
    let (cpu, gpu) = (loss("cpu", &[])?, loss(who.device, &["--dtype", "f32"])?);
    let bf16 = loss(who.device, &["--dtype", "bf16"])?;
    let detail = json!({ "cpu": cpu, "gpu": gpu, "gpu_bf16": bf16 });
    let apart = (gpu / cpu - 1.0).abs();
    let name = "NF4 on a GPU: a trained student's loss beside the CPU's";
    report.put(Figure::new(name, apart, "relative", Bound::Below(1e-3), detail));
    Ok(())
}

/// One step of the whole.
fn step(
    cells: &Cells,
    (teacher, whole, device): (&Path, &Path, &str),
    prompts: &Prompts,
    report: &mut Report,
) -> Result<()> {
    let on_cpu = device == "cpu";
    let learned =
        if on_cpu { cells.first_lines(&prompts.train.0, 4)? } else { long(cells, prompts)? };
    let judged = cells.first_lines(&prompts.heldout.0, 1)?;
    let out = cells.fresh("full")?;
    let files = [teacher, whole, &learned, &judged, &out].map(|p| p.to_string_lossy());
    let [teacher, student, learned, judged, out] = &files;
    let whom = ["distill", "--teacher", teacher, "--student", student, "--nf4", "--out", out];
    let what = ["--prompts", learned, "--validation", judged, "--teacher-weight", "0"];
    let tokens = if on_cpu { SHORT.to_owned() } else { LONG.to_string() };
    let memory = format!("{ROOM}GiB");
    let how =
        ["--epochs", "1", "--rank", "16", "--learning-rate", "1e-4", "--step-tokens", &tokens];
    let on = ["--device", device, "--memory", &memory];
    let args = [&whom[..], &what, &how, &on].concat();
    let (found, used) = watched(|| cells.once("full", &args));
    let found = found?;
    let resident = number("uspx", &found, "peak_rss_bytes")?;
    let peak = if on_cpu { resident } else { used as f64 } / f64::from(1 << 30);
    let said = |key: &str| found.get(key).cloned().unwrap_or(Value::Null);
    if said("steps") != 1 {
        let why = format!("{} steps of {tokens} tokens were made, not one", said("steps"));
        return Err(BenchError::Shape(why));
    }
    let detail = json!({
        "device": device,
        "tokens": said("trained_tokens"),
        "tokens_per_second": said("trained_tokens_per_second"),
        "seconds": said("seconds"),
        "resident_bytes": resident,
        "loss_before": said("loss_before"),
        "loss_after": said("loss_after"),
    });
    report.put(Figure::new("8B: a step in NF4", peak, "GiB", Bound::Below(ROOM), detail));
    Ok(())
}

/// A single prompt of about the tokens of a step: half of it is its answer.
fn long(cells: &Cells, prompts: &Prompts) -> Result<PathBuf> {
    let some = cells.first_lines(&prompts.train.0, LONG / OF_A_PROMPT)?;
    let text = std::fs::read_to_string(&some).map_err(BenchError::file(&some))?;
    let lines: Vec<Value> =
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let joined = |key: &str| {
        let each = lines.iter().filter_map(|line| line.get(key)?.as_str());
        each.collect::<Vec<_>>().join("\n")
    };
    let one = json!({ "id": "long", "prompt": joined("prompt"), "reference": joined("reference") });
    cells.file("long", &format!("{one}\n"))
}
