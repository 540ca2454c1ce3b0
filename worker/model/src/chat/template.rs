//! A chat template, rendered as transformers renders it: the same environment, the same extensions,
//! the same functions.
//!
//! The date is the one exception: a probe must give the same tokens tomorrow, so `strftime_now`
//! knows one day only.

use super::tojson;
use crate::{ModelError, Result};
use chrono::format::{Item, StrftimeItems};
use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, Output, State, Value, context};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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
        let mut environment = environment();
        environment.add_template_owned("chat", without_generation_tags(source)).map_err(|e| {
            ModelError::malformed(file, format!("the chat template does not parse: {}", short(&e)))
        })?;
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
    /// [`ModelError::Template`]: the template refuses the conversation.
    pub fn render(&self, messages: &[Turn], generate: bool) -> Result<String> {
        let failed = |e: Error| ModelError::Template { file: self.file.clone(), reason: short(&e) };
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
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    error.line().map_or_else(|| what.clone(), |line| format!("{what} (its line {line})"))
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    minijinja_contrib::add_to_environment(&mut environment);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_formatter(print_as_python);
    environment.add_filter("tojson", tojson::tojson);
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
mod tests {
    use super::*;

    fn render(source: &str) -> Result<String> {
        let special = BTreeMap::from([("bos_token".to_owned(), "<s>".to_owned())]);
        let turns = [Turn::system("S"), Turn::user("U <&> \u{fc}"), Turn::assistant("A")];
        Template::new(source, Path::new("chat_template.jinja"), special)?.render(&turns, true)
    }

    /// Right sides are what transformers 5.17's `render_jinja_template` gives (the date's is
    /// Python's).
    #[test]
    fn what_transformers_renders() {
        for (source, want) in [
            ("{{ bos_token }}{{ eos_token }}{{ tools is none }}", "<s>True"),
            (
                "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}\n{% endfor %}",
                "SU <&> \u{fc}A",
            ),
            ("a \n{%- generation -%}  b{%- endgeneration %} c", "ab c"),
            (
                "{% for m in messages %}{% if loop.index == 2 %}{% break %}{% endif %}{{ m.role }}{% endfor %}",
                "system",
            ),
            (
                "{% for m in messages %}{% if m.role == 'user' %}{% continue %}{% endif %}{{ m.role }},{% endfor %}",
                "system,assistant,",
            ),
            ("{{ messages[1] | tojson }}", "{\"role\": \"user\", \"content\": \"U <&> \u{fc}\"}"),
            ("{{ messages[1].content | tojson(ensure_ascii=true) }}", "\"U <&> \\u00fc\""),
            (
                "{{ {'b': [1, 2.5], 'a': none} | tojson(indent=2, sort_keys=true) }}",
                "{\n  \"a\": null,\n  \"b\": [\n    1,\n    2.5\n  ]\n}",
            ),
            (
                "{{ {'b': [1, true], 'a': {}} | tojson(separators=(',', ':')) }}",
                "{\"b\":[1,true],\"a\":{}}",
            ),
            ("{{ strftime_now('%d %b %Y, %A %H:%M') }}", "05 Aug 2025, Tuesday 00:00"),
            ("{{ true }} {{ none }} {{ 1.0 }} {{ '%' }}", "True None 1.0 %"),
            (
                "{% set ns = namespace(x=0) %}{% for m in messages %}{% set ns.x = ns.x + 1 %}{% endfor %}{{ ns.x }}",
                "3",
            ),
            (
                "{{ messages[-1].content.strip().upper() }}{{ messages[1:] | length }}{{ messages[::-1][0].role }}",
                "A2assistant",
            ),
        ] {
            assert_eq!(render(source).unwrap(), want, "{source}");
        }
    }

    #[test]
    fn an_error_names_the_file_and_quotes_no_message() {
        let broken = render("{% for %}").unwrap_err().to_string();
        assert!(
            broken.contains("chat_template.jinja") && broken.contains("does not parse"),
            "{broken}"
        );
        let refused = render("\n{{ raise_exception('no system role') }}").unwrap_err().to_string();
        assert!(
            refused.contains("chat_template.jinja") && refused.contains("no system role"),
            "{refused}"
        );
        assert!(refused.contains("line 2"), "{refused}");
        assert!(render("{{ strftime_now('%Q') }}").is_err());
    }
}
