//! Patterns as Go's `regexp` has them, for the `regex` crate: the same language, except for braces
//! that begin no repetition and brackets within brackets, which Go takes for themselves.

use crate::RulesError;
use regex::bytes::{Regex, RegexBuilder};
use std::sync::OnceLock;

/// The largest compiled pattern, in bytes: some ask for hundreds of letters.
const SIZE: usize = 64 << 20;

/// A pattern, compiled when it is first needed: few of some two hundred are in a run.
pub(crate) struct Pattern {
    source: String,
    compiled: OnceLock<Result<Regex, RulesError>>,
}

impl Pattern {
    pub fn of_go(source: &str) -> Self {
        Self { source: source.to_owned(), compiled: OnceLock::new() }
    }

    pub fn regex(&self) -> Result<&Regex, RulesError> {
        self.compiled.get_or_init(|| compile(&self.source)).as_ref().map_err(Clone::clone)
    }
}

/// Classes are of ASCII, as Go's are.
fn compile(source: &str) -> Result<Regex, RulesError> {
    let built = RegexBuilder::new(&escaped(source)).unicode(false).size_limit(SIZE).build();
    built.map_err(|e| RulesError::Pattern { pattern: source.to_owned(), reason: e.to_string() })
}

/// The pattern with what Go takes for itself escaped.
fn escaped(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    // Inside of brackets, and how many of their letters were read.
    let mut class: Option<usize> = None;
    while let Some(letter) = rest.chars().next() {
        let length = piece(rest, class.is_some());
        let (now, later) = rest.split_at(length);
        let literal = match class {
            None => letter == '{' && !is_repetition(rest),
            Some(_) => letter == '[' && length == 1,
        };
        if literal {
            out.push('\\');
        }
        out.push_str(now);
        class = match (class, now) {
            (None, "[") => Some(0),
            (Some(0), "^") => Some(0),
            (Some(read), "]") if read > 0 => None,
            (Some(read), _) => Some(read + 1),
            (None, _) => None,
        };
        rest = later;
    }
    out
}

/// Bytes of what stands for one thing: an escape, a named class within brackets, a letter.
fn piece(rest: &str, within: bool) -> usize {
    let letters = |n: usize| rest.chars().take(n).map(char::len_utf8).sum();
    match rest.strip_prefix("[:").and_then(|name| name.find(":]")) {
        Some(name) if within => name + 4,
        _ if rest.starts_with('\\') => letters(2),
        _ => letters(1),
    }
}

/// Whether braces say how often: `{2}`, `{2,}`, `{2,5}`.
fn is_repetition(rest: &str) -> bool {
    let Some((inner, _)) = rest.strip_prefix('{').and_then(|r| r.split_once('}')) else {
        return false;
    };
    let (least, most) = inner.split_once(',').unwrap_or((inner, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    !least.is_empty() && digits(least) && digits(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_and_brackets_that_go_takes_for_themselves_are_escaped() {
        for (go, rust) in [
            ("a{2}b{2,}c{2,5}", "a{2}b{2,}c{2,5}"),
            ("^\\$\\{\\{x}}$", "^\\$\\{\\{x}}$"),
            ("\\$?{{[^}]+}}", "\\$?\\{\\{[^}]+}}"),
            ("[{]{3}", "[{]{3}"),
            ("[^]{]+{x", "[^]{]+\\{x"),
            ("[[:alnum:]]{14}", "[[:alnum:]]{14}"),
            ("[a[]{", "[a\\[]\\{"),
            ("[\\]{]{1,}", "[\\]{]{1,}"),
        ] {
            assert_eq!(escaped(go), rust, "{go}");
        }
    }

    #[test]
    fn classes_are_of_ascii_and_any_byte_may_stand_between() {
        let pattern = Pattern::of_go(r"^\w+[^x]\w$");
        let regex = pattern.regex().unwrap();
        assert!(regex.is_match(b"ab\xffc") && !regex.is_match("äbc".as_bytes()));
        assert!(Pattern::of_go("(").regex().is_err());
    }
}
