//! Topics and keys of the embedded bus: who listens now, and the last value of each key.

use crate::{Listener, Revision, Swapped};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::{broadcast, watch};

/// Messages that a listener may fall behind before it misses some.
const BACKLOG: usize = 1024;

/// The listeners of each topic.
#[derive(Default)]
pub(super) struct Topics(Mutex<HashMap<String, broadcast::Sender<Bytes>>>);

impl Topics {
    fn sender(&self, topic: &str) -> broadcast::Sender<Bytes> {
        let mut topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        topics.entry(topic.to_owned()).or_insert_with(|| broadcast::channel(BACKLOG).0).clone()
    }

    pub(super) fn tell(&self, topic: &str, payload: Bytes) {
        // An error only says that nobody listens.
        let _ = self.sender(topic).send(payload);
    }

    pub(super) fn listen(&self, topic: &str) -> Listener {
        let next = |mut from: broadcast::Receiver<Bytes>| async move {
            loop {
                match from.recv().await {
                    Ok(payload) => return Some((payload, from)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        };
        Listener::new(stream::unfold(self.sender(topic).subscribe(), next).boxed())
    }
}

/// The value of each key. Revisions count the writes of each.
#[derive(Default)]
pub(super) struct Keys(Mutex<HashMap<String, watch::Sender<Value>>>);

type Value = Option<(Bytes, Revision)>;

impl Keys {
    fn with<T>(&self, key: &str, act: impl FnOnce(&watch::Sender<Value>) -> T) -> T {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        act(keys.entry(key.to_owned()).or_insert_with(|| watch::channel(None).0))
    }

    pub(super) fn put(&self, key: &str, value: Bytes) {
        self.with(key, |sender| {
            let before = sender.borrow().as_ref().map(|(_, revision)| *revision);
            write(sender, before, value);
        });
    }

    pub(super) fn get(&self, key: &str) -> Value {
        self.with(key, |sender| sender.borrow().clone())
    }

    pub(super) fn swap(&self, key: &str, expected: Option<Revision>, value: Bytes) -> Swapped {
        self.with(key, |sender| {
            let before = sender.borrow().as_ref().map(|(_, revision)| *revision);
            match before == expected {
                true => Swapped::Done(write(sender, before, value)),
                false => Swapped::Lost,
            }
        })
    }

    pub(super) fn watch(&self, key: &str) -> Listener {
        let mut from = self.with(key, watch::Sender::subscribe);
        from.mark_changed();
        let next = |mut from: watch::Receiver<Value>| async move {
            loop {
                from.changed().await.ok()?;
                let value = from.borrow_and_update().clone();
                if let Some((value, _)) = value {
                    return Some((value, from));
                }
            }
        };
        Listener::new(stream::unfold(from, next).boxed())
    }
}

fn write(sender: &watch::Sender<Value>, before: Option<Revision>, value: Bytes) -> Revision {
    let revision = Revision(before.map_or(1, |Revision(number)| number + 1));
    sender.send_replace(Some((value, revision)));
    revision
}
