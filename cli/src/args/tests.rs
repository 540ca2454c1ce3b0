//! Every command says how it is used, and the examples are right.

use super::Cli;
use clap::{Command, CommandFactory, Parser};

/// Every command below one, each with the names that lead to it.
fn all(command: &Command, names: &str) -> Vec<(String, Command)> {
    let named = format!("{names} {}", command.get_name()).trim().to_owned();
    let below = command.get_subcommands().flat_map(|sub| all(sub, &named));
    below.chain([(named.clone(), command.clone())]).collect()
}

/// The words of an example, as a shell splits them; what is redirected is left out.
fn words(example: &str) -> Vec<String> {
    let command = example.split(" > ").next().unwrap();
    let parts = command.split('"').enumerate();
    let split = |(at, part): (usize, &str)| -> Vec<String> {
        match at % 2 {
            1 => vec![part.to_owned()],
            _ => part.split_whitespace().map(str::to_owned).collect(),
        }
    };
    parts.flat_map(split).collect()
}

#[test]
fn every_command_has_an_example_that_parses() {
    let commands = all(&Cli::command(), "");
    assert!(commands.len() > 20, "{} commands", commands.len());
    for (names, command) in commands.iter().filter(|(names, _)| names != "uspx") {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let example =
            help.strip_prefix("Example: ").unwrap_or_else(|| panic!("{names} has no example"));
        assert!(example.starts_with(names.as_str()), "`{names}` shows `{example}`");
        if let Err(error) = Cli::try_parse_from(words(example)) {
            panic!("`{example}`: {error}");
        }
    }
}

#[test]
fn every_flag_says_what_it_is() {
    for (names, command) in all(&Cli::command(), "") {
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            assert!(arg.get_help().is_some(), "{names} --{}", arg.get_id());
        }
    }
}
