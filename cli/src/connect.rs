//! The one place where commands connect to a NATS server.

use crate::error::{CliError, Exit, Result};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use uspx_bus::{NatsBus, NatsOptions};
use uspx_wire::subjects::Names;

/// Where a colony's server is, and how it is spoken to.
#[derive(Debug, Clone, Copy)]
pub struct Address<'a> {
    /// The server.
    pub url: &'a str,
    /// A credentials file, where the server asks for one.
    pub credentials: Option<&'a Path>,
    /// The colony's names on the server.
    pub namespace: Option<&'a str>,
}

impl Address<'_> {
    /// Connects as `client`, which the server's own listings show. A glance says how long it may
    /// take; otherwise it is tried for as long as is usual.
    ///
    /// # Errors
    /// A namespace that is none, a server that cannot be reached or refuses.
    pub async fn connect(&self, client: &str, within: Option<Duration>) -> Result<Arc<NatsBus>> {
        if let Some(path) = self.credentials {
            std::fs::metadata(path).map_err(|e| CliError::file(path, &e))?;
        }
        let usual = NatsOptions::new(self.url);
        let names = self.namespace.map(Names::new).transpose();
        let options = NatsOptions {
            credentials: self.credentials.map(Path::to_owned),
            names: names.map_err(|e| CliError::new(Exit::Usage, e))?.unwrap_or_default(),
            client_name: client.to_owned(),
            connect_within: within.unwrap_or(usual.connect_within),
            ..usual
        };
        Ok(Arc::new(NatsBus::connect(&options).await?))
    }
}
