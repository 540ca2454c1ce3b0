//! Why no student is made just now, and how that ends.

use uspx_colony::{KeptBack, State};
use uspx_wire::StudentsStatus;

/// What a person is told who holds students back.
pub(crate) const HELD: &str = "no student is made until `uspx coordinator resume --state DIR`; measuring goes on, and \
     `uspx coordinator build --state DIR` makes one all the same";

/// In words; none where nothing keeps students back.
pub(crate) fn status(state: &State) -> Option<StudentsStatus> {
    let (kept_back, text) = match state.kept_back()? {
        KeptBack::Held => ("held", HELD.to_owned()),
        KeptBack::Spent => ("spent", spent(state)),
    };
    Some(StudentsStatus { kept_back: kept_back.to_owned(), waits: state.waits().is_some(), text })
}

fn spent(state: &State) -> String {
    let limit = state.campaign().map_or(0.0, |c| c.distil.hours_a_day);
    let taken = state.spent().hours();
    format!(
        "they took {taken:.2} machine hours of this day's {limit}: they go on at midnight UTC; `uspx coordinator build \
         --state DIR` makes one now"
    )
}
