//! Progress bars of a campaign: one per stage, never going backwards.

use crate::progress::bar;
use indicatif::ProgressBar;
use tokio::sync::watch;
use uspx_colony::Stage;
use uspx_coordinator::CampaignProgress;

/// Steps of a bar: tasks are few and long, so their insides count.
const FINE: f64 = 1000.0;

/// Shows bars until the campaign ends or this is aborted.
pub(super) async fn show(mut progress: watch::Receiver<CampaignProgress>, mut explored: u64) {
    let mut current: Option<(Stage, ProgressBar)> = None;
    while progress.changed().await.is_ok() {
        let now = progress.borrow_and_update().clone();
        let Some(stage) = now.stage else { continue };
        if current.as_ref().is_none_or(|(shown, _)| *shown != stage) {
            if let Some((_, done)) = current.take() {
                done.finish();
            }
            let new = bar(name(stage));
            new.set_length(FINE as u64);
            new.enable_steady_tick(std::time::Duration::from_millis(500));
            current = Some((stage, new));
        }
        let Some((_, bar)) = &current else { continue };
        let at = (fraction(&now, &mut explored) * FINE) as u64;
        if at > bar.position() {
            bar.set_position(at);
        }
        if now.ending.is_some() {
            bar.finish();
        }
    }
}

/// How much of the stage is done, 0 to 1.
fn fraction(now: &CampaignProgress, explored: &mut u64) -> f64 {
    let inside = |w: &uspx_coordinator::WorkerProgress| match w.current {
        Some((done, total)) if total > 0 => done as f64 / total as f64,
        _ => 0.0,
    };
    let working: f64 = now.workers.iter().map(inside).sum();
    let batch = ((now.settled as f64 + working) / now.tasks.max(1) as f64).min(1.0);
    if now.stage != Some(Stage::Explore) {
        return batch;
    }
    // Several rounds: those asked for before this one are done.
    let (asked, most) = now.explored;
    if batch < 1.0 && asked > *explored {
        let before = *explored as f64;
        return (before + (asked as f64 - before) * batch) / most.max(1) as f64;
    }
    *explored = asked;
    (asked as f64 / most.max(1) as f64).min(1.0)
}

/// What a stage does, for people.
pub(super) fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Trace => "tracing every prompt",
        Stage::Patch => "attribution patching",
        Stage::Explore => "exact expert ablations, round by round",
        Stage::JudgeMasks => "the mask against random ones",
        Stage::Sae => "sparse autoencoders learn",
        Stage::Label => "the teacher labels",
        Stage::Distil => "students learn",
        Stage::Export => "writing 4-bit students",
        Stage::JudgeStudents => "judging on held-out prompts",
    }
}
