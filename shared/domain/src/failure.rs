//! Why work came to nothing, by name: never a text of a machine's own, which might quote a prompt
//! (invariant 7). What exactly happened stands in the log of the worker that says so.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a task could not be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Failure {
    /// What is to blame.
    pub kind: FailureKind,
    /// Why.
    pub reason: FailureReason,
}

/// What is to blame for a failure, and so who may be asked next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The task itself, as this worker sees it. It is final once a second worker says so.
    Task,
    /// This machine, now: another one may do it, or this one later. Never final.
    Machine,
    /// The worker's uspx is older than the task: another one may know it.
    NotSpoken,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $Reason:ident: $kind:ident, $name:literal, $text:literal;)*) => {
        /// Why, as a name that is frozen: it stands on the wire and in ledgers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum FailureReason { $($(#[doc = $doc])* $Reason,)* }

        impl FailureReason {
            /// All that there are.
            pub const ALL: &[Self] = &[$(Self::$Reason,)*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$Reason => $name,)* }
            }

            /// What is to blame where this is the reason.
            pub fn kind(self) -> FailureKind {
                match self { $(Self::$Reason => FailureKind::$kind,)* }
            }

            /// In words, with the remedy.
            pub fn text(self) -> &'static str {
                match self { $(Self::$Reason => $text,)* }
            }
        }
    };
}

reasons! {
    /// A person or the system stopped the worker: the task goes back, and nobody is to blame.
    Stopped: Machine, "stopped", "the worker was stopped";
    /// The task's model is not on this worker.
    NoModel: Machine, "model missing",
        "the worker does not hold the model: start it with the model's folder in --models";
    /// The files of a model cannot be read just now.
    ModelUnreadable: Machine, "model unreadable",
        "the worker cannot read its model's files: check its disk; its log has the place";
    /// The store does not answer.
    StoreUnreachable: Machine, "store unreachable",
        "the worker cannot reach the store: check its network and --store";
    /// The store refuses this worker.
    StoreDenied: Machine, "store denied",
        "the store refuses the worker: check its credentials or the folder's permissions";
    /// The store lacks what the task names, or is another store.
    StoreLacks: Machine, "store lacks it",
        "the worker's store lacks what the task names: check that its --store is the colony's";
    /// A blob is damaged as this worker reads it.
    BlobDamaged: Machine, "blob damaged",
        "a blob that the task names is damaged in the store; the worker's log has its name";
    /// Scratch files cannot be written.
    Scratch: Machine, "scratch files",
        "the worker cannot write scratch files: free space on its disk, or set TMPDIR";
    /// No memory, of the machine or its GPU.
    NoMemory: Machine, "out of memory",
        "the worker lacks memory for this: free some, or let it use more (--memory); where it is a training, campaign.distil.nf4 = true takes an eighth; its log has the bytes";
    /// A GPU or its driver failed.
    Device: Machine, "device",
        "the worker's device failed; its log has the cause";
    /// The work panicked.
    Panic: Task, "panic",
        "the work panicked, which is a bug: the worker's standard error has the place";
    /// Template or tokenizer failed on the task's prompts.
    Chat: Task, "chat refused",
        "the chat template or the tokenizer refused the task's prompts";
    /// Every prompt of the task was left out.
    NoPromptLeft: Task, "no prompt left",
        "no prompt of the task is left: the model cannot run any of them";
    /// Labels that the task names make no sense.
    BadLabels: Task, "labels unusable",
        "the labels that the task names cannot be used";
    /// An adapter that the task names makes no sense.
    BadAdapter: Task, "adapter unusable",
        "the adapter that the task names cannot be used";
    /// Training or export met a number that is not finite.
    NotFinite: Task, "not finite",
        "a loss, a weight or an activation is not a finite number";
    /// The model cannot do what is asked.
    Unsupported: Task, "unsupported",
        "the model cannot do what the task asks; the worker's log has the details";
    /// The task contradicts itself or the model.
    Senseless: Task, "task senseless",
        "the task makes no sense for its model; the worker's log has the details";
    /// What was written does not read back as it was.
    ReadBack: Task, "read back differs",
        "an exported student reads back otherwise than it was written";
    /// The answer does not fit into a message.
    TooLarge: Task, "answer too large",
        "the answer is larger than a message may be: ask for smaller tasks";
    /// The task is of a newer uspx.
    NotSpoken: NotSpoken, "not spoken",
        "the worker's uspx is older than the task: upgrade it";
    /// A name that is not known here, or none.
    Unstated: Task, "unstated",
        "the worker's log has the reason";
}

impl FailureReason {
    /// The reason of that name; one that is not known here is [`FailureReason::Unstated`].
    pub fn of(name: &str) -> Self {
        Self::ALL.iter().copied().find(|r| r.name() == name).unwrap_or(Self::Unstated)
    }
}

impl From<FailureReason> for Failure {
    fn from(reason: FailureReason) -> Self {
        Self { kind: reason.kind(), reason }
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl Serialize for FailureReason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for FailureReason {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A ledger of an earlier uspx may hold a text here: it is not taken over.
        String::deserialize(deserializer).map(|name| Self::of(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_read_back() {
        for reason in FailureReason::ALL {
            assert_eq!(FailureReason::of(reason.name()), *reason);
            let json = serde_json::to_string(reason).unwrap();
            assert_eq!(serde_json::from_str::<FailureReason>(&json).unwrap(), *reason);
        }
    }

    #[test]
    fn invariant_7_a_worker_s_own_words_are_not_taken_over() {
        let said = "\"the chat template failed: my secret question\"";
        let read: FailureReason = serde_json::from_str(said).unwrap();
        assert_eq!(read, FailureReason::Unstated);
        assert!(!read.to_string().contains("secret"));
    }
}
