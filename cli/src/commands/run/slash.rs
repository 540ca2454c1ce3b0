//! What a person can ask of the chat itself: words that begin with a slash.

/// A wish about the chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slash {
    /// What wishes there are.
    Help,
    /// Forget the conversation.
    New,
    /// How fast and how much.
    Stats,
    /// Leave.
    Bye,
}

/// A line that a person wrote.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Nothing.
    Empty,
    /// For the model.
    Prompt(&'a str),
    /// For the chat.
    Slash(Slash),
    /// Meant for the chat, which does not know it; the nearest that it knows.
    Unknown(&'a str, Option<&'static str>),
}

/// Every wish by its name, with a line of help.
const ALL: &[(&str, Slash, &str)] = &[
    ("/help", Slash::Help, "what can be asked of the chat"),
    ("/new", Slash::New, "forget the conversation, begin a new one"),
    ("/stats", Slash::Stats, "speed, tokens so far, memory"),
    ("/bye", Slash::Bye, "leave (so does Ctrl-D)"),
];

/// How alike an unknown name must be to a known one to be taken for it.
const ALIKE: f64 = 0.7;

/// Reads a line. A path (`/etc/hosts`) is a prompt like any other.
pub fn read(line: &str) -> Line<'_> {
    let line = line.trim();
    let word = line.split_whitespace().next().unwrap_or_default();
    let is_name = word.strip_prefix('/').is_some_and(|rest| rest.chars().all(char::is_alphabetic));
    match ALL.iter().find(|(name, ..)| *name == word) {
        _ if line.is_empty() => Line::Empty,
        Some((_, slash, _)) => Line::Slash(*slash),
        None if is_name => Line::Unknown(word, nearest(word)),
        None => Line::Prompt(line),
    }
}

fn nearest(word: &str) -> Option<&'static str> {
    let alike = |name: &str| strsim::jaro_winkler(&word.to_lowercase(), name);
    let best = ALL.iter().max_by(|a, b| alike(a.0).total_cmp(&alike(b.0)))?;
    (alike(best.0) >= ALIKE).then_some(best.0)
}

/// The help.
pub fn help() -> String {
    let lines: Vec<String> =
        ALL.iter().map(|(name, _, what)| format!("  {name:<8}{what}")).collect();
    format!("{}\n  Ctrl-C  stop the answer that is being written", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_prompts() {
        assert_eq!(read(" /new \n"), Line::Slash(Slash::New));
        assert_eq!(read("/bye now"), Line::Slash(Slash::Bye));
        assert_eq!(read("/etc/hosts: what is it?"), Line::Prompt("/etc/hosts: what is it?"));
        assert_eq!(read("list /new files"), Line::Prompt("list /new files"));
        assert_eq!(read("  \n"), Line::Empty);
        for (written, meant) in [
            ("/halp", Some("/help")),
            ("/stat", Some("/stats")),
            ("/by", Some("/bye")),
            ("/zzz", None),
        ] {
            assert_eq!(read(written), Line::Unknown(written, meant));
        }
    }

    #[test]
    fn the_help_names_every_command() {
        assert!(ALL.iter().all(|(name, ..)| help().contains(name)));
    }
}
