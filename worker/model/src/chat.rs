//! Text to tokens and back: the model's own tokenizer and its own chat template, never a guessed format.

use crate::batch::Sequence;
use crate::{ModelError, Result};
use minijinja::{Environment, Error as TemplateError, ErrorKind, context};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use tokenizers::Tokenizer;
use uspx_domain::Prompt;

/// Today, to every template that asks: a probe must give the same tokens tomorrow.
const FIXED_DATE: &str = "2025-08-05";

/// A tokenizer with its chat template.
pub struct Chat {
    tokenizer: Tokenizer,
    templates: Environment<'static>,
    special: Value,
    template: String,
    ends: Vec<u32>,
    bytes: Vec<TokenBytes>,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
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
}

/// What a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenBytes {
    /// Bytes of text.
    Text(Vec<u8>),
    /// A control token.
    Special,
    /// An id that no token has.
    Unused,
}

impl Chat {
    /// Reads `tokenizer.json` and the template of a model folder.
    ///
    /// # Errors
    /// A file missing or malformed, or no chat template in `tokenizer_config.json` or `chat_template.jinja`.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let text = std::fs::read_to_string(&path).map_err(ModelError::read(&path))?;
        let settings = read_json(&folder.join("tokenizer_config.json"))?;
        let template = template_of(folder, &settings)?;
        let generation = folder.join("generation_config.json");
        let generation = if generation.exists() { read_json(&generation)? } else { Value::Null };
        Self::new(&text, &template, &settings, &generation).map_err(|e| ModelError::malformed(path, e.to_string()))
    }

    /// From the text of `tokenizer.json`, the template, and the two optional configurations.
    ///
    /// # Errors
    /// A tokenizer or template that does not parse.
    pub fn new(tokenizer: &str, template: &str, settings: &Value, generation: &Value) -> Result<Self> {
        let tokenizer: Tokenizer =
            tokenizer.parse().map_err(|e| ModelError::Chat(format!("tokenizer does not parse: {e}")))?;
        let mut templates = Environment::new();
        minijinja_contrib::add_to_environment(&mut templates);
        templates.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        templates.set_trim_blocks(true);
        templates.set_lstrip_blocks(true);
        templates.add_function("raise_exception", raise_exception);
        templates.add_function("strftime_now", |format: String| strftime(&format));
        templates
            .add_template_owned("chat", template.to_owned())
            .map_err(|e| ModelError::Chat(format!("chat template does not parse: {e:#}")))?;
        let special =
            json!({ "bos_token": token_text(settings, "bos_token"), "eos_token": token_text(settings, "eos_token") });
        let ends = end_tokens(&tokenizer, settings, generation);
        let bytes = token_bytes(&tokenizer);
        Ok(Self { tokenizer, templates, special, template: template.to_owned(), ends, bytes })
    }

    fn render(&self, messages: &[Turn], generate: bool) -> Result<String> {
        let failed = |e: TemplateError| ModelError::Chat(format!("the chat template failed: {e:#}"));
        let template = self.templates.get_template("chat").map_err(failed)?;
        let special = |key: &str| self.special.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        template
            .render(context! {
                messages => minijinja::Value::from_serialize(messages),
                add_generation_prompt => generate,
                bos_token => special("bos_token"),
                eos_token => special("eos_token"),
            })
            .map_err(failed)
    }

    /// Token ids of text in which special tokens count as such.
    ///
    /// # Errors
    /// The tokenizer failed.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode_fast(text, false);
        Ok(encoding.map_err(|e| ModelError::Chat(format!("tokenizer failed: {e}")))?.get_ids().to_vec())
    }

    /// The prompt up to where the answer's text begins, and its answer if it is given.
    ///
    /// The template is rendered to the generation prompt, and again with the answer; prompt and answer are tokenised
    /// apart and joined. What only opens the answer's channel counts as prompt; the end-of-turn token as answer.
    ///
    /// # Errors
    /// A template that does not extend its generation prompt by the answer.
    pub fn sequence(&self, prompt: &Prompt, answer: Option<&str>) -> Result<Sequence> {
        let mut messages: Vec<Turn> = prompt.system.iter().map(|s| Turn::system(s)).collect();
        messages.push(Turn::user(&prompt.prompt));
        let Some(answer) = answer else { return self.conversation(&messages) };
        let opening = self.render(&messages, true)?;
        messages.push(Turn::assistant(answer));
        let whole = self.render(&messages, false)?;
        let added = whole.strip_prefix(opening.as_str()).ok_or_else(|| {
            ModelError::Chat("the chat template with an answer does not begin with its generation prompt".into())
        })?;
        let (channel, response) = split_answer(added, answer)?;
        let mut ids = self.encode(&format!("{opening}{channel}"))?;
        let response_start = ids.len();
        ids.extend(self.until_end(self.encode(response)?));
        Ok(Sequence { ids, response_start })
    }

    /// A conversation up to where the next answer begins.
    ///
    /// # Errors
    /// A template or tokenizer that fails.
    pub fn conversation(&self, turns: &[Turn]) -> Result<Sequence> {
        let ids = self.encode(&self.render(turns, true)?)?;
        Ok(Sequence { response_start: ids.len(), ids })
    }

    /// Drops what a template writes after the end-of-turn token (a newline, say).
    fn until_end(&self, mut ids: Vec<u32>) -> Vec<u32> {
        let last = ids.iter().rposition(|id| self.ends.contains(id)).or_else(|| {
            let special = |id: &u32| self.token(*id) == &TokenBytes::Special;
            ids.iter().rposition(special)
        });
        if let Some(last) = last {
            ids.truncate(last + 1);
        }
        ids
    }

    /// Text of ids, special tokens left out.
    ///
    /// # Errors
    /// The tokenizer failed.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.tokenizer.decode(ids, true).map_err(|e| ModelError::Chat(format!("tokenizer failed: {e}")))
    }

    /// Tokens that end an answer.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// What a token stands for.
    pub fn token(&self, id: u32) -> &TokenBytes {
        self.bytes.get(id as usize).unwrap_or(&TokenBytes::Unused)
    }

    /// All tokens, by id.
    pub fn tokens(&self) -> &[TokenBytes] {
        &self.bytes
    }

    /// The template's source.
    pub fn template(&self) -> &str {
        &self.template
    }
}

/// What the answer's turn adds: the opening of its channel, and the answer with its end.
fn split_answer<'a>(added: &'a str, answer: &str) -> Result<(&'a str, &'a str)> {
    let at = added.find(answer).or_else(|| added.find(answer.trim()));
    let at = at.ok_or_else(|| ModelError::Chat("the chat template changes the answer's text".into()))?;
    Ok(added.split_at(at))
}

fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).map_err(ModelError::read(path))?;
    serde_json::from_str(&text).map_err(|e| ModelError::malformed(path, e.to_string()))
}

fn template_of(folder: &Path, settings: &Value) -> Result<String> {
    let own = folder.join("chat_template.jinja");
    if own.exists() {
        return std::fs::read_to_string(&own).map_err(ModelError::read(own));
    }
    match settings.get("chat_template") {
        Some(Value::String(template)) => Ok(template.clone()),
        Some(Value::Array(named)) => named
            .iter()
            .find(|t| t.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|t| t.get("template").and_then(Value::as_str))
            .map(str::to_owned)
            .ok_or_else(|| ModelError::malformed(folder, "none of its chat templates is named `default`")),
        _ => Err(ModelError::malformed(
            folder,
            "has no chat template (tokenizer_config.json's `chat_template` or chat_template.jinja): \
             use the instruct version of the model, or add its template",
        )),
    }
}

fn token_text(settings: &Value, key: &str) -> Value {
    match settings.get(key) {
        Some(Value::Object(o)) => o.get("content").cloned().unwrap_or(Value::Null),
        Some(other) => other.clone(),
        None => Value::Null,
    }
}

fn end_tokens(tokenizer: &Tokenizer, settings: &Value, generation: &Value) -> Vec<u32> {
    let mut ends: Vec<u32> = match generation.get("eos_token_id") {
        Some(Value::Array(ids)) => ids.iter().filter_map(|v| v.as_u64()).map(|v| v as u32).collect(),
        Some(id) => id.as_u64().map(|v| v as u32).into_iter().collect(),
        None => Vec::new(),
    };
    if let Some(id) = token_text(settings, "eos_token").as_str().and_then(|t| tokenizer.token_to_id(t)) {
        ends.push(id);
    }
    ends.sort_unstable();
    ends.dedup();
    ends
}

fn raise_exception(message: String) -> std::result::Result<String, TemplateError> {
    Err(TemplateError::new(ErrorKind::InvalidOperation, message))
}

/// `strftime` of the fixed date, for the forms that templates use.
fn strftime(format: &str) -> String {
    let (year, month, day) = ("2025", "08", "05");
    format
        .replace("%Y-%m-%d", FIXED_DATE)
        .replace("%Y", year)
        .replace("%B", "August")
        .replace("%b", "Aug")
        .replace("%m", month)
        .replace("%d", day)
}

/// Bytes of every token of a byte-level vocabulary.
fn token_bytes(tokenizer: &Tokenizer) -> Vec<TokenBytes> {
    let table = byte_alphabet();
    let vocabulary = tokenizer.get_vocab(true);
    let added = tokenizer.get_added_tokens_decoder();
    let size = vocabulary.values().copied().max().map_or(0, |m| m as usize + 1);
    let mut bytes = vec![TokenBytes::Unused; size];
    for (token, id) in vocabulary {
        let special = added.get(&id).map(|a| a.special);
        let text = match special {
            Some(true) => TokenBytes::Special,
            Some(false) => TokenBytes::Text(token.into_bytes()),
            None => token
                .chars()
                .map(|c| table.get(&c).copied())
                .collect::<Option<Vec<u8>>>()
                .map_or_else(|| TokenBytes::Text(token.replace('\u{2581}', " ").into_bytes()), TokenBytes::Text),
        };
        if let Some(place) = bytes.get_mut(id as usize) {
            *place = text;
        }
    }
    bytes
}

/// GPT-2's printable stand-ins for bytes: printable Latin-1 stands for itself, the rest from U+0100 on.
pub fn byte_alphabet() -> HashMap<char, u8> {
    let mut next = 0x100u32;
    (0..=255u8)
        .filter_map(|byte| {
            let own = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
            let point = if own {
                u32::from(byte)
            } else {
                next += 1;
                next - 1
            };
            char::from_u32(point).map(|c| (c, byte))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nano(which: &str) -> Chat {
        Chat::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/nano").join(which)).unwrap()
    }

    fn prompt(text: &str) -> Prompt {
        Prompt { id: "p".into(), prompt: text.into(), reference: None, system: None, tags: vec![] }
    }

    #[test]
    fn the_answer_begins_after_the_opening_of_its_channel() {
        for which in ["teacher", "student"] {
            let chat = nano(which);
            let open = chat.sequence(&prompt("List files"), None).unwrap();
            let whole = chat.sequence(&prompt("List files"), Some("ls -l")).unwrap();
            assert_eq!(&whole.ids[..whole.response_start], &open.ids[..]);
            assert_eq!(chat.decode(&whole.ids[whole.response_start..]).unwrap(), "ls -l");
            assert!(chat.ends().contains(whole.ids.last().unwrap()));
        }
    }

    #[test]
    fn token_bytes_join_to_the_text() {
        let chat = nano("student");
        let text = "grep -r 'naïve\t§' ./dir | wc -l\n";
        let ids = chat.encode(text).unwrap();
        let bytes: Vec<u8> = ids
            .iter()
            .flat_map(|id| match chat.token(*id) {
                TokenBytes::Text(b) => b.clone(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(bytes, text.as_bytes());
    }

    #[test]
    fn a_template_that_opens_a_channel_only_with_the_answer_counts_it_as_prompt() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/nano/teacher");
        let tokenizer = std::fs::read_to_string(folder.join("tokenizer.json")).unwrap();
        let template = "{% for m in messages %}<|start|>{{ m.role }}{% if m.role == 'assistant' %}<|channel|>final{% endif %}\
             <|message|>{{ m.content | trim }}{% if m.role == 'assistant' %}<|return|>\n{% else %}<|end|>{% endif %}{% endfor %}\
             {% if add_generation_prompt %}<|start|>assistant{% endif %}";
        let chat = Chat::new(&tokenizer, template, &json!({"eos_token": "<|return|>"}), &Value::Null).unwrap();
        let sequence = chat.sequence(&prompt("x"), Some(" ls ")).unwrap();
        let message = chat.encode("<|message|>").unwrap();
        assert_eq!(sequence.ids[sequence.response_start - 1], message[0]);
        assert_eq!(sequence.ids.last(), chat.encode("<|return|>").unwrap().first());
    }

    #[test]
    fn a_folder_without_a_template_is_refused_with_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/nano/teacher");
        std::fs::copy(folder.join("tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
        std::fs::write(dir.path().join("tokenizer_config.json"), "{}").unwrap();
        let error = Chat::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains("chat template") && error.contains("instruct"), "{error}");
    }
}
