//! What a person says of students, and the day whose machine time they take.

use super::{Event, Turn};
use crate::Record;

impl Turn<'_> {
    /// Said again, it changes nothing. The last word counts: a hold takes back a student that was asked for.
    pub(super) fn of_students(&mut self, event: &Event) {
        let state = self.state();
        let record = match event {
            Event::Build if state.makes_on_demand() => Record::StudentAsked,
            Event::Hold if !state.held || state.student_asked => Record::Held,
            Event::Resume if state.held => Record::Resumed,
            Event::Day { day } if state.is_news(*day) => Record::Day { day: *day },
            _ => return,
        };
        self.record(record);
    }
}
