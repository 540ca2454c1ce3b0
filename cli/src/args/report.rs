//! `uspx probe report`: ways to rank units, judged.

use super::positive;
use super::probe::ProbeArgs;
use crate::rows::{self, Ranking};
use clap::Args;
use std::path::PathBuf;
use uspx_colony::Share;
use uspx_domain::UnitKind;

/// The kinds that are judged where none are named.
const USUAL: [UnitKind; 3] = [UnitKind::Expert, UnitKind::Head, UnitKind::Channel];
/// Steps of the usual grid.
const STEPS: u32 = 16;

/// `uspx probe report`.
#[derive(Args, Debug)]
pub struct ReportArgs {
    /// Model, and the prompts to score units by.
    #[command(flatten)]
    pub common: ProbeArgs,
    /// The prompts to judge by; none may be among --prompts [default: half of --prompts, drawn by
    /// --seed].
    #[arg(long)]
    pub held_out: Option<PathBuf>,
    /// Which units [default: expert,head,channel, as far as the model has them].
    #[arg(long, value_delimiter = ',', value_parser = rows::unit_kind())]
    pub units: Vec<UnitKind>,
    /// Ways to rank them, beside the default and random ones [default: all, exact only where units
    /// are few].
    #[arg(long, value_delimiter = ',', value_parser = rows::ranking())]
    pub methods: Vec<Ranking>,
    /// Fractions to keep, `0.25,0.5` say; the ends of each curve are added [default: every
    /// sixteenth].
    #[arg(long, value_delimiter = ',', value_parser = fraction)]
    pub grid: Vec<Share>,
    /// Patch channels exactly, too: one run for each.
    #[arg(long)]
    pub exact_channels: bool,
    /// Random rankings, whose mean is shown.
    #[arg(long, default_value_t = 5, value_parser = positive)]
    pub random: usize,
    /// Seed of everything that is drawn.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// The page to write; the same numbers are written beside it as .json.
    #[arg(long)]
    pub out: PathBuf,
}

impl ReportArgs {
    /// The kinds that were named, or else the usual ones; each once.
    pub fn kinds(&self) -> Vec<UnitKind> {
        let named = if self.units.is_empty() { USUAL.to_vec() } else { self.units.clone() };
        let all = UnitKind::ALL.iter().copied();
        all.filter(|kind| named.contains(kind)).collect()
    }

    /// The ways to rank units of `kind` that are asked for; first the default.
    pub fn rankings(&self, kind: UnitKind) -> Vec<Ranking> {
        let named = |r: &Ranking| self.methods.iter().any(|m| m.name() == r.name());
        let usual = |r: &Ranking| self.methods.is_empty() || named(r);
        let affordable = |r: &Ranking| !r.is_exact() || !kind.is_large() || self.exact_channels;
        Ranking::all_for(kind).filter(|r| r.is_default() || usual(r)).filter(affordable).collect()
    }

    /// Fractions to keep, ascending, the whole among them.
    pub fn shares(&self) -> Vec<Share> {
        let usual = || (0..STEPS).map(|step| Share(Share::WHOLE / STEPS * step));
        let mut shares: Vec<Share> =
            if self.grid.is_empty() { usual().collect() } else { self.grid.clone() };
        shares.push(Share(Share::WHOLE));
        shares.sort_unstable();
        shares.dedup();
        shares
    }
}

fn fraction(text: &str) -> Result<Share, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(Share::nearest(share)),
        _ => Err("a fraction from 0 to 1 is needed".to_owned()),
    }
}
