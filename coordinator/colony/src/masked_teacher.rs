//! What it saves and costs that a teacher under a mask makes the labels.

use crate::interval::of_rise;
use crate::state::{Pair, Stage, Trial};
use crate::{CampaignConfig, Split, State, TrialRole};
use serde::{Deserialize, Serialize};
use uspx_domain::{Mask, MlpShape, Unit, UnitKind};

/// The masked teacher. Rises are of the loss, in nats per response token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MaskedTeacher {
    /// Units that its mask cuts.
    pub cut: u32,
    /// All units of the kind.
    pub units: u32,
    /// The share of all experts' weights that is neither read nor multiplied: no router picks a cut expert, and a token
    /// takes as many experts as before. 0 of other kinds, whose units are computed all the same.
    pub unread: f64,
    /// Prompts that it was asked to label.
    pub prompts: u32,
    /// Prompts that it made up and labelled beside these.
    pub dreams: u64,
    /// Its rise on the validation prompts, by which it was chosen.
    pub validation: Option<f64>,
    /// What that may be at most.
    pub bound: f64,
    /// Its rise on the gate prompts, which nothing was chosen by.
    pub rise: Option<f64>,
    /// The 95 % interval of that.
    pub rise_interval: Option<(f64, f64)>,
    /// Gate prompts that it is over.
    pub held_out: u32,
}

impl MaskedTeacher {
    /// That of the state's labels; none where the whole teacher made them.
    pub fn of(state: &State) -> Option<Self> {
        let (campaign, mask) = (state.campaign()?, state.results().label_mask.as_ref()?);
        let kind = campaign.mask.kind;
        let judged = |(role, trial): &(&TrialRole, &Trial)| {
            matches!(role, TrialRole::Chosen | TrialRole::Curve(_)) && trial.mask == *mask
        };
        let trial = state.results().trials.iter().find(judged).map(|(_, trial)| trial);
        let split = |at: u32| campaign.prompts.get(at as usize).map(|p| p.split);
        let on = |wanted| trial?.rise(|at| split(at) == Some(wanted));
        let pairs = trial.iter().flat_map(|trial| &trial.pairs);
        let held_out: Vec<&Pair> = pairs
            .filter(|(at, _)| split(**at) == Some(Split::Gate))
            .map(|(_, pair)| pair)
            .collect();
        Some(Self {
            cut: mask.cut(&campaign.shape, kind).len() as u32,
            units: campaign.units() as u32,
            unread: if kind == UnitKind::Expert { unread(campaign, mask) } else { 0.0 },
            prompts: state.asked.get(&Stage::Label).map_or(0, |asked| asked.len() as u32),
            dreams: state.results().dreams,
            validation: on(Split::Validation),
            bound: campaign.judge.label_rise,
            rise: on(Split::Gate),
            rise_interval: of_rise(held_out.iter().copied(), campaign, "masked teacher"),
            held_out: held_out.len() as u32,
        })
    }
}

/// Weights of the experts that a mask cuts, over those of all. All of a model's experts are as wide on their outside, so
/// they count by their channels.
fn unread(campaign: &CampaignConfig, mask: &Mask) -> f64 {
    let channels = |unit: &Unit| match campaign.shape.layers.get(unit.layer as usize)?.mlp {
        MlpShape::Experts { channels, .. } => Some(f64::from(channels)),
        MlpShape::Dense { .. } => None,
    };
    let cut: f64 = mask.cut(&campaign.shape, UnitKind::Expert).iter().filter_map(channels).sum();
    let all: f64 = campaign.shape.units(UnitKind::Expert).filter_map(|u| channels(&u)).sum();
    if all > 0.0 { cut / all } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uspx_domain::{Digest, Fingerprint, LayerShape, ModelShape};

    #[test]
    fn experts_count_by_their_channels() {
        let experts = |channels| MlpShape::Experts { experts: 4, top_k: 1, channels };
        let layers = [experts(10), MlpShape::Dense { channels: 70 }, experts(30)];
        let layers = layers.map(|mlp| LayerShape::new(1, mlp)).to_vec();
        let (model, shape) = (Fingerprint(Digest::of(b"m")), ModelShape { layers });
        let campaign = CampaignConfig::new("c", (model, shape.clone()), None, vec![]);
        let gone = |unit: &Unit| matches!((unit.layer, unit.index), (0, 0 | 1) | (2, 3));
        let kept = shape.units(UnitKind::Expert).filter(|unit| !gone(unit));
        let mask = Mask::keeping(model, &shape, UnitKind::Expert, kept);
        assert!((unread(&campaign, &mask) - 50.0 / 160.0).abs() < 1e-12);
    }
}
