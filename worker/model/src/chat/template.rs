//! A chat template, rendered as transformers renders it: the same environment, the same extensions,
//! the same functions.
//!
//! The date is the one exception: a probe must give the same tokens tomorrow, so `strftime_now`
//! knows one day only. And a template may take no more steps and make no more bytes than any real
//! one: it comes with the model, from whomever that came (`allowance`, `guard`).

mod allowance;
mod guard;
use crate::{ModelError, Result};
use chrono::format::{Item, StrftimeItems};
use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, Output, State, Value, context};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The most steps of a rendering. The longest of the templates in use takes some 200 for a message.
const MAX_STEPS: u64 = 4_000_000;
/// Scopes within scopes. A macro counts as four or more, so some 40 are run within each other.
const MAX_RECURSION: usize = 200;
/// The longest template; those in use have up to 20 kB.
const MAX_SOURCE: usize = 1 << 18;

/// Today, to every template that asks.
const TODAY: (i32, u32, u32) = (2025, 8, 5);

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Turn {
    role: &'static str,
    content: String,
}

impl Turn {
    /// What the operator says beforehand.
    pub fn system(text: &str) -> Self {
        Self { role: "system", content: text.to_owned() }
    }

    /// What the person says.
    pub fn user(text: &str) -> Self {
        Self { role: "user", content: text.to_owned() }
    }

    /// What the model said.
    pub fn assistant(text: &str) -> Self {
        Self { role: "assistant", content: text.to_owned() }
    }

    /// The same role, saying something else.
    pub(super) fn saying(&self, text: &str) -> Self {
        Self { role: self.role, content: text.to_owned() }
    }

    pub(super) fn contains(&self, text: &str) -> bool {
        self.content.contains(text)
    }
}

/// A template that parses, and what it may ask for.
pub(super) struct Template {
    environment: Environment<'static>,
    source: String,
    /// The file that it came from.
    file: PathBuf,
    /// The named special tokens: `bos_token` and so on.
    special: BTreeMap<String, String>,
}

impl Template {
    /// Parses the text of a template. Messages about it name `file`.
    pub fn new(source: &str, file: &Path, special: BTreeMap<String, String>) -> Result<Self> {
        if source.len() > MAX_SOURCE {
            let reason = format!(
                "the chat template is {} bytes long: at most {MAX_SOURCE} are read",
                source.len()
            );
            return Err(ModelError::malformed(file, reason));
        }
        let broken = |what: String| {
            ModelError::malformed(file, format!("the chat template does not parse: {what}"))
        };
        let mut environment = environment();
        let guarded = guard::guarded(&without_generation_tags(source)).map_err(broken)?;
        environment.add_template_owned("chat", guarded).map_err(|e| broken(short(&e)))?;
        Ok(Self { environment, source: source.to_owned(), file: file.to_owned(), special })
    }

    /// The text that it was made from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The error of a template that treats an answer in a way that cannot be followed.
    pub fn unfit(&self, what: &str) -> ModelError {
        ModelError::Template { file: self.file.clone(), reason: what.to_owned() }
    }

    /// A conversation as text; `generate` appends what opens the next answer.
    ///
    /// # Errors
    /// [`ModelError::Template`]: the template refuses the conversation, or has no end.
    pub fn render(&self, messages: &[Turn], generate: bool) -> Result<String> {
        let failed = |e: Error| ModelError::Template { file: self.file.clone(), reason: short(&e) };
        let bytes: usize = messages.iter().map(|turn| turn.content.len()).sum();
        allowance::grant(bytes + self.source.len());
        let template = self.environment.get_template("chat").map_err(failed)?;
        let own = context! {
            messages => Value::from_serialize(messages),
            tools => (),
            documents => (),
            add_generation_prompt => generate,
        };
        template.render(context! { ..own, ..Value::from_serialize(&self.special) }).map_err(failed)
    }
}

/// What went wrong and in which line. Never the values at hand: they are the person's text.
fn short(error: &Error) -> String {
    if error.kind() == ErrorKind::OutOfFuel {
        return format!("it does not end within {MAX_STEPS} steps");
    }
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    error.line().map_or_else(|| what.clone(), |line| format!("{what} (its line {line})"))
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    minijinja_contrib::add_to_environment(&mut environment);
    environment.set_fuel(Some(MAX_STEPS));
    environment.set_recursion_limit(MAX_RECURSION);
    // It prints all that there is.
    environment.remove_global("debug");
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_formatter(print_as_python);
    allowance::bound(&mut environment);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment
}

/// Training templates mark what the model says by `{% generation %}`; it changes nothing of the
/// text. A scope it is, as in transformers, and the tags keep their whitespace control.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let length = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let (tag, after) = tag.split_at(length);
        let word = tag.trim_matches(['{', '}', '%', '-', '+', ' ', '\t', '\r', '\n']);
        match word {
            "generation" => out.push_str(&tag.replacen("generation", "with", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endwith", 1)),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// `None`, `True` and `False` are spelled as Python spells them.
fn print_as_python(
    out: &mut Output<'_>,
    state: &State<'_, '_>,
    value: &Value,
) -> std::result::Result<(), Error> {
    allowance::weigh(value)?;
    let word = match value.kind() {
        ValueKind::None => "None",
        ValueKind::Bool if value.is_true() => "True",
        ValueKind::Bool => "False",
        _ => return minijinja::escape_formatter(out, state, value),
    };
    out.write_str(word).map_err(Error::from)
}

fn raise_exception(message: String) -> std::result::Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

fn strftime_now(format: &str) -> std::result::Result<String, Error> {
    let items: Vec<Item<'_>> = StrftimeItems::new(format).collect();
    if items.contains(&Item::Error) {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "strftime_now is given a format that is none",
        ));
    }
    let (year, month, day) = TODAY;
    let now =
        chrono::NaiveDate::from_ymd_opt(year, month, day).and_then(|d| d.and_hms_opt(0, 0, 0));
    now.map(|now| now.and_utc().format_with_items(items.into_iter()).to_string())
        .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "the fixed date is none"))
}

#[cfg(test)]
mod tests;
