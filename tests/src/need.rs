//! What some tests need and a machine may lack. Without it they are listed as ignored, with what is
//! missing before their names: a test that cannot run is never one that passed.

use libtest_mimic::Trial;

/// A program that tests need.
pub struct Need {
    what: &'static str,
    waived: bool,
}

impl Need {
    /// `there` says whether this machine has it. Where `variable` is 1 its tests run all the same,
    /// to fail without it.
    pub fn new(what: &'static str, variable: &str, there: bool) -> Self {
        let required = std::env::var(variable).is_ok_and(|v| v == "1");
        Self::of(what, required, there)
    }

    fn of(what: &'static str, required: bool, there: bool) -> Self {
        Self { what, waived: !there && !required }
    }

    /// The tests as they can be run here.
    pub fn of_all(&self, trials: Vec<Trial>) -> Vec<Trial> {
        if !self.waived {
            return trials;
        }
        trials
            .into_iter()
            .map(|t| t.with_ignored_flag(true).with_kind(format!("no {}", self.what)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_ignored_only_where_its_need_is_neither_there_nor_required() {
        for (required, there, ignored) in
            [(false, false, true), (false, true, false), (true, false, false), (true, true, false)]
        {
            let trials =
                Need::of("server", required, there).of_all(vec![Trial::test("x", || Ok(()))]);
            assert_eq!(trials[0].has_ignored_flag(), ignored, "required {required}, there {there}");
            assert_eq!(trials[0].kind(), if ignored { "no server" } else { "" });
        }
    }
}
