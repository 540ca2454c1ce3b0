//! A campaign just before its end: a ledger whose last word is the order, and a store with the
//! student's blobs.

use crate::world::service::adapter;
use crate::{asked, world};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use tempfile::TempDir;
use uspx_artifact::{Draft, Store, silent};
use uspx_bus::EmbeddedBus;
use uspx_colony::{CampaignConfig, Ending, Record};
use uspx_coordinator::ledger::{FILE_NAME, Ledger, replay_file};
use uspx_coordinator::{Coordinator, CoordinatorSettings};
use uspx_domain::{BlobRef, ExportFormat, StoredFile};

pub fn campaign() -> CampaignConfig {
    world::campaign("releases")
}

/// The records of a campaign whose student passed the gate, up to its order.
fn records() -> &'static [Record] {
    static RECORDS: OnceLock<Vec<Record>> = OnceLock::new();
    RECORDS.get_or_init(|| {
        let (service, _) = world::honest(campaign());
        let gated = |r: &Record| matches!(r, Record::Gated { release: Some(_), .. });
        let end = service.ledger.iter().position(gated).expect("the gate lets it pass");
        service.ledger[..=end].to_vec()
    })
}

pub fn draft_of_others() -> Draft {
    let print = world::fingerprint("others");
    Draft { colony: "others".into(), teacher: print, base: print, previous: None }
}

pub struct Ground {
    state: TempDir,
    pub store: Store,
    adapter: Vec<u8>,
}

impl Ground {
    pub async fn new() -> Self {
        Self::with_adapter(adapter()).await
    }

    pub async fn with_adapter(adapter: Vec<u8>) -> Self {
        let ground = Self { state: tempfile::tempdir().unwrap(), store: Store::memory(), adapter };
        ground.fill(&ground.store).await;
        let mut records = records().to_vec();
        if let Some(Record::Gated { release: Some(order), .. }) = records.last_mut() {
            let file = |path: &str, content: &[u8]| StoredFile {
                path: path.to_owned(),
                blob: BlobRef::to(content),
            };
            order.adapter = BlobRef::to(&ground.adapter);
            order.formats = [
                (ExportFormat::GPTQ, vec![file("model.safetensors", b"gptq")]),
                (ExportFormat::GGUF, vec![file("student.gguf", b"gguf")]),
            ]
            .into();
        }
        Ledger::open(&ground.ledger(), |_| {}).unwrap().append(&records).unwrap();
        ground
    }

    /// A campaign that has ended, and whose process died before it said so.
    pub fn ended(records: &[Record]) -> Self {
        let (state, store) = (tempfile::tempdir().unwrap(), Store::memory());
        let ground = Self { state, store, adapter: adapter() };
        Ledger::open(&ground.ledger(), |_| {}).unwrap().append(records).unwrap();
        ground
    }

    /// Stores the student's blobs.
    pub async fn fill(&self, store: &Store) {
        for content in [self.adapter.clone(), b"gptq".to_vec(), b"gguf".to_vec()] {
            store.put_blob(content.into(), &silent).await.unwrap();
        }
    }

    fn ledger(&self) -> PathBuf {
        self.state.path().join(FILE_NAME)
    }

    /// A new process on the same state.
    pub fn coordinator(&self, store: &Store) -> Coordinator {
        let config = campaign();
        let mut settings = CoordinatorSettings::new("colony", self.state.path());
        settings.plan = asked::plan(&config);
        let bus = Arc::new(EmbeddedBus::default());
        Coordinator::open(settings, bus, store.clone(), asked::book(&config)).unwrap()
    }

    /// What the ledger says of the end.
    pub fn endings(&self) -> Vec<Ending> {
        replay_file(&self.ledger()).unwrap().ending().cloned().into_iter().collect()
    }

    /// One release, the order's, the newest, whole; and the ledger says so.
    pub async fn assert_published(&self, step: u64) {
        assert_eq!(self.store.list().await.unwrap(), [1], "step {step}");
        let manifest = self.store.manifest(1).await.unwrap();
        let adapter = BlobRef::to(&self.adapter);
        let named = |name: &str| manifest.files.iter().find(|f| f.path == name).unwrap();
        assert_eq!(named("adapter/adapter_model.safetensors").digest, adapter.digest);
        assert_eq!((manifest.previous, manifest.colony.as_str()), (None, "colony"));
        for chunk in manifest.files.iter().flat_map(|file| &file.chunks) {
            let blob = BlobRef { digest: chunk.digest, bytes: chunk.bytes };
            self.store.verify_blob(&blob).await.unwrap();
        }
        assert_eq!(self.endings(), [Ending::Published(1)], "step {step}");
        assert!(!self.state.path().join("scratch/release-1").exists(), "step {step}");
    }
}
