//! Prompts that were left out: said on stderr for people, listed in JSON, an error where none
//! is left.

use crate::error::{CliError, Exit, Result};
use crate::output;
use serde::Serialize;
use std::fmt;
use uspx_domain::{SkipGroup, SkipReason, Skipped};
use uspx_model::ModelError;

/// A prompt that was left out, in JSON.
#[derive(Debug, Default, Serialize)]
pub struct LeftOut {
    id: String,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<u32>,
    /// Of these samples, so many agree.
    #[serde(skip_serializing_if = "Option::is_none")]
    agreeing: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    samples: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nats_per_byte: Option<f64>,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "prompt {} ({})", self.id, self.reason.replace('_', " "))
    }
}

/// The JSON form of what was left out.
pub fn listed(skipped: &[Skipped]) -> Vec<LeftOut> {
    let each = |Skipped { id, reason }: &Skipped| {
        let bare = LeftOut { id: id.clone(), reason: reason.name(), ..LeftOut::default() };
        match *reason {
            SkipReason::TooLong { tokens, context } => {
                LeftOut { tokens: Some(tokens), context: Some(context), ..bare }
            }
            SkipReason::Unfinished { tokens } => LeftOut { tokens: Some(tokens), ..bare },
            SkipReason::Inconsistent { agreeing, samples } => {
                LeftOut { agreeing: Some(agreeing), samples: Some(samples), ..bare }
            }
            SkipReason::Unlikely { millinats } => {
                LeftOut { nats_per_byte: Some(f64::from(millinats) / 1e3), ..bare }
            }
            _ => bare,
        }
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
        let doubted = [
            ("c", SkipReason::Inconsistent { agreeing: 1, samples: 4 }),
            ("d", SkipReason::Unlikely { millinats: 2125 }),
        ];
        let skipped = [[("a", long), ("b", SkipReason::Template)], doubted]
            .concat()
            .into_iter()
            .map(|(id, reason)| Skipped { id: id.into(), reason })
            .collect::<Vec<_>>();
        let found = serde_json::to_value(listed(&skipped)).unwrap();
        let wanted = serde_json::json!([
            {"id": "a", "reason": "too_long", "tokens": 40, "context": 12},
            {"id": "b", "reason": "template"},
            {"id": "c", "reason": "inconsistent", "agreeing": 1, "samples": 4},
            {"id": "d", "reason": "unlikely", "nats_per_byte": 2.125}
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
