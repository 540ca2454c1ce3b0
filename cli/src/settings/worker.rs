//! A worker's settings.

use crate::connect::Address;
use serde::Deserialize;
use std::path::PathBuf;

/// As they stand in the file; see the table for each.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct WorkerFile {
    pub nats: String,
    pub credentials: Option<PathBuf>,
    pub namespace: Option<String>,
    pub store: String,
    pub name: String,
    pub models: Vec<PathBuf>,
    #[serde(default = "cpu")]
    pub device: String,
    pub batch_tokens: Option<usize>,
    pub worker_state: Option<PathBuf>,
}

fn cpu() -> String {
    "cpu".to_owned()
}

impl WorkerFile {
    /// Where the server is.
    pub fn address(&self) -> Address<'_> {
        let (credentials, namespace) = (self.credentials.as_deref(), self.namespace.as_deref());
        Address { url: &self.nats, credentials, namespace }
    }
}
