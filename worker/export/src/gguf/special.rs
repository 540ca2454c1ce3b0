//! What begins and ends things in GGUF's terms: BOS, padding, and the tokens that end an answer.
//!
//! llama.cpp reads one end token from each of three keys (`eos`, `eot`, `eom`) and takes others for
//! ends by their text, in any file. So a student with more than that is refused by name. The names
//! may also say more than the student was trained with, and an own key therefore holds exactly its
//! ends, for our reader.

use crate::gguf::tokenizer::text_of;
use crate::{ExportError, Result};
use candle_core::quantized::gguf_file::Value as Gguf;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use uspx_model::chat::{ChatFiles, id_of};

/// Our own key: all tokens that end an answer. Others ignore it.
const ENDS: &str = "uspx.end_token_ids";

/// Tokens that end a turn: they go where llama.cpp looks for one.
const TURN_ENDS: [&str; 2] = ["<|eot_id|>", "<|im_end|>"];

/// Tokens that llama.cpp takes for ends by their text. (`<|end|>` too, but not beside gpt-oss's
/// other ends.)
const BY_NAME: [&str; 11] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "<|end_of_text|>",
    "<end_of_utterance>",
];

/// The pairs. No BOS is added to a text: the template alone decides, as in training.
///
/// # Errors
/// [`ExportError::Unsupported`] without an end token, where a reader would take any; or with more
/// than GGUF has room for.
pub fn to_gguf(chat: &ChatFiles) -> Result<BTreeMap<String, Gguf>> {
    let special = chat.special();
    let named = |key: &str| id_of(&chat.tokenizer, special.get(key)?);
    let ends = chat.ends();
    let [eos, eot, eom] = places(&chat.tokenizer, named("eos_token"), &ends)?;
    let mut pairs = BTreeMap::from([
        ("tokenizer.ggml.add_bos_token".to_owned(), Gguf::Bool(false)),
        ("tokenizer.ggml.add_eos_token".to_owned(), Gguf::Bool(false)),
        (ENDS.to_owned(), Gguf::Array(ends.into_iter().map(Gguf::U32).collect())),
    ]);
    let of = [
        ("bos", named("bos_token")),
        ("padding", named("pad_token")),
        ("eos", eos),
        ("eot", eot),
        ("eom", eom),
    ];
    pairs.extend(of.into_iter().filter_map(|(key, id)| Some((id_key(key), Gguf::U32(id?)))));
    Ok(pairs)
}

fn id_key(which: &str) -> String {
    format!("tokenizer.ggml.{which}_token_id")
}

/// Which end goes where: `[eos, eot, eom]`.
fn places(tokenizer: &Value, stated: Option<u32>, ends: &[u32]) -> Result<[Option<u32>; 3]> {
    let eos = stated.or(ends.first().copied());
    let named =
        |id: u32, names: &[&str]| text_of(tokenizer, id).is_some_and(|text| names.contains(&text));
    let turn = ends.iter().copied().find(|id| named(*id, &TURN_ENDS));
    let mut others = ends.iter().copied().filter(|id| Some(*id) != eos && !named(*id, &BY_NAME));
    let eom = others.next();
    let eot = turn.filter(|id| Some(*id) != eos).or_else(|| others.next()).or(eos);
    match (eos, others.next()) {
        (None, _) => Err(ExportError::Unsupported(
            "no token ends an answer, and readers of GGUF would take any for one: name it in the base's \
             generation_config.json as `eos_token_id`"
                .into(),
        )),
        (_, Some(left)) => Err(ExportError::Unsupported(format!(
            "token {left} (`{}`) ends an answer, and GGUF has no place left to say so: take it out of `eos_token_id` in \
             the base's generation_config.json, or export as GPTQ",
            text_of(tokenizer, left).unwrap_or("no token")
        ))),
        (Some(_), None) => Ok([eos, eot, eom]),
    }
}

/// tokenizer_config.json's special tokens and generation_config.json, as far as a file says them.
pub(super) fn from_gguf(metadata: &BTreeMap<String, Gguf>) -> (Value, Value) {
    let tokens = metadata
        .get("tokenizer.ggml.tokens")
        .and_then(|t| t.to_vec().ok())
        .map_or(&[][..], Vec::as_slice);
    let id = |key: &str| metadata.get(&id_key(key)).and_then(|v| v.to_u64().ok());
    let token = |key: &str| tokens.get(usize::try_from(id(key)?).ok()?)?.to_string().ok();
    let settings = json!({ "bos_token": token("bos"), "eos_token": token("eos"), "pad_token": token("padding") });
    let stated = metadata.get(ENDS).and_then(|ends| ends.to_vec().ok());
    let stated = stated.map(|ends| ends.iter().filter_map(|id| id.to_u64().ok()).collect());
    let mut ends: Vec<u64> = stated.unwrap_or_else(|| {
        let keyed = ["eos", "eot", "eom"].into_iter().filter_map(id);
        keyed.chain(by_name(tokens)).collect()
    });
    ends.sort_unstable();
    ends.dedup();
    (settings, json!({ "eos_token_id": ends }))
}

fn by_name(tokens: &[Gguf]) -> impl Iterator<Item = u64> + '_ {
    let is_end =
        |token: &Gguf| token.to_string().is_ok_and(|text| BY_NAME.contains(&text.as_str()));
    (0..).zip(tokens).filter(move |(_, token)| is_end(token)).map(|(id, _)| id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Tokens by their position.
    fn chat(texts: &[&str], settings: Value, ends: Value) -> ChatFiles {
        let added: Vec<Value> = texts
            .iter()
            .enumerate()
            .map(|(id, text)| json!({"id": id, "content": text, "special": true}))
            .collect();
        let tokenizer = json!({"added_tokens": added, "model": {"vocab": {}}});
        ChatFiles::of_parts(
            tokenizer,
            "",
            settings,
            json!({"eos_token_id": ends}),
            Path::new("x.json"),
        )
        .unwrap()
    }

    fn keys(texts: &[&str], eos: &str, ends: Value) -> Result<Vec<Option<u32>>> {
        let pairs = to_gguf(&chat(texts, json!({"eos_token": {"content": eos}}), ends))?;
        Ok(["eos", "eot", "eom"]
            .map(|k| pairs.get(&id_key(k)).map(|v| v.to_u32().unwrap()))
            .to_vec())
    }

    #[test]
    fn every_end_has_a_place_or_is_known_by_name() {
        let texts = ["<a>", "<b>", "<c>", "<d>", "<|eot_id|>", "<|end_of_text|>"];
        assert_eq!(keys(&texts, "<a>", json!(0)).unwrap(), [Some(0), Some(0), None]);
        assert_eq!(keys(&texts, "<a>", json!([0, 1, 2])).unwrap(), [Some(0), Some(2), Some(1)]);
        assert_eq!(keys(&texts, "<a>", json!([0, 1, 4, 5])).unwrap(), [Some(0), Some(4), Some(1)]);
        assert_eq!(keys(&texts, "<|eot_id|>", json!([4, 5])).unwrap(), [Some(4), Some(4), None]);
        assert_eq!(
            keys(&texts, "<|eot_id|>", json!([0, 1, 4, 5])).unwrap(),
            [Some(4), Some(1), Some(0)]
        );
        assert_eq!(keys(&texts, "absent", json!([2])).unwrap(), [Some(2), Some(2), None]);
        let error = keys(&texts, "<a>", json!([0, 1, 2, 3])).unwrap_err().to_string();
        assert!(error.contains("`<d>`") && error.contains("generation_config.json"), "{error}");
        assert!(
            keys(&texts, "absent", json!([])).unwrap_err().to_string().contains("eos_token_id")
        );
    }

    #[test]
    fn our_files_say_exactly_which_tokens_end_an_answer_and_others_by_name() {
        let texts = ["<s>", "<b>", "<|eot_id|>", "<|end_of_text|>"];
        let settings = json!({"bos_token": "<s>", "eos_token": "<b>"});
        let mut pairs = to_gguf(&chat(&texts, settings, json!([1]))).unwrap();
        let texts = texts.map(|t| Gguf::String(t.into())).to_vec();
        pairs.insert("tokenizer.ggml.tokens".into(), Gguf::Array(texts));
        let (read, generation) = from_gguf(&pairs);
        assert_eq!(read, json!({"bos_token": "<s>", "eos_token": "<b>", "pad_token": null}));
        assert_eq!(generation, json!({"eos_token_id": [1]}));
        pairs.remove(ENDS);
        assert_eq!(from_gguf(&pairs).1, json!({"eos_token_id": [1, 2, 3]}));
    }
}
