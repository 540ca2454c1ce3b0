//! A campaign's stages in words and in order, and how far the present one is.

use super::CampaignProgress;
use uspx_colony::{CampaignConfig, Stage};

/// The stages in order, each with what is done in it.
const STAGES: [(Stage, &str); 9] = [
    (Stage::Trace, "tracing every prompt"),
    (Stage::Patch, "attribution patching"),
    (Stage::Explore, "exact ablations"),
    (Stage::JudgeMasks, "the mask against random ones"),
    (Stage::Sae, "sparse autoencoders"),
    (Stage::Label, "the teacher's answers"),
    (Stage::Distil, "training students"),
    (Stage::Export, "writing 4-bit students"),
    (Stage::JudgeStudents, "judging on held-out prompts"),
];

/// A stage's number, from 1, and how many a campaign has.
pub(crate) fn number(stage: Stage, campaign: &CampaignConfig) -> (u32, u32) {
    let all: Vec<Stage> =
        STAGES.iter().map(|(s, _)| *s).filter(|s| *s == stage || campaign.has(*s)).collect();
    let at = all.iter().position(|s| *s == stage).unwrap_or(0);
    (at as u32 + 1, all.len() as u32)
}

/// What is done in a stage.
pub(crate) fn words(stage: Stage) -> &'static str {
    STAGES.iter().find(|(s, _)| *s == stage).map_or("", |(_, words)| words)
}

/// `stage 3 of 8, exact ablations`.
pub(crate) fn told(stage: Stage, campaign: &CampaignConfig) -> String {
    let (number, all) = number(stage, campaign);
    format!("stage {number} of {all}, {}", words(stage))
}

/// How much of the present stage is done, 0 to 1; what workers are at counts by its parts. The
/// exact rounds are counted by their budget, which a stable mask may leave unspent.
pub(crate) fn part(now: &CampaignProgress, round: u64) -> f64 {
    let inside = |(done, total): (u64, u64)| done as f64 / total.max(1) as f64;
    let working: f64 = now.workers.iter().filter_map(|w| w.current).map(inside).sum();
    let batch = ((now.settled as f64 + working) / now.tasks.max(1) as f64).min(1.0);
    if now.stage != Some(Stage::Explore) {
        return batch;
    }
    let (asked, most) = now.explored;
    let before = asked.saturating_sub(round) as f64;
    ((before + (asked as f64 - before) * batch) / most.max(1) as f64).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WorkerProgress;
    use uspx_domain::{Digest, Fingerprint, ModelShape};

    #[test]
    fn stages_stand_in_the_order_of_a_campaign() {
        assert!(STAGES.is_sorted_by_key(|(stage, _)| *stage));
        let model = |name: &[u8]| Fingerprint(Digest::of(name));
        let teacher = (model(b"teacher"), ModelShape { layers: vec![] });
        let mut campaign = CampaignConfig::new("c", teacher, model(b"student"), vec![]);
        assert_eq!(told(Stage::Explore, &campaign), "stage 3 of 8, exact ablations");
        assert_eq!(number(Stage::JudgeStudents, &campaign), (8, 8));
        campaign.sae.layers = vec![1];
        assert_eq!(number(Stage::JudgeStudents, &campaign), (9, 9));
        assert_eq!(told(Stage::Sae, &campaign), "stage 5 of 9, sparse autoencoders");
        campaign.student = None;
        assert_eq!(number(Stage::Sae, &campaign), (5, 5), "the last without a student");
    }

    #[test]
    fn rounds_count_by_the_budget_and_tasks_by_their_parts() {
        let worker = WorkerProgress { worker: "w".parse().unwrap(), current: Some((1, 2)) };
        let mut now = CampaignProgress {
            stage: Some(Stage::Trace),
            settled: 1,
            tasks: 4,
            workers: vec![worker],
            ..CampaignProgress::default()
        };
        assert_eq!(part(&now, 0), 1.5 / 4.0);
        (now.stage, now.explored) = (Some(Stage::Explore), (300, 1000));
        // Two rounds of 100 are done, and 1.5 quarters of the third.
        assert_eq!(part(&now, 100), (200.0 + 37.5) / 1000.0);
    }
}
