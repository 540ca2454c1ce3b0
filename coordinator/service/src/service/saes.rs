//! Sparse autoencoders that workers trained, laid out beside the ledger as SAELens reads them:
//! `saes/layer-N`. They stand in the store; what cannot be fetched now is at the next start.

use super::Coordinator;
use crate::ServiceError;
use std::path::{Path, PathBuf};
use uspx_artifact::{Store, silent};
use uspx_colony::{Record, State};
use uspx_domain::{StoredFile, Work, limits};
use uspx_runtime::Shutdown;
use uspx_runtime::telemetry::TOLD;

/// A folder to be, and its files.
type Folder = (PathBuf, Vec<StoredFile>);

impl Coordinator {
    /// Lays out what an epoch brought, beside the service.
    pub(super) fn lay_out_new(&mut self, records: &[Record]) {
        let state = self.colony.state();
        let is_sae = |epoch: u32| {
            let mut tasks = state.tickets().values().map(|t| &t.task);
            tasks.any(|t| t.epoch == epoch && matches!(t.work, Work::Sae(_)))
        };
        let brought_some = |record: &Record| match record {
            Record::EpochClosed { epoch, .. } => is_sae(*epoch),
            _ => false,
        };
        if !records.iter().any(brought_some) {
            return;
        }
        let (store, folders) = (self.store.clone(), folders(&self.settings.state, state));
        self.layouts.spawn(async move {
            if let Err(error) = lay_out(&store, &folders).await {
                tracing::warn!(%error, "a sparse autoencoder cannot be fetched just now");
            }
        });
    }

    /// Lays out whatever is not there yet when a campaign is over, unless the end is asked for.
    pub(super) async fn lay_out_all(&mut self, shutdown: &Shutdown) {
        let folders = folders(&self.settings.state, self.colony.state());
        let all = async {
            while self.layouts.join_next().await.is_some() {}
            lay_out(&self.store, &folders).await
        };
        let laid = tokio::select! { laid = all => laid, () = shutdown.cancelled() => return };
        match laid {
            Ok(()) => folders.iter().for_each(|(folder, _)| {
                tracing::info!(target: TOLD, "sparse autoencoder: {}", folder.display());
            }),
            Err(error) => tracing::warn!(
                %error,
                "a sparse autoencoder could not be fetched from the store: start the coordinator again"
            ),
        }
    }
}

/// Where each layer's lies, and its files.
fn folders(state_folder: &Path, state: &State) -> Vec<Folder> {
    let saes = state.results().saes.iter();
    let folder = |layer: &u32| state_folder.join("saes").join(format!("layer-{layer}"));
    saes.map(|(layer, (files, _))| (folder(layer), files.clone())).collect()
}

/// Fetches what is not there. The settings come last, as they stand in the list: where they are, a
/// folder is whole.
async fn lay_out(store: &Store, folders: &[Folder]) -> Result<(), ServiceError> {
    for (folder, files) in folders {
        for StoredFile { path, blob } in files {
            store.get_file(blob, &folder.join(path), limits::SAE_FILE, &silent).await?;
        }
    }
    Ok(())
}
