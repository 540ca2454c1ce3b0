//! The ledger's records. Whatever the colony knows, it knows by folding these in order.
//!
//! They are stored as MessagePack: JSON readers round the last bit of a float, and a replay must
//! not (invariant 1).

use crate::{CampaignConfig, GateReport, PlannedTask, PromptEntry, ReleaseOrder, Snapshot, Stage};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use uspx_domain::{
    Answer, Digest, Failure, FailureKind, FailureReason, Mask, ReleaseNumber, TaskId, WorkerId,
};

/// One record of the ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// A campaign begins. Trails of the same teacher and the published student live on from the one
    /// before.
    Founded(Box<Founding>),
    /// A campaign that had ended went on, as ledgers said it before [`Record::Amended`].
    Continued(Box<More>),
    /// The campaign goes on under another configuration.
    Amended(Box<Amendment>),
    /// A batch of work was planned.
    EpochOpened {
        /// Its number, from 1, never used twice.
        epoch: u32,
        /// What it is for.
        stage: Stage,
        /// The whole batch, in order, cut up as the workers' speed asked when it opened: a replay
        /// takes it from here, and needs no speeds.
        tasks: Vec<PlannedTask>,
    },
    /// A task went to a worker.
    Issued {
        /// Which.
        task: TaskId,
        /// To whom.
        worker: WorkerId,
        /// Which try, from 1.
        attempt: u32,
        /// Whether only to be compared.
        duplicate: bool,
    },
    /// The first durable acceptance: it fixes the task's answer.
    Accepted {
        /// The answer.
        answer: Box<Answer>,
    },
    /// A later answer was compared with the accepted one, and is never merged.
    Compared {
        /// To which task.
        task: TaskId,
        /// The later worker.
        worker: WorkerId,
        /// Whether within tolerance; none where the two cannot be compared.
        agreed: Option<bool>,
    },
    /// A later answer says otherwise than the accepted one, and nobody knows yet who is right.
    Disputed {
        /// The later answer.
        answer: Box<Answer>,
    },
    /// Of several answers that said different things two agree. Where the accepted one is not among them, the first of
    /// these stands in its place.
    Settled {
        /// To which task.
        task: TaskId,
        /// The worker whose answer settled it.
        worker: WorkerId,
        /// All who say the same.
        right: BTreeSet<WorkerId>,
        /// All who say otherwise.
        wrong: BTreeSet<WorkerId>,
    },
    /// An attempt came to nothing.
    Lost {
        /// Which task.
        task: TaskId,
        /// Whose attempt.
        worker: WorkerId,
        /// Why.
        cause: Cause,
    },
    /// No more attempts will be made.
    GivenUp {
        /// Which task.
        task: TaskId,
        /// Why.
        reason: String,
    },
    /// A batch is answered or given up; evidence since the last close acts now.
    EpochClosed {
        /// Which.
        epoch: u32,
        /// Its tasks answered.
        answered: u32,
        /// Its tasks given up.
        given_up: u32,
        /// What its evidence decided, where it bears on the mask.
        decision: Option<Box<Decision>>,
    },
    /// A worker gets no more work.
    Quarantined {
        /// Who.
        worker: WorkerId,
        /// Why.
        reason: String,
    },
    /// What a quarantined worker said is taken back: its tasks that are open go out again, and what it measured of single
    /// prompts is forgotten.
    Retracted {
        /// Whose.
        worker: WorkerId,
    },
    /// The release gate decided.
    Gated {
        /// On what grounds.
        report: Box<GateReport>,
        /// What is to be published, if the gate let it pass.
        release: Option<Box<ReleaseOrder>>,
    },
    /// A person wants a student of the prompts that there are, however few of them are new.
    StudentAsked,
    /// A person holds students back: measuring goes on, and no batch of a student's work is opened.
    Held,
    /// Students are made again.
    Resumed,
    /// Another day has come, by the service's clock. It is noted only where students may take so much machine time of one.
    Day {
        /// Its number from 1970 UTC.
        day: u32,
    },
    /// The release stands in the store.
    Published {
        /// Its number.
        release: ReleaseNumber,
    },
    /// The campaign is over.
    Ended {
        /// How it ended.
        ending: Ending,
    },
    /// All that came before comes to this.
    Snapshot(Box<Snapshot>),
}

/// The rules by which today's colony decides. A change of what the same evidence decides is a new
/// number: 2 since masks are drawn by typical effects.
pub const RULES: u32 = 2;

/// How a campaign began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Founding {
    /// Drawn once, so that no two campaigns name a task alike, whatever they are called.
    pub nonce: [u8; 16],
    /// The rules of the colony that wrote this.
    pub rules: u32,
    /// What it is founded on.
    pub campaign: CampaignConfig,
}

impl Founding {
    /// What tasks' names derive from: the nonce and the campaign's digest.
    pub fn identity(&self) -> Digest {
        let digest = self.campaign.digest();
        Digest::of(&[self.nonce.as_slice(), digest.0.as_slice()].concat())
    }
}

/// Another configuration of the campaign.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Amendment {
    /// The whole of it; every prompt that the campaign ever had keeps its place.
    pub campaign: CampaignConfig,
    /// What the evidence there is decides under it, where the mask had to be drawn anew.
    pub decision: Option<Box<Decision>>,
}

/// What a campaign that had ended went on with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct More {
    /// Prompts that it did not have; they take the places after the others.
    pub prompts: Vec<PromptEntry>,
    /// Exact runs beyond those made, all of which are to be made.
    pub pairs: u64,
}

/// What an epoch's evidence decided. A replay takes it from here, so that later rules cannot make
/// another mask of an old ledger; it recomputes only to compare.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The mask.
    pub mask: Mask,
    /// θ: the score at the budget's cut.
    pub cut: f64,
    /// The digest of all trails at the close.
    pub trails: Digest,
}

/// Why an attempt came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The worker is gone; the task is not to blame.
    WorkerLost,
    /// The worker was quarantined.
    Quarantined,
    /// It waited behind another task, and a worker that had nothing to do took it over.
    Moved,
    /// No progress was heard of.
    LeaseLost,
    /// Delivered too often without an answer.
    DeadLetter,
    /// The worker says that it could not be done.
    Failed(Failure),
    /// The answer failed a check.
    Refused {
        /// Which.
        reason: String,
    },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WorkerLost => f.write_str("its worker was lost"),
            Self::Quarantined => f.write_str("its worker was quarantined"),
            Self::Moved => f.write_str("a worker that had nothing to do took it over"),
            Self::LeaseLost => f.write_str("its worker made no progress"),
            Self::DeadLetter => f.write_str("it was delivered too often without an answer"),
            Self::Failed(failure) => f.write_str(failure.reason.text()),
            Self::Refused { reason } => write!(f, "its answer failed a check: {reason}"),
        }
    }
}

impl Cause {
    /// What is to blame.
    pub fn blame(&self) -> Blame {
        match self {
            Self::WorkerLost | Self::Quarantined | Self::Moved => Blame::Nobody,
            Self::LeaseLost | Self::DeadLetter | Self::Refused { .. } => Blame::Unclear,
            Self::Failed(failure) => match (failure.kind, failure.reason) {
                (_, FailureReason::Stopped) => Blame::Nobody,
                (FailureKind::Machine, _) => Blame::Machine,
                (FailureKind::Task, _) => Blame::Task,
                (FailureKind::NotSpoken, _) => Blame::Unclear,
            },
        }
    }

    /// Whether the attempt counts against the task.
    pub fn counts(&self) -> bool {
        self.blame().counts()
    }
}

/// What is to blame for an attempt that came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blame {
    /// Nobody: the worker went, or gave the task back.
    Nobody,
    /// The worker's machine, now.
    Machine,
    /// The task, as its worker says.
    Task,
    /// The task or the worker.
    Unclear,
}

impl Blame {
    /// Whether it counts against the task.
    pub fn counts(self) -> bool {
        matches!(self, Self::Task | Self::Unclear)
    }
}

/// How a campaign ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// With its mask: no student is wanted.
    Measured,
    /// With a release.
    Published(ReleaseNumber),
    /// The gate refused the student.
    Refused(String),
    /// Work that cannot be done without was given up.
    Failed(String),
}
