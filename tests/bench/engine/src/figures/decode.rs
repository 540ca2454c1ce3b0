//! Decoding one answer: `uspx run` against llama.cpp, on the same GGUF file in Q4_K, with as many
//! threads.
//!
//! `uspx run` prints the rate of a whole answer, prompt included. The rate of decoding alone
//! follows from a short and a long answer to the same prompt: what the second took longer, for the
//! tokens that it has more.

use crate::bench::Bench;
use crate::error::{BenchError, Result};
use crate::figure::{Bound, Figure, Report, median};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Tokens of the two answers.
const SHORT: usize = 16;
const LONG: usize = 144;

/// How much of llama.cpp's speed is aimed at.
const AIM: f64 = 0.9;

/// Alternates both, and compares the medians.
pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let file = bench.work.join("q4k.gguf");
    if !file.exists() {
        let part = bench.work.join("q4k.part");
        bench.peer("make-q4k", "q4k.py")?.arg(&part).json()?;
        std::fs::rename(&part, &file).map_err(BenchError::file(&file))?;
    }
    let (prompt, ids) = prompt(bench)?;
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for round in 0..bench.rounds {
        let theirs = bench.llama_cpp(&format!("decode-peer-{round}"), "decode.py")?.arg(&file);
        let theirs =
            theirs.args(["--threads", &bench.threads.to_string(), "--tokens", &LONG.to_string()]);
        peer.push(theirs.arg("--prompt-ids").arg(&ids).json()?.number("decode_tokens_per_second")?);
        ours.push(decode(bench, &file, &prompt, round)?);
        eprintln!(
            "decode: round {}: {:?} against {:?} tokens/s",
            round + 1,
            ours.last(),
            peer.last()
        );
    }
    let detail = json!({"ours_tokens_per_second": ours, "peer_tokens_per_second": peer, "threads": bench.threads});
    let ratio = median(&ours) / median(&peer);
    report.put(Figure::new("decode_of_llama_cpp", ratio, "times", Bound::AtLeast(AIM), detail));
    Ok(())
}

/// The first prompt, and its tokens in a file.
fn prompt(bench: &Bench) -> Result<(String, PathBuf)> {
    let broken = || BenchError::Missing { program: "tokens.py".into(), key: "ids".into() };
    let path = bench.prompts();
    let text = std::fs::read_to_string(&path).map_err(BenchError::file(&path))?;
    let first: Value =
        text.lines().next().and_then(|line| serde_json::from_str(line).ok()).ok_or_else(broken)?;
    let prompt = first.get("prompt").and_then(Value::as_str).ok_or_else(broken)?.to_owned();
    let tokens =
        bench.tokens(&bench.root.join("cli/assets/nano/student"), 1, crate::bench::Cut::Real)?;
    let text = std::fs::read_to_string(&tokens).map_err(BenchError::file(&tokens))?;
    let line: Value = serde_json::from_str(text.trim()).map_err(|_| broken())?;
    let start = line.get("response_start").and_then(Value::as_u64).ok_or_else(broken)? as usize;
    let ids = line
        .get("ids")
        .and_then(Value::as_array)
        .and_then(|ids| ids.get(..start))
        .ok_or_else(broken)?;
    let path = bench.work.join("prompt-ids.json");
    std::fs::write(&path, json!(ids).to_string()).map_err(BenchError::file(&path))?;
    Ok((prompt, path))
}

/// Tokens per second of decoding alone.
fn decode(bench: &Bench, file: &Path, prompt: &str, round: usize) -> Result<f64> {
    let seconds = |count: usize| -> Result<f64> {
        let run = bench
            .uspx(&format!("decode-ours-{round}-{count}"))
            .args(["run", prompt, "--json", "--model"]);
        let run = run.arg(file).args(["--threads", &bench.threads.to_string()]);
        let done = run.args(["--max-new-tokens", &count.to_string()]).json()?;
        let made = done.number("tokens")?;
        if made != count as f64 {
            let why =
                format!("uspx run ended its answer after {made} tokens, {count} were to be timed");
            return Err(BenchError::Unequal(why));
        }
        Ok(made / done.number("tokens_per_second")?)
    };
    Ok((LONG - SHORT) as f64 / (seconds(LONG)? - seconds(SHORT)?))
}
