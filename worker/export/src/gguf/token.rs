//! The tokens of a GGUF file: llama.cpp's types of them, and their place in a tokenizer.json.

use serde_json::{Map, Value, json};

/// A piece of the vocabulary.
pub(super) const NORMAL: i32 = 1;
/// The one that stands for what has no piece.
pub(super) const UNKNOWN: i32 = 2;
/// A special token.
pub(super) const CONTROL: i32 = 3;
/// An added token that is not special.
pub(super) const USER_DEFINED: i32 = 4;
/// A row without a token.
pub(super) const UNUSED: i32 = 5;
/// A byte piece.
pub(super) const BYTE: i32 = 6;

/// A token of a GGUF file.
pub(super) struct Token<'a> {
    pub text: &'a str,
    /// llama.cpp's type.
    pub kind: i32,
}

impl Token<'_> {
    /// Part of the vocabulary proper.
    pub fn is_plain(&self) -> bool {
        self.kind == NORMAL || self.kind == BYTE
    }

    /// Neither that nor unused: found in a text before it is split. With whether it is a control
    /// token.
    pub fn is_added(&self) -> Option<bool> {
        (!self.is_plain() && self.kind != UNUSED).then_some(self.kind == CONTROL)
    }
}

/// tokenizer.json's vocabulary and added tokens. `in_vocabulary` says which tokens the vocabulary
/// holds.
pub(super) fn tables(
    tokens: &[Token<'_>],
    in_vocabulary: fn(&Token<'_>) -> bool,
) -> (Map<String, Value>, Vec<Value>) {
    let (mut vocab, mut added) = (Map::new(), Vec::new());
    for (id, token) in tokens.iter().enumerate() {
        if in_vocabulary(token) {
            vocab.insert(token.text.to_owned(), id.into());
        }
        if let Some(special) = token.is_added() {
            added.push(json!({
                "id": id, "content": token.text, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": special,
            }));
        }
    }
    (vocab, added)
}
