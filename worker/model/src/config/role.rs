//! What may become of a key of `config.json`.

use super::refuse;
use super::values::shown;
use crate::ModelError;
use serde_json::Value;

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Role {
    /// It decides what is computed.
    Used,
    /// It does, except in the case named here.
    UsedUnless(&'static str),
    /// Nothing here depends on it, for this reason.
    NoEffect(&'static str),
    /// Another value than these changes the mathematics in a way that is not known here. `null` is
    /// always neutral.
    Only(&'static [Neutral]),
}

/// A value that changes nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Neutral {
    /// No value but `null`.
    Null,
    /// true or false.
    Flag(bool),
    /// This number.
    Number(f64),
    /// This string.
    Text(&'static str),
    /// An empty list or object.
    Empty,
}

/// Refuses a value that is not one of these.
pub(super) fn check_neutral(
    path: &str,
    value: &Value,
    neutral: &[Neutral],
) -> Result<(), ModelError> {
    if neutral.iter().any(|n| n.is(value)) {
        return Ok(());
    }
    let accepted: Vec<String> = neutral.iter().map(|n| n.shown()).collect();
    refuse(format!(
        "`{path}` is {}, which changes the mathematics in a way that is not known here: only {} is",
        shown(value),
        accepted.join(" or ")
    ))
}

impl Neutral {
    fn is(self, value: &Value) -> bool {
        match self {
            Self::Null => value.is_null(),
            Self::Flag(flag) => value.as_bool() == Some(flag),
            Self::Number(number) => value.as_f64() == Some(number),
            Self::Text(text) => value.as_str() == Some(text),
            Self::Empty => {
                value.as_array().is_some_and(Vec::is_empty)
                    || value.as_object().is_some_and(|o| o.is_empty())
            }
        }
    }

    fn shown(self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Flag(flag) => flag.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => format!("\"{text}\""),
            Self::Empty => "an empty one".to_owned(),
        }
    }
}
