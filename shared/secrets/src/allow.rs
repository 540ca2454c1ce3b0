//! What is known to be harmless: allowlists of a rule, or of all.

use crate::RulesError;
use crate::pattern::Pattern;
use serde::Deserialize;

/// An allowlist as the file has it. Of its paths nothing is known here: text has none.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawAllowlist {
    #[serde(default)]
    condition: Condition,
    #[serde(default)]
    regex_target: Target,
    #[serde(default)]
    regexes: Vec<String>,
    #[serde(default)]
    stopwords: Vec<String>,
    #[serde(default)]
    paths: Vec<String>,
}

#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq)]
enum Condition {
    #[default]
    #[serde(rename = "OR")]
    Any,
    #[serde(rename = "AND")]
    All,
}

/// What a list's patterns are held against.
#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "camelCase")]
enum Target {
    #[default]
    Secret,
    Match,
    Line,
}

/// An allowlist that may say something of a text.
pub(crate) struct Allowlist {
    condition: Condition,
    target: Target,
    patterns: Vec<Pattern>,
    stopwords: Vec<String>,
}

/// What was found, from the inside to the outside.
pub(crate) struct Candidate<'a> {
    pub secret: &'a [u8],
    pub whole: &'a [u8],
    pub line: &'a [u8],
}

impl RawAllowlist {
    /// `None` where it asks for a path, or names nothing else.
    pub fn of_text(self) -> Option<Allowlist> {
        let says = !self.regexes.is_empty() || !self.stopwords.is_empty();
        let reachable = self.condition == Condition::Any || self.paths.is_empty();
        (says && reachable).then(|| Allowlist {
            condition: self.condition,
            target: self.regex_target,
            patterns: self.regexes.iter().map(|source| Pattern::of_go(source)).collect(),
            stopwords: self.stopwords.iter().map(|word| word.to_lowercase()).collect(),
        })
    }
}

impl Allowlist {
    /// Whether it knows the candidate for harmless.
    pub fn allows(&self, found: &Candidate<'_>) -> Result<bool, RulesError> {
        let target = match self.target {
            Target::Secret => found.secret,
            Target::Match => found.whole,
            Target::Line => found.line,
        };
        let pattern = self.matches(target)?;
        let word = || self.has_stopword(found.secret);
        Ok(match self.condition {
            Condition::Any => pattern || word(),
            Condition::All => {
                (self.patterns.is_empty() || pattern) && (self.stopwords.is_empty() || word())
            }
        })
    }

    /// Reads every pattern.
    pub fn prepare(&self) -> Result<(), RulesError> {
        self.patterns.iter().try_for_each(|pattern| pattern.regex().map(drop))
    }

    fn matches(&self, text: &[u8]) -> Result<bool, RulesError> {
        for pattern in &self.patterns {
            if pattern.regex()?.is_match(text) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn has_stopword(&self, secret: &[u8]) -> bool {
        let secret = String::from_utf8_lossy(secret).to_lowercase();
        self.stopwords.iter().any(|word| secret.contains(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Option<Allowlist> {
        toml::from_str::<RawAllowlist>(text).unwrap().of_text()
    }

    fn allows(text: &str) -> bool {
        let found = Candidate { secret: b"abcEXAMPLE", whole: b"key=abcEXAMPLE", line: b"a line" };
        list(text).unwrap().allows(&found).unwrap()
    }

    #[test]
    fn one_reason_is_enough_unless_all_are_asked_for() {
        assert!(allows("regexes = ['EXAMPLE$']\nstopwords = ['zzz']"));
        assert!(allows("regexes = ['zzz']\nstopwords = ['example']"));
        assert!(!allows("regexes = ['^key']"));
        assert!(allows("regexes = ['^key']\nregexTarget = 'match'"));
        assert!(allows("regexes = ['^a line$']\nregexTarget = 'line'"));
        assert!(!allows("condition = 'AND'\nregexes = ['EXAMPLE$']\nstopwords = ['zzz']"));
        assert!(allows("condition = 'AND'\nregexes = ['EXAMPLE$']\nstopwords = ['ABC']"));
    }

    #[test]
    fn what_asks_for_a_path_says_nothing_of_a_text() {
        assert!(list("paths = ['x']").is_none());
        assert!(list("condition = 'AND'\npaths = ['x']\nregexes = ['.']").is_none());
        assert!(list("paths = ['x']\nregexes = ['.']").is_some());
    }
}
