//! Prompts whose whole text a model's tokenizer reads otherwise than what the model meets in use:
//! counted, not left out.

use serde::{Deserialize, Serialize};

/// Prompts of a campaign with a seam, by model, each counted once: for the teacher over the train
/// prompts, where they are traced, and the gate prompts, where it is judged; for the student over
/// the gate prompts, where the base is judged. (A prompt is in exactly one of these tasks. Workers
/// of earlier releases do not say, which counts as none.)
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeamPrompts {
    /// Prompts of the teacher.
    pub teacher: u32,
    /// Prompts of the base student.
    pub student: u32,
}

impl SeamPrompts {
    /// Whether no prompt has a seam.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// A line for people on each model that has any.
    pub fn lines(&self) -> Vec<String> {
        let line = |(model, count): (&str, u32)| {
            let what = if count == 1 { "prompt has" } else { "prompts have" };
            format!(
                "for the {model}, {count} {what} other tokens as a whole text than in use; measured are those in use"
            )
        };
        let models = [("teacher", self.teacher), ("student", self.student)];
        models.into_iter().filter(|(_, count)| *count > 0).map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_model_with_seams_has_a_line() {
        assert!(SeamPrompts::default().is_none() && SeamPrompts::default().lines().is_empty());
        let lines = SeamPrompts { teacher: 3, student: 1 }.lines();
        assert!(lines[0].starts_with("for the teacher, 3 prompts have other tokens"), "{lines:?}");
        assert!(lines[1].starts_with("for the student, 1 prompt has other tokens"), "{lines:?}");
        let student = SeamPrompts { teacher: 0, student: 2 };
        assert!(!student.is_none() && student.lines().len() == 1);
    }
}
