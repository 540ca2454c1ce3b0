//! The tokenizer inside a GGUF file in llama.cpp's terms: byte-level BPE written and read,
//! SentencePiece's read (`sentencepiece`); read is a tokenizer.json.
//!
//! GGUF names the splitting rule (`pre`) instead of holding it, so only rules that llama.cpp knows
//! can be written.

use super::sentencepiece;
use super::token::{CONTROL, NORMAL, Token, UNUSED, USER_DEFINED, tables};
use crate::{ExportError, Result};
use candle_core::quantized::gguf_file::Value as Gguf;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The name of Llama 3's splitting rule.
const PRE: &str = "llama-bpe";
/// Llama 3's splitting rule, as tokenizer.json files hold it.
const PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Qwen 2's: a digit at a time.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

fn unsupported<T>(reason: impl Into<String>) -> Result<T> {
    Err(ExportError::Unsupported(reason.into()))
}

fn added(tokenizer: &Value) -> impl Iterator<Item = (u32, &str, bool)> {
    let tokens = tokenizer.get("added_tokens").and_then(Value::as_array).into_iter().flatten();
    tokens.filter_map(|t| {
        let special = t.get("special").and_then(Value::as_bool).unwrap_or(false);
        Some((u32::try_from(t.get("id")?.as_u64()?).ok()?, t.get("content")?.as_str()?, special))
    })
}

fn vocabulary(tokenizer: &Value) -> Result<&Map<String, Value>> {
    let vocab = tokenizer.pointer("/model/vocab").and_then(Value::as_object);
    vocab.ok_or_else(|| ExportError::Unsupported("tokenizer.json has no model.vocab".into()))
}

/// An id's token in tokenizer.json.
pub(super) fn text_of(tokenizer: &Value, id: u32) -> Option<&str> {
    let apart = added(tokenizer).find(|(at, ..)| *at == id).map(|(_, content, _)| content);
    let plain =
        || vocabulary(tokenizer).ok()?.iter().find(|(_, at)| at.as_u64() == Some(id.into()));
    apart.or_else(|| plain().map(|(token, _)| token.as_str()))
}

/// The `tokenizer.ggml.*` pairs of a vocabulary of `size` rows, without its special tokens'
/// (`special`). Rows without a token become unused ones.
///
/// # Errors
/// [`ExportError::Unsupported`] for a tokenizer that is not a byte-level BPE with Llama 3's
/// splitting rule, or that has tokens beyond the embedding.
pub fn to_gguf(tokenizer: &Value, size: usize) -> Result<BTreeMap<String, Gguf>> {
    check_kind(tokenizer)?;
    check_added(tokenizer)?;
    let (tokens, types) = token_table(tokenizer, size)?;
    let pairs = BTreeMap::from([
        ("model", Gguf::String("gpt2".into())),
        ("pre", Gguf::String(PRE.into())),
        ("tokens", Gguf::Array(tokens.into_iter().map(Gguf::String).collect())),
        ("token_type", Gguf::Array(types.into_iter().map(Gguf::I32).collect())),
        ("merges", Gguf::Array(merges(tokenizer)?.into_iter().map(Gguf::String).collect())),
    ]);
    Ok(pairs.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect())
}

fn check_kind(tokenizer: &Value) -> Result<()> {
    if tokenizer.pointer("/model/type").and_then(Value::as_str) != Some("BPE") {
        return unsupported("the tokenizer is not BPE: GGUF is written for byte-level BPE only");
    }
    if tokenizer.get("normalizer").is_some_and(|n| !n.is_null()) {
        return unsupported(
            "the tokenizer normalises its text, which GGUF's byte-level BPE does not",
        );
    }
    let steps = tokenizer.pointer("/pre_tokenizer/pretokenizers").and_then(Value::as_array);
    let split = steps
        .and_then(|s| s.first())
        .and_then(|s| s.pointer("/pattern/Regex"))
        .and_then(Value::as_str);
    let bytes = steps.and_then(|s| s.get(1)).and_then(|s| s.get("type")).and_then(Value::as_str);
    if split != Some(PATTERN) || bytes != Some("ByteLevel") {
        return unsupported(
            "the tokenizer does not split by Llama 3's rule, the one that is written as `llama-bpe`",
        );
    }
    Ok(())
}

/// Added tokens that take the spaces around them, or stand for whole words only, cannot be said in
/// GGUF.
fn check_added(tokenizer: &Value) -> Result<()> {
    let tokens = tokenizer.get("added_tokens").and_then(Value::as_array).into_iter().flatten();
    for token in tokens {
        let set = |key: &&str| token.get(*key).and_then(Value::as_bool) == Some(true);
        if let Some(key) = ["lstrip", "rstrip", "single_word"].iter().find(|key| set(key)) {
            let text = token.get("content").and_then(Value::as_str).unwrap_or("?");
            return unsupported(format!(
                "the added token `{text}` has `{key}` set, which GGUF cannot say"
            ));
        }
    }
    Ok(())
}

fn token_table(tokenizer: &Value, size: usize) -> Result<(Vec<String>, Vec<i32>)> {
    let mut tokens: Vec<String> = (0..size).map(|i| format!("[PAD{i}]")).collect();
    let mut types = vec![UNUSED; size];
    let mut put = |id: u64, token: &str, kind: i32| {
        let slot =
            usize::try_from(id).ok().and_then(|i| Some((tokens.get_mut(i)?, types.get_mut(i)?)));
        let Some((text, of)) = slot else {
            return unsupported(format!(
                "token {id} (`{token}`) is beyond the embedding's {size} rows"
            ));
        };
        (*text, *of) = (token.to_owned(), kind);
        Ok(())
    };
    for (token, id) in vocabulary(tokenizer)? {
        put(id.as_u64().unwrap_or(u64::MAX), token, NORMAL)?;
    }
    for (id, token, special) in added(tokenizer) {
        put(u64::from(id), token, if special { CONTROL } else { USER_DEFINED })?;
    }
    Ok((tokens, types))
}

/// Merges as "a b"; tokenizer.json has them so or as pairs.
fn merges(tokenizer: &Value) -> Result<Vec<String>> {
    let list = tokenizer.pointer("/model/merges").and_then(Value::as_array);
    let list =
        list.ok_or_else(|| ExportError::Unsupported("tokenizer.json has no model.merges".into()))?;
    let one = |merge: &Value| match merge {
        Value::String(joined) => Some(joined.clone()),
        Value::Array(pair) => {
            Some(format!("{} {}", pair.first()?.as_str()?, pair.get(1)?.as_str()?))
        }
        _ => None,
    };
    list.iter()
        .map(|m| {
            one(m).ok_or_else(|| {
                ExportError::Unsupported("a merge in tokenizer.json is not a pair".into())
            })
        })
        .collect()
}

/// How a named rule splits text.
struct Rule {
    pattern: &'static str,
    /// A word that is a token is taken as it is, whatever the merges say.
    ignore_merges: bool,
    /// Text is brought to NFC first.
    nfc: bool,
}

/// llama.cpp's names of the rules that are known here.
fn rule(pre: &str) -> Option<Rule> {
    Some(match pre {
        "llama-bpe" | "llama3" | "llama-v3" => {
            Rule { pattern: PATTERN, ignore_merges: true, nfc: false }
        }
        // llama.cpp leaves NFC out; the tokenizer.json that the files are made from has it.
        "qwen2" | "deepseek-r1-qwen" => Rule { pattern: QWEN2, ignore_merges: false, nfc: true },
        _ => return None,
    })
}

/// A tokenizer.json from `tokenizer.ggml.*`.
///
/// # Errors
/// [`ExportError::Unsupported`] for a tokenizer or splitting rule that is not known here, or pairs
/// that make none.
pub fn from_gguf(metadata: &BTreeMap<String, Gguf>) -> Result<Value> {
    let text = |key: &str| metadata.get(key).and_then(|v| v.to_string().ok()).map(String::as_str);
    let absent = |key: &str| {
        ExportError::Unsupported(format!("the GGUF file has no usable `tokenizer.ggml.{key}`"))
    };
    let list =
        |key: &str| metadata.get(&format!("tokenizer.ggml.{key}")).ok_or_else(|| absent(key));
    let texts = strings(list("tokens")?).ok_or_else(|| absent("tokens"))?;
    let kinds = list("token_type")?.to_vec().map_err(|_| absent("token_type"))?;
    let kinds = kinds.iter().map(|k| k.to_i32().or_else(|_| k.to_u32().map(|k| k as i32)));
    let kinds =
        kinds.collect::<candle_core::Result<Vec<i32>>>().map_err(|_| absent("token_type"))?;
    if kinds.len() != texts.len() {
        return Err(absent("token_type"));
    }
    let tokens: Vec<Token<'_>> =
        texts.into_iter().zip(kinds).map(|(text, kind)| Token { text, kind }).collect();
    match text("tokenizer.ggml.model").unwrap_or("(none)") {
        "gpt2" => {
            let pre = text("tokenizer.ggml.pre").unwrap_or("(none)");
            let Some(rule) = rule(pre) else {
                return unsupported(format!(
                    "the tokenizer's splitting rule `{pre}` is not known: llama-bpe and qwen2 are"
                ));
            };
            let merges = strings(list("merges")?).ok_or_else(|| absent("merges"))?;
            let merges: Option<Vec<Value>> =
                merges.iter().map(|m| m.split_once(' ').map(|(a, b)| json!([a, b]))).collect();
            Ok(byte_level(&rule, &tokens, merges.ok_or_else(|| absent("merges"))?))
        }
        "llama" => {
            let scores = list("scores")?.to_vec().map_err(|_| absent("scores"))?;
            let scores = scores.iter().map(Gguf::to_f32).collect::<candle_core::Result<Vec<f32>>>();
            let scores =
                scores.ok().filter(|s| s.len() == tokens.len()).ok_or_else(|| absent("scores"))?;
            let prefix = metadata
                .get("tokenizer.ggml.add_space_prefix")
                .and_then(|v| v.to_bool().ok())
                .unwrap_or(true);
            Ok(sentencepiece::tokenizer_json(&tokens, &scores, prefix))
        }
        other => unsupported(format!(
            "the tokenizer `{other}` is not known: byte-level BPE (gpt2) and SentencePiece's (llama) are"
        )),
    }
}

fn strings(value: &Gguf) -> Option<Vec<&str>> {
    value.to_vec().ok()?.iter().map(|v| v.to_string().ok().map(String::as_str)).collect()
}

fn byte_level(rule: &Rule, tokens: &[Token<'_>], merges: Vec<Value>) -> Value {
    let (vocab, added) = tables(tokens, |t| t.is_plain());
    let byte_level = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let split = json!({"type": "Split", "pattern": {"Regex": rule.pattern}, "behavior": "Isolated", "invert": false});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": if rule.nfc { json!({"type": "NFC"}) } else { Value::Null },
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level(false)]},
        "post_processor": null, "decoder": byte_level(true),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": rule.ignore_merges,
            "vocab": vocab, "merges": merges,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hf::read_json;
    use std::path::Path;
    use tokenizers::Tokenizer;

    fn nano() -> Value {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/nano/student");
        read_json(&folder.join("tokenizer.json")).unwrap()
    }

    fn load(json: &Value) -> Tokenizer {
        Tokenizer::from_bytes(json.to_string()).unwrap()
    }

    #[test]
    fn comes_back_and_splits_every_prompt_alike() {
        let pairs = to_gguf(&nano(), 2050).unwrap();
        let (before, after) = (load(&nano()), load(&from_gguf(&pairs).unwrap()));
        let text = include_str!("../../../../cli/assets/prompts/cli-heldout.jsonl");
        for line in text
            .lines()
            .chain(["<|eot_id|>naïve\t 12345 's\r\n\r\n  x", "日本語 <|begin_of_text|>"])
        {
            let ids = |t: &Tokenizer| t.encode(line, false).unwrap().get_ids().to_vec();
            assert_eq!(ids(&before), ids(&after), "{line}");
            assert_eq!(after.decode(&ids(&after), false).unwrap(), line);
        }
    }

    #[test]
    fn rules_are_told_apart_by_name() {
        let mut pairs = to_gguf(&nano(), 2050).unwrap();
        let name = |pairs: &mut BTreeMap<String, Gguf>, key: &str, to: &str| {
            pairs.insert(format!("tokenizer.ggml.{key}"), Gguf::String(to.into()));
        };
        name(&mut pairs, "pre", "qwen2");
        let qwen = load(&from_gguf(&pairs).unwrap());
        // A digit at a time, and composed letters.
        let split = |text: &str| qwen.encode(text, false).unwrap().get_tokens().to_vec();
        assert_eq!(split("12345"), ["1", "2", "3", "4", "5"]);
        assert_eq!(split("e\u{301}"), split("\u{e9}"));
        name(&mut pairs, "pre", "tekken");
        assert!(from_gguf(&pairs).unwrap_err().to_string().contains("tekken"));
        name(&mut pairs, "model", "bert");
        assert!(from_gguf(&pairs).unwrap_err().to_string().contains("bert"));
        pairs.remove("tokenizer.ggml.tokens");
        assert!(from_gguf(&pairs).unwrap_err().to_string().contains("tokens"));
    }

    #[test]
    fn special_tokens_are_control_and_missing_rows_unused() {
        let pairs = to_gguf(&nano(), 2050).unwrap();
        let types = pairs["tokenizer.ggml.token_type"].to_vec().unwrap();
        let types: Vec<i32> = types.iter().map(|t| t.to_i32().unwrap()).collect();
        assert_eq!(
            (types[0], &types[2042..]),
            (NORMAL, &[CONTROL, CONTROL, CONTROL, CONTROL, CONTROL, CONTROL, UNUSED, UNUSED][..])
        );
        assert_eq!((text_of(&nano(), 2046), text_of(&nano(), 0)), (Some("<|eot_id|>"), Some("!")));
    }

    #[test]
    fn what_gguf_cannot_say_is_refused() {
        let spoil = |path: &str, value: Value| {
            let mut t = nano();
            *t.pointer_mut(path).unwrap() = value;
            to_gguf(&t, 2048)
        };
        for (path, value) in [
            ("/model/type", json!("Unigram")),
            ("/normalizer", json!({"type": "NFC"})),
            ("/pre_tokenizer/pretokenizers/0/pattern/Regex", json!("\\s+")),
            ("/model/merges", json!([["a"]])),
            ("/model/vocab", json!({"a": 4000})),
            ("/added_tokens/0/rstrip", json!(true)),
        ] {
            assert!(matches!(spoil(path, value), Err(ExportError::Unsupported(_))), "{path}");
        }
    }
}
