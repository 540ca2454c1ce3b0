//! Secrets in prompts: named by file, line and rule before anything leaves this machine, and never
//! shown.

use crate::error::{CliError, Exit, Result};
use crate::output;
use crate::prompts::PromptFile;
use uspx_secrets::{RulesError, Scanner};

/// Places that are named one by one.
const NAMED: usize = 20;

/// Refuses prompts that are to leave this machine where something in them looks like a secret.
/// `allowed` says that the person knows: then it is only counted.
///
/// # Errors
/// The places, by file, line and rule.
pub fn check(files: &[&PromptFile], allowed: bool) -> Result<()> {
    let places = places(files).map_err(|e| CliError::new(Exit::Failed, e))?;
    if places.is_empty() {
        return Ok(());
    }
    let count = match places.len() {
        1 => "1 place of the prompts looks like a secret".to_owned(),
        n => format!("{n} places of the prompts look like secrets"),
    };
    if allowed {
        output::note(&format!("{count}; they are sent all the same (--allow-secrets)"));
        return Ok(());
    }
    let mut message = count;
    for place in places.iter().take(NAMED) {
        message.push_str(&format!("\n  {place}"));
    }
    if places.len() > NAMED {
        message.push_str(&format!("\n  and {} more", places.len() - NAMED));
    }
    Err(CliError::new(Exit::Refused, message).help(
        "workers and the store would have them: take them out, or say --allow-secrets if they are none",
    ))
}

/// Where something looks like a secret, each place once.
fn places(files: &[&PromptFile]) -> std::result::Result<Vec<String>, RulesError> {
    let scanner = Scanner::shipped()?;
    let mut places = Vec::new();
    for file in files {
        for (prompt, line) in file.prompts.iter().zip(&file.lines) {
            for (what, text) in prompt.texts() {
                let path = file.path.display();
                let place = |rule: String| format!("{path}, line {line}: {rule} ({what})");
                places.extend(scanner.find(text)?.into_iter().map(|found| place(found.rule)));
            }
        }
    }
    places.dedup();
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uspx_domain::Prompt;

    #[test]
    fn a_secret_is_named_by_place_and_rule_and_never_shown() {
        let secret = format!("gh{}{}", "p_", "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8");
        let prompts = vec![
            Prompt { prompt: "list files".into(), ..Prompt::default() },
            Prompt {
                prompt: "log in".into(),
                reference: Some(format!("gh auth login --with {secret}")),
                ..Prompt::default()
            },
        ];
        let file = PromptFile { path: "mine.jsonl".into(), prompts, lines: vec![1, 7] };
        let error = check(&[&file], false).unwrap_err();
        let told = error.to_string();
        assert!(told.contains("mine.jsonl, line 7: github-pat (reference)"), "{told}");
        assert!(!told.contains(&secret), "{told}");
        assert!(check(&[&file], true).is_ok());
        let clean = PromptFile { prompts: file.prompts[..1].to_vec(), ..file };
        assert!(check(&[&clean], false).is_ok());
    }
}
