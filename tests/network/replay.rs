//! A colony in this process on the embedded bus; and invariant 1 as a service keeps it: the
//! ledger's file holds, bit for bit, what the running coordinator knows.

use crate::ground::{CAMPAIGN, assets, models};
use libtest_mimic::Trial;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use uspx_artifact::Store;
use uspx_bus::{Bus, EmbeddedBus};
use uspx_coordinator::ledger::replay_file;
use uspx_coordinator::{
    CampaignPlan, CampaignProgress, Coordinator, CoordinatorSettings, Finished, PromptBook,
};
use uspx_domain::{Prompt, parse_prompts};
use uspx_runtime::Shutdown;
use uspx_runtime::config::Sources;
use uspx_tests::trials;
use uspx_worker::{Agent, WorkerSettings};

pub fn trials() -> Vec<Trial> {
    trials![invariant_1_the_ledger_file_replays_to_the_running_coordinators_bytes]
}

/// Coordinator and bus of a colony in this process.
pub struct Here {
    pub folder: tempfile::TempDir,
    pub bus: Arc<dyn Bus>,
    pub coordinator: Coordinator,
    store: Store,
    end: Shutdown,
}

impl Here {
    pub fn new(lease: Duration) -> Self {
        Self::over(prompts(0..48), lease)
    }

    /// A colony with train prompts of its own.
    pub fn over(train: Vec<Prompt>, lease: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bus: Arc<dyn Bus> = Arc::new(EmbeddedBus::new());
        let store = Store::memory();
        let book = PromptBook::new(train, prompts(48..56), prompts(56..80));
        let coordinator = open(folder.path(), book, lease, &bus, &store);
        Self { folder, bus, coordinator, store, end: Shutdown::new() }
    }

    /// A real worker.
    pub fn worker(&self, name: &str) -> tokio::task::JoinHandle<()> {
        self.worker_with(name, models().to_vec())
    }

    /// A real worker that holds these models.
    pub fn worker_with(&self, name: &str, models: Vec<PathBuf>) -> tokio::task::JoinHandle<()> {
        let state = self.folder.path().join(format!("worker-{name}"));
        let mut settings = WorkerSettings::on_cpu(name.parse().unwrap(), models, state);
        settings.heartbeat_every = Duration::from_millis(100);
        let agent = Agent::new(settings, self.bus.clone(), self.store.clone()).unwrap();
        let end = self.end.clone();
        tokio::spawn(async move { agent.run(&end).await.unwrap() })
    }

    /// Runs the coordinator until `enough`, then asks it to stop.
    pub async fn run_until(
        &mut self,
        enough: impl Fn(&CampaignProgress) -> bool + Send + Sync + 'static,
    ) {
        let mut progress = self.coordinator.watch();
        let stop = Shutdown::new();
        let asking = stop.clone();
        tokio::spawn(async move {
            let seen =
                tokio::time::timeout(Duration::from_secs(120), progress.wait_for(|p| enough(p)));
            let seen = seen.await.is_ok_and(|found| found.is_ok());
            asking.cancel();
            assert!(seen, "the campaign did not come that far");
        });
        let finished = self.coordinator.run(&stop).await.unwrap();
        assert_eq!(finished, Finished::Stopped);
        self.end.cancel();
    }

    pub fn ledger(&self) -> PathBuf {
        self.folder.path().join("ledger")
    }

    /// Invariant 1: the file says what the coordinator knows.
    pub fn assert_ledger_is_the_truth(&self) {
        let replayed = replay_file(&self.ledger()).unwrap();
        assert!(replayed.epoch() > 0);
        assert_eq!(replayed.snapshot().unwrap(), self.coordinator.state().snapshot().unwrap());
        assert_eq!(replayed.digest().unwrap(), self.coordinator.state().digest().unwrap());
    }
}

fn open(
    state: &Path,
    book: PromptBook,
    lease: Duration,
    bus: &Arc<dyn Bus>,
    store: &Store,
) -> Coordinator {
    let mut settings = CoordinatorSettings::new("here", state);
    settings.lease = lease;
    settings.plan = plan();
    Coordinator::open(settings, bus.clone(), store.clone(), book).unwrap()
}

/// The small campaign that the other tests give to the coordinator in a file.
fn plan() -> CampaignPlan {
    #[derive(serde::Deserialize)]
    struct File {
        campaign: CampaignPlan,
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("[campaign]\n{CAMPAIGN}")).unwrap();
    let sources = Sources::read(Some(file.path()), serde_json::json!({})).unwrap();
    let read: File = sources.settings().unwrap();
    read.campaign
}

/// Shipped train prompts.
pub fn prompts(range: Range<usize>) -> Vec<Prompt> {
    let text = std::fs::read_to_string(assets().join("prompts/cli-train.jsonl")).unwrap();
    parse_prompts(&text, false).unwrap().prompts[range].to_vec()
}

#[tokio::main]
async fn invariant_1_the_ledger_file_replays_to_the_running_coordinators_bytes() {
    let mut here = Here::new(Duration::from_secs(30));
    let workers = [here.worker("one"), here.worker("two")];
    here.run_until(|p| p.mask.is_some_and(|(version, _)| version >= 4)).await;
    here.assert_ledger_is_the_truth();
    let state = replay_file(&here.ledger()).unwrap();
    assert!(!state.trails().is_empty() && state.mask().is_some_and(|m| m.version >= 4));
    for worker in workers {
        worker.await.unwrap();
    }
}
