//! Speed of a trace on the CPU: `uspx probe trace` and transformers with forward hooks,
//! alternating, on the same weights, tokens and threads. A rate counts real tokens, not padding,
//! and no loading.

use crate::bench::{Bench, Cut};
use crate::error::{BenchError, Result};
use crate::figure::{Bound, Figure, Report, median};
use crate::program::Done;
use serde_json::{Value, json};
use std::path::Path;

/// Models of checkpoints.py, and how many times transformers' speed is asked for on real prompts
/// and on equal lengths.
const MODELS: [(&str, f64, f64); 2] = [("gptoss-mid", 3.0, 2.0), ("llama-300m", 1.8, 1.3)];

/// Tokens of each sequence where all are equally long.
const EQUAL: usize = 64;

/// Measures both models both ways, and what bounds the peer.
pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let threads = bench.threads.to_string();
    let gemm = bench.peer("gemm", "torch_gemm.py")?.args(["--threads", &threads]).json()?;
    let rate = gemm.json.pointer("/gflops/1024").and_then(Value::as_f64).unwrap_or(f64::NAN);
    report.put(Figure::new(
        "peer_gemm_f32",
        rate,
        "GFLOP/s",
        Bound::None,
        json!({"all": gemm.json}),
    ));
    for (kind, real, equal) in MODELS {
        let model = bench.model(kind)?;
        for (cut, bound) in [(Cut::Real, real), (Cut::Equal(EQUAL), equal)] {
            let tokens = bench.tokens(&model, bench.limit(), cut)?;
            let way = if cut == Cut::Real { "real" } else { "equal" };
            let name = format!("speed_{}_{way}", kind.replace('-', "_"));
            let pair = alternate(bench, &name, &model, &tokens, &Engines::default())?;
            if cut == Cut::Real {
                bf16(bench, report, &name, &pair, &model, &tokens)?;
            }
            report.put(Figure::new(
                name,
                pair.ratio(),
                "times",
                Bound::AtLeast(bound),
                pair.detail(),
            ));
        }
    }
    Ok(())
}

/// The peer in bf16, where processors differ most: reported, not bounded, for its numbers are
/// coarser.
fn bf16(
    bench: &Bench,
    report: &mut Report,
    name: &str,
    pair: &Pair,
    model: &Path,
    tokens: &Path,
) -> Result<()> {
    let engines = Engines { dtype: "bf16", ..Engines::default() };
    let done = peer(bench, &format!("{name}-bf16"), model, tokens, &engines)?;
    let rate = done.number("tokens_per_second")?;
    let detail = json!({"ours_times_this": median(&pair.ours) / rate, "experts": done.json.get("experts_implementation")});
    report.put(Figure::new(
        format!("peer_bf16{}", name.trim_start_matches("speed")),
        rate,
        "tokens/s",
        Bound::None,
        detail,
    ));
    Ok(())
}

/// How the engines run.
pub struct Engines {
    /// The peer's device.
    pub peer_device: &'static str,
    /// Ours.
    pub device: &'static str,
    /// The peer's type.
    pub dtype: &'static str,
    /// Sequences that the peer pads and runs together.
    pub batch: usize,
    /// Passes of ours; the first warms up where there are more.
    pub passes: usize,
}

impl Default for Engines {
    fn default() -> Self {
        Self { peer_device: "cpu", device: "cpu", dtype: "f32", batch: 32, passes: 1 }
    }
}

/// Tokens per second of both, a value per round.
pub struct Pair {
    ours: Vec<f64>,
    peer: Vec<f64>,
    last: [Value; 2],
}

impl Pair {
    /// How many times as fast as the peer, by the medians.
    pub fn ratio(&self) -> f64 {
        median(&self.ours) / median(&self.peer)
    }

    /// Everything that the ratio was made of.
    pub fn detail(&self) -> Value {
        let [ours, peer] = &self.last;
        json!({
            "ours_tokens_per_second": self.ours,
            "peer_tokens_per_second": self.peer,
            "tokens": peer.get("tokens"),
            "peer_padded_tokens": peer.get("padded_tokens"),
            "peer_experts": peer.get("experts_implementation"),
            "peer_attention": peer.get("attention_implementation"),
            "peer_peak_rss_bytes": peer.get("peak_rss_bytes"),
            "peer_peak_device_bytes": peer.get("peak_device_bytes"),
            "ours_batch_tokens": ours.get("batch_tokens"),
            "ours_peak_rss_bytes": ours.get("peak_rss_bytes"),
            "threads": peer.get("threads"),
        })
    }
}

/// Runs both in turn.
///
/// # Errors
/// One fails, or they did not run the same tokens.
pub fn alternate(
    bench: &Bench,
    name: &str,
    model: &Path,
    tokens: &Path,
    engines: &Engines,
) -> Result<Pair> {
    let mut pair = Pair { ours: Vec::new(), peer: Vec::new(), last: [Value::Null, Value::Null] };
    for round in 0..bench.rounds {
        let theirs = peer(bench, &format!("{name}-peer-{round}"), model, tokens, engines)?;
        let ours = ours(bench, &format!("{name}-ours-{round}"), model, tokens, engines)?;
        let counts = (ours.number("tokens")?, theirs.number("tokens")?);
        if counts.0 != counts.1 {
            let why = format!(
                "{name}: uspx ran {} tokens, the peer {}: they cannot be compared",
                counts.0, counts.1
            );
            return Err(BenchError::Unequal(why));
        }
        pair.ours.push(rate(&ours)?);
        pair.peer.push(theirs.number("tokens_per_second")?);
        eprintln!(
            "{name}: round {}: {:?} against {:?} tokens/s",
            round + 1,
            pair.ours.last(),
            pair.peer.last()
        );
        pair.last = [ours.json, theirs.json];
    }
    Ok(pair)
}

/// Tokens per second of our passes, but for a first one that warmed up: the peer's warming batch is
/// not counted either.
fn rate(done: &Done) -> Result<f64> {
    let passes: Vec<f64> = done
        .json
        .get("pass_seconds")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_f64)
        .collect();
    let counted = if passes.len() > 1 { passes.get(1..).unwrap_or_default() } else { &passes };
    Ok(done.number("tokens")? / median(counted))
}

fn ours(bench: &Bench, name: &str, model: &Path, tokens: &Path, engines: &Engines) -> Result<Done> {
    let program =
        bench.uspx(name).args(["probe", "trace", "--json", "--tokenised", "--model"]).arg(model);
    let threads = bench.threads.to_string();
    let program = program.arg("--prompts").arg(tokens).args([
        "--threads",
        &threads,
        "--device",
        engines.device,
    ]);
    program.args(["--repeat", &engines.passes.to_string()]).json()
}

fn peer(bench: &Bench, name: &str, model: &Path, tokens: &Path, engines: &Engines) -> Result<Done> {
    let program = bench.peer(name, "trace.py")?.arg(model).arg("--tokens-file").arg(tokens);
    let threads = bench.threads.to_string();
    let program = program.args([
        "--threads",
        &threads,
        "--device",
        engines.peer_device,
        "--dtype",
        engines.dtype,
    ]);
    program.args(["--experts", "best", "--batch", &engines.batch.to_string()]).json()
}
