//! `uspx probe patch --method exact` against transformers with plain hooks (peers/exact.py): how
//! many times as fast, in turns on the same tokens and threads, and how far apart the effects are.

use crate::bench::{Bench, Cut};
use crate::error::{BenchError, Result};
use crate::figure::{Bound, Figure, Report, median};
use crate::program::Done;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Nats per response token that two implementations may differ by.
const APART: f64 = 1e-3;

/// A router's margin that roundings may bridge: the token then goes elsewhere in one of the two, and
/// neither is wrong.
const NEAR_TIE: f64 = 1e-5;

/// A model whose speed counts.
struct Timed {
    name: &'static str,
    prompts: usize,
    /// How many times as fast as the peer.
    bound: f64,
    /// Few passes of a small model need several rounds; a large one's noise is small.
    rounds: usize,
}

/// The shipped teacher, and one of hidden 1024, where arithmetic dominates.
const TIMED: [Timed; 2] = [
    Timed { name: "nano", prompts: 40, bound: 5.0, rounds: usize::MAX },
    Timed { name: "gptoss-flat", prompts: 12, bound: 2.5, rounds: 1 },
];

/// Models whose numbers are compared, and the kinds of unit that they have.
const COMPARED: [(&str, &str); 4] = [
    ("nano", "expert,head"),
    ("nano-student", "head"),
    ("mixtral-small", "expert,head"),
    ("llama-small", "head"),
];

/// Prompts of a comparison.
const FEW: usize = 16;

/// Measures both models' speed, then compares all kinds of patch on all models.
pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    for timed in TIMED {
        speed(bench, report, &timed)?;
    }
    for (model, units) in COMPARED {
        let mut patches = vec![["--baseline", "mean"], ["--baseline", "resample"]];
        patches.push(["--baseline", "zero"]);
        if units.contains("expert") {
            patches.push(["--expert-mode", "zero"]);
        }
        for patch in patches {
            compare(bench, report, (model, units), patch)?;
        }
    }
    Ok(())
}

/// The folder of a model: a shipped one, or made.
fn folder(bench: &Bench, model: &str) -> Result<PathBuf> {
    match model {
        "nano" => Ok(bench.root.join("cli/assets/nano/teacher")),
        "nano-student" => Ok(bench.root.join("cli/assets/nano/student")),
        made => bench.model(made),
    }
}

fn speed(bench: &Bench, report: &mut Report, timed: &Timed) -> Result<()> {
    let model = folder(bench, timed.name)?;
    let limit = if bench.quick { timed.prompts / 4 } else { timed.prompts };
    let tokens = bench.tokens(&model, limit, Cut::Real)?;
    let name = format!("exact_{}", timed.name.replace('-', "_"));
    let (mut ours, mut peers, mut apart) = (Vec::new(), Vec::new(), 0f64);
    let mut last = Value::Null;
    for round in 0..bench.rounds.min(timed.rounds) {
        let both =
            Both::run(bench, &format!("{name}-{round}"), (&model, &tokens), "expert,head", &[])?;
        ours.push(both.ours.number("seconds")?);
        peers.push(both.peer.number("seconds")?);
        apart = apart.max(both.apart(|_| true)?);
        eprintln!("{name}: {:?} against {:?} s", ours.last(), peers.last());
        last = both.detail();
    }
    let ratio = median(&peers) / median(&ours);
    let detail = json!({"ours_seconds": ours, "peer_seconds": peers, "runs": last});
    report.put(Figure::new(&name, ratio, "times", Bound::AtLeast(timed.bound), detail));
    // Near ties are not looked for here, it would cost the peer time; below they are.
    report.put(Figure::new(format!("{name}_apart"), apart, "nats", Bound::None, json!({})));
    Ok(())
}

fn compare(
    bench: &Bench,
    report: &mut Report,
    (model, units): (&str, &str),
    patch: [&str; 2],
) -> Result<()> {
    let folder = folder(bench, model)?;
    let tokens = bench.tokens(&folder, FEW, Cut::Real)?;
    let how = patch.map(|word| word.trim_start_matches("--").replace('-', "_")).join("_");
    let name = format!("exact_{}_{how}", model.replace('-', "_"));
    let both = Both::run(bench, &name, (&folder, &tokens), units, &patch)?;
    let margins = Both::grid(&both.peer, "margins");
    let near = margins.iter().filter(|margin| **margin < NEAR_TIE).count();
    if near * 2 > margins.len() {
        let why = format!("{name}: {near} of {} runs are near a tie", margins.len());
        return Err(BenchError::Unequal(why));
    }
    let detail = json!({
        "largest": both.largest(),
        "near_ties": near,
        "apart_with_near_ties": both.apart(|_| true)?,
        "runs": both.detail(),
    });
    let clear = |unit: usize| margins.get(unit).is_some_and(|margin| *margin >= NEAR_TIE);
    report.put(Figure::new(name, both.apart(clear)?, "nats", Bound::Below(APART), detail));
    Ok(())
}

/// Who was resampled from whom.
struct Pairs {
    /// The lines of tokens that were measured.
    lines: Vec<String>,
    /// For each of them the number of the one that it took from.
    sources: Vec<usize>,
}

impl Pairs {
    /// What ours says; none where it resampled nothing. It names prompts by their line.
    fn of(ours: &Done, tokens: &Path) -> Result<Option<Self>> {
        let Some(from) = ours.json.get("resampled_from").and_then(Value::as_object) else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(tokens).map_err(BenchError::file(tokens))?;
        let number = |id: &str| id.parse::<usize>().ok();
        let mut pairs: Vec<(usize, usize)> = from
            .iter()
            .filter_map(|(taker, giver)| Some((number(taker)?, number(giver.as_str()?)?)))
            .collect();
        pairs.sort_unstable();
        let line = |(taker, _): &(usize, usize)| text.lines().nth(taker - 1).map(str::to_owned);
        let place = |(_, giver): &(usize, usize)| pairs.iter().position(|(t, _)| t == giver);
        Ok(Some(Self {
            lines: pairs.iter().filter_map(line).collect(),
            sources: pairs.iter().filter_map(place).collect(),
        }))
    }

    /// Writes both as files for the peer.
    fn write(&self, stem: &Path) -> Result<[PathBuf; 2]> {
        let paths = ["tokens.jsonl", "sources.json"].map(|end| stem.with_extension(end));
        let texts = [self.lines.join("\n"), json!(self.sources).to_string()];
        for (path, text) in paths.iter().zip(texts) {
            std::fs::write(path, text).map_err(BenchError::file(path))?;
        }
        Ok(paths)
    }
}

/// The same patches by both.
struct Both {
    ours: Done,
    peer: Done,
}

impl Both {
    fn run(
        bench: &Bench,
        name: &str,
        (model, tokens): (&Path, &Path),
        units: &str,
        patch: &[&str],
    ) -> Result<Self> {
        let threads = bench.threads.to_string();
        let same = ["--units", units, "--threads", &threads];
        let ours = bench.uspx(&format!("{name}-ours"));
        let ours = ours.args(["probe", "patch", "--method", "exact", "--json", "--tokenised"]);
        let ours = ours.arg("--model").arg(model).arg("--prompts").arg(tokens);
        let ours = ours.args(same).args(patch).json()?;
        let peer = bench.peer(&format!("{name}-peer"), "exact.py")?.arg(model);
        let peer = match Pairs::of(&ours, tokens)? {
            Some(pairs) => {
                let [tokens, sources] = pairs.write(&bench.work.join(name))?;
                peer.arg("--tokens-file").arg(tokens).arg("--sources").arg(sources)
            }
            None => peer.arg("--tokens-file").arg(tokens),
        };
        let margins = if patch.is_empty() { &[][..] } else { &["--margins"] };
        Ok(Self { peer: peer.args(same).args(patch).args(margins).json()?, ours })
    }

    /// A number of every unit, by kind, layer and index.
    fn grid(done: &Done, key: &str) -> Vec<f64> {
        let kinds = done.json.get(key).and_then(Value::as_object);
        let grids = kinds.into_iter().flat_map(|kinds| kinds.values());
        let rows = grids.filter_map(Value::as_array).flatten().filter_map(Value::as_array);
        rows.flatten().map(|value| value.as_f64().unwrap_or(f64::NAN)).collect()
    }

    fn effects(done: &Done) -> Vec<f64> {
        Self::grid(done, "effects")
    }

    /// The largest difference of two effects of those units, or of the clean losses, in nats per
    /// response token.
    fn apart(&self, counts: impl Fn(usize) -> bool) -> Result<f64> {
        let [ours, peers] = [&self.ours, &self.peer].map(Self::effects);
        if ours.len() != peers.len() || ours.is_empty() {
            let why = format!(
                "uspx gave {} effects, the peer {}: they cannot be compared",
                ours.len(),
                peers.len()
            );
            return Err(BenchError::Unequal(why));
        }
        let clean = self.ours.number("clean_loss")? - self.peer.number("clean_loss")?;
        // Not a number stays one, which `max` would hide.
        let larger = |a: f64, b: f64| if a >= b { a } else { b };
        let both = ours.iter().zip(&peers).enumerate().filter(|(unit, _)| counts(*unit));
        Ok(both.map(|(_, (a, b))| (a - b).abs()).fold(clean.abs(), larger))
    }

    /// The largest effect that was compared.
    fn largest(&self) -> f64 {
        Self::effects(&self.peer).iter().fold(0.0, |most, effect| most.max(effect.abs()))
    }

    fn detail(&self) -> Value {
        let of = |done: &Done, keys: &[&str]| -> Value {
            keys.iter().map(|key| ((*key).to_owned(), done.json.get(*key).cloned())).collect()
        };
        let peer = ["units", "sequences", "tokens", "padded_tokens", "experts_implementation"];
        json!({
            "ours": of(&self.ours, &["forwards", "seconds"]),
            "peer": of(&self.peer, &peer),
        })
    }
}
