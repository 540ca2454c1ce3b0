//! The values of keys: a key-value bucket on the broker, and swaps that know how they ended.

use super::errors::{Meaning, meaning};
use super::link::Link;
use crate::{BusError, Revision, Swapped};
use async_nats::jetstream::kv::{self, Operation, Store};
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, Ordering};

/// Finds the bucket, or makes it.
pub(super) async fn open(link: &Link) -> Result<Store, BusError> {
    let bucket = link.names.bucket();
    if let Ok(store) = link.jetstream.get_key_value(&bucket).await {
        return Ok(store);
    }
    let config = kv::Config { bucket, history: 1, ..Default::default() };
    let made = link.jetstream.create_key_value(config).await;
    made.map_err(|e| link.explain("create bucket", &e))
}

pub(super) async fn put(
    link: &Link,
    store: &Store,
    key: &str,
    value: Bytes,
) -> Result<(), BusError> {
    let put = || async { store.put(key, value.clone()).await.map_err(|e| link.explain("put", &e)) };
    link.retry(put).await.map(drop)
}

pub(super) async fn get(
    link: &Link,
    store: &Store,
    key: &str,
) -> Result<Option<(Bytes, Revision)>, BusError> {
    let entry = store.entry(key).await.map_err(|e| link.explain("get", &e))?;
    let entry = entry.filter(|e| e.operation == Operation::Put);
    Ok(entry.map(|e| (e.value, Revision(e.revision))))
}

/// A try whose answer was lost may have been stored, and may still be on its way: the next one then
/// loses to it, which reading back tells.
pub(super) async fn swap(
    link: &Link,
    store: &Store,
    key: &str,
    expected: Option<Revision>,
    value: Bytes,
) -> Result<Swapped, BusError> {
    let unsure = AtomicBool::new(false);
    let again = || async {
        match once(link, store, key, expected, value.clone()).await {
            Ok(Swapped::Lost) if unsure.load(Ordering::Relaxed) => {
                let found = get(link, store, key).await?.filter(|(found, _)| *found == value);
                Ok(found.map_or(Swapped::Lost, |(_, revision)| Swapped::Done(revision)))
            }
            Err(error) => {
                unsure.store(true, Ordering::Relaxed);
                Err(error)
            }
            known => known,
        }
    };
    link.retry(again).await
}

async fn once(
    link: &Link,
    store: &Store,
    key: &str,
    expected: Option<Revision>,
    value: Bytes,
) -> Result<Swapped, BusError> {
    let at = match expected {
        Some(Revision(at)) => at,
        None => match deleted_at(link, store, key).await? {
            Some(at) => at,
            None => return Ok(Swapped::Lost),
        },
    };
    match store.update(key, value, at).await {
        Ok(revision) => Ok(Swapped::Done(Revision(revision))),
        Err(error) if meaning(&error) == Meaning::Raced => Ok(Swapped::Lost),
        Err(error) => Err(link.explain("swap", &error)),
    }
}

/// Where a key without a value stands: at nothing (0), or at the mark of whoever deleted it; `None`
/// for one that has a value.
async fn deleted_at(link: &Link, store: &Store, key: &str) -> Result<Option<u64>, BusError> {
    let entry = store.entry(key).await.map_err(|e| link.explain("get", &e))?;
    Ok(entry.map_or(Some(0), |e| (e.operation != Operation::Put).then_some(e.revision)))
}
