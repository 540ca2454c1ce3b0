//! SentencePiece's BPE (Llama 2, Mistral) from a GGUF file's tokens and scores, as a
//! tokenizer.json.
//!
//! SentencePiece joins, again and again, the neighbours whose joined piece has the highest score. A
//! tokenizer.json has a list of merges instead: every way to split a piece into two pieces, in the
//! order of the scores, which is how transformers converts these tokenizers. Spaces are `▁`; what
//! no piece covers falls back to byte pieces `<0x..>`.

use super::token::{Token, UNKNOWN, tables};
use serde_json::{Value, json};
use std::collections::HashMap;

/// SentencePiece's space.
const SPACE: &str = "\u{2581}";

/// A tokenizer.json. `prefix`: a text begins as if a space stood before it.
pub(super) fn tokenizer_json(tokens: &[Token<'_>], scores: &[f32], prefix: bool) -> Value {
    // Control tokens too: they stand before the pieces, and one that the vocabulary lacks would get
    // the id of a piece.
    let (vocab, added) = tables(tokens, |_| true);
    let unknown = tokens.iter().find(|t| t.kind == UNKNOWN).map(|t| t.text);
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let begin = json!({"type": "Prepend", "prepend": SPACE});
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": if prefix { vec![begin, spaces] } else { vec![spaces] }},
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocab, "merges": merges(tokens, scores),
        },
    })
}

fn merges(tokens: &[Token<'_>], scores: &[f32]) -> Vec<Value> {
    let pieces: HashMap<&str, usize> = tokens
        .iter()
        .enumerate()
        .filter(|(_, t)| t.is_plain())
        .map(|(id, t)| (t.text, id))
        .collect();
    let mut found: Vec<(f32, usize, [&str; 2])> = Vec::new();
    for (id, (token, score)) in
        tokens.iter().zip(scores).enumerate().filter(|(_, (t, _))| t.is_plain())
    {
        // The first split is at the empty prefix, which is not a piece.
        for (at, _) in token.text.char_indices().skip(1) {
            let (left, right) = token.text.split_at(at);
            if pieces.contains_key(left) && pieces.contains_key(right) {
                found.push((*score, id, [left, right]));
            }
        }
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    found.into_iter().map(|(_, _, pair)| json!(pair)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::Tokenizer;

    /// Pieces with their scores; bytes and controls stand before them as in Llama 2.
    fn tokenizer(pieces: &[(&str, f32)]) -> Tokenizer {
        let mut texts = vec![
            ("<unk>".to_owned(), 0.0, UNKNOWN),
            ("<s>".into(), 0.0, 3),
            ("</s>".into(), 0.0, 3),
        ];
        texts.extend((0..=255u8).map(|b| (format!("<0x{b:02X}>"), 0.0, 6)));
        texts.extend(pieces.iter().map(|(text, score)| ((*text).to_owned(), *score, 1)));
        let tokens: Vec<Token<'_>> =
            texts.iter().map(|(text, _, kind)| Token { text, kind: *kind }).collect();
        let scores: Vec<f32> = texts.iter().map(|(_, score, _)| *score).collect();
        Tokenizer::from_bytes(tokenizer_json(&tokens, &scores, true).to_string()).unwrap()
    }

    #[test]
    fn the_best_scored_neighbours_join_first() {
        let pieces =
            [("ab", -1.0), ("bc", 0.0), ("\u{2581}a", -2.0), ("abc", -3.0), ("\u{2581}", -5.0)];
        let letters = [("a", -6.0), ("b", -7.0), ("c", -8.0)];
        let tokenizer = tokenizer(&[&pieces[..], &letters[..]].concat());
        let split = |text: &str| tokenizer.encode(text, false).unwrap().get_tokens().to_vec();
        // bc joins before ab could; ▁a is then left over.
        assert_eq!(split("abc"), ["\u{2581}a", "bc"]);
        assert_eq!(split("<s>ab c"), ["<s>", "\u{2581}", "ab", "\u{2581}", "c"]);
        assert_eq!(split("\u{e9}"), ["\u{2581}", "<0xC3>", "<0xA9>"]);
        let ids = tokenizer.encode("ab \u{e9}c", false).unwrap().get_ids().to_vec();
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), "ab \u{e9}c");
    }
}
