//! Finds what looks like a secret in a person's text, by gitleaks' rules (`assets/gitleaks.toml`, as
//! they come).
//!
//! A rule is looked at where one of its keywords stands; its pattern cuts a secret out of the text,
//! which counts if its letters are various enough (entropy) and no allowlist knows it for harmless.
//! What is found is named by rule and line: the secret itself leaves this crate nowhere.
//!
//! Not applied: rules for files of one kind only, and what gitleaks does with encoded text.

mod allow;
mod entropy;
mod pattern;
mod rules;

pub use rules::RulesError;

use aho_corasick::AhoCorasick;
use allow::Allowlist;
use rules::{Rule, RuleFile};

/// gitleaks' own rules.
const SHIPPED: &str = include_str!("../assets/gitleaks.toml");

/// Something that looks like a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule's name.
    pub rule: String,
    /// The line of the text, counted from 1.
    pub line: usize,
}

/// The rules, ready to be used.
pub struct Scanner {
    rules: Vec<Rule>,
    /// Every keyword of every rule, and of which rule each is.
    keywords: AhoCorasick,
    of_keyword: Vec<usize>,
    everywhere: Vec<Allowlist>,
}

impl Scanner {
    /// With gitleaks' own rules.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn shipped() -> Result<Self, RulesError> {
        Self::new(SHIPPED)
    }

    /// With rules in gitleaks' form.
    ///
    /// # Errors
    /// Text that is no such file.
    pub fn new(text: &str) -> Result<Self, RulesError> {
        let RuleFile { rules, everywhere } = RuleFile::read(text)?;
        let named = |(at, rule): (usize, &Rule)| {
            rule.keywords.iter().map(move |word| (word.clone(), at)).collect::<Vec<_>>()
        };
        let (words, of_keyword): (Vec<String>, Vec<usize>) =
            rules.iter().enumerate().flat_map(named).unzip();
        let keywords = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .build(words)
            .map_err(|e| RulesError::Form(e.to_string()))?;
        Ok(Self { rules, keywords, of_keyword, everywhere })
    }

    /// What looks like a secret in a text.
    ///
    /// # Errors
    /// [`RulesError::Pattern`]: a rule that cannot be read.
    pub fn find(&self, text: &str) -> Result<Vec<Finding>, RulesError> {
        let hits = self.keywords.find_overlapping_iter(text);
        let mut rules: Vec<usize> =
            hits.filter_map(|hit| self.of_keyword.get(hit.pattern().as_usize()).copied()).collect();
        rules.sort_unstable();
        rules.dedup();
        let mut found = Vec::new();
        for rule in rules.into_iter().filter_map(|at| self.rules.get(at)) {
            found.extend(rule.find(text, &self.everywhere)?);
        }
        Ok(found)
    }

    /// The rules' names, in the file's order.
    pub fn rules(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| rule.id.as_str())
    }

    /// Reads every pattern now, which otherwise happens as each is first needed.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn prepare(&self) -> Result<(), RulesError> {
        let lists = self.rules.iter().flat_map(|rule| &rule.allowed).chain(&self.everywhere);
        self.rules.iter().try_for_each(|rule| rule.pattern.regex().map(drop))?;
        lists.into_iter().try_for_each(Allowlist::prepare)
    }
}
