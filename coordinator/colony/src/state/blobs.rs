//! The blobs that the state may still need: what a shortened ledger names of those that its records
//! named.

use super::Results;
use crate::State;
use crate::together::{Shared, SharedRound};
use uspx_domain::{BlobRef, StoredFile};

impl State {
    /// The blobs that its tasks, answers, results and releases name; some of them more than once.
    pub fn blobs(&self) -> Vec<BlobRef> {
        let tasks = self.tickets.values().flat_map(|ticket| ticket.task.work.blobs());
        let pending = self.pending.iter().map(|(_, packed)| packed.bare());
        let answers = pending.chain(self.witnesses.values());
        let answers = answers.chain(self.disputes.values().flatten());
        let published = self.published.iter().flat_map(|student| student.formats.values());
        tasks
            .chain(answers.flat_map(|answer| answer.outcome.blobs()))
            .chain(self.order.iter().flat_map(|order| order.blobs()))
            .chain(published.flat_map(|files| stored(files)))
            .chain(self.results.blobs())
            .collect()
    }
}

impl Results {
    fn blobs(&self) -> impl Iterator<Item = BlobRef> {
        let labels = self.labels.values().flat_map(|labels| labels.values()).copied();
        let adapters = self.adapters.values().map(|(blob, _)| *blob);
        let exports = self.exports.values().flat_map(|files| stored(files));
        let saes = self.saes.values().flat_map(|(files, _)| stored(files));
        let shared = self.shared.values().flat_map(Shared::blobs);
        labels.chain(adapters).chain(exports).chain(saes).chain(shared)
    }
}

impl Shared {
    fn blobs(&self) -> impl Iterator<Item = BlobRef> {
        let told = |round: &SharedRound| -> Vec<BlobRef> {
            round.told.values().map(|told| told.blob).collect()
        };
        let labels = self.train.iter().chain(&self.validation).copied();
        labels.chain(self.rounds.values().flat_map(told))
    }
}

fn stored(files: &[StoredFile]) -> impl Iterator<Item = BlobRef> {
    files.iter().map(|file| file.blob)
}
