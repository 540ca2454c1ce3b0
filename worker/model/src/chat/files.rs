//! The files of a model folder that determine its tokens, and what they mean together, as
//! transformers reads them.
//!
//! - `tokenizer.json`, without its `truncation` and `padding` (whoever saved it left those there;
//!   transformers resets them on every call), with the tokens, under their own ids, that only
//!   `added_tokens_decoder` of tokenizer_config.json (or the older added_tokens.json) lists, and
//!   with the named special tokens marked as such.
//! - The template: `chat_template.jinja`, or tokenizer_config.json's `chat_template`, a string or a
//!   list of named ones.
//! - What ends an answer: the union of generation_config.json's and config.json's `eos_token_id`
//!   and the tokenizer's.

mod tokens;

use crate::config::MAX_VOCABULARY;
use crate::{ModelError, Result};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
pub use tokens::id_of;
pub(super) use tokens::set;
use tokens::{is_added, keep_ids, last, push_added};

/// The named special tokens, by transformers' keys.
const NAMED: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// What determines a model's tokens.
#[derive(Debug, Clone)]
pub struct ChatFiles {
    /// tokenizer.json as it is used.
    pub tokenizer: Value,
    /// The chat template that wins.
    pub template: String,
    /// tokenizer_config.json, with `chat_template` as that one string.
    pub settings: Value,
    /// generation_config.json, with `eos_token_id` as the list of all end tokens.
    pub generation: Value,
    /// The file that the tokenizer came from, for messages.
    pub tokenizer_file: PathBuf,
    /// The file that the template came from, for messages.
    pub template_file: PathBuf,
}

impl ChatFiles {
    /// Reads a model folder.
    ///
    /// # Errors
    /// A file missing or malformed, a token listed with two ids, or no chat template.
    pub fn read(folder: &Path) -> Result<Self> {
        let tokenizer_file = folder.join("tokenizer.json");
        let tokenizer = read_json(&tokenizer_file)?;
        let config = optional(folder, "config.json")?;
        let generation = optional(folder, "generation_config.json")?;
        let settings = settings(folder)?;
        let (template, template_file) = template_of(folder, &settings)?;
        let listed = listed_tokens(folder, &settings)?;
        let parts =
            Parts { tokenizer, template, settings, generation: [generation, config], listed };
        parts.join(tokenizer_file, template_file)
    }

    /// From parts that another reader has, a GGUF file's: `file` is named in messages.
    ///
    /// # Errors
    /// Parts that contradict each other.
    pub fn of_parts(
        tokenizer: Value,
        template: &str,
        settings: Value,
        generation: Value,
        file: &Path,
    ) -> Result<Self> {
        let template = template.to_owned();
        let parts = Parts {
            tokenizer,
            template,
            settings,
            generation: [generation, Value::Null],
            listed: BTreeMap::new(),
        };
        parts.join(file.to_owned(), file.to_owned())
    }

    /// The named special tokens that there are.
    pub fn special(&self) -> BTreeMap<String, String> {
        let named = |key: &&str| Some(((*key).to_owned(), token_text(&self.settings, key)?));
        NAMED.iter().filter_map(named).collect()
    }

    /// The tokens that end an answer, ascending.
    pub fn ends(&self) -> Vec<u32> {
        ids(self.generation.get("eos_token_id")).into_iter().collect()
    }

    /// Refuses tokens that a model of `vocabulary` tokens does not have: what is made by an id is
    /// bounded by that. `place` is what says how many it has.
    ///
    /// # Errors
    /// There is one, of the tokenizer's or among those that end an answer.
    pub fn check_ids(&self, vocabulary: usize, place: &Path) -> Result<()> {
        let known = last(&self.tokenizer).map_or(0, |(id, _)| id + 1);
        if known > vocabulary as u64 {
            let reason = format!(
                "vocab_size is {vocabulary}, but the tokenizer beside it knows {known} tokens: they belong to different models"
            );
            return Err(ModelError::malformed(place, reason));
        }
        match self.ends().last() {
            Some(end) if *end as usize >= vocabulary => {
                let reason = format!(
                    "vocab_size is {vocabulary}, but token {end} is to end an answer (`eos_token_id`): they belong to \
                     different models"
                );
                Err(ModelError::malformed(place, reason))
            }
            _ => Ok(()),
        }
    }

    /// All of it that determines tokens, as bytes: equal bytes, equal tokens.
    ///
    /// # Errors
    /// It cannot be written as JSON: a bug.
    pub fn identity(&self) -> Result<Vec<u8>> {
        let all = (
            &self.tokenizer,
            &self.template,
            self.special(),
            self.ends(),
            self.splits_special_tokens(),
        );
        serde_json::to_vec(&all)
            .map_err(|e| ModelError::malformed(&self.tokenizer_file, e.to_string()))
    }

    /// Whether control tokens in a text are split like any word of it.
    pub fn splits_special_tokens(&self) -> bool {
        self.settings.get("split_special_tokens").and_then(Value::as_bool).unwrap_or(false)
    }
}

/// What was read, not yet put together.
struct Parts {
    tokenizer: Value,
    template: String,
    settings: Value,
    generation: [Value; 2],
    /// Tokens that stand beside tokenizer.json, by id.
    listed: BTreeMap<u64, Value>,
}

impl Parts {
    fn join(mut self, tokenizer_file: PathBuf, template_file: PathBuf) -> Result<ChatFiles> {
        let broken = |reason: String| ModelError::malformed(&tokenizer_file, reason);
        let object =
            self.tokenizer.as_object_mut().ok_or_else(|| broken("is not a JSON object".into()))?;
        for key in ["truncation", "padding"] {
            object.insert(key.into(), Value::Null);
        }
        self.add_listed().map_err(broken)?;
        self.check_last().map_err(broken)?;
        self.add_named();
        let eos = token_text(&self.settings, "eos_token")
            .and_then(|token| id_of(&self.tokenizer, &token));
        let mut ends: BTreeSet<u32> =
            self.generation.iter().flat_map(|g| ids(g.get("eos_token_id"))).collect();
        ends.extend(eos);
        let [mut generation, _] = self.generation;
        set(&mut generation, "eos_token_id", json!(ends));
        set(&mut self.settings, "chat_template", self.template.clone().into());
        let (tokenizer, template, settings) = (self.tokenizer, self.template, self.settings);
        Ok(ChatFiles { tokenizer, template, settings, generation, tokenizer_file, template_file })
    }

    /// Tokens that only stand beside tokenizer.json are added to its own.
    fn add_listed(&mut self) -> std::result::Result<(), String> {
        for (id, token) in std::mem::take(&mut self.listed) {
            let content = token.get("content").and_then(Value::as_str).unwrap_or_default();
            match id_of(&self.tokenizer, content).map(u64::from) {
                Some(here) if here != id => {
                    return Err(format!(
                        "the token `{content}` has id {here} here, but {id} in the files beside it: fetch all of them again from one place"
                    ));
                }
                _ if is_added(&self.tokenizer, content) => {}
                _ => push_added(&mut self.tokenizer, id, &token),
            }
        }
        keep_ids(&mut self.tokenizer)
    }

    /// There is an entry for every id up to the last one, so that is bounded.
    fn check_last(&self) -> std::result::Result<(), String> {
        match last(&self.tokenizer) {
            Some((id, token)) if id >= MAX_VOCABULARY as u64 => Err(format!(
                "the token `{token}` has id {id}, below {MAX_VOCABULARY} is expected: fetch the tokenizer's files again"
            )),
            _ => Ok(()),
        }
    }

    /// Named special tokens that the vocabulary holds count as special, also where no list of added
    /// tokens has them.
    fn add_named(&mut self) {
        for token in NAMED.iter().filter_map(|key| token_text(&self.settings, key)) {
            let known = is_added(&self.tokenizer, &token);
            if let Some(id) = id_of(&self.tokenizer, &token).filter(|_| !known) {
                push_added(
                    &mut self.tokenizer,
                    u64::from(id),
                    &json!({"content": token, "special": true}),
                );
            }
        }
    }
}

/// tokenizer_config.json; where it lists no added tokens, special_tokens_map.json has the last word
/// on the named ones.
fn settings(folder: &Path) -> Result<Value> {
    let mut settings = optional(folder, "tokenizer_config.json")?;
    if settings.get("added_tokens_decoder").is_none() {
        let map = optional(folder, "special_tokens_map.json")?;
        for key in NAMED {
            if let Some(token) = map.get(key).filter(|v| !v.is_null()) {
                set(&mut settings, key, token.clone());
            }
        }
    }
    Ok(settings)
}

/// The tokens that are listed beside tokenizer.json, by id.
fn listed_tokens(folder: &Path, settings: &Value) -> Result<BTreeMap<u64, Value>> {
    let broken = |name: &str, what: &str| ModelError::malformed(folder.join(name), what.to_owned());
    if let Some(decoder) = settings.get("added_tokens_decoder").filter(|v| !v.is_null()) {
        let wrong = || {
            broken("tokenizer_config.json", "`added_tokens_decoder` is not a map of ids to tokens")
        };
        let each = |(id, token): (&String, &Value)| {
            let id = id.parse().map_err(|_| wrong())?;
            if token.get("content").and_then(Value::as_str).is_none() {
                Err(wrong())
            } else {
                Ok((id, token.clone()))
            }
        };
        return decoder.as_object().ok_or_else(wrong)?.iter().map(each).collect();
    }
    let older = optional(folder, "added_tokens.json")?;
    let named: BTreeSet<String> =
        NAMED.iter().filter_map(|key| token_text(settings, key)).collect();
    let wrong = || broken("added_tokens.json", "is not a map of tokens to ids");
    let each = |(token, id): (&String, &Value)| {
        let special = named.contains(token);
        Ok((id.as_u64().ok_or_else(wrong)?, json!({"content": token, "special": special})))
    };
    older.as_object().into_iter().flatten().map(each).collect()
}

/// The template and its file.
fn template_of(folder: &Path, settings: &Value) -> Result<(String, PathBuf)> {
    let own = folder.join("chat_template.jinja");
    if own.exists() {
        return Ok((std::fs::read_to_string(&own).map_err(ModelError::read(&own))?, own));
    }
    let file = folder.join("tokenizer_config.json");
    match settings.get("chat_template") {
        Some(Value::String(template)) if !template.trim().is_empty() => {
            Ok((template.clone(), file))
        }
        Some(Value::Array(named)) => {
            let default =
                named.iter().find(|t| t.get("name").and_then(Value::as_str) == Some("default"));
            let template = default.and_then(|t| t.get("template")?.as_str());
            let none = || {
                ModelError::malformed(
                    &file,
                    "none of its chat templates is named `default`: name the one to use so",
                )
            };
            Ok((template.ok_or_else(none)?.to_owned(), file))
        }
        _ => Err(ModelError::malformed(
            folder,
            "has no chat template (tokenizer_config.json's `chat_template` or chat_template.jinja): \
             use the instruct version of the model, or add its template",
        )),
    }
}

/// A named token's text: the settings hold a string, or an object with its `content`.
pub(super) fn token_text(settings: &Value, key: &str) -> Option<String> {
    let token = settings.get(key)?;
    token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
}

/// One id, or a list of them.
fn ids(value: Option<&Value>) -> BTreeSet<u32> {
    let one = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(ids)) => ids.iter().filter_map(one).collect(),
        Some(id) => one(id).into_iter().collect(),
        None => BTreeSet::new(),
    }
}

fn optional(folder: &Path, name: &str) -> Result<Value> {
    let path = folder.join(name);
    if path.exists() { read_json(&path) } else { Ok(Value::Null) }
}

fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).map_err(ModelError::read(path))?;
    serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|e| ModelError::malformed(path, e.to_string()))
}
