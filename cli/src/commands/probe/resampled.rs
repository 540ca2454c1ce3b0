//! Who is resampled from whom, and who finds nobody.

use crate::error::{CliError, Exit, Result};
use crate::output;
use std::collections::BTreeMap;
use uspx_model::Readable;
use uspx_probe::resample::sources;

/// Pairs of prompts by their ids.
pub struct Pairs {
    /// Of each prompt the one that it takes from.
    pub from: BTreeMap<String, String>,
    /// Prompts that no other one has as many tokens as.
    pub alone: Vec<String>,
}

/// Leaves only prompts that can be resampled from another one, and says whom it left out.
pub fn pairs(prompts: &mut Readable, seed: u64, json: bool) -> Result<Pairs> {
    let mut alone = Vec::new();
    let paired: Vec<bool> = sources(&prompts.sequences, seed).iter().map(Option::is_some).collect();
    let mut is_paired = paired.iter();
    prompts.sequences.retain(|_| is_paired.next().is_some_and(|is| *is));
    let mut is_paired = paired.iter();
    prompts.prompts.retain(|prompt| {
        let is = is_paired.next().is_some_and(|is| *is);
        if !is {
            alone.push(prompt.id.clone());
        }
        is
    });
    if prompts.sequences.is_empty() {
        let what = "no two prompts have as many tokens: none can be resampled from another";
        return Err(
            CliError::new(Exit::BadInput, what).help("give more prompts, or use --baseline mean")
        );
    }
    if !alone.is_empty() && !json {
        output::note(&format!(
            "{} prompts are not measured: no other one has as many tokens",
            alone.len()
        ));
    }
    let id = |number: usize| prompts.prompts.get(number).map(|prompt| prompt.id.clone());
    let each = sources(&prompts.sequences, seed).into_iter().enumerate();
    let from = each.filter_map(|(taker, giver)| Some((id(taker)?, id(giver?)?))).collect();
    Ok(Pairs { from, alone })
}
