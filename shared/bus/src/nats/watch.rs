//! Watching a key over outages.
//!
//! async-nats makes a lost watch anew only after ten seconds of silence; this makes it anew as soon
//! as the connection is back, and passes over what was seen before.

use super::link::Link;
use crate::{BusError, Listener};
use async_nats::jetstream::kv::{Operation, Store, Watch};
use bytes::Bytes;
use futures::{StreamExt, stream};
use std::time::Duration;
use tokio::sync::watch;

/// The pause before a watch that broke is made anew.
const PAUSE: Duration = Duration::from_millis(250);

struct Watching {
    link: Link,
    store: Store,
    key: String,
    entries: Option<Watch>,
    connects: watch::Receiver<u64>,
    seen: u64,
}

/// The key's value, and every later one.
pub(super) async fn watch(link: &Link, store: &Store, key: &str) -> Result<Listener, BusError> {
    let mut connects = link.connects.clone();
    connects.mark_unchanged();
    let entries = open(link, store, key).await?;
    let watching = Watching {
        link: link.clone(),
        store: store.clone(),
        key: key.to_owned(),
        entries: Some(entries),
        connects,
        seen: 0,
    };
    Ok(Listener::new(
        stream::unfold(watching, |mut w| async move { w.next().await.map(|v| (v, w)) }).boxed(),
    ))
}

async fn open(link: &Link, store: &Store, key: &str) -> Result<Watch, BusError> {
    store.watch_with_history(key).await.map_err(|e| link.explain("watch", &e))
}

impl Watching {
    /// The next value; `None` when the connection is closed for good.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let Some(entries) = self.entries.as_mut() else {
                self.reopen().await;
                continue;
            };
            tokio::select! {
                connected = self.connects.changed() => {
                    connected.ok()?;
                    self.entries = None;
                }
                entry = entries.next() => match entry {
                    Some(Ok(entry)) if entry.revision <= self.seen => {}
                    Some(Ok(entry)) => {
                        self.seen = entry.revision;
                        if entry.operation == Operation::Put {
                            return Some(entry.value);
                        }
                    }
                    // A missed heartbeat is an error, and not the end.
                    Some(Err(error)) => tracing::debug!(%error, key = self.key, "watch"),
                    None => self.entries = None,
                }
            }
        }
    }

    async fn reopen(&mut self) {
        match open(&self.link, &self.store, &self.key).await {
            Ok(entries) => self.entries = Some(entries),
            Err(error) => {
                tracing::debug!(%error, key = self.key, "watch cannot be made anew yet");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
