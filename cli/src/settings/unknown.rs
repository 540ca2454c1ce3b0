//! Names that nobody knows: a key in the file is refused with the nearest one, a variable of the
//! environment, which may be another program's, is only warned about.

use super::table::keys;
use crate::args::Cli;
use crate::error::{CliError, Exit, Result};
use clap::{Command, CommandFactory};
use std::collections::BTreeSet;
use uspx_runtime::config::{PREFIX, variable};

/// Variables that are neither keys nor flags: the log, where programs are, and what tests ask for.
const OTHERS: &[&str] = &["USPX_LOG", "USPX_NATS_SERVER", "USPX_LLAMA_CPP", "USPX_KERNEL"];
/// Of the programs that test and measure this one.
const TESTS: &[&str] = &[
    "USPX_REQUIRE_",
    "USPX_TEST_",
    "USPX_BIN",
    "USPX_MOTO_SERVER",
    "USPX_SCHEDULES",
    "USPX_TEMPLATES",
    "USPX_NATS_SUITE",
];

/// Likeness above which a name is worth proposing (Jaro and Winkler's measure, 0 to 1).
const ALIKE: f64 = 0.8;

/// The keys of a file that are none, each with the nearest one.
pub(super) fn of(keys_of_file: &[String]) -> Vec<String> {
    let is_known = |key: &&String| keys().any(|known| known.path == key.as_str());
    keys_of_file
        .iter()
        .filter(|key| !is_known(key))
        .map(|key| match nearest(key, keys().map(|known| known.path.to_owned())) {
            Some(known) => format!("`{key}` is no key: did you mean `{known}`?"),
            None => format!("`{key}` is no key"),
        })
        .collect()
}

/// Refuses a file with such keys.
pub(super) fn refuse(keys_of_file: &[String]) -> Result<()> {
    match of(keys_of_file).as_slice() {
        [] => Ok(()),
        unknown => {
            Err(CliError::new(Exit::BadInput, format!("configuration: {}", unknown.join("; ")))
                .help("uspx config init writes a file with every key"))
        }
    }
}

/// The most similar of names: as a whole, or in its last part where a table was forgotten.
fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |other: &String| {
        let whole = strsim::jaro_winkler(name, other);
        if last(name) == last(other) { whole.max(0.95) } else { whole }
    };
    let scored = known.map(|other| (likeness(&other), other)).filter(|(like, _)| *like >= ALIKE);
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, other)| other)
}

/// Variables of the environment that look like ours and are none, each with the nearest one.
pub(super) fn variables() -> Vec<String> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let ours: Vec<String> = names.filter(|name| name.starts_with(PREFIX)).collect();
    // As a rule there is none, and clap's tree need not be built.
    if ours.is_empty() { Vec::new() } else { of_variables(ours.into_iter()) }
}

fn of_variables(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut known: BTreeSet<String> = keys().map(|key| variable(key.path)).collect();
    known.extend(OTHERS.iter().map(|name| (*name).to_owned()));
    gather(&Cli::command(), &mut known);
    let is_test = |name: &String| TESTS.iter().any(|start| name.starts_with(start));
    names
        .filter(|name| !known.contains(name) && !is_test(name))
        .map(|name| match nearest(&name, known.iter().cloned()) {
            Some(known) => format!("{name} is no variable of uspx: did you mean {known}?"),
            None => format!("{name} is no variable of uspx"),
        })
        .collect()
}

/// The variables that set flags.
fn gather(command: &Command, known: &mut BTreeSet<String>) {
    let variables = command.get_arguments().filter_map(|arg| arg.get_env()?.to_str());
    known.extend(variables.map(str::to_owned));
    command.get_subcommands().for_each(|command| gather(command, known));
}

/// Says them.
pub(super) fn warn(variables: Vec<String>) {
    variables.into_iter().for_each(|what| tracing::warn!("{what}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_none_is_refused_with_the_nearest() {
        let said = |key: &str| of(&[key.to_owned()]).join("");
        assert_eq!(said("campaign.mask.keep"), "");
        assert!(said("campaign.mask.kepp").ends_with("did you mean `campaign.mask.keep`?"));
        assert!(said("campain.mask.keep").ends_with("did you mean `campaign.mask.keep`?"));
        assert!(said("keep").ends_with("did you mean `campaign.mask.keep`?"));
        assert!(said("stor").ends_with("did you mean `store`?"));
        assert_eq!(said("zzz"), "`zzz` is no key");
    }

    #[test]
    fn variables_of_keys_flags_and_tests_are_known() {
        let names = [
            "USPX_STORE",
            "USPX_CAMPAIGN__MASK__KEEP",
            "USPX_MAX_REASONING_TOKENS",
            "USPX_LOG",
            "USPX_REQUIRE_NATS",
        ];
        let said = |names: &[&str]| of_variables(names.iter().map(|n| (*n).to_owned()));
        assert_eq!(said(&names), Vec::<String>::new());
        assert!(said(&["USPX_STOER"])[0].ends_with("did you mean USPX_STORE?"));
    }
}
