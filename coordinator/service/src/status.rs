//! How things stand: for `uspx status`, for progress bars, for the log.

mod campaign;
mod eta;
pub(crate) mod stages;
pub(crate) mod students;

use crate::ServiceError;
use crate::lacking::{Lacking, lacking};
use crate::registry::Registry;
pub(crate) use campaign::Pace;
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use uspx_colony::reasons::{self, LeftOut, Reason};
use uspx_colony::report::ending_words;
use uspx_colony::{Colony, Ending, Stage, State};
use uspx_domain::{TaskId, WorkerId};
use uspx_wire::{LackStatus, MaskStatus, ReasonStatus, SkipStatus, StatusMessage, WorkerStatus};

/// A glance at a campaign, for progress bars.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CampaignProgress {
    /// What the latest epoch is for.
    pub stage: Option<Stage>,
    /// Its number.
    pub epoch: u32,
    /// Its tasks answered or given up.
    pub settled: usize,
    /// Its tasks.
    pub tasks: usize,
    /// Exact pairs asked for so far, and the most that will be.
    pub explored: (u64, u64),
    /// The mask's version and its overlap with the one before.
    pub mask: Option<(u32, Option<f64>)>,
    /// The live workers.
    pub workers: Vec<WorkerProgress>,
    /// How it ended.
    pub ending: Option<Ending>,
}

/// What a worker is at.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerProgress {
    /// Who.
    pub worker: WorkerId,
    /// Steps of its current task done, and in all.
    pub current: Option<(u64, u64)>,
}

/// The glance at `state`.
pub fn progress(state: &State, registry: &Registry) -> CampaignProgress {
    let (answered, given_up, tasks) = state.progress();
    let workers = registry.all().into_iter().map(|(worker, live)| WorkerProgress {
        worker,
        current: live.heartbeat.current.map(|c| (c.done, c.total)),
    });
    CampaignProgress {
        stage: state.stage(),
        epoch: state.epoch(),
        settled: answered + given_up,
        tasks,
        explored: (state.explored().pairs, state.campaign().map_or(0, |c| c.probe.exact_pairs)),
        mask: state.mask().map(|m| (m.version, m.jaccard)),
        workers: workers.collect(),
        ending: state.ending().cloned(),
    }
}

/// The message that `uspx status` reads.
pub(crate) fn message(
    name: &str,
    colony: &Colony,
    registry: &Registry,
    pace: &Pace,
) -> StatusMessage {
    let state = colony.state();
    let (_, _, tasks) = state.progress();
    let (answered, given_up) = totals(state);
    let (done, gone, _) = state.progress();
    let stage = match (state.ending(), state.stage()) {
        (Some(ending), _) => ending_words(ending),
        (None, Some(stage)) => stage.name().to_owned(),
        (None, None) if registry.all().is_empty() => "waiting for workers".to_owned(),
        (None, None) => "waiting for workers that hold teacher and student".to_owned(),
    };
    StatusMessage {
        colony: name.to_owned(),
        stage,
        epoch: state.epoch(),
        tasks_open: (tasks - done - gone) as u64,
        tasks_answered: answered,
        tasks_failed: given_up,
        workers: workers(colony, registry),
        mask: mask_status(state),
        release: state.published().map(|p| p.release),
        written_unix_millis: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_millis() as u64),
        given_up: most_frequent(reasons::given_up(state)),
        failed_attempts: most_frequent(reasons::failed_attempts(state)),
        skipped: reasons::left_out(state).into_iter().map(skip_status).collect(),
        seam_prompts: Some(state.seam_prompts()).filter(|seams| !seams.is_none()).map(Into::into),
        labels: state.coverage().map(Into::into),
        campaign: pace.status(state),
        lacking: lacks(state, registry),
        students: students::status(state),
    }
}

/// What of the campaign's models live workers lack: they get no tasks on those.
fn lacks(state: &State, registry: &Registry) -> Vec<LackStatus> {
    let status = |worker: &WorkerId, lack: Lacking| LackStatus {
        worker: worker.clone(),
        model: lack.part.to_owned(),
        fingerprint: lack.model,
    };
    let of = |(worker, lacks): (WorkerId, Vec<Lacking>)| {
        lacks.into_iter().map(|lack| status(&worker, lack)).collect::<Vec<_>>()
    };
    match state.ending() {
        None => lacking(state, registry).into_iter().flat_map(of).collect(),
        Some(_) => Vec::new(),
    }
}

/// Reasons that a status has of a kind; a worker's reason is cut off after so many characters.
const REASONS: usize = 10;
const REASON_LENGTH: usize = 500;
/// Ids of skipped prompts that a status names for each reason; the release's report names all.
const SKIPPED_IDS: usize = 20;

fn most_frequent(reasons: Vec<Reason>) -> Vec<ReasonStatus> {
    let short = |reason: String| reason.chars().take(REASON_LENGTH).collect();
    let status = |r: Reason| ReasonStatus { work: r.work, reason: short(r.reason), count: r.count };
    reasons.into_iter().take(REASONS).map(status).collect()
}

fn skip_status(left: LeftOut) -> SkipStatus {
    let LeftOut { model, reason, mut ids, text } = left;
    let prompts = ids.len() as u64;
    ids.truncate(SKIPPED_IDS);
    SkipStatus { model, reason, prompts, ids, text }
}

fn totals(state: &State) -> (u64, u64) {
    let answered = state.accounts().values().map(|a| u64::from(a.answered)).sum();
    let given_up =
        state.tickets().values().filter(|t| !t.is_answered() && t.given_up.is_some()).count()
            as u64;
    (answered, given_up)
}

fn workers(colony: &Colony, registry: &Registry) -> Vec<WorkerStatus> {
    let account = |worker: &WorkerId| colony.state().accounts().get(worker);
    let resting = colony.resting();
    let of = |(worker, live): (WorkerId, crate::registry::Live)| {
        let quarantined = account(&worker).is_some_and(|a| a.quarantined.is_some());
        let rests = resting.contains_key(&worker);
        // What a heartbeat says last of a campaign that is over holds no longer.
        let current = live.heartbeat.current.filter(|_| colony.state().ending().is_none());
        let doing = match (quarantined, rests, &current) {
            (true, ..) => "quarantined",
            // Its machine failed: see the failed attempts, and its own log.
            (false, true, _) => "resting",
            (false, false, Some(_)) => "working",
            (false, false, None) => "idle",
        };
        WorkerStatus {
            state: doing.to_owned(),
            device: live.heartbeat.device.clone(),
            work: current.and_then(|c| work(colony.state(), c.task)),
            current,
            answered: account(&worker).map_or(0, |a| u64::from(a.answered)),
            silent_millis: live.seen.elapsed().as_millis() as u64,
            tokens_per_second: live.heartbeat.speed.as_ref().map(|s| s.tokens_per_second as u64),
            worker,
        }
    };
    registry.all().into_iter().map(of).collect()
}

/// The kind of work of a task.
fn work(state: &State, task: TaskId) -> Option<String> {
    Some(state.tickets().get(&task)?.task.work.name().to_owned())
}

pub(crate) fn mask_status(state: &State) -> Option<MaskStatus> {
    let (mask, campaign) = (state.mask()?, state.campaign()?);
    let cut = mask.mask.cut(&campaign.shape, campaign.mask.kind).len();
    Some(MaskStatus {
        revision: u64::from(mask.version),
        kept_fraction: 1.0 - cut as f64 / campaign.units().max(1) as f64,
        stability: mask.jaccard.unwrap_or(0.0),
    })
}

/// Replaces a file of the state folder whole, or not at all, and lasting.
pub(crate) fn write_file(path: &Path, content: &[u8]) -> Result<(), ServiceError> {
    replace(path, content, true)
}

/// The same of what is written anew twice a second: a power cut may cost it.
pub(crate) fn write_passing(path: &Path, content: &[u8]) -> Result<(), ServiceError> {
    replace(path, content, false)
}

fn replace(path: &Path, content: &[u8], lasting: bool) -> Result<(), ServiceError> {
    let part = path.with_extension("part");
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&part)?;
        file.write_all(content)?;
        if lasting {
            file.sync_all()?;
        }
        std::fs::rename(&part, path)?;
        match path.parent().filter(|_| lasting) {
            Some(folder) => std::fs::File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(ServiceError::file(path))
}
