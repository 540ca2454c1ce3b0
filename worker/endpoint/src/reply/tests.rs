//! Answers as servers write them.

use super::*;
use serde_json::{Value, json};

fn answered(message: Value, finish: &str, tokens: &[&str]) -> Value {
    let token = |text: &&str| json!({"token": text, "logprob": -0.5, "bytes": text.as_bytes(), "top_logprobs": []});
    let content: Vec<Value> = tokens.iter().map(token).collect();
    let logprobs = (!tokens.is_empty()).then(|| json!({"content": content}));
    json!({
        "choices": [{"message": message, "finish_reason": finish, "logprobs": logprobs}],
        "usage": {"completion_tokens": 9},
    })
}

fn read_with(value: Value, bound: usize) -> Read {
    let response = serde_json::from_value(value).unwrap();
    read(&Prompt::default(), response, Bounds::answer(bound), &mut Pieces::default())
}

fn read_of(message: Value, finish: &str, tokens: &[&str]) -> Read {
    read_with(answered(message, finish, tokens), 64)
}

#[test]
fn reasoning_is_kept_apart_however_it_is_told() {
    let thought = "<think>\nhm</think>";
    for (message, reasoning) in [
        (json!({"content": "ls"}), None),
        (json!({"content": "ls", "reasoning_content": "hm"}), Some("hm")),
        (json!({"content": "\n\nls", "reasoning": "hm"}), Some("hm")),
        (json!({"content": "ls", "reasoning_content": ""}), None),
        (json!({"content": format!("{thought}\n\nls")}), Some(thought)),
    ] {
        let found = read_of(message, "stop", &[]).unwrap();
        assert_eq!((found.reasoning.as_deref(), found.answer.as_str()), (reasoning, "ls"));
        assert!(found.ended && found.tokens.is_empty());
    }
}

#[test]
fn what_is_no_answer_has_its_reason() {
    let unfinished = SkipReason::Unfinished { tokens: 9 };
    for (message, finish, wanted) in [
        (json!({"content": "<think>hm"}), "length", unfinished),
        (json!({"content": null, "reasoning_content": "hm"}), "length", unfinished),
        (json!({"content": " \n"}), "stop", SkipReason::Empty),
        (json!({}), "stop", SkipReason::Empty),
        (json!({"content": "ls"}), "content_filter", SkipReason::Refused),
    ] {
        assert_eq!(read_of(message, finish, &[]).unwrap_err(), wanted);
    }
    assert_eq!(read_with(json!({"choices": []}), 1).unwrap_err(), SkipReason::Empty);
}

#[test]
fn an_answer_that_met_a_bound_has_not_ended() {
    let met = read_of(json!({"content": "ls -"}), "length", &["ls", " -"]).unwrap();
    assert!(!met.ended && met.tokens.len() == 2);
    let tokens = ["ls", " -", "l", "<|im_end|>"];
    let whole = || answered(json!({"content": "ls -l"}), "stop", &tokens);
    let kept = read_with(whole(), 3).unwrap();
    assert!(kept.ended && kept.tokens.len() == 4);
    let cut = read_with(whole(), 2).unwrap();
    assert_eq!((cut.answer.as_str(), cut.ended, cut.tokens.len()), ("ls -", false, 2));
}

#[test]
fn a_cut_never_splits_a_character() {
    let mut value = answered(json!({"content": "aä"}), "stop", &["a", "x", "y"]);
    let tokens = &mut value["choices"][0]["logprobs"]["content"];
    (tokens[1]["bytes"], tokens[2]["bytes"]) = (json!([0xc3]), json!([0xa4]));
    let cut = read_with(value, 2).unwrap();
    assert_eq!((cut.answer.as_str(), cut.tokens.len()), ("a", 1));
}
