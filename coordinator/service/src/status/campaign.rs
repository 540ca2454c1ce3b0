//! How far the campaign is and how fast it goes: what the service remembers from one look to the
//! next.

use super::eta::Eta;
use super::{CampaignProgress, stages};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;
use uspx_colony::drift::Drift;
use uspx_colony::misplaced::{Misplaced, Wrong};
use uspx_colony::resample::Resampled;
use uspx_colony::{MaskVersion, State};
use uspx_domain::Work;
use uspx_wire::{CampaignStatus, DriftStatus, WrongStatus};

/// The campaign's pace.
#[derive(Debug)]
pub(crate) struct Pace {
    since: Instant,
    eta: Eta,
    left: Option<Duration>,
    /// The version that was there when the service started: when that was drawn is not known.
    first_mask: Option<u32>,
    mask_drawn: Option<SystemTime>,
    evidence: Evidence,
    /// Epoch and version of the mask that it is about.
    weighed: Option<(u32, u32)>,
    /// The generation of the newest prompts that were told to be of another kind.
    told: Option<u32>,
}

/// What the evidence says of a mask: made once for each, not at every look.
#[derive(Debug, Default)]
struct Evidence {
    /// What two runs would agree on.
    two_runs: Option<f64>,
    misplaced: Option<Misplaced>,
    drift: Option<Drift>,
}

impl Evidence {
    fn of(state: &State) -> Self {
        let (Some(campaign), Some(_)) = (state.campaign(), state.mask()) else {
            return Self::default();
        };
        let resampled = Resampled::of(state);
        Self {
            two_runs: resampled.as_ref().map(|drawn| drawn.overlap(campaign)),
            misplaced: Misplaced::of(state),
            drift: resampled.and_then(|drawn| Drift::of(state, &drawn)),
        }
    }
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
            evidence: Evidence::default(),
            weighed: None,
            told: None,
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

    /// Looks at what the evidence says of a new mask. What is to be told of the newest prompts: once, when they turn out to
    /// be of another kind.
    pub(crate) fn weigh(&mut self, state: &State) -> Option<&Drift> {
        let drawn = state.mask().map(|mask| (mask.epoch, mask.version));
        if drawn == self.weighed {
            return None;
        }
        (self.weighed, self.evidence) = (drawn, Evidence::of(state));
        let told = self.told;
        let is_news = |drift: &&Drift| drift.drifted && told != Some(drift.generation);
        let news = self.evidence.drift.as_ref().filter(is_news)?;
        self.told = Some(news.generation);
        // What was known when the service started was told by the one before.
        (self.first_mask != drawn.map(|(_, version)| version)).then_some(news)
    }

    /// A mask is shown, for the first time or again.
    pub(crate) fn drawn(&mut self, mask: &MaskVersion) {
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
            two_runs: self.evidence.two_runs,
            wrongly_cut: self.evidence.misplaced.map(|m| wrong(m.cut)),
            wrongly_kept: self.evidence.misplaced.map(|m| wrong(m.kept)),
            drift: self.evidence.drift.as_ref().map(drift),
        })
    }
}

fn drift(of: &Drift) -> DriftStatus {
    DriftStatus {
        drifted: of.drifted,
        newest: u64::from(of.newest),
        older: u64::from(of.older),
        share: of.share,
        change: of.change,
        low: of.low,
        high: of.high,
        text: of.to_string(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::tests::frozen::world::{self, Service, World, effects, prompt};
    use uspx_colony::campaign::MindPlan;
    use uspx_colony::{PromptEntry, Split};
    use uspx_domain::Unit;

    /// Lets the workers answer everything; what is told of the newest prompts meanwhile.
    fn told(service: &mut Service, world: &World, pace: &mut Pace) -> Vec<String> {
        let mut told = Vec::new();
        while service.ending.is_none() {
            let (worker, task) = service.queues.remove(0);
            service.answer(world.answer(&task, &worker));
            told.extend(pace.weigh(service.colony.state()).map(ToString::to_string));
        }
        told
    }

    #[test]
    fn that_the_mix_has_shifted_is_told_once() {
        let mut config = world::campaign("shifted");
        (config.mind, config.student) = (MindPlan::default(), None);
        (config.probe.exact_pairs, config.probe.exact_least) = (1280, 1280);
        let mut world = World::new(config);
        let (mut service, mut pace) = (Service::default(), Pace::new(&State::default()));
        service.found(&world.config);
        service.see("a");
        service.see("b");
        assert!(told(&mut service, &world, &mut pace).is_empty());
        let status = pace.status(service.colony.state()).unwrap();
        assert!(status.drift.is_none() && status.two_runs.is_some());
        assert!(status.wrongly_cut.unwrap().at_most < 32);

        let moved = |(u, effect): (Unit, f64)| (Unit { index: (u.index + 2) % 16, ..u }, effect);
        world.later = Some((420, effects(99).into_iter().map(moved).collect()));
        let new = (0..40).map(|at| PromptEntry::of(&prompt(&format!("new{at}")), Split::Train));
        world.config.prompts.extend(new);
        service.want(&world.config);
        let news = told(&mut service, &world, &mut pace);
        assert!(news.len() == 1 && news[0].contains("the newest 40 prompts"), "{news:?}");
        let state = service.colony.state();
        let drift = pace.status(state).unwrap().drift.unwrap();
        assert!(drift.drifted && drift.low > 0.0, "{drift:?}");
        let mut again = Pace::new(state);
        assert_eq!(again.weigh(state), None, "the service before has told it");
        assert_eq!(again.status(state).unwrap().drift, Some(drift));
    }
}
