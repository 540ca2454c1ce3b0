//! `uspx config`: writes a configuration to begin with, and explains one.

use crate::args::{ConfigCheckArgs, ConfigCommand, ConfigInitArgs};
use crate::error::{CliError, Exit, Result};
use crate::output;
use crate::settings::table::Role;
use crate::settings::{Explained, commented, explain};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use uspx_runtime::config::Sources;

/// The longest value that is shown whole.
const LONGEST: usize = 44;

/// Runs the command.
pub fn run(command: &ConfigCommand) -> Result<()> {
    match command {
        ConfigCommand::Init(args) => init(args),
        ConfigCommand::Check(args) => check(args),
    }
}

fn init(args: &ConfigInitArgs) -> Result<()> {
    let created = OpenOptions::new().write(true).create_new(true).open(&args.out);
    let written = created.and_then(|mut file| file.write_all(commented().as_bytes()));
    match written {
        Ok(()) => {
            output::line(&format!("{} is written: every key, commented out", args.out.display()))
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(CliError::new(Exit::Refused, format!("{} is there already", args.out.display()))
                .help("it is not overwritten: choose another file with --out"))
        }
        Err(error) => Err(CliError::file(&args.out, &error)),
    }
}

fn check(args: &ConfigCheckArgs) -> Result<()> {
    let sources = Sources::read(args.config.as_deref(), serde_json::json!({}))?;
    let roles = args.role.map_or(vec![Role::Coordinator, Role::Worker], |role| vec![role]);
    let explained = explain(&roles, &sources)?;
    if args.json && explained.wrong.is_empty() {
        return output::json(&explained);
    }
    if !args.json {
        show(&explained)?;
    }
    match explained.wrong.as_slice() {
        [] => Ok(()),
        wrong => Err(CliError::new(Exit::BadInput, wrong.join("\n"))),
    }
}

fn show(explained: &Explained) -> Result<()> {
    explained.odd.iter().for_each(|what| output::note(&format!("warning: {what}")));
    for role in &explained.roles {
        output::line(&format!("{}:", role.role))?;
        for used in &role.values {
            let value = used.value.as_deref().map(|value| format!(" = {}", short(value)));
            output::line(&format!("  {}{}  ({})", used.key, value.unwrap_or_default(), used.from))?;
        }
    }
    for role in explained.roles.iter().filter(|role| !role.missing.is_empty()) {
        output::line(&format!("still needed by a {}, in the file or otherwise:", role.role))?;
        role.missing.iter().try_for_each(|what| output::line(&format!("  {what}")))?;
    }
    Ok(())
}

/// The beginning of a long value.
fn short(value: &str) -> String {
    if value.chars().count() <= LONGEST {
        return value.to_owned();
    }
    value.chars().take(LONGEST - 3).chain("...".chars()).collect()
}
