//! A colony's prompts in their three parts: trained on, chosen by, judged on.

use crate::error::{CliError, Exit, Result};
use crate::prompts::{PromptFile, PromptSource};
use std::collections::HashSet;
use uspx_coordinator::PromptBook;
use uspx_domain::Prompt;

/// The files of the three parts.
#[derive(Debug, Clone, Copy)]
pub struct SplitSources<'a> {
    /// Prompts to probe and distil on.
    pub train: PromptSource<'a>,
    /// Prompts for choices; without a file the last twentieth of the training prompts serves.
    pub validation: Option<PromptSource<'a>>,
    /// Held-out prompts for the release gate.
    pub gate: PromptSource<'a>,
}

/// The same, read.
pub struct Splits {
    train: PromptFile,
    validation: Option<PromptFile>,
    gate: PromptFile,
}

impl SplitSources<'_> {
    /// Reads the files.
    pub fn read(&self) -> Result<Splits> {
        Ok(Splits {
            train: self.train.read()?,
            validation: self.validation.map(|source| source.read()).transpose()?,
            gate: self.gate.read()?,
        })
    }
}

impl Splits {
    /// The files.
    pub fn files(&self) -> Vec<&PromptFile> {
        [&self.train].into_iter().chain(&self.validation).chain([&self.gate]).collect()
    }

    /// The book that a coordinator keeps.
    pub fn book(self) -> Result<PromptBook> {
        let Self { train: PromptFile { path, prompts: mut train, .. }, validation, gate } = self;
        let validation = match validation {
            Some(file) => file.prompts,
            None => {
                let held = (train.len() / 20).max(1);
                train.split_off(train.len().saturating_sub(held))
            }
        };
        if train.is_empty() {
            return Err(CliError::new(
                Exit::BadInput,
                format!("{}: too few prompts", path.display()),
            )
            .help("give at least two, or name --validation prompts of their own"));
        }
        no_prompt_twice(&[&train, &validation, &gate.prompts])?;
        Ok(PromptBook::new(train, validation, gate.prompts))
    }
}

/// Refuses prompts of which one stands in two parts: what is learnt from judges nothing.
pub fn no_prompt_twice(parts: &[&[Prompt]]) -> Result<()> {
    let mut seen = HashSet::new();
    match parts.iter().copied().flatten().find(|p| !seen.insert(p.id.as_str())) {
        None => Ok(()),
        Some(twice) => Err(CliError::new(
            Exit::BadInput,
            format!("prompt {} stands in two of the prompt files", twice.id),
        )
        .help("held-out prompts must not be trained on: take it out of one of them")),
    }
}
