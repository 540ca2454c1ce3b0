//! Who is alive: the last heartbeat of every worker. Nothing here is in the ledger.

use crate::names::Names;
use dashmap::DashMap;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use uspx_domain::{Fingerprint, ModelShape, Speed, TaskId, WorkerId};
use uspx_wire::{HeartbeatMessage, HeldModel};

/// Workers that one colony keeps account of. Whoever comes beyond that is not let in.
const MOST_WORKERS: usize = 256;

/// What a heartbeat comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The worker is new, back, moves again, or speaks or holds other things than before.
    News,
    /// It has measured another speed; all else is as before.
    Measured,
    /// All as before.
    Known,
    /// There are as many workers as there may be, and it is not one of them.
    NoRoom,
}

/// The live workers.
#[derive(Debug, Default)]
pub struct Registry {
    workers: DashMap<WorkerId, Live>,
}

/// A worker as it last said.
#[derive(Debug, Clone)]
pub struct Live {
    /// What it said.
    pub heartbeat: HeartbeatMessage,
    /// When.
    pub seen: Instant,
    /// When it last showed progress, or had nothing to show any of.
    moved: Instant,
    /// Whether it was found hanging and has not moved since.
    hung: bool,
}

impl Registry {
    /// Takes a heartbeat.
    pub fn hear(&self, heartbeat: HeartbeatMessage) -> Heard {
        let new = !self.workers.contains_key(&heartbeat.worker);
        if new && self.workers.len() >= MOST_WORKERS {
            return Heard::NoRoom;
        }
        let now = Instant::now();
        let mut live = Live { heartbeat, seen: now, moved: now, hung: false };
        let (mut news, mut measured) = (true, false);
        if let Some(before) = self.workers.get(&live.heartbeat.worker) {
            let still = before.heartbeat.current == live.heartbeat.current
                && before.heartbeat.beats == live.heartbeat.beats;
            if still {
                (live.moved, live.hung) = (before.moved, before.hung);
            }
            let other = |a: &HeartbeatMessage, b: &HeartbeatMessage| {
                a.models != b.models || a.speaks != b.speaks || a.reads != b.reads
            };
            news = other(&before.heartbeat, &live.heartbeat) || (before.hung && !still);
            measured = before.heartbeat.speed != live.heartbeat.speed;
        }
        self.workers.insert(live.heartbeat.worker.clone(), live);
        match (news, measured) {
            (true, _) => Heard::News,
            (false, true) => Heard::Measured,
            (false, false) => Heard::Known,
        }
    }

    /// How fast a worker says that it was at its last task.
    pub fn speed(&self, worker: &WorkerId) -> Option<Speed> {
        self.workers.get(worker)?.heartbeat.speed.clone()
    }

    /// Starts the clock of progress anew for the workers that `excused` picks.
    pub fn excuse(&self, excused: impl Fn(&WorkerId) -> bool) {
        let now = Instant::now();
        self.workers.iter_mut().filter(|w| excused(w.key())).for_each(|mut w| w.moved = now);
    }

    /// The workers that have shown no progress for longer than `patience`, each named once until it
    /// moves again, with what they say they are at work on.
    pub fn take_hung(&self, patience: Duration) -> Vec<(WorkerId, Option<TaskId>)> {
        let still = |w: &Live| !w.hung && w.moved.elapsed() > patience;
        let mut hung = Vec::new();
        for mut worker in self.workers.iter_mut().filter(|w| still(w)) {
            let current = worker.heartbeat.current.map(|c| c.task);
            // One that is idle may only have missed a message: it is asked again.
            (worker.moved, worker.hung) = (Instant::now(), current.is_some());
            hung.push((worker.key().clone(), current));
        }
        hung
    }

    /// Forgets the workers that have been silent for longer than `silence`, and names them.
    pub fn take_silent(&self, silence: Duration) -> Vec<WorkerId> {
        let silent: Vec<WorkerId> = self
            .workers
            .iter()
            .filter(|w| w.seen.elapsed() > silence)
            .map(|w| w.key().clone())
            .collect();
        for worker in &silent {
            self.workers.remove(worker);
        }
        silent
    }

    /// Whether a worker was heard of lately.
    pub fn knows(&self, worker: &WorkerId) -> bool {
        self.workers.contains_key(worker)
    }

    /// All live workers, by name.
    pub fn all(&self) -> BTreeMap<WorkerId, Live> {
        self.workers.iter().map(|w| (w.key().clone(), w.value().clone())).collect()
    }

    /// What live workers call the models that they hold.
    pub(crate) fn names(&self) -> Names {
        let mut names = Names::default();
        self.all().values().flat_map(|w| &w.heartbeat.models).for_each(|held| names.hear(held));
        names
    }

    /// All models that live workers hold.
    pub fn models(&self) -> BTreeMap<Fingerprint, (String, ModelShape)> {
        let of = |m: &HeldModel| (m.fingerprint, (m.architecture.clone(), m.shape.clone()));
        self.workers
            .iter()
            .flat_map(|w| w.heartbeat.models.iter().map(of).collect::<Vec<_>>())
            .collect()
    }
}

/// The fingerprints in a heartbeat.
pub fn holdings(heartbeat: &HeartbeatMessage) -> Vec<Fingerprint> {
    heartbeat.models.iter().map(|m| m.fingerprint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uspx_domain::Speaks;
    use uspx_wire::CurrentTask;

    const PATIENCE: Duration = Duration::from_millis(40);

    fn heartbeat(done: Option<u64>) -> HeartbeatMessage {
        HeartbeatMessage {
            worker: "w".parse().unwrap(),
            uspx_version: "0".into(),
            speaks: Speaks::here(),
            reads: HeartbeatMessage::read_here(),
            models: vec![],
            threads: 1,
            memory_bytes: 1,
            device: "cpu".into(),
            current: done.map(|done| CurrentTask { task: TaskId::derived(b"t"), done, total: 9 }),
            beats: None,
            speed: None,
        }
    }

    /// One batch of a large model takes longer than two leases.
    #[tokio::test(start_paused = true)]
    async fn invariant_4_a_worker_whose_layers_run_is_not_hung_between_two_steps() {
        let registry = Registry::default();
        for beats in 0..5 {
            let moving = HeartbeatMessage { beats: Some(beats), ..heartbeat(Some(1)) };
            registry.hear(moving);
            tokio::time::advance(PATIENCE * 2 / 3).await;
            assert!(registry.take_hung(PATIENCE).is_empty(), "{beats}");
        }
        registry.hear(HeartbeatMessage { beats: Some(4), ..heartbeat(Some(1)) });
        tokio::time::advance(PATIENCE * 2 / 3).await;
        assert_eq!(registry.take_hung(PATIENCE).len(), 1, "it stands still");
    }

    #[test]
    fn a_worker_that_measured_another_speed_is_told_from_one_with_news() {
        let registry = Registry::default();
        let speed = |tokens_per_second| Speed {
            model: Fingerprint(uspx_domain::Digest::of(b"teacher")),
            work: "trace".into(),
            tokens_per_second,
            prompt_tokens: 40.0,
            batch_tokens: 4096,
            streamed: false,
        };
        let at = |rate| HeartbeatMessage { speed: Some(speed(rate)), ..heartbeat(None) };
        registry.hear(heartbeat(None));
        assert_eq!(registry.hear(at(10.0)), Heard::Measured);
        assert_eq!(registry.hear(at(10.0)), Heard::Known);
        assert_eq!(registry.hear(at(20.0)), Heard::Measured);
        assert_eq!(registry.speed(&"w".parse().unwrap()), Some(speed(20.0)));
    }

    /// Invariant 4 on the ledger's side: heartbeats without progress keep nothing.
    #[tokio::test(start_paused = true)]
    async fn a_worker_that_is_heard_but_does_not_move_is_hung_until_it_moves() {
        let registry = Registry::default();
        assert_eq!(registry.hear(heartbeat(Some(1))), Heard::News);
        tokio::time::advance(PATIENCE * 2).await;
        assert_eq!(registry.hear(heartbeat(Some(1))), Heard::Known);
        assert_eq!(
            registry.take_hung(PATIENCE),
            vec![("w".parse().unwrap(), Some(TaskId::derived(b"t")))]
        );
        tokio::time::advance(PATIENCE * 2).await;
        assert!(registry.take_hung(PATIENCE).is_empty(), "named twice");
        assert_eq!(registry.hear(heartbeat(Some(2))), Heard::News, "it moves again");
        assert!(registry.take_hung(PATIENCE).is_empty());
    }

    #[test]
    fn a_worker_that_was_upgraded_is_news() {
        let (registry, mut older) = (Registry::default(), heartbeat(None));
        older.speaks.jobs.remove("export");
        assert_eq!(registry.hear(older.clone()), Heard::News);
        assert_eq!(registry.hear(older), Heard::Known);
        assert_eq!(registry.hear(heartbeat(None)), Heard::News);
        assert_eq!(registry.hear(heartbeat(None)), Heard::Known);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_has_nothing_to_show_is_excused() {
        let registry = Registry::default();
        registry.hear(heartbeat(None));
        tokio::time::advance(PATIENCE * 2).await;
        registry.excuse(|_| true);
        assert!(registry.take_hung(PATIENCE).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_names_gets_no_more_room_than_there_is_and_leaves_again() {
        let registry = Registry::default();
        let named = |n: usize| HeartbeatMessage {
            worker: format!("flood-{n}").parse().unwrap(),
            ..heartbeat(None)
        };
        for n in 0..3000 {
            let heard = registry.hear(named(n));
            assert_eq!(heard == Heard::News, n < MOST_WORKERS, "{n}");
        }
        assert_eq!(registry.hear(named(1)), Heard::Known, "those inside stay");
        tokio::time::advance(PATIENCE * 2).await;
        assert_eq!(registry.take_silent(PATIENCE).len(), MOST_WORKERS);
        assert_eq!(registry.hear(named(2999)), Heard::News);
    }
}
