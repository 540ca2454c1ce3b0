//! Prompts that the student answers worse than whom it was to beat, by name: what a mean over all of them
//! does not show.

use crate::gate::{Both, paired};
use crate::{CampaignConfig, State, answers};
use serde::{Deserialize, Serialize};
use std::f64::consts::LN_2;
use uspx_domain::ExportFormat;

/// Prompts that are named.
const NAMED: usize = 10;

/// Gate prompts on which the student is worse.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Regressions {
    /// How many there are.
    pub worse: u32,
    /// Of so many that both were judged on.
    pub prompts: u32,
    /// Those that lost most, the most first.
    pub named: Vec<Regression>,
    /// Those that the rival answers with the reference and the student does not; none where they were
    /// not both asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<LostAnswers>,
}

/// Right answers that the student does not give any more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostAnswers {
    /// How many there are.
    pub prompts: u32,
    /// Prompts that the student alone answers right.
    pub won: u32,
    /// The first ones' ids, in the order of the campaign.
    pub named: Vec<String>,
}

/// One of them; bits of its whole answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Regression {
    /// The prompt's id.
    pub prompt: String,
    /// What the student needs.
    pub new: f64,
    /// What the rival needs.
    pub old: f64,
}

/// Of the student that the gate decided on; none before it did.
pub fn regressions(state: &State) -> Option<Regressions> {
    let (campaign, gate) = (state.campaign.as_ref()?, state.gate.as_ref()?);
    let (new, old) = (state.judged(ExportFormat::gated().into())?, state.judged(gate.rival)?);
    let pairs = paired(new, old);
    let mut worse: Vec<(&u32, &Both)> = pairs.iter().filter(|(_, b)| b.new > b.old).collect();
    // Stable: of equal losses the first prompt goes first.
    worse.sort_by_key(|(_, both)| std::cmp::Reverse(both.new - both.old));
    let one = |(at, both): &(&u32, &Both)| {
        let entry = campaign.prompts.get(**at as usize)?;
        let bits = |nats: crate::Fixed| nats.to_f64() / LN_2;
        let (new, old) = (bits(both.new), bits(both.old));
        Some(Regression { prompt: entry.id.clone(), new, old })
    };
    let named = worse.iter().take(NAMED).filter_map(one).collect();
    let lost = lost(campaign, &answers::both(new, old));
    Some(Regressions { worse: worse.len() as u32, prompts: pairs.len() as u32, named, lost })
}

fn lost(campaign: &CampaignConfig, answered: &answers::Pairs) -> Option<LostAnswers> {
    let places =
        |wanted| answered.iter().filter(move |(_, both)| **both == wanted).map(|(at, _)| *at);
    let lost = || places((false, true));
    let named = lost().take(NAMED).filter_map(|at| campaign.id(at).map(str::to_owned)).collect();
    let (prompts, won) = (lost().count() as u32, places((true, false)).count() as u32);
    (!answered.is_empty()).then_some(LostAnswers { prompts, won, named })
}
