//! Tokens in a tokenizer.json: their ids, and adding some under ids of their own.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Sets a key, whatever was there before.
pub(in crate::chat) fn set(object: &mut Value, key: &str, value: Value) {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    if let Some(object) = object.as_object_mut() {
        object.insert(key.into(), value);
    }
}

/// The added tokens of a tokenizer.json.
fn added(tokenizer: &Value) -> &[Value] {
    tokenizer.get("added_tokens").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(super) fn push_added(tokenizer: &mut Value, id: u64, token: &Value) {
    let flag = |key: &str| token.get(key).and_then(Value::as_bool);
    let special = flag("special").unwrap_or(false);
    let entry = json!({
        "id": id,
        "content": token.get("content"),
        "single_word": flag("single_word").unwrap_or(false),
        "lstrip": flag("lstrip").unwrap_or(false),
        "rstrip": flag("rstrip").unwrap_or(false),
        // As transformers has it: special tokens are looked for in the text as it was written.
        "normalized": flag("normalized").unwrap_or(!special),
        "special": special,
    });
    if !tokenizer.get("added_tokens").is_some_and(Value::is_array) {
        set(tokenizer, "added_tokens", json!([]));
    }
    if let Some(list) = tokenizer.get_mut("added_tokens").and_then(Value::as_array_mut) {
        list.push(entry);
    }
}

/// A token's id: an added one's, or the vocabulary's (a map of ids, or Unigram's list in their
/// order).
pub fn id_of(tokenizer: &Value, token: &str) -> Option<u32> {
    let named = |t: &&Value| t.get("content").and_then(Value::as_str) == Some(token);
    let id =
        added(tokenizer).iter().find(named).and_then(|t| t.get("id")?.as_u64()).or_else(|| {
            match tokenizer.pointer("/model/vocab")? {
                Value::Object(vocab) => vocab.get(token)?.as_u64(),
                Value::Array(vocab) => vocab
                    .iter()
                    .position(|entry| entry.get(0).and_then(Value::as_str) == Some(token))
                    .map(|at| at as u64),
                _ => None,
            }
        });
    id.and_then(|id| u32::try_from(id).ok())
}

pub(super) fn is_added(tokenizer: &Value, token: &str) -> bool {
    added(tokenizer).iter().any(|t| t.get("content").and_then(Value::as_str) == Some(token))
}

/// The token with the largest id, where tokens name their ids.
pub(super) fn last(tokenizer: &Value) -> Option<(u64, &str)> {
    let own = added(tokenizer).iter();
    let own = own.filter_map(|t| Some((t.get("id")?.as_u64()?, t.get("content")?.as_str()?)));
    let vocab = tokenizer.pointer("/model/vocab").and_then(Value::as_object);
    let plain = vocab.into_iter().flatten();
    own.chain(plain.filter_map(|(token, id)| Some((id.as_u64()?, token.as_str())))).max()
}

/// Puts added tokens into the vocabulary under their own ids. A tokenizer would number those that
/// it lacks by itself, one after another, and so shift them where some are missing.
pub(super) fn keep_ids(tokenizer: &mut Value) -> std::result::Result<(), String> {
    let own = |t: &Value| Some((t.get("content")?.as_str()?.to_owned(), t.get("id")?.as_u64()?));
    let tokens: Vec<(String, u64)> = added(tokenizer).iter().filter_map(own).collect();
    let Some(vocab) = tokenizer.pointer_mut("/model/vocab").and_then(Value::as_object_mut) else {
        return Ok(());
    };
    let mut taken: BTreeMap<u64, String> =
        vocab.iter().filter_map(|(t, id)| Some((id.as_u64()?, t.clone()))).collect();
    for (token, id) in tokens {
        let holder = taken.entry(id).or_insert_with(|| token.clone());
        if *holder != token {
            return Err(format!(
                "the tokens `{holder}` and `{token}` both have id {id}: fetch the tokenizer's files again"
            ));
        }
        if !vocab.contains_key(&token) {
            vocab.insert(token, id.into());
        }
    }
    Ok(())
}
