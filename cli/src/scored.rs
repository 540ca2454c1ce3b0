//! What prompts are scored on: the reference that the person gave, or the model's own greedy answer
//! where there is none.

use crate::output;
use serde::Serialize;
use std::collections::HashSet;
use uspx_domain::Prompt;

/// How many prompts are scored on what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Scored {
    /// On the reference.
    reference: usize,
    /// On the model's own greedy answer.
    own_answer: usize,
}

impl Scored {
    /// Of prompts, those with the ids `open` having come without a reference.
    pub fn of(prompts: &[Prompt], open: &HashSet<String>) -> Self {
        let own_answer = prompts.iter().filter(|p| open.contains(&p.id)).count();
        Self { reference: prompts.len() - own_answer, own_answer }
    }

    /// Says it to a person.
    pub fn tell(self) {
        output::note(&self.to_string());
    }
}

impl std::fmt::Display for Scored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { reference, own_answer } = *self;
        let (prompts, are) = match reference + own_answer {
            1 => ("prompt", "is"),
            _ => ("prompts", "are"),
        };
        match (reference, own_answer) {
            (n, 0) => write!(f, "{n} {prompts} {are} scored on the reference"),
            (0, n) => {
                write!(
                    f,
                    "{n} {prompts} without a reference: scored on the model's own greedy answer"
                )
            }
            (given, own) => write!(
                f,
                "{given} of {} prompts are scored on their reference, {own} on the model's own greedy answer",
                given + own
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_many_on_what() {
        let prompt = |id: &str| Prompt { id: id.into(), ..Prompt::default() };
        let prompts = [prompt("a"), prompt("b"), prompt("c")];
        let open = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<HashSet<_>>();
        let said = |ids: &[&str]| Scored::of(&prompts, &open(ids)).to_string();
        assert_eq!(said(&[]), "3 prompts are scored on the reference");
        assert!(
            said(&["b", "gone"]).starts_with("2 of 3 prompts are scored on their reference, 1 on")
        );
        assert!(said(&["a", "b", "c"]).starts_with("3 prompts without a reference"));
    }
}
