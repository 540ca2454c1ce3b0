//! gitleaks' rule file, and a rule's way from a text to what looks like a secret.

use crate::Finding;
use crate::allow::{Allowlist, Candidate, RawAllowlist};
use crate::entropy::shannon;
use crate::pattern::Pattern;
use regex::bytes::Captures;
use serde::Deserialize;

/// What is wrong with a file of rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// It is not TOML of gitleaks' form.
    #[error("the file of rules: {0}")]
    Form(String),
    /// A pattern that cannot be read.
    #[error("a rule's pattern `{pattern}`: {reason}")]
    Pattern {
        /// As the file has it.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Deserialize)]
struct RawFile {
    allowlist: Option<RawAllowlist>,
    #[serde(default)]
    rules: Vec<RawRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRule {
    id: String,
    regex: Option<String>,
    path: Option<String>,
    #[serde(default)]
    entropy: f64,
    #[serde(default)]
    secret_group: usize,
    #[serde(default)]
    keywords: Vec<String>,
    #[serde(default)]
    allowlists: Vec<RawAllowlist>,
}

/// The rules that are about text.
pub(crate) struct RuleFile {
    pub rules: Vec<Rule>,
    pub everywhere: Vec<Allowlist>,
}

impl RuleFile {
    pub fn read(text: &str) -> Result<Self, RulesError> {
        let raw: RawFile = toml::from_str(text).map_err(|e| RulesError::Form(e.to_string()))?;
        let rules = raw.rules.into_iter().filter_map(Rule::of_text).collect();
        let everywhere = raw.allowlist.and_then(RawAllowlist::of_text).into_iter().collect();
        Ok(Self { rules, everywhere })
    }
}

/// One rule.
pub(crate) struct Rule {
    pub id: String,
    pub keywords: Vec<String>,
    pub pattern: Pattern,
    pub allowed: Vec<Allowlist>,
    entropy: f64,
    secret_group: usize,
}

impl Rule {
    /// `None` where it is about files, or names no keyword to begin with.
    fn of_text(raw: RawRule) -> Option<Self> {
        let source = raw.regex.filter(|_| raw.path.is_none() && !raw.keywords.is_empty())?;
        Some(Self {
            id: raw.id,
            keywords: raw.keywords,
            pattern: Pattern::of_go(&source),
            allowed: raw.allowlists.into_iter().filter_map(RawAllowlist::of_text).collect(),
            entropy: raw.entropy,
            secret_group: raw.secret_group,
        })
    }

    /// What it finds in a text.
    pub fn find(&self, text: &str, everywhere: &[Allowlist]) -> Result<Vec<Finding>, RulesError> {
        let mut found = Vec::new();
        for captures in self.pattern.regex()?.captures_iter(text.as_bytes()) {
            let Some((at, candidate)) = self.candidate(text.as_bytes(), &captures) else {
                continue;
            };
            if !self.is_harmless(&candidate, everywhere)? {
                let before = text.as_bytes().get(..at).unwrap_or_default();
                let line = 1 + before.iter().filter(|b| **b == b'\n').count();
                found.push(Finding { rule: self.id.clone(), line });
            }
        }
        Ok(found)
    }

    fn is_harmless(
        &self,
        candidate: &Candidate<'_>,
        everywhere: &[Allowlist],
    ) -> Result<bool, RulesError> {
        if self.entropy > 0.0 && shannon(candidate.secret) <= self.entropy {
            return Ok(true);
        }
        for list in self.allowed.iter().chain(everywhere) {
            if list.allows(candidate)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A match: where it begins, and the secret in it, which is the named group, or the first that
    /// has something, or all of it.
    fn candidate<'a>(
        &self,
        text: &'a [u8],
        captures: &Captures<'a>,
    ) -> Option<(usize, Candidate<'a>)> {
        let whole = captures.get(0)?;
        let group = match self.secret_group {
            0 => captures.iter().skip(1).flatten().find(|group| !group.is_empty()),
            named => captures.get(named),
        };
        let start = text.get(..whole.start())?.iter().rposition(|b| *b == b'\n');
        let end = text.get(whole.end()..)?.iter().position(|b| *b == b'\n');
        let line = start.map_or(0, |at| at + 1)..end.map_or(text.len(), |at| whole.end() + at);
        let secret = group.map_or(whole.as_bytes(), |group| group.as_bytes());
        Some((whole.start(), Candidate { secret, whole: whole.as_bytes(), line: text.get(line)? }))
    }
}
