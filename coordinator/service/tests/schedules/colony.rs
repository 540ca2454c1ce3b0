//! A coordinator that can be killed and started again, on one state folder, bus and store.

use crate::asked;
use crate::fault::Pace;
use crate::gate::Gate;
use crate::world::{self, World};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use uspx_artifact::Store;
use uspx_bus::Bus;
use uspx_colony::{CampaignConfig, Ending, Record, Ticket};
use uspx_coordinator::ledger::{Compaction, replay_file, survey};
use uspx_coordinator::{Coordinator, CoordinatorSettings, Finished};
use uspx_domain::Mask;
use uspx_runtime::Shutdown;

/// A campaign of some sixty tasks.
fn small() -> CampaignConfig {
    let mut config = world::service::small("storm");
    config.probe.trace_batch = Some(10);
    config
}

/// The ledger is begun anew at every close of an epoch.
pub const ALWAYS: Compaction = Compaction { least: 1, times: 0 };

type Run = JoinHandle<(Coordinator, Finished)>;

pub struct Colony {
    folder: TempDir,
    pub world: Arc<World>,
    pub store: Store,
    pub gate: Arc<Gate>,
    pub pace: Pace,
    compaction: Compaction,
    end: Shutdown,
    run: Option<Run>,
}

impl Colony {
    pub fn new(behind: &Arc<dyn Bus>, pace: Pace, compaction: Compaction) -> Self {
        let world = Arc::new(World::new(small()));
        let (store, gate) = (Store::memory(), Gate::before(behind));
        let folder = tempfile::tempdir().unwrap();
        Self { folder, world, store, gate, pace, compaction, end: Shutdown::new(), run: None }
    }

    pub fn bus(&self) -> Arc<dyn Bus> {
        self.gate.clone()
    }

    pub fn ledger(&self) -> PathBuf {
        self.folder.path().join("ledger")
    }

    pub fn start(&mut self) {
        let config = &self.world.config;
        let mut settings = CoordinatorSettings::new("storm", self.folder.path());
        (settings.silence, settings.lease) = (self.pace.silence, self.pace.lease);
        settings.compaction = self.compaction;
        settings.plan = asked::plan(config);
        let book = asked::book(config);
        let (bus, store) = (self.bus(), self.store.clone());
        let mut coordinator = Coordinator::open(settings, bus, store, book).unwrap();
        self.end = Shutdown::new();
        let end = self.end.clone();
        self.run = Some(tokio::spawn(async move {
            let finished = coordinator.run(&end).await.unwrap();
            (coordinator, finished)
        }));
    }

    pub fn has_ended(&self) -> bool {
        self.run.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Whether no process runs or has ended.
    pub fn is_down(&self) -> bool {
        self.run.is_none()
    }

    /// As a power cut would; not once it has ended by itself.
    pub async fn kill(&mut self) {
        if let Some(run) = self.run.take_if(|run| !run.is_finished()) {
            run.abort();
            let _ = run.await;
        }
    }

    /// As Ctrl-C does.
    pub async fn stop(&mut self) {
        if let Some(run) = self.run.take_if(|run| !run.is_finished()) {
            self.end.cancel();
            let (_, finished) = run.await.unwrap();
            if finished != Finished::Stopped {
                // It ended in that moment: started again, it says so again.
                assert!(matches!(finished, Finished::Campaign(_)));
            }
        }
    }

    /// Waits for the end of the campaign, and holds the invariants to it. Gives the mask, and
    /// whether nothing was given up.
    pub async fn outcome(mut self, what: &str) -> (Mask, bool) {
        if self.run.is_none() {
            self.start();
        }
        let (coordinator, finished) = self.run.take().unwrap().await.unwrap();
        assert_eq!(finished, Finished::Campaign(Ending::Published(1)), "{what}");
        let state = coordinator.state();
        let replayed = replay_file(&self.ledger()).unwrap();
        assert_eq!(replayed.snapshot().unwrap(), state.snapshot().unwrap(), "{what}");
        let folded = survey(&self.ledger(), |_| {}).unwrap().folded;
        assert_eq!(folded > 0, self.compaction == ALWAYS, "{what}: {folded} records folded");
        let records = records(&self.ledger());
        let given_up = answered_once(&records, what);
        assert_eq!(self.store.list().await.unwrap(), [1], "{what}");
        no_prompt_in(self.folder.path());
        (state.mask().unwrap().mask.clone(), given_up == 0)
    }
}

/// The ledger's records so far.
pub fn records(ledger: &Path) -> Vec<Record> {
    let mut records = Vec::new();
    survey(ledger, |record| records.push(record)).unwrap();
    records
}

/// Every planned task has one answer, or was given up; how many were.
fn answered_once(records: &[Record], what: &str) -> usize {
    let mut open = std::collections::BTreeMap::new();
    for record in records {
        match record {
            Record::EpochOpened { tasks, .. } => open.extend(tasks.iter().map(|t| (t.id, (0, 0)))),
            Record::Snapshot(snapshot) => {
                let times = |t: &Ticket| (t.is_answered().into(), t.given_up.is_some().into());
                let tickets = snapshot.state.tickets().iter();
                open = tickets.map(|(id, ticket)| (*id, times(ticket))).collect();
            }
            Record::Accepted { answer } => open.get_mut(&answer.task).unwrap().0 += 1,
            Record::GivenUp { task, .. } => open.get_mut(task).unwrap().1 += 1,
            _ => {}
        }
    }
    for (task, (answers, given_up)) in &open {
        assert!(*answers == 1 || (*answers == 0 && *given_up == 1), "{what}: {task} {answers}");
    }
    open.values().filter(|(_, given_up)| *given_up > 0).count()
}

fn no_prompt_in(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            no_prompt_in(&path);
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let found = bytes.windows(9).any(|w| w == b"secret of");
        assert!(!found, "a prompt's text is in {}", path.display());
    }
}
