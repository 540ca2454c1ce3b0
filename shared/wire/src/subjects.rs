//! Every name that the network knows: queues, topics, keys, and the streams, consumers and buckets
//! behind them.
//!
//! Two layers. *Logical* names (queues, topics, keys, message ids) are what coordinator and worker
//! say to a bus; they are the same on every backend. *Broker* names are what the NATS backend makes
//! of them, under a namespace, so that several colonies can share one server. Nothing else in the
//! workspace may spell any of these.

use std::fmt;
use uspx_domain::{TaskId, WorkerId};

/// The queue that answers go to.
pub const RESULTS: &str = "result";
/// The topic of the workers' heartbeats, which report progress too.
pub const HEARTBEAT: &str = "heartbeat";
/// The key under which the coordinator keeps its status.
pub const STATUS: &str = "status";
/// The key under which the coordinator keeps the current mask.
pub const MASK: &str = "mask";
/// The key under which the coordinator that works on this bus says so.
pub const OWNER: &str = "owner";
/// The namespace of a colony that chose none.
pub const DEFAULT_NAMESPACE: &str = "uspx";

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A token has other characters than letters, digits, `-` and `_`, or is not 1 to 128 long.
    #[error("`{0}` cannot be a name on the bus: use 1 to 128 of a-z, A-Z, 0-9, `-` and `_`")]
    Token(String),
    /// A queue, topic or key is not made of such tokens, `.`-separated.
    #[error(
        "`{0}` cannot be a path on the bus: use tokens of a-z, A-Z, 0-9 and `-`, joined by `.`"
    )]
    Path(String),
}

/// The queue of tasks meant for one worker.
pub fn task_queue(worker: &WorkerId) -> String {
    format!("task.{worker}")
}

/// The worker whose task queue this is, if it is one.
pub fn worker_of_queue(queue: &str) -> Option<WorkerId> {
    queue.strip_prefix("task.")?.parse().ok()
}

/// The key under which a worker claims its name.
pub fn worker_claim(worker: &WorkerId) -> String {
    format!("worker.{worker}")
}

/// The message id of the `attempt`-th issue of a task (from 1).
///
/// The attempt is part of it because a broker remembers ids for its whole deduplication window: a
/// task that is issued again to the same worker under its old id would be dropped as a duplicate.
pub fn task_message_id(task: TaskId, attempt: u32) -> String {
    format!("{task}_{attempt}")
}

/// The task and attempt that a task's message id stands for.
pub fn parse_task_message_id(id: &str) -> Option<(TaskId, u32)> {
    let (task, attempt) = id.split_once('_')?;
    Some((TaskId(task.parse().ok()?), attempt.parse().ok()?))
}

/// The message id of a worker's answer to the task that was delivered under `task_message_id`.
pub fn answer_message_id(task_message_id: &str, worker: &WorkerId) -> String {
    format!("{task_message_id}_{worker}")
}

/// The task and worker that an answer's message id stands for.
pub fn parse_answer_message_id(id: &str) -> Option<(TaskId, WorkerId)> {
    let (task_message, worker) = id.rsplit_once('_')?;
    Some((parse_task_message_id(task_message)?.0, worker.parse().ok()?))
}

/// Checks one token of a subject, such as a message id.
///
/// # Errors
/// [`NameError::Token`] where a broker might read more than one token out of it.
pub fn check_token(token: &str) -> Result<(), NameError> {
    let fits = (1..=128).contains(&token.len())
        && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if fits { Ok(()) } else { Err(NameError::Token(token.to_owned())) }
}

/// Checks a queue, topic or key: `.`-separated tokens without `_` (which stands for `.` in stream
/// names).
///
/// # Errors
/// [`NameError::Path`].
pub fn check_path(path: &str) -> Result<(), NameError> {
    let fits =
        path.len() <= 128 && path.split('.').all(|t| check_token(t).is_ok() && !t.contains('_'));
    if fits { Ok(()) } else { Err(NameError::Path(path.to_owned())) }
}

/// The broker's names of one colony.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(String);

impl Default for Names {
    fn default() -> Self {
        Self(DEFAULT_NAMESPACE.to_owned())
    }
}

impl Names {
    /// The names under a namespace.
    ///
    /// # Errors
    /// [`NameError`] where it is not one token without `_` and `.`.
    pub fn new(namespace: &str) -> Result<Self, NameError> {
        check_token(namespace)?;
        if namespace.contains('_') {
            Err(NameError::Path(namespace.to_owned()))
        } else {
            Ok(Self(namespace.to_owned()))
        }
    }

    /// The subject of one message of a queue: a subject of its own, so that it can be withdrawn by
    /// name.
    pub fn message_subject(&self, queue: &str, message_id: &str) -> String {
        format!("{self}.queue.{queue}.{message_id}")
    }

    /// The subjects of all messages of a queue.
    pub fn queue_filter(&self, queue: &str) -> String {
        format!("{self}.queue.{queue}.*")
    }

    /// The stream behind a queue. Injective: queue names hold no `_`.
    pub fn stream(&self, queue: &str) -> String {
        format!("{self}_{}", queue.replace('.', "_"))
    }

    /// The queue behind a stream, if it is one of this colony's.
    pub fn queue_of_stream(&self, stream: &str) -> Option<String> {
        Some(stream.strip_prefix(&self.0)?.strip_prefix('_')?.replace('_', "."))
    }

    /// The durable consumer of every queue of this colony.
    pub fn consumer(&self) -> String {
        format!("{self}_pull")
    }

    /// The subject of a topic.
    pub fn topic(&self, topic: &str) -> String {
        format!("{self}.topic.{topic}")
    }

    /// The key-value bucket.
    pub fn bucket(&self) -> String {
        format!("{self}_state")
    }

    /// The stream that keeps the broker's advisories of messages that ran out of deliveries.
    pub fn dead_stream(&self) -> String {
        format!("{self}_dead_letters")
    }

    /// The subjects of those advisories. Recognised by the consumer's name, which is this colony's
    /// alone.
    pub fn dead_filter(&self) -> String {
        format!("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.*.{}", self.consumer())
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_lead_back_to_their_queues() {
        let names = Names::new("home").unwrap();
        let queue = task_queue(&"spare-box".parse().unwrap());
        assert_eq!(names.stream(&queue), "home_task_spare-box");
        assert_eq!(names.queue_of_stream("home_task_spare-box"), Some(queue.clone()));
        assert_eq!(names.queue_of_stream("homer_task_spare-box"), None);
        assert_eq!(worker_of_queue(&queue), Some("spare-box".parse().unwrap()));
        assert_eq!(worker_of_queue(RESULTS), None);
    }

    #[test]
    fn message_ids_name_task_and_attempt() {
        let task = TaskId::derived(b"t");
        let id = task_message_id(task, 3);
        check_token(&id).unwrap();
        assert_eq!(parse_task_message_id(&id), Some((task, 3)));
        let answer = answer_message_id(&id, &"w1".parse().unwrap());
        check_token(&answer).unwrap();
        assert_ne!(answer, answer_message_id(&task_message_id(task, 4), &"w1".parse().unwrap()));
    }

    #[test]
    fn names_that_could_widen_a_subject_are_refused() {
        for bad in ["", "a b", "a.*", "a.>", ".a", "a.", "a..b", "a_b"] {
            assert!(check_path(bad).is_err(), "{bad}");
        }
        for bad in ["", "a.b", "*", ">", "ä"] {
            assert!(check_token(bad).is_err(), "{bad}");
        }
        check_path("task.w-1").unwrap();
        assert!(Names::new("a_b").is_err());
    }
}
