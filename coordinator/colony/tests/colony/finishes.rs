//! What 4-bit students are finished on.

use crate::world::*;
use std::collections::BTreeSet;
use uspx_colony::*;
use uspx_domain::*;

/// The label blobs that the ledger's exports name.
fn named(service: &Service) -> Vec<BTreeSet<BlobRef>> {
    let opened = service.ledger.iter().filter_map(|record| match record {
        Record::EpochOpened { stage: Stage::Export, tasks, .. } => Some(tasks),
        _ => None,
    });
    let labels = |task: &PlannedTask| match &task.work {
        Work::Export(export) => Some(export.labels.iter().copied().collect()),
        _ => None,
    };
    opened.flatten().filter_map(labels).collect()
}

#[test]
fn a_finish_learns_from_all_labels_of_train_prompts() {
    let mut config = campaign("finishes");
    config.finish.passes = 4;
    let (service, _) = honest(config);
    let labels = &service.colony.state().results().labels[&Split::Train];
    let all: BTreeSet<BlobRef> = labels.values().copied().collect();
    assert!(!all.is_empty());
    assert_eq!(named(&service), vec![all; ExportFormat::ALL.len()]);
}

#[test]
fn without_a_finish_no_labels_are_sent() {
    let (service, _) = honest(campaign("no finish"));
    assert_eq!(named(&service), vec![BTreeSet::new(); ExportFormat::ALL.len()]);
}
