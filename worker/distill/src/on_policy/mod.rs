//! On-policy distillation (GKD, Agarwal et al. 2024, arXiv 2306.13649; MiniLLM, Gu et al. 2024, arXiv
//! 2306.08543): the student answers the prompts itself, the teacher says what it would have said at each
//! place of these answers, and the student learns that by reverse KL. So it learns what to do after its
//! own mistakes, which given answers do not have.
//!
//! A round is [`own_answers`] → [`label_own`](crate::teach::label_own) → [`learn`], and the next one begins
//! with its adapter. The teacher need not be in memory while the student answers or learns, nor the
//! student while the teacher labels. [`Stage`] counts the rounds and keeps the best adapter.

mod answers;
mod round;
mod stage;

pub use answers::{Own, Sampling, own_answers};
pub use round::{Learned, Round, learn};
pub use stage::{OnPolicy, Rounds, Stage};
