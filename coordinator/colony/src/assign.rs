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
    /// Whether it knows the task's job and estimator.
    pub speaks: bool,
    /// Whether it holds the task's model.
    pub holds_model: bool,
    /// Attempts that it failed or let lapse.
    pub failures: u32,
}

/// The worker to ask next, of those that are heard of and trusted; none where all that may be asked
/// have their hands full.
///
/// Whoever does not speak the task is never asked; whoever was asked before only when nobody else
/// is left.
pub fn assign(
    workers: &[WorkerView],
    asked: impl Fn(&WorkerId) -> bool,
    ahead: u32,
) -> Option<WorkerId> {
    let able = || workers.iter().filter(|w| w.speaks);
    let anyone_new = able().any(|w| !asked(&w.id));
    let allowed = able().filter(|w| w.busy < ahead && (!anyone_new || !asked(&w.id)));
    allowed.min_by_key(|w| (!w.holds_model, w.busy, w.failures, &w.id)).map(|w| w.id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(id: &str, busy: u32, holds_model: bool, failures: u32) -> WorkerView {
        WorkerView { id: id.parse().unwrap(), busy, speaks: true, holds_model, failures }
    }

    fn pick(workers: &[WorkerView], asked: &[&str]) -> Option<String> {
        assign(workers, |w| asked.contains(&w.as_str()), 2).map(String::from)
    }

    #[test]
    fn the_free_holder_of_the_model_comes_first() {
        let workers = [view("a", 0, false, 0), view("b", 1, true, 0), view("c", 1, true, 2)];
        assert_eq!(pick(&workers, &[]).as_deref(), Some("b"));
        assert_eq!(pick(&workers, &["b"]).as_deref(), Some("c"));
    }

    #[test]
    fn nobody_gets_more_than_two_ahead() {
        assert_eq!(pick(&[view("a", 2, true, 0), view("b", 2, true, 0)], &[]), None);
    }

    #[test]
    fn whoever_does_not_speak_a_task_is_never_asked() {
        let older = |id| WorkerView { speaks: false, ..view(id, 0, true, 0) };
        assert_eq!(pick(&[older("a"), view("b", 1, false, 9)], &[]).as_deref(), Some("b"));
        // Nor is it waited for: the other is asked again.
        assert_eq!(pick(&[older("a"), view("b", 1, false, 9)], &["b"]).as_deref(), Some("b"));
        assert_eq!(pick(&[older("a")], &[]), None);
    }

    #[test]
    fn a_task_waits_for_another_worker_but_not_for_ever() {
        let workers = [view("a", 0, true, 0), view("b", 2, true, 0)];
        assert_eq!(pick(&workers, &["a"]), None);
        assert_eq!(pick(&workers[..1], &["a"]).as_deref(), Some("a"));
    }
}
