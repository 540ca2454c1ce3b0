//! STAND-IN until `uspx_model::chat::ChatFiles` is on main.

use crate::{ExportError, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use uspx_model::chat::Chat;

pub struct ChatFiles {
    pub tokenizer: Value,
    pub template: String,
    pub settings: Value,
    pub generation: Value,
}

impl ChatFiles {
    pub fn read(folder: &Path) -> Result<Self> {
        let tokenizer = crate::hf::read_json(&folder.join("tokenizer.json"))?;
        let mut settings = crate::hf::read_json(&folder.join("tokenizer_config.json"))?;
        let chat = Chat::open(folder)?;
        let template = chat.template().to_owned();
        settings["chat_template"] = template.clone().into();
        let path = folder.join("generation_config.json");
        let mut generation = if path.exists() { crate::hf::read_json(&path)? } else { json!({}) };
        generation["eos_token_id"] = json!(chat.ends());
        Ok(Self { tokenizer, template, settings, generation })
    }

    pub fn of_parts(tokenizer: Value, template: &str, settings: Value, generation: Value, _: &Path) -> Result<Self> {
        Ok(Self { tokenizer, template: template.into(), settings, generation })
    }

    pub fn special(&self) -> BTreeMap<String, String> {
        let text = |v: &Value| v.as_str().or_else(|| v.get("content")?.as_str()).map(str::to_owned);
        ["bos_token", "eos_token", "pad_token"]
            .iter()
            .filter_map(|k| Some(((*k).to_owned(), text(self.settings.get(*k)?)?)))
            .collect()
    }

    pub fn ends(&self) -> Vec<u32> {
        let mut ends: Vec<u32> = self.generation["eos_token_id"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|v| Some(v.as_u64()? as u32))
            .collect();
        ends.extend(self.special().get("eos_token").and_then(|t| id_of(&self.tokenizer, t)));
        ends.sort_unstable();
        ends.dedup();
        ends
    }

    pub fn chat(&self) -> Result<Chat> {
        Chat::new(&self.tokenizer.to_string(), &self.template, &self.settings, &self.generation)
            .map_err(ExportError::from)
    }
}

pub fn id_of(tokenizer: &Value, token: &str) -> Option<u32> {
    let added = tokenizer["added_tokens"].as_array()?;
    Some(added.iter().find(|t| t["content"] == token)?["id"].as_u64()? as u32)
}
