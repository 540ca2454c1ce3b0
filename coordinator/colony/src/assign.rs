//! Which worker gets a task: one that speaks it, has room, was not asked before, and holds the
//! model already.

use uspx_domain::WorkerId;

/// A worker as the assignment sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerView {
    /// Its name.
    pub id: WorkerId,
    /// Tasks that it was given and has not answered.
    pub busy: u32,
    /// Whether it knows the task's job and estimator, and holds its model.
    pub able: bool,
    /// Whether it rests, since its machine failed.
    pub rests: bool,
    /// Attempts that it failed or let lapse.
    pub failures: u32,
}

/// The worker to ask next, of those that are heard of and trusted; none where all that may be asked
/// have their hands full.
///
/// Whoever is not able is never asked; whoever was asked before only when nobody else is left. One
/// that rests is waited for.
pub fn assign(
    workers: &[WorkerView],
    asked: impl Fn(&WorkerId) -> bool,
    ahead: u32,
) -> Option<WorkerId> {
    let able = || workers.iter().filter(|w| w.able);
    let anyone_new = able().any(|w| !asked(&w.id));
    let allowed = able().filter(|w| !w.rests && w.busy < ahead && (!anyone_new || !asked(&w.id)));
    allowed.min_by_key(|w| (w.busy, w.failures, &w.id)).map(|w| w.id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(id: &str, busy: u32, failures: u32) -> WorkerView {
        WorkerView { id: id.parse().unwrap(), busy, able: true, rests: false, failures }
    }

    fn pick(workers: &[WorkerView], asked: &[&str]) -> Option<String> {
        assign(workers, |w| asked.contains(&w.as_str()), 2).map(String::from)
    }

    #[test]
    fn the_least_busy_and_then_the_most_reliable_comes_first() {
        let workers = [view("a", 1, 0), view("b", 0, 2), view("c", 0, 1)];
        assert_eq!(pick(&workers, &[]).as_deref(), Some("c"));
        assert_eq!(pick(&workers, &["c"]).as_deref(), Some("b"));
    }

    #[test]
    fn nobody_gets_more_than_two_ahead() {
        assert_eq!(pick(&[view("a", 2, 0), view("b", 2, 0)], &[]), None);
    }

    #[test]
    fn whoever_is_not_able_is_never_asked() {
        let older = |id| WorkerView { able: false, ..view(id, 0, 0) };
        assert_eq!(pick(&[older("a"), view("b", 1, 9)], &[]).as_deref(), Some("b"));
        // Nor is it waited for: the other is asked again.
        assert_eq!(pick(&[older("a"), view("b", 1, 9)], &["b"]).as_deref(), Some("b"));
        assert_eq!(pick(&[older("a")], &[]), None);
    }

    #[test]
    fn a_task_waits_for_another_worker_but_not_for_ever() {
        let workers = [view("a", 0, 0), view("b", 2, 0)];
        assert_eq!(pick(&workers, &["a"]), None);
        assert_eq!(pick(&workers[..1], &["a"]).as_deref(), Some("a"));
    }

    #[test]
    fn one_that_rests_is_waited_for_where_the_others_were_asked() {
        let resting = WorkerView { rests: true, ..view("b", 0, 3) };
        assert_eq!(pick(&[view("a", 1, 0), resting.clone()], &[]).as_deref(), Some("a"));
        assert_eq!(pick(&[view("a", 0, 0), resting.clone()], &["a"]), None);
        assert_eq!(pick(&[view("a", 0, 0), resting], &["a", "b"]).as_deref(), Some("a"));
    }
}
