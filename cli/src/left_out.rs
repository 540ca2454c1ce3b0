//! Prompts that a model cannot run: said on stderr for people, listed in JSON, an error where none
//! is left.

use crate::error::{CliError, Exit, Result};
use crate::output;
use serde::Serialize;
use std::fmt;
use uspx_domain::{SkipGroup, SkipReason, Skipped};
use uspx_model::ModelError;

/// A prompt that was left out, in JSON.
#[derive(Debug, Serialize)]
pub struct LeftOut {
    id: String,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<u32>,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "prompt {} ({})", self.id, self.reason.replace('_', " "))
    }
}

/// The JSON form of what was left out.
pub fn listed(skipped: &[Skipped]) -> Vec<LeftOut> {
    let each = |Skipped { id, reason }: &Skipped| {
        let (tokens, context) = match *reason {
            SkipReason::TooLong { tokens, context } => (Some(tokens), Some(context)),
            SkipReason::Unfinished { tokens } => (Some(tokens), None),
            _ => (None, None),
        };
        LeftOut { id: id.clone(), reason: reason.name(), tokens, context }
    };
    skipped.iter().map(each).collect()
}

/// Says what was left out of work that goes on with `kept` prompts; a `--json` answer lists it
/// itself.
///
/// # Errors
/// Nothing is left. `cause` is what template or tokenizer said of the first that it refused.
pub fn tell(
    skipped: &[Skipped],
    kept: usize,
    cause: Option<&ModelError>,
    json: bool,
) -> Result<()> {
    let groups = SkipGroup::of(skipped);
    if kept == 0 && !groups.is_empty() {
        return Err(none_left(&groups, cause));
    }
    if !json {
        groups.iter().for_each(|group| output::note(&said(group, cause)));
    }
    Ok(())
}

fn none_left(groups: &[SkipGroup], cause: Option<&ModelError>) -> CliError {
    let why: Vec<String> = groups.iter().map(|group| said(group, cause)).collect();
    CliError::new(
        Exit::BadInput,
        format!("the model can run none of these prompts: {}", why.join("; ")),
    )
    .help("shorten or correct them, or choose a model that can run them")
}

fn said(group: &SkipGroup, cause: Option<&ModelError>) -> String {
    match (group.reason, cause) {
        (SkipReason::Template | SkipReason::Tokenizer, Some(cause)) => format!("{group} ({cause})"),
        _ => group.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_the_numbers_beside_the_name_of_the_reason() {
        let long = SkipReason::TooLong { tokens: 40, context: 12 };
        let skipped = [("a", long), ("b", SkipReason::Template)]
            .map(|(id, reason)| Skipped { id: id.into(), reason });
        let found = serde_json::to_value(listed(&skipped)).unwrap();
        let wanted = serde_json::json!([
            {"id": "a", "reason": "too_long", "tokens": 40, "context": 12},
            {"id": "b", "reason": "template"}
        ]);
        assert_eq!(found, wanted);
    }

    #[test]
    fn only_nothing_left_is_an_error_and_it_has_the_template_s_words() {
        let skipped = [Skipped { id: "a".into(), reason: SkipReason::Template }];
        let cause = ModelError::Chat("the template wants another role".into());
        assert!(tell(&skipped, 3, Some(&cause), true).is_ok() && tell(&[], 0, None, true).is_ok());
        let error = tell(&skipped, 0, Some(&cause), true).unwrap_err().to_string();
        assert!(
            error.contains("prompt a is left out") && error.contains("another role"),
            "{error}"
        );
    }
}
