//! One queue's rules as a plain state machine: told the time, it never waits.

use crate::delivery::Verdict;
use crate::{BusError, Published, QueueSpec};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// How long a dead letter may stay unsettled before it is shown again. The same on NATS.
pub(crate) const DEAD_LETTER_LEASE: Duration = Duration::from_secs(30);

/// Which delivery of which message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub sequence: u64,
    pub delivery: u32,
}

/// What a holder gets.
pub(super) struct Leased {
    pub at: Place,
    pub message_id: String,
    pub payload: Bytes,
    pub lease: Duration,
}

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// To be delivered.
    Ready,
    /// With a holder, or given back with a delay, until then.
    Away(Instant),
    /// Out of deliveries, to be shown.
    Dead,
    /// Shown as dead; shown again then unless settled.
    Shown(Instant),
}

struct Stored {
    message_id: String,
    payload: Bytes,
    deliveries: u32,
    standing: Standing,
}

/// A queue. `ready`, `timers` and `dead` index the messages by their standing.
pub(super) struct Queue {
    pub spec: QueueSpec,
    next: u64,
    messages: BTreeMap<u64, Stored>,
    by_id: HashMap<String, u64>,
    ready: BTreeSet<u64>,
    dead: BTreeSet<u64>,
    timers: BTreeSet<(Instant, u64)>,
    seen: HashSet<String>,
    seen_order: VecDeque<(Instant, String)>,
}

impl Queue {
    pub fn new(spec: QueueSpec) -> Self {
        Self {
            spec,
            next: 1,
            messages: BTreeMap::new(),
            by_id: HashMap::new(),
            ready: BTreeSet::new(),
            dead: BTreeSet::new(),
            timers: BTreeSet::new(),
            seen: HashSet::new(),
            seen_order: VecDeque::new(),
        }
    }

    pub fn len(&self) -> u64 {
        self.messages.len() as u64
    }

    /// When something next changes by itself.
    pub fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub fn publish(
        &mut self,
        now: Instant,
        message_id: &str,
        payload: Bytes,
    ) -> Result<Published, BusError> {
        self.forget_ids(now);
        if self.seen.contains(message_id) {
            return Ok(Published::Duplicate);
        }
        if self.len() >= self.spec.max_messages {
            return Err(BusError::Full { queue: self.spec.name.clone() });
        }
        self.seen.insert(message_id.to_owned());
        self.seen_order.push_back((now, message_id.to_owned()));
        self.store(message_id.to_owned(), payload);
        Ok(Published::Stored)
    }

    fn store(&mut self, message_id: String, payload: Bytes) {
        let sequence = self.next;
        self.next += 1;
        self.by_id.insert(message_id.clone(), sequence);
        self.ready.insert(sequence);
        self.messages.insert(
            sequence,
            Stored { message_id, payload, deliveries: 0, standing: Standing::Ready },
        );
    }

    fn forget_ids(&mut self, now: Instant) {
        let window = self.spec.dedup_window;
        while self.seen_order.front().is_some_and(|(at, _)| now >= *at + window) {
            if let Some((_, id)) = self.seen_order.pop_front() {
                self.seen.remove(&id);
            }
        }
    }

    /// Leases the oldest message that is ready.
    pub fn take(&mut self, now: Instant) -> Option<Leased> {
        self.sweep(now);
        let sequence = *self.ready.first()?;
        let lease = self.spec.lease;
        if let Some(stored) = self.messages.get_mut(&sequence) {
            stored.deliveries += 1;
        }
        self.stand(sequence, Standing::Away(now + lease));
        self.leased(sequence)
    }

    /// Shows the oldest dead letter.
    pub fn take_dead(&mut self, now: Instant) -> Option<Leased> {
        self.sweep(now);
        let sequence = *self.dead.first()?;
        self.stand(sequence, Standing::Shown(now + DEAD_LETTER_LEASE));
        self.leased(sequence)
    }

    fn leased(&self, sequence: u64) -> Option<Leased> {
        let stored = self.messages.get(&sequence)?;
        Some(Leased {
            at: Place { sequence, delivery: stored.deliveries },
            message_id: stored.message_id.clone(),
            payload: stored.payload.clone(),
            lease: self.spec.lease,
        })
    }

    /// Moves every message whose timer has run out: to be delivered again, or to the dead.
    fn sweep(&mut self, now: Instant) {
        while let Some(&(at, sequence)) = self.timers.first().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, sequence));
            let Some(stored) = self.messages.get(&sequence) else { continue };
            let spent = stored.deliveries >= self.spec.max_deliveries;
            self.stand(sequence, if spent { Standing::Dead } else { Standing::Ready });
        }
    }

    pub fn settle(&mut self, now: Instant, at: Place, verdict: Verdict) {
        match verdict {
            Verdict::Ack | Verdict::Term => self.delete(at.sequence),
            Verdict::Progress => self.put_off(at, now + self.spec.lease),
            Verdict::Nak(delay) => self.put_off(at, now + delay),
        }
    }

    /// Sets another time for a message that this holder still has.
    fn put_off(&mut self, at: Place, until: Instant) {
        let holds =
            |s: &Stored| s.deliveries == at.delivery && matches!(s.standing, Standing::Away(_));
        if self.messages.get(&at.sequence).is_some_and(holds) {
            self.stand(at.sequence, Standing::Away(until));
        }
    }

    pub fn withdraw(&mut self, message_id: &str) -> bool {
        match self.by_id.get(message_id) {
            Some(&sequence) => {
                self.delete(sequence);
                true
            }
            None => false,
        }
    }

    fn delete(&mut self, sequence: u64) {
        self.unindex(sequence);
        if let Some(stored) = self.messages.remove(&sequence)
            && self.by_id.get(&stored.message_id) == Some(&sequence)
        {
            self.by_id.remove(&stored.message_id);
        }
    }

    fn unindex(&mut self, sequence: u64) {
        self.ready.remove(&sequence);
        self.dead.remove(&sequence);
        if let Some(Standing::Away(at) | Standing::Shown(at)) =
            self.messages.get(&sequence).map(|s| s.standing)
        {
            self.timers.remove(&(at, sequence));
        }
    }

    fn stand(&mut self, sequence: u64, standing: Standing) {
        self.unindex(sequence);
        match standing {
            Standing::Ready => self.ready.insert(sequence),
            Standing::Dead => self.dead.insert(sequence),
            Standing::Away(at) | Standing::Shown(at) => self.timers.insert((at, sequence)),
        };
        if let Some(stored) = self.messages.get_mut(&sequence) {
            stored.standing = standing;
        }
    }
}
