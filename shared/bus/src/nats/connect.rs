//! Making the connection: an overall deadline, a clear reason when it fails, and no server that is
//! too old.

use crate::version::{OLDEST_SERVER, is_new_enough};
use crate::{BusError, MAX_PAYLOAD};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use uspx_wire::subjects::Names;

/// How often the server is asked for a sign of life. A dead link shows after two of these.
const PING_INTERVAL: Duration = Duration::from_secs(3);
/// How long one try to connect may take.
const ONE_TRY: Duration = Duration::from_secs(3);
/// The pause between tries.
const BETWEEN_TRIES: Duration = Duration::from_millis(250);

/// Where the server is and how to speak to it.
#[derive(Debug, Clone)]
pub struct NatsOptions {
    /// Its address: `nats://host:4222`, `tls://..`, with `user:password@` or `token@` where it asks
    /// for them.
    pub url: String,
    /// A credentials file (JWT and seed), where the server asks for one.
    pub credentials: Option<PathBuf>,
    /// The colony's names on the server.
    pub names: Names,
    /// The connection's name in the server's own listings.
    pub client_name: String,
    /// How long to go on trying to connect at the start.
    pub connect_within: Duration,
    /// How long a publish or an ack is tried again over connection trouble.
    pub retry_within: Duration,
}

impl NatsOptions {
    /// The usual options: connects within 10 s, retries for 30 s, the default namespace.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            credentials: None,
            names: Names::default(),
            client_name: "uspx".to_owned(),
            connect_within: Duration::from_secs(10),
            retry_within: Duration::from_secs(30),
        }
    }

    /// The address without user, password or token: what may be shown.
    pub fn shown_url(&self) -> String {
        match self.url.split_once("://") {
            Some((scheme, rest)) => {
                format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host))
            }
            None => {
                self.url.rsplit_once('@').map_or(self.url.as_str(), |(_, host)| host).to_owned()
            }
        }
    }

    async fn connect_options(
        &self,
        connects: &watch::Sender<u64>,
    ) -> Result<ConnectOptions, BusError> {
        let options = match &self.credentials {
            None => ConnectOptions::new(),
            Some(path) => ConnectOptions::with_credentials_file(path).await.map_err(|e| {
                BusError::Unreachable {
                    url: self.shown_url(),
                    reason: format!("credentials file {}: {e}", path.display()),
                }
            })?,
        };
        let connects = connects.clone();
        Ok(options
            .name(&self.client_name)
            .ping_interval(PING_INTERVAL)
            .connection_timeout(ONE_TRY)
            .request_timeout(Some(super::ANSWER_WITHIN))
            .event_callback(move |event| {
                log(&event);
                if matches!(event, Event::Connected) {
                    connects.send_modify(|count| *count += 1);
                }
                async {}
            }))
    }
}

/// Permission denials show here and nowhere else: the request that was denied just gets no answer.
fn log(event: &Event) {
    match event {
        Event::Connected => tracing::info!("connected to the NATS server"),
        Event::Disconnected => tracing::warn!("lost the NATS server; trying again"),
        // By ourselves, at the end.
        Event::Closed => tracing::debug!("the NATS connection is closed"),
        Event::ServerError(error) => tracing::error!(%error, "the NATS server refused something"),
        other => tracing::warn!(event = %other, "NATS connection"),
    }
}

/// Connects, trying again until the deadline, and checks the server's version. Also gives a count
/// of connections made.
pub(super) async fn connect(
    options: &NatsOptions,
) -> Result<(Client, watch::Receiver<u64>), BusError> {
    let (count, connects) = watch::channel(0);
    let client = connect_in_time(options, &count).await?;
    let info = client.server_info();
    if !is_new_enough(&info.version) {
        return Err(BusError::ServerTooOld {
            at: options.shown_url(),
            found: info.version,
            needed: OLDEST_SERVER.to_owned(),
        });
    }
    if info.max_payload < MAX_PAYLOAD {
        tracing::debug!(bytes = info.max_payload, "the NATS server's max_payload bounds messages");
    }
    Ok((client, connects))
}

/// Tries one by one rather than with `retry_on_initial_connect`, which would hide why each try
/// failed.
async fn connect_in_time(
    options: &NatsOptions,
    count: &watch::Sender<u64>,
) -> Result<Client, BusError> {
    let deadline = Instant::now() + options.connect_within;
    loop {
        let error = match options.connect_options(count).await?.connect(&options.url).await {
            Ok(client) => return Ok(client),
            Err(error) => error,
        };
        let hopeless = matches!(
            error.kind(),
            ConnectErrorKind::ServerParse
                | ConnectErrorKind::Authentication
                | ConnectErrorKind::AuthorizationViolation
                | ConnectErrorKind::Tls
        );
        if hopeless || Instant::now() + BETWEEN_TRIES >= deadline {
            return Err(BusError::Unreachable {
                url: options.shown_url(),
                reason: error.to_string(),
            });
        }
        tokio::time::sleep(BETWEEN_TRIES).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_secrets() {
        let shown = |url: &str| NatsOptions::new(url).shown_url();
        assert_eq!(shown("nats://me:s3cret@host:4222"), "nats://host:4222");
        assert_eq!(shown("tls://token@host"), "tls://host");
        assert_eq!(shown("me:p@ss@host:1"), "host:1");
        assert_eq!(shown("nats://host:4222"), "nats://host:4222");
    }
}
