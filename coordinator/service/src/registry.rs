//! Who is alive: the last hello of every worker. Nothing here is in the ledger.

use dashmap::DashMap;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use uspx_domain::{Fingerprint, ModelShape, TaskId, WorkerId};
use uspx_wire::{HeldModel, HelloMessage};

/// The live workers.
#[derive(Debug, Default)]
pub struct Registry {
    workers: DashMap<WorkerId, Live>,
}

/// A worker as it last said hello.
#[derive(Debug, Clone)]
pub struct Live {
    /// What it said.
    pub hello: HelloMessage,
    /// When.
    pub seen: Instant,
    /// When it last showed progress, or had nothing to show any of.
    moved: Instant,
    /// Whether it was found hanging and has not moved since.
    hung: bool,
}

impl Registry {
    /// Takes a hello; whether the worker is new, back, moves again, or holds other models than before.
    pub fn greet(&self, hello: HelloMessage) -> bool {
        let now = Instant::now();
        let mut live = Live { hello, seen: now, moved: now, hung: false };
        let mut news = true;
        if let Some(before) = self.workers.get(&live.hello.worker) {
            let still = before.hello.current == live.hello.current;
            if still {
                (live.moved, live.hung) = (before.moved, before.hung);
            }
            news = before.hello.models != live.hello.models || (before.hung && !still);
        }
        self.workers.insert(live.hello.worker.clone(), live);
        news
    }

    /// Starts the clock of progress anew for the workers that `excused` picks.
    pub fn excuse(&self, excused: impl Fn(&WorkerId) -> bool) {
        let now = Instant::now();
        self.workers.iter_mut().filter(|w| excused(w.key())).for_each(|mut w| w.moved = now);
    }

    /// The workers that have shown no progress for longer than `patience`, each named once until it moves again, with
    /// what they say they are at work on.
    pub fn take_hung(&self, patience: Duration) -> Vec<(WorkerId, Option<TaskId>)> {
        let still = |w: &Live| !w.hung && w.moved.elapsed() > patience;
        let mut hung = Vec::new();
        for mut worker in self.workers.iter_mut().filter(|w| still(w)) {
            let current = worker.hello.current.map(|c| c.task);
            // One that is idle may only have missed a message: it is asked again.
            (worker.moved, worker.hung) = (Instant::now(), current.is_some());
            hung.push((worker.key().clone(), current));
        }
        hung
    }

    /// Forgets the workers that have been silent for longer than `silence`, and names them.
    pub fn take_silent(&self, silence: Duration) -> Vec<WorkerId> {
        let silent: Vec<WorkerId> =
            self.workers.iter().filter(|w| w.seen.elapsed() > silence).map(|w| w.key().clone()).collect();
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

    /// All models that live workers hold.
    pub fn models(&self) -> BTreeMap<Fingerprint, (String, ModelShape)> {
        let of = |m: &HeldModel| (m.fingerprint, (m.architecture.clone(), m.shape.clone()));
        self.workers.iter().flat_map(|w| w.hello.models.iter().map(of).collect::<Vec<_>>()).collect()
    }
}

/// The fingerprints in a hello.
pub fn holdings(hello: &HelloMessage) -> Vec<Fingerprint> {
    hello.models.iter().map(|m| m.fingerprint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uspx_wire::CurrentTask;

    const PATIENCE: Duration = Duration::from_millis(40);

    fn hello(done: Option<u64>) -> HelloMessage {
        HelloMessage {
            worker: "w".parse().unwrap(),
            uspx_version: "0".into(),
            speaks: vec![],
            models: vec![],
            threads: 1,
            memory_bytes: 1,
            device: "cpu".into(),
            current: done.map(|done| CurrentTask { task: TaskId::derived(b"t"), done, total: 9 }),
        }
    }

    /// Invariant 4 on the ledger's side: hellos without progress keep nothing.
    #[test]
    fn a_worker_that_says_hello_but_does_not_move_is_hung_until_it_moves() {
        let registry = Registry::default();
        assert!(registry.greet(hello(Some(1))));
        std::thread::sleep(PATIENCE * 2);
        assert!(!registry.greet(hello(Some(1))));
        assert_eq!(registry.take_hung(PATIENCE), vec![("w".parse().unwrap(), Some(TaskId::derived(b"t")))]);
        std::thread::sleep(PATIENCE * 2);
        assert!(registry.take_hung(PATIENCE).is_empty(), "named twice");
        assert!(registry.greet(hello(Some(2))), "it moves again");
        assert!(registry.take_hung(PATIENCE).is_empty());
    }

    #[test]
    fn one_that_has_nothing_to_show_is_excused() {
        let registry = Registry::default();
        registry.greet(hello(None));
        std::thread::sleep(PATIENCE * 2);
        registry.excuse(|_| true);
        assert!(registry.take_hung(PATIENCE).is_empty());
    }
}
