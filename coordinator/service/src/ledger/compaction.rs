//! When a ledger is worth shortening: a colony that runs for weeks is not to fill the disk with
//! records that nobody will ask for again, nor to replay them all at each start.
//!
//! A snapshot is about as long as what is known, records as what was ever done. Written each time
//! that the records since the last one are several times as long, it costs a fraction of what they
//! did, and the ledger stays within that many times what is known.

/// When to begin a ledger anew with a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compaction {
    /// Records since the last snapshot take at least so many bytes.
    pub least: u64,
    /// And so many times those of the snapshot.
    pub times: u64,
}

impl Default for Compaction {
    /// 16 MiB are read within a moment at a start, so most campaigns keep their whole history. Four
    /// times: each byte of records costs a quarter of a byte of snapshots.
    fn default() -> Self {
        Self { least: 16 << 20, times: 4 }
    }
}

/// How far a ledger has grown, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Grown {
    /// The last snapshot, or what is known of the next one.
    snapshot: u64,
    /// Records since.
    since: u64,
}

impl Grown {
    pub fn record(&mut self, bytes: usize) {
        self.since += bytes as u64;
    }

    /// The ledger begins with a snapshot, or goes on from one.
    pub fn snapshot(&mut self, bytes: usize) {
        *self = Self { snapshot: bytes as u64, since: 0 };
    }

    /// A snapshot of today would be so long; none was written.
    pub fn would_be(&mut self, bytes: usize) {
        self.snapshot = bytes as u64;
    }

    /// A snapshot came to nothing: it is not tried again before there is as much again.
    pub fn put_off(&mut self) {
        self.snapshot = self.snapshot.max(self.since);
    }

    pub fn is_worth(&self, when: &Compaction) -> bool {
        self.since >= when.least && self.since > when.times.saturating_mul(self.snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_worth_it_where_records_are_many_times_the_snapshot() {
        let when = Compaction { least: 100, times: 4 };
        let mut grown = Grown::default();
        grown.record(99);
        assert!(!grown.is_worth(&when));
        grown.record(1);
        assert!(grown.is_worth(&when));
        grown.would_be(25);
        assert!(!grown.is_worth(&when), "it would be a quarter of them");
        grown.record(1);
        assert!(grown.is_worth(&when));
        grown.put_off();
        grown.record(303);
        assert!(!grown.is_worth(&when));
        grown.record(1);
        assert!(grown.is_worth(&when));
        grown.snapshot(1000);
        grown.record(4000);
        assert!(!grown.is_worth(&when));
    }
}
