//! Which worker gets a task: one that speaks it, has room, was not asked before, and holds the
//! model already.

use uspx_domain::WorkerId;

/// The worker to ask next, of those that have room, in the order in which they are asked; none where all that may be
/// asked have their hands full.
///
/// Whoever is not able is never asked; whoever was asked before only when `anyone_new` says that nobody else is left:
/// one that rests or is busy is waited for.
pub fn assign<'a>(
    free: impl Iterator<Item = &'a WorkerId>,
    able: impl Fn(&WorkerId) -> bool,
    asked: impl Fn(&WorkerId) -> bool,
    anyone_new: impl FnOnce() -> bool,
) -> Option<WorkerId> {
    let mut again = None;
    for worker in free.filter(|w| able(w)) {
        if !asked(worker) {
            return Some(worker.clone());
        }
        again.get_or_insert(worker);
    }
    again.filter(|_| !anyone_new()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Workers: those with room in order, then those without.
    fn pick(free: &[&str], busy: &[&str], able: &[&str], asked: &[&str]) -> Option<String> {
        let ids = |names: &[&str]| -> Vec<WorkerId> {
            names.iter().map(|n| n.parse().unwrap()).collect()
        };
        let (free, busy) = (ids(free), ids(busy));
        let is_able = |w: &WorkerId| able.contains(&w.as_str());
        let was_asked = |w: &WorkerId| asked.contains(&w.as_str());
        let anyone_new = || free.iter().chain(&busy).any(|w| is_able(w) && !was_asked(w));
        assign(free.iter(), is_able, was_asked, anyone_new).map(String::from)
    }

    #[test]
    fn the_first_that_was_not_asked_comes_first() {
        assert_eq!(pick(&["c", "b"], &["a"], &["a", "b", "c"], &[]).as_deref(), Some("c"));
        assert_eq!(pick(&["c", "b"], &["a"], &["a", "b", "c"], &["c"]).as_deref(), Some("b"));
        assert_eq!(pick(&[], &["a", "b"], &["a", "b"], &[]), None);
    }

    #[test]
    fn whoever_is_not_able_is_never_asked() {
        assert_eq!(pick(&["a", "b"], &[], &["b"], &[]).as_deref(), Some("b"));
        // Nor is it waited for: the other is asked again.
        assert_eq!(pick(&["a", "b"], &[], &["b"], &["b"]).as_deref(), Some("b"));
        assert_eq!(pick(&["a"], &[], &[], &[]), None);
    }

    #[test]
    fn a_task_waits_for_another_worker_but_not_for_ever() {
        assert_eq!(pick(&["a"], &["b"], &["a", "b"], &["a"]), None);
        assert_eq!(pick(&["a"], &[], &["a"], &["a"]).as_deref(), Some("a"));
        assert_eq!(pick(&["a"], &["b"], &["a", "b"], &["a", "b"]).as_deref(), Some("a"));
    }
}
