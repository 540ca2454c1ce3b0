//! What a campaign will compute, before it begins: for every stage a piece of its work, and how
//! many such pieces there will be. Nothing rests on it; a person wants to know what it will take.

use super::{Piece, Speeds, View, judge_masks, label, sae};
use crate::mask::{Budget, random_mask};
use crate::state::Stage;
use crate::{CampaignConfig, Contender, Dice, Purpose, Split, State, TrialRole};
use uspx_domain::{
    Ablate, Cut, DistilRecipe, Estimator, Export, ExportFormat, Fingerprint, Judge, Subject, Unit,
    Work,
};

/// Some work of a campaign.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// The stage that it is of.
    pub stage: Stage,
    /// The model that it is about.
    pub model: Fingerprint,
    /// A piece of it, as a worker would get it.
    pub sample: Sample,
    /// How many such pieces there will be.
    pub pieces: f64,
}

/// A piece of work.
#[derive(Debug, Clone, PartialEq)]
pub enum Sample {
    /// This.
    Work(Work<u32>),
    /// A training by this recipe on so many labelled prompts: their labels are not made yet.
    Training {
        /// The recipe.
        recipe: DistilRecipe,
        /// Prompts to learn from.
        train: Vec<u32>,
        /// Prompts to choose by.
        validation: Vec<u32>,
    },
    /// An export that finishes on labels which are not made yet: as many as there are of these, some of them often.
    Export {
        /// The export, without them.
        export: Export<u32>,
        /// Prompts that stand for what is labelled.
        labels: Vec<u32>,
    },
}

/// Everything that a campaign will compute, in its order; at most as much as its budget of exact
/// runs allows, which a mask that settles early does not spend.
pub fn forecast(campaign: &CampaignConfig) -> Vec<Forecast> {
    let (state, speeds) = (State::default(), Speeds::default());
    let view = View { campaign, state: &state, speeds: &speeds };
    let mut all = vec![view.traces(), view.patches(), view.bans(), view.masks()];
    all.extend(view.saes());
    if campaign.student.is_some() {
        all.push(view.labels());
        all.extend(view.trainings());
        all.extend(view.exports());
        all.extend(view.judgements());
    }
    all.into_iter().flatten().filter(|f| f.pieces > 0.0).collect()
}

impl View<'_> {
    /// The first `size` of these prompts as a piece, and as many pieces as there are prompts.
    fn share(
        &self,
        stage: Stage,
        (prompts, size): (&[u32], u32),
        piece: impl Fn(Vec<u32>) -> Piece,
    ) -> Option<Forecast> {
        let size = (size.max(1) as usize).min(prompts.len());
        let pieces = prompts.len() as f64 / size.max(1) as f64;
        let (model, _, work) = piece(prompts.get(..size)?.to_vec());
        Some(Forecast { stage, model, sample: Sample::Work(work), pieces })
    }

    fn traces(&self) -> Option<Forecast> {
        let prompts = self.shuffled(Split::Train);
        let prompts = (&*prompts, self.trace_batch(prompts.len()));
        self.share(Stage::Trace, prompts, |p| self.estimate(Estimator::TRACE, p))
    }

    fn patches(&self) -> Option<Forecast> {
        let mut prompts = self.shuffled(Split::Train);
        prompts.truncate(self.campaign.probe.patch_prompts as usize);
        let prompts = (&*prompts, self.patch_batch(prompts.len()));
        self.share(Stage::Patch, prompts, |p| self.estimate(Estimator::ATP, p))
    }

    /// Exact bans of units all over the model: their mean cost is that of a round's.
    fn bans(&self) -> Option<Forecast> {
        let probe = &self.campaign.probe;
        let units: Vec<Unit> = self.campaign.shape.units(self.campaign.mask.kind).collect();
        let mut prompts = self.shuffled(Split::Train);
        prompts.truncate(probe.round_prompts as usize);
        let each = self.units_per_task(prompts.len(), units.len());
        let step = (units.len() / each.max(1) as usize).max(1);
        let cuts: Vec<Cut> = units.iter().step_by(step).copied().map(Cut::Unit).collect();
        let pieces = probe.exact_pairs as f64 / (prompts.len() * cuts.len()).max(1) as f64;
        let sample = Sample::Work(Work::Ablate(Ablate { prompts, cuts }));
        let model = self.campaign.teacher;
        Some(Forecast { stage: Stage::Explore, model, sample, pieces })
    }

    /// Whole masks on the gate prompts, and the curve on the validation prompts too.
    fn masks(&self) -> Option<Forecast> {
        let judge = &self.campaign.judge;
        let curve = judge.curve.len() as u32 + 1;
        let budget = Budget::of(self.campaign);
        let trial = |number| {
            let mask = random_mask(&mut Dice::new(self.campaign.seed, "forecast", number), &budget);
            (TrialRole::Random(number as u32), mask)
        };
        let tried: Vec<_> = (0..u64::from(judge.masks_per_task)).map(trial).collect();
        let gate = self.shuffled(Split::Gate);
        let one = self.share(
            Stage::JudgeMasks,
            (&gate, self.mask_batch(tried.len(), gate.len())),
            |prompts| judge_masks::trials(self, prompts, tried.clone()),
        )?;
        let groups = |masks: u32| f64::from(masks.div_ceil(judge.masks_per_task.max(1)));
        let validation = self.campaign.split(Split::Validation).len() as f64;
        let more = groups(curve) * validation / gate.len().max(1) as f64;
        let pieces = one.pieces * (groups(curve + judge.random_masks) + more);
        Some(Forecast { pieces, ..one })
    }

    fn saes(&self) -> Vec<Option<Forecast>> {
        let one = |layer: &u32| {
            let (model, _, work) = sae::sae(self, *layer);
            Some(Forecast { stage: Stage::Sae, model, sample: Sample::Work(work), pieces: 1.0 })
        };
        self.campaign.sae.layers.iter().map(one).collect()
    }

    fn labels(&self) -> Option<Forecast> {
        let mut prompts = self.shuffled(Split::Train);
        prompts.extend(self.campaign.split(Split::Validation));
        let batch = self.label_batch(prompts.len());
        self.share(Stage::Label, (&prompts, batch), |prompts| {
            self.teacher(
                Purpose::Labels(Split::Train),
                label::label(self, (prompts, Split::Train), None),
            )
        })
    }

    fn trainings(&self) -> Vec<Option<Forecast>> {
        let (train, validation) =
            (self.campaign.split(Split::Train), self.campaign.split(Split::Validation));
        // Most new prompts are usable: the person's own stand for them here.
        let pieces = 1.0 + f64::from(self.campaign.dream.rounds);
        let one = |(_, recipe): (u32, DistilRecipe)| {
            let (train, validation) = (train.clone(), validation.clone());
            let sample = Sample::Training { recipe, train, validation };
            let model = self.campaign.student?;
            Some(Forecast { stage: Stage::Distil, model, sample, pieces })
        };
        self.campaign.distil.trainings().map(one).collect()
    }

    fn exports(&self) -> Vec<Option<Forecast>> {
        let mut calibration = self.shuffled(Split::Train);
        let labelled = calibration.len() * (1 + self.campaign.dream.rounds as usize);
        let labelled: Vec<u32> = calibration.iter().copied().cycle().take(labelled).collect();
        calibration.truncate(self.campaign.distil.calibration as usize);
        let one = |format: &ExportFormat| {
            let (calibration, format) = (calibration.clone(), *format);
            let finish = self.campaign.finish.passes;
            let (adapter, labels) = (None, Vec::new());
            let export = Export { adapter, calibration, finish, labels, format };
            let sample = Sample::Export { export, labels: labelled.clone() };
            let model = self.campaign.student?;
            Some(Forecast { stage: Stage::Export, model, sample, pieces: 1.0 })
        };
        ExportFormat::ALL.iter().map(one).collect()
    }

    /// The teacher and as many students as there will be: the base and the 4-bit ones, which answer, too,
    /// and the distilled ones.
    fn judgements(&self) -> Vec<Option<Forecast>> {
        let gate = self.shuffled(Split::Gate);
        let one = |(model, like, times): (Fingerprint, Contender, usize)| {
            let answers = self.answers(like);
            let batch = self.judge_batch((model, answers), gate.len());
            let one = self.share(Stage::JudgeStudents, (&gate, batch), |prompts| {
                let work = Work::Judge(Judge { prompts, subject: Subject::Model, answers });
                (model, Purpose::Evidence, work)
            })?;
            Some(Forecast { pieces: one.pieces * times as f64, ..one })
        };
        let recipes = self.campaign.distil.recipes.len();
        let students = |student: Fingerprint| {
            let (base, distilled) = (Contender::Base, Contender::Distilled(0));
            [(student, base, 1 + ExportFormat::ALL.len()), (student, distilled, recipes)]
        };
        let students = self.campaign.student.into_iter().flat_map(students);
        let all = [(self.campaign.teacher, Contender::Teacher, 1)].into_iter().chain(students);
        all.filter(|(_, _, times)| *times > 0).map(one).collect()
    }

    /// A split's prompts in a fixed random order: a file may have the short ones first.
    fn shuffled(&self, split: Split) -> Vec<u32> {
        let mut prompts = self.campaign.split(split);
        Dice::new(self.campaign.seed, "forecast prompts", 0).shuffle(&mut prompts);
        prompts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PromptEntry;
    use uspx_domain::Digest;

    fn campaign() -> CampaignConfig {
        let model = |name: &str| Fingerprint(Digest::of(name.as_bytes()));
        let split = |at| match at {
            0..600 => Split::Train,
            600..640 => Split::Validation,
            _ => Split::Gate,
        };
        let entry = |at: u32| PromptEntry {
            id: at.to_string(),
            digest: Digest::of(&at.to_le_bytes()),
            split: split(at),
            tags: vec![],
            generation: 0,
        };
        let teacher = (model("teacher"), crate::test_shape(4, 16));
        CampaignConfig::new("c", teacher, model("student"), (0..740).map(entry).collect())
    }

    /// Prompts times models (or cuts) that a stage will run, as the forecast has it.
    fn volume(all: &[Forecast], stage: Stage) -> f64 {
        let of = |f: &Forecast| match &f.sample {
            Sample::Work(Work::Ablate(a)) => f.pieces * (a.prompts.len() * a.cuts.len()) as f64,
            Sample::Work(work) => f.pieces * work.prompts().len() as f64,
            Sample::Training { train, .. } => f.pieces * train.len() as f64,
            Sample::Export { export, .. } => f.pieces * export.calibration.len() as f64,
        };
        all.iter().filter(|f| f.stage == stage).map(of).sum()
    }

    #[test]
    fn volumes_are_the_campaign_s() {
        let config = campaign();
        let all = forecast(&config);
        let close = |stage, wanted: f64| {
            let found = volume(&all, stage);
            assert!((found - wanted).abs() < 1e-6 * wanted, "{stage:?}: {found} for {wanted}");
        };
        close(Stage::Trace, 600.0);
        close(Stage::Patch, 256.0);
        close(Stage::Explore, 16_384.0);
        // Seven masks of the curve and twenty random ones in four groups of seven; the seven on the
        // validation prompts too.
        close(Stage::JudgeMasks, 100.0 * 28.0 + 40.0 * 7.0);
        close(Stage::Label, 640.0);
        close(Stage::Distil, 1200.0 * 9.0);
        close(Stage::Export, 3.0 * 512.0);
        close(Stage::JudgeStudents, 100.0 * 7.0);
    }

    /// The teacher, the base and each format answer; the two recipes' students do not.
    #[test]
    fn answers_are_forecast_apart_from_losses() {
        let (all, mut answering) = (forecast(&campaign()), 0.0);
        for f in all.iter().filter(|f| f.stage == Stage::JudgeStudents) {
            let Sample::Work(Work::Judge(judge)) = &f.sample else { panic!("{f:?}") };
            let volume = f.pieces * judge.prompts.len() as f64;
            answering += if judge.answers.is_none() { 0.0 } else { volume };
        }
        assert!((answering - 500.0).abs() < 1e-6, "{answering}");
    }

    #[test]
    fn every_layer_s_autoencoder_reads_all_prompts_but_the_gate_s() {
        let mut config = campaign();
        config.sae.layers = vec![0, 3];
        let all = forecast(&config);
        assert_eq!(volume(&all, Stage::Sae), 2.0 * 640.0);
        assert!(all.is_sorted_by_key(|f| f.stage));
    }

    #[test]
    fn a_shared_training_learns_from_as_much_as_an_unshared_one() {
        let mut config = campaign();
        config.together.machines = 3;
        assert_eq!(forecast(&config), forecast(&campaign()));
    }

    #[test]
    fn without_a_student_it_ends_with_the_masks() {
        let config = CampaignConfig { student: None, ..campaign() };
        assert!(forecast(&config).iter().all(|f| f.stage <= Stage::JudgeMasks));
    }
}
