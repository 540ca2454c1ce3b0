//! What each token stands for, in bytes, by the family of its tokenizer; and families that do not
//! keep the text.

use serde_json::Value;
use std::collections::HashMap;
use tokenizers::Tokenizer;

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

/// The bytes of text that token `id` stands for; none for a control token.
pub(super) fn spelled(tokens: &[TokenBytes], id: u32) -> &[u8] {
    match tokens.get(id as usize) {
        Some(TokenBytes::Text(bytes)) => bytes,
        _ => &[],
    }
}

/// How a family spells text in its vocabulary.
enum Spelling {
    /// GPT-2's: every byte has a printable letter.
    Bytes(HashMap<char, u8>),
    /// SentencePiece's: a letter stands for the space, and with `fallback` the token `<0x0A>` for a
    /// byte.
    Marked { space: char, fallback: bool },
}

/// SentencePiece's space.
const SPACE: char = '\u{2581}';

/// Every part of a kind of component (`pre_tokenizer`, `normalizer`, `decoder`) of a
/// tokenizer.json, sequences opened.
pub(super) fn parts<'a>(tokenizer: &'a Value, component: &str) -> Vec<&'a Value> {
    let mut open: Vec<&Value> = tokenizer.get(component).into_iter().collect();
    let mut found = Vec::new();
    while let Some(part) = open.pop() {
        let inner = ["pretokenizers", "normalizers", "decoders"]
            .iter()
            .find_map(|key| part.get(key)?.as_array());
        match inner {
            Some(inner) => open.extend(inner.iter().rev()),
            None => found.push(part),
        }
    }
    found
}

/// The `type` of a component.
pub(super) fn kind(part: &Value) -> &str {
    part.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// Why text cannot be had back from such a tokenizer's tokens, if it cannot.
pub(super) fn loses_text(tokenizer: &Value) -> Option<String> {
    let model = tokenizer.get("model")?;
    let name = kind(model);
    if matches!(name, "WordPiece" | "WordLevel") {
        return Some(format!(
            "it is a {name} tokenizer, whose tokens do not spell the text (spaces and unknown words are lost)"
        ));
    }
    if let Some(suffix) =
        model.get("end_of_word_suffix").and_then(Value::as_str).filter(|s| !s.is_empty())
    {
        return Some(format!("it marks the ends of words by `{suffix}`, so spaces are lost"));
    }
    let lossy = ["Lowercase", "StripAccents", "BertNormalizer"];
    let found = parts(tokenizer, "normalizer").into_iter().map(kind).find(|k| lossy.contains(k));
    found.map(|found| format!("its normalizer ({found}) changes letters"))
}

fn spelling(tokenizer: &Value) -> Spelling {
    let all: Vec<&Value> =
        ["pre_tokenizer", "decoder"].iter().flat_map(|c| parts(tokenizer, c)).collect();
    if all.iter().any(|part| kind(part) == "ByteLevel") {
        return Spelling::Bytes(byte_alphabet());
    }
    let letter = |part: &&Value| part.get("replacement")?.as_str()?.chars().next();
    let space =
        all.iter().filter(|part| kind(part) == "Metaspace").find_map(letter).unwrap_or(SPACE);
    let fallback =
        tokenizer.pointer("/model/byte_fallback").and_then(Value::as_bool).unwrap_or(false);
    let fallback = fallback || all.iter().any(|part| kind(part) == "ByteFallback");
    Spelling::Marked { space, fallback }
}

impl Spelling {
    fn bytes(&self, token: &str) -> Vec<u8> {
        match self {
            // A letter outside the alphabet: some vocabularies hold plain text beside it.
            Self::Bytes(table) => {
                let bytes: Option<Vec<u8>> =
                    token.chars().map(|c| table.get(&c).copied()).collect();
                bytes.unwrap_or_else(|| token.as_bytes().to_vec())
            }
            Self::Marked { space, fallback } => match byte_token(token).filter(|_| *fallback) {
                Some(byte) => vec![byte],
                None => token.replace(*space, " ").into_bytes(),
            },
        }
    }
}

/// The byte that `<0xE6>` names.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// Bytes of every token, by id.
pub(super) fn token_bytes(tokenizer: &Tokenizer, json: &Value) -> Vec<TokenBytes> {
    let spelling = spelling(json);
    let vocabulary = tokenizer.get_vocab(true);
    let added = tokenizer.get_added_tokens_decoder();
    let unknown = unknown(json);
    let size = vocabulary.values().copied().max().map_or(0, |m| m as usize + 1);
    let mut bytes = vec![TokenBytes::Unused; size];
    for (token, id) in vocabulary {
        let text = match added.get(&id).map(|a| a.special) {
            Some(true) => TokenBytes::Special,
            Some(false) => TokenBytes::Text(token.into_bytes()),
            None if unknown.as_ref() == Some(&token) => TokenBytes::Special,
            None => TokenBytes::Text(spelling.bytes(&token)),
        };
        if let Some(place) = bytes.get_mut(id as usize) {
            *place = text;
        }
    }
    bytes
}

/// The token that stands for whatever the vocabulary lacks.
fn unknown(json: &Value) -> Option<String> {
    let model = json.get("model")?;
    let named = model.get("unk_token").and_then(Value::as_str);
    let numbered = || {
        let id = usize::try_from(model.get("unk_id")?.as_u64()?).ok()?;
        model.get("vocab")?.as_array()?.get(id)?.get(0)?.as_str()
    };
    named.or_else(numbered).map(str::to_owned)
}

/// GPT-2's printable stand-ins for bytes: printable Latin-1 stands for itself, the rest from U+0100
/// on.
fn byte_alphabet() -> HashMap<char, u8> {
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
    use serde_json::json;

    #[test]
    fn a_tokens_bytes_are_those_of_its_family() {
        let marked = json!({"model": {"type": "BPE", "byte_fallback": true}});
        let level = json!({"model": {"type": "BPE"}, "decoder": {"type": "Sequence", "decoders": [{"type": "ByteLevel"}]}});
        let other = json!({"model": {"type": "Unigram"}, "pre_tokenizer": {"type": "Metaspace", "replacement": "_"}});
        for (json, token, bytes) in [
            (&marked, "<0xE6>", &b"\xe6"[..]),
            (&marked, "\u{2581}f\u{fc}r", " f\u{fc}r".as_bytes()),
            (&marked, "f\u{fc}r", "f\u{fc}r".as_bytes()),
            (&level, "f\u{c3}\u{bc}r", "f\u{fc}r".as_bytes()),
            (&level, "\u{120}ls", b" ls"),
            (&level, "<0xE6>", b"<0xE6>"),
            (&other, "_<0xE6>", b" <0xE6>"),
        ] {
            assert_eq!(spelling(json).bytes(token), bytes, "{token}");
        }
    }

    #[test]
    fn tokenizers_that_lose_text_are_told_apart() {
        for (json, word) in [
            (json!({"model": {"type": "WordPiece"}}), "WordPiece"),
            (json!({"model": {"type": "BPE", "end_of_word_suffix": "</w>"}}), "</w>"),
            (
                json!({"model": {"type": "BPE"}, "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}}),
                "Lowercase",
            ),
        ] {
            assert!(loses_text(&json).unwrap().contains(word));
        }
        assert_eq!(
            loses_text(
                &json!({"model": {"type": "BPE", "end_of_word_suffix": null}, "normalizer": {"type": "NFC"}})
            ),
            None
        );
    }
}
