//! What the driver is told, and what it answers: events, verdicts, records and commands.

use crate::{Ending, MaskVersion, PlannedTask, Record, ReleaseOrder};
use uspx_domain::{Answer, Fingerprint, Refusal, ReleaseNumber, Speaks, Speed, TaskId, WorkerId};

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The service has started, on a ledger that was replayed.
    Started,
    /// A worker was heard of, with what it understands and the models that it holds.
    WorkerSeen {
        /// Who.
        worker: WorkerId,
        /// What it may be asked for.
        speaks: Speaks,
        /// Fingerprints of the models on its disk.
        holds: Vec<Fingerprint>,
    },
    /// A worker has said how fast it was at its last task. The next tasks are sized by it.
    WorkerMeasured {
        /// Who.
        worker: WorkerId,
        /// How fast.
        speed: Speed,
    },
    /// A worker has not been heard of for too long, or said goodbye.
    WorkerLost {
        /// Who.
        worker: WorkerId,
    },
    /// An answer came in.
    AnswerArrived {
        /// The worker whose message it is, as the bus knows it.
        worker: WorkerId,
        /// The answer.
        answer: Box<Answer>,
    },
    /// A task's lease ran out without progress.
    LeaseLost {
        /// Which task.
        task: TaskId,
        /// At whom.
        worker: WorkerId,
    },
    /// A task was delivered too often.
    DeadLetter {
        /// Which task.
        task: TaskId,
        /// To whom.
        worker: WorkerId,
    },
    /// A worker's rest ([`Command::Rest`]) is over.
    WorkerRested {
        /// Who.
        worker: WorkerId,
    },
    /// A person's word: whatever waits is tried again now.
    Retry,
    /// A person's word: whatever waits is given up.
    Abandon,
    /// A person's word: another student is made now, whatever keeps it back.
    Build,
    /// A person's word: no student is made until [`Event::Resume`], and measuring goes on.
    Hold,
    /// A person's word: students are made again.
    Resume,
    /// What day it is, counted from 1970 UTC.
    Day {
        /// Its number.
        day: u32,
    },
    /// Nobody who speaks the waiting tasks ([`crate::Colony::unspoken`]) has come for too long.
    NobodySpeaks,
    /// The release stands in the store.
    ReleasePublished {
        /// Its number.
        release: ReleaseNumber,
    },
    /// The release cannot be stored, and it is no use to try again.
    ReleaseFailed {
        /// Its number.
        release: ReleaseNumber,
        /// Why.
        reason: String,
    },
    /// Time has passed.
    Tick,
}

/// What the service is to do, once the step's records are durable.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Send a task. The same task, worker and attempt may come again after a restart: name the
    /// message by them.
    Issue {
        /// The task, to be given its prompts' text.
        task: Box<PlannedTask>,
        /// To whom.
        worker: WorkerId,
        /// Which try, from 1.
        attempt: u32,
    },
    /// Take a task back from a worker's queue, if it is still there.
    Withdraw {
        /// Which task.
        task: TaskId,
        /// From whom.
        worker: WorkerId,
    },
    /// Say [`Event::WorkerRested`] after a pause that grows with its strikes: its machine fails,
    /// and what it fails goes to others meanwhile.
    Rest {
        /// Who.
        worker: WorkerId,
        /// Failures of its machine one after another, from 1.
        strikes: u32,
    },
    /// Show the new mask.
    PublishMask(Box<MaskVersion>),
    /// Build, store and name a release, then say [`Event::ReleasePublished`].
    PublishRelease(Box<ReleaseOrder>),
    /// The campaign is over.
    Finish(Ending),
}

/// What became of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is the task's answer.
    Accepted,
    /// The task had one; this was compared.
    Compared(Option<bool>),
    /// The same worker's answer was taken before.
    Repeated,
    /// It says that the task could not be done.
    Failed,
    /// It was refused.
    Refused(Refusal),
    /// Its worker is quarantined.
    Quarantined,
}

/// What follows from an event.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Step {
    /// To be appended to the ledger first, in order.
    pub records: Vec<Record>,
    /// To be carried out then, in order.
    pub commands: Vec<Command>,
    /// What became of the answer, where the event was one.
    pub verdict: Option<Verdict>,
}
