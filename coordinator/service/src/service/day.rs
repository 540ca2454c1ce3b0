//! The colony has no clock: which day it is, it is told.

use super::Coordinator;
use crate::ServiceError;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use uspx_colony::{Ending, Event};

/// A day of UTC.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Days from 1970 UTC; a clock from before that says 0.
fn day(now: SystemTime) -> u32 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs() / DAY.as_secs()).unwrap_or(u32::MAX)
}

impl Coordinator {
    /// Tells that another day has come, where that matters.
    pub(super) async fn note_day(&mut self) -> Result<Option<Ending>, ServiceError> {
        let day = day(SystemTime::now());
        match self.colony.state().is_news(day) {
            true => self.event(Event::Day { day }).await,
            false => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_at_midnight_utc() {
        let second = |s| day(UNIX_EPOCH + Duration::from_secs(s));
        assert_eq!([second(0), second(86_399), second(86_400)], [0, 0, 1]);
        assert_eq!(second(1_800_000_000), 20_833);
        assert_eq!(day(UNIX_EPOCH - Duration::from_secs(1)), 0);
    }
}
