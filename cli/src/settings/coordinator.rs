//! A coordinator's settings.

use crate::connect::Address;
use crate::error::Result;
use crate::prompts::PromptSource;
use crate::secrets;
use crate::splits::SplitSources;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uspx_coordinator::{CampaignPlan, CoordinatorSettings, PromptBook};

/// As they stand in the file; see the table for each.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct CoordinatorFile {
    pub nats: String,
    pub credentials: Option<PathBuf>,
    pub namespace: Option<String>,
    pub store: String,
    #[serde(default = "home")]
    pub colony: String,
    pub state: PathBuf,
    pub train: PathBuf,
    pub validation: Option<PathBuf>,
    pub gate: PathBuf,
    #[serde(default)]
    pub text: bool,
    #[serde(default)]
    pub skip_bad: bool,
    #[serde(default)]
    pub allow_secrets: bool,
    #[serde(default)]
    pub stay: bool,
    pub silence: Option<u64>,
    pub lease: Option<u64>,
    pub takeover: Option<u64>,
    #[serde(default)]
    pub campaign: CampaignPlan,
}

/// What a colony is called that nobody named.
pub fn home() -> String {
    "home".to_owned()
}

impl CoordinatorFile {
    /// Where the server is.
    pub fn address(&self) -> Address<'_> {
        let (credentials, namespace) = (self.credentials.as_deref(), self.namespace.as_deref());
        Address { url: &self.nats, credentials, namespace }
    }

    fn source<'a>(&self, path: &'a Path) -> PromptSource<'a> {
        PromptSource::new(path, self.text, self.skip_bad)
    }

    /// The prompts, which are about to leave this machine.
    pub fn book(&self) -> Result<PromptBook> {
        let sources = SplitSources {
            train: self.source(&self.train),
            validation: self.validation.as_deref().map(|path| self.source(path)),
            gate: self.source(&self.gate),
        };
        let splits = sources.read()?;
        secrets::check(&splits.files(), self.allow_secrets)?;
        splits.book()
    }

    /// What the service is started with.
    pub fn service(self) -> CoordinatorSettings {
        let mut own = CoordinatorSettings::new(self.colony, self.state);
        own.silence = self.silence.map_or(own.silence, Duration::from_secs);
        own.lease = self.lease.map_or(own.lease, Duration::from_secs);
        own.takeover = self.takeover.map_or(own.takeover, Duration::from_secs);
        own.stay = self.stay;
        own.plan = self.campaign;
        own
    }
}
