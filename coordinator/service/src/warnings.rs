//! What a person should hear of a step: failed attempts, tasks given up, prompts left out or with a
//! seam, labels that cover too little; and, told unasked, how the campaign goes on. Ids and reasons
//! only: no prompt's text is known here.

use crate::status::{stages, students};
use uspx_colony::report::ending_words;
use uspx_colony::{Blame, CampaignConfig, Record, Split, Stage, State};
use uspx_domain::{Answer, Estimator, SkipGroup, TaskId, Work};
use uspx_runtime::telemetry::TOLD;

/// Says it in the log. `state` has the records in it already.
pub(crate) fn tell(records: &[Record], state: &State) {
    for record in records {
        match record {
            Record::Lost { task, worker, cause } if cause.blame() != Blame::Nobody => {
                tracing::warn!(%task, work = work(state, task), %worker, reason = %cause, "an attempt failed");
            }
            Record::GivenUp { task, reason } => {
                tracing::warn!(%task, work = work(state, task), reason, "a task is given up");
            }
            Record::Quarantined { worker, reason } => {
                tracing::warn!(%worker, reason, "a worker is quarantined: it gets no more tasks");
            }
            Record::Retracted { worker } => {
                tracing::warn!(%worker, "what it said is taken back and measured anew, as far as it is known by prompt");
            }
            Record::Disputed { answer } => disputed(answer, state),
            Record::Accepted { answer } => left_out(answer, state),
            Record::EpochClosed { epoch, .. } => {
                closed(*epoch, state);
                waits(state);
            }
            Record::Held => tracing::info!(target: TOLD, "{}", students::HELD),
            Record::Resumed => tracing::info!(target: TOLD, "students are made again"),
            Record::Founded(founding) => begins(&founding.campaign),
            Record::EpochOpened { stage, tasks, .. } => opened(*stage, tasks.len(), state),
            Record::Published { release } => {
                tracing::info!(target: TOLD, "done: published release {release}");
            }
            Record::Ended { ending } => {
                tracing::info!(target: TOLD, "{}", ending_words(ending));
                if let Some(left) = state.still_lacks() {
                    tracing::info!(
                        target: TOLD,
                        "another student is made when {left} more prompts to learn from have come, or now: uspx coordinator build"
                    );
                }
            }
            _ => {}
        }
    }
}

/// What the campaign waits for, once all is measured.
pub(crate) fn waits(state: &State) {
    if let Some(students) = state.waits().and_then(|_| students::status(state)) {
        tracing::info!(target: TOLD, "nothing is left to do until a student may be made: {}", students.text);
    }
}

fn begins(campaign: &CampaignConfig) {
    let prompts = |split| campaign.split(split).len();
    let (train, gate) = (prompts(Split::Train), prompts(Split::Gate));
    let name = &campaign.name;
    tracing::info!(target: TOLD, "campaign {name} begins: {train} prompts to train on, {gate} for the gate");
}

/// A stage is told when it begins; of the exact rounds, only the first.
fn opened(stage: Stage, tasks: usize, state: &State) {
    if stage != Stage::Explore || state.explored().rounds == 1 {
        let Some(campaign) = state.campaign() else { return };
        tracing::info!(target: TOLD, "{}: {tasks} tasks", stages::told(stage, campaign));
    }
}

fn work(state: &State, task: &TaskId) -> &'static str {
    state.tickets().get(task).map_or("unknown", |t| t.task.work.name())
}

/// Of two nobody can say who is right; where a third can be asked, it is.
fn disputed(answer: &Answer, state: &State) {
    let others = state.tickets().get(&answer.task).into_iter().flat_map(|t| t.live());
    let others: Vec<&str> =
        others.map(|a| a.worker.as_str()).filter(|w| *w != answer.worker.as_str()).collect();
    let (task, work, others) = (answer.task, work(state, &answer.task), others.join(", "));
    tracing::warn!(%task, work, worker = %answer.worker, others, "workers differ about a task: another is asked, if there is one");
}

fn left_out(answer: &Answer, state: &State) {
    for group in SkipGroup::of(&answer.skipped) {
        let (task, work) = (answer.task, work(state, &answer.task));
        tracing::warn!(%task, work, worker = %answer.worker, reason = group.reason.name(), "{group}");
    }
}

/// What an epoch's end makes known. The same step may have opened the next, so its tasks say what
/// it was for.
fn closed(epoch: u32, state: &State) {
    let task = state.tickets().values().map(|t| &t.task).find(|t| t.epoch == epoch);
    match task.map(|t| &t.work) {
        Some(Work::Label(_)) => coverage(state),
        Some(Work::Judge(_)) => seams(state),
        Some(Work::Estimate(e)) if e.estimator == Estimator::TRACE => seams(state),
        _ => {}
    }
}

fn seams(state: &State) {
    state.seam_prompts().lines().iter().for_each(|line| tracing::warn!("{line}"));
}

fn coverage(state: &State) {
    match state.coverage() {
        Some(coverage) if coverage.is_low() => tracing::warn!("labels: {coverage}"),
        Some(coverage) => tracing::info!("labels: {coverage}"),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};
    use uspx_colony::{
        CampaignConfig, Cause, Colony, Command, Ending, Event, PlannedTask, PromptEntry, Purpose,
        Split, Stage, Step,
    };
    use uspx_domain::{
        Baseline, BlobRef, Coverage, Deposit, Digest, Estimate, FailureReason, Fingerprint, Label,
        LayerShape, MlpShape, ModelShape, Outcome, SkipReason, Skipped, Speaks, UnitKind, WorkerId,
    };

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged of a step at the level that a coordinator starts with.
    fn logged(colony: &Colony, step: &Step) -> String {
        let log = Log::default();
        let writer = log.clone();
        let format =
            tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_ansi(false);
        let subscriber = format.with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || tell(&step.records, colony.state()));
        let bytes = log.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn worker() -> WorkerId {
        "w".parse().unwrap()
    }

    /// A colony whose first task is out.
    fn at_work() -> (Colony, PlannedTask) {
        let mlp = MlpShape::Experts { experts: 4, top_k: 1, channels: 8 };
        let shape = ModelShape::uniform(1, LayerShape::new(1, mlp));
        let model = Fingerprint(Digest::of(b"m"));
        let prompt = |(id, split): (&str, Split)| PromptEntry {
            id: id.into(),
            digest: Digest::of(id.as_bytes()),
            split,
            tags: vec![],
            generation: 0,
        };
        let prompts = [
            ("t1", Split::Train),
            ("t2", Split::Train),
            ("v", Split::Validation),
            ("g", Split::Gate),
        ];
        let mut colony = Colony::default();
        colony
            .want(
                CampaignConfig::new("c", (model, shape), model, prompts.map(prompt).to_vec()),
                [0; 16],
            )
            .unwrap();
        let step = colony.step(Event::WorkerSeen {
            worker: worker(),
            speaks: Speaks::here(),
            holds: vec![model],
        });
        let Some(Command::Issue { task, .. }) = step.commands.into_iter().next() else {
            panic!("nothing was issued")
        };
        (colony, *task)
    }

    fn answered(
        colony: &mut Colony,
        task: &PlannedTask,
        outcome: Outcome,
        skipped: Vec<Skipped>,
    ) -> Step {
        let answer =
            Answer { task: task.id, worker: worker(), outcome, millis: 1, skipped, seams: 0 };
        colony.step(Event::AnswerArrived { worker: worker(), answer: Box::new(answer) })
    }

    #[test]
    fn a_task_given_up_is_logged_with_its_reason() {
        let (mut colony, task) = at_work();
        let mut said = String::new();
        for _ in 0..3 {
            let outcome = Outcome::Failed(FailureReason::NotFinite.into());
            let step = answered(&mut colony, &task, outcome, vec![]);
            said += &logged(&colony, &step);
        }
        for words in ["an attempt failed", "a task is given up", "trace"] {
            assert!(said.contains(words), "{said}");
        }
        assert_eq!(said.matches("is not a finite number").count(), 4, "{said}");
        assert!(said.lines().all(|l| l.contains("WARN")), "{said}");
    }

    #[test]
    fn a_machine_s_fault_is_logged_although_it_counts_against_nothing() {
        let (mut colony, task) = at_work();
        let outcome = Outcome::Failed(FailureReason::Scratch.into());
        let step = answered(&mut colony, &task, outcome, vec![]);
        let said = logged(&colony, &step);
        assert!(
            said.contains("cannot write scratch files") && !said.contains("given up"),
            "{said}"
        );
    }

    #[test]
    fn prompts_left_out_are_logged_by_id() {
        let (mut colony, task) = at_work();
        let reason = SkipReason::TooLong { tokens: 40, context: 12 };
        let skipped = ["t1", "t2"].map(|id| Skipped { id: id.into(), reason });
        let nothing = Outcome::Scores(Deposit::default());
        let step = answered(&mut colony, &task, nothing, skipped.to_vec());
        let said = logged(&colony, &step);
        assert!(
            said.contains("2 prompts are left out (t1, t2)") && said.contains("WARN"),
            "{said}"
        );
        assert!(
            matches!(colony.state().ending(), Some(Ending::Failed(why)) if why.contains("t1, t2"))
        );
    }

    /// What is logged where the only task of an epoch is answered so, in the step that opens the
    /// next.
    fn logged_at_the_end(work: Work<u32>, outcome: Outcome, seams: u32) -> String {
        let (colony, task) = at_work();
        let mut state = colony.state().clone();
        let purpose = match work {
            Work::Label(_) => Purpose::Labels(Split::Train),
            _ => Purpose::Evidence,
        };
        let task = PlannedTask {
            work,
            purpose,
            epoch: task.epoch + 1,
            id: TaskId::derived(b"next"),
            ..task
        };
        let epoch = task.epoch;
        let answer =
            Answer { task: task.id, worker: worker(), outcome, millis: 1, skipped: vec![], seams };
        let records = vec![
            Record::EpochOpened { epoch, stage: Stage::Trace, tasks: vec![task] },
            Record::Accepted { answer: Box::new(answer) },
            Record::EpochClosed { epoch, answered: 1, given_up: 0, decision: None },
            Record::EpochOpened { epoch: epoch + 1, stage: Stage::Distil, tasks: vec![] },
        ];
        records.iter().for_each(|r| state.fold(r));
        logged(&Colony::resume(state), &Step { records, ..Step::default() })
    }

    #[test]
    fn labels_that_cover_too_little_are_logged_at_the_end_of_labelling() {
        let work = Work::Label(Label::of(vec![0]));
        let blob = BlobRef::to(b"labels");
        let coverage = Coverage { answer_bytes: 100, labelled_bytes: 3 };
        let outcome = Outcome::Labels { blob, prompts: 1, tokens: 1, dreams: 0, coverage };
        let said = logged_at_the_end(work, outcome, 0);
        assert!(
            said.contains("3.0 % of 100 answer bytes labelled") && said.contains("WARN"),
            "{said}"
        );
    }

    #[test]
    fn prompts_with_a_seam_are_logged_once_they_are_all_traced() {
        let scores = || Outcome::Scores(Deposit::default());
        let trace = || {
            Work::Estimate(Estimate {
                prompts: vec![0, 1],
                estimator: Estimator::TRACE,
                kinds: vec![UnitKind::Expert],
                baseline: Baseline::Zero,
            })
        };
        let said = logged_at_the_end(trace(), scores(), 2);
        assert!(
            said.contains("for the teacher, 2 prompts have other tokens") && said.contains("WARN"),
            "{said}"
        );
        assert_eq!(logged_at_the_end(trace(), scores(), 0), "");
    }

    #[test]
    fn a_lost_worker_is_no_fault_of_the_task() {
        let (mut colony, task) = at_work();
        let step = colony.step(Event::WorkerLost { worker: worker() });
        assert!(step.records.contains(&Record::Lost {
            task: task.id,
            worker: worker(),
            cause: Cause::WorkerLost
        }));
        assert_eq!(logged(&colony, &step), "");
    }
}
