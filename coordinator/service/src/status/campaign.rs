//! How far the campaign is and how fast it goes: what the service remembers from one look to the
//! next.

use super::eta::Eta;
use super::{CampaignProgress, stages};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;
use uspx_colony::misplaced::{Misplaced, Wrong};
use uspx_colony::{MaskVersion, State};
use uspx_domain::Work;
use uspx_wire::{CampaignStatus, WrongStatus};

/// The campaign's pace.
#[derive(Debug)]
pub(crate) struct Pace {
    since: Instant,
    eta: Eta,
    left: Option<Duration>,
    /// The version that was there when the service started: when that was drawn is not known.
    first_mask: Option<u32>,
    mask_drawn: Option<SystemTime>,
    /// What two runs would agree on, by the evidence so far.
    two_runs: Option<f64>,
    misplaced: Option<Misplaced>,
}

impl Pace {
    /// Of a service that starts on `state`.
    pub(crate) fn new(state: &State) -> Self {
        Self {
            since: Instant::now(),
            eta: Eta::default(),
            left: None,
            first_mask: state.mask().map(|m| m.version),
            mask_drawn: None,
            two_runs: None,
            misplaced: Misplaced::of(state),
        }
    }

    /// A look at the campaign.
    pub(crate) fn look(&mut self, state: &State, progress: &CampaignProgress) {
        let is_idle = progress.ending.is_some() || state.waits().is_some();
        let Some(stage) = progress.stage.filter(|_| !is_idle) else {
            self.left = None;
            return;
        };
        let part = stages::part(progress, round(state));
        self.left = self.eta.tell(stage, self.since.elapsed(), part);
    }

    /// A mask is shown, for the first time or again.
    pub(crate) fn drawn(&mut self, state: &State, mask: &MaskVersion, two_runs: Option<f64>) {
        (self.two_runs, self.misplaced) = (two_runs, Misplaced::of(state));
        if self.first_mask != Some(mask.version) {
            self.mask_drawn = Some(SystemTime::now());
        }
    }

    /// In figures; none before a campaign.
    pub(crate) fn status(&self, state: &State) -> Option<CampaignStatus> {
        let campaign = state.campaign()?;
        let (stage, stages) = state.stage().map_or((0, 0), |stage| stages::number(stage, campaign));
        let words = match state.waits() {
            Some(_) => "measured; its student waits",
            None => state.stage().map(stages::words).unwrap_or_default(),
        };
        let millis = |at: SystemTime| {
            at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
        };
        Some(CampaignStatus {
            name: campaign.name.clone(),
            stage,
            stages,
            doing: words.to_owned(),
            ended: state.ending().is_some(),
            exact_pairs: state.explored().pairs,
            exact_most: campaign.probe.exact_pairs,
            left_millis: self.left.map(|left| left.as_millis() as u64),
            mask_swapped: state.mask().and_then(|m| swapped(state, m)),
            mask_unix_millis: self.mask_drawn.map(millis),
            two_runs: self.two_runs,
            wrongly_cut: self.misplaced.map(|m| wrong(m.cut)),
            wrongly_kept: self.misplaced.map(|m| wrong(m.kept)),
        })
    }
}

fn wrong(of: Wrong) -> WrongStatus {
    let Wrong { units, expected, at_most } = of;
    WrongStatus { units: u64::from(units), expected, at_most: u64::from(at_most) }
}

/// Pairs of prompt and unit or candidate that the open round asks for.
fn round(state: &State) -> u64 {
    let of = |work: &Work<u32>| match work {
        Work::Ablate(ablate) => ablate.prompts.len() as u64 * ablate.cuts.len() as u64,
        _ => 0,
    };
    let epoch = state.epoch();
    let tasks = state.tickets().values().map(|t| &t.task).filter(|t| t.epoch == epoch);
    tasks.map(|t| of(&t.work)).sum()
}

/// Units that the last version exchanged. Two masks of n units that share s overlap by
/// J = s / (2n − s).
fn swapped(state: &State, mask: &MaskVersion) -> Option<u64> {
    let (campaign, overlap) = (state.campaign()?, mask.jaccard?);
    let cut = mask.mask.cut(&campaign.shape, campaign.mask.kind).len();
    let kept = (campaign.units() - cut) as f64;
    Some((kept - 2.0 * kept * overlap / (1.0 + overlap)).round() as u64)
}
