//! What the files of a folder mean together.

use super::*;

#[test]
fn truncation_and_padding_of_whoever_saved_the_tokenizer_are_off() {
    let whole = nano("student").sequence(&prompt(&"list ".repeat(40)), Some("ls")).unwrap();
    for (key, value) in [
        (
            "truncation",
            json!({"direction": "Right", "max_length": 16, "strategy": "LongestFirst", "stride": 0}),
        ),
        (
            "padding",
            json!({"strategy": {"Fixed": 512}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "!"}),
        ),
    ] {
        let folder =
            changed("student", |folder| edit(folder, "tokenizer.json", |t| t[key] = value.clone()));
        assert_eq!(
            Chat::open(folder.path())
                .unwrap()
                .sequence(&prompt(&"list ".repeat(40)), Some("ls"))
                .unwrap(),
            whole
        );
    }
}

/// Moves the turn markers from tokenizer.json to where `put` says.
fn without_markers(folder: &Path, put: impl Fn(&Path, &[Value])) {
    let moved = std::cell::RefCell::new(Vec::new());
    edit(folder, "tokenizer.json", |tokenizer| {
        let added = tokenizer["added_tokens"].as_array_mut().unwrap();
        // The token after them stays: numbered one after another, they would be shifted.
        let markers = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"];
        *moved.borrow_mut() = added
            .iter()
            .filter(|t| markers.contains(&t["content"].as_str().unwrap()))
            .cloned()
            .collect();
        added.retain(|t| !markers.contains(&t["content"].as_str().unwrap()));
        let vocab = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        markers.iter().for_each(|m| drop(vocab.remove(*m)));
    });
    put(folder, &moved.borrow());
}

#[test]
fn tokens_that_only_the_settings_list_are_tokens() {
    let whole = nano("student").sequence(&prompt("List files"), Some("ls")).unwrap();
    let decoder = |tokens: &[Value]| {
        tokens.iter().map(|t| (t["id"].to_string(), t.clone())).collect::<serde_json::Map<_, _>>()
    };
    let folder = changed("student", |folder| {
        without_markers(folder, |folder, t| {
            edit(folder, "tokenizer_config.json", |c| c["added_tokens_decoder"] = decoder(t).into())
        });
    });
    let chat = Chat::open(folder.path()).unwrap();
    assert_eq!(chat.sequence(&prompt("List files"), Some("ls")).unwrap(), whole);
    assert!(matches!(chat.token(*whole.ids.last().unwrap()), TokenBytes::Special));
    // The older file, and a list that contradicts the tokenizer.
    let folder = changed("student", |folder| {
        without_markers(folder, |folder, tokens| {
            let ids: serde_json::Map<_, _> = tokens
                .iter()
                .map(|t| (t["content"].as_str().unwrap().to_owned(), t["id"].clone()))
                .collect();
            std::fs::write(folder.join("added_tokens.json"), Value::from(ids).to_string()).unwrap();
        });
    });
    assert_eq!(
        Chat::open(folder.path()).unwrap().sequence(&prompt("List files"), Some("ls")).unwrap().ids,
        whole.ids
    );
    let wrong = json!({"7": {"content": "<|eot_id|>", "special": true}});
    let folder = changed("student", |folder| {
        edit(folder, "tokenizer_config.json", |c| c["added_tokens_decoder"] = wrong.clone())
    });
    let error = Chat::open(folder.path()).err().unwrap().to_string();
    assert!(
        error.contains("<|eot_id|>") && error.contains("7") && error.contains("tokenizer.json"),
        "{error}"
    );
}

#[test]
fn ends_are_the_union_of_all_files() {
    let folder = changed("student", |folder| {
        edit(folder, "generation_config.json", |g| g["eos_token_id"] = json!(2040));
        edit(folder, "config.json", |c| c["eos_token_id"] = json!([2043, 2046]));
        edit(folder, "tokenizer_config.json", |c| {
            c["eos_token"] = json!({"content": "<|end_header_id|>"})
        });
    });
    assert_eq!(Chat::open(folder.path()).unwrap().ends(), [2040, 2043, 2045, 2046]);
    std::fs::remove_file(folder.path().join("generation_config.json")).unwrap();
    assert_eq!(Chat::open(folder.path()).unwrap().ends(), [2043, 2045, 2046]);
}

#[test]
fn the_template_that_wins_is_the_one_of_transformers() {
    let named = |name: &str, text: &str| json!({"name": name, "template": text});
    let list = json!([named("tool_use", "no"), named("default", "{{ messages[0].content }}.")]);
    let folder = changed("student", |folder| {
        edit(folder, "tokenizer_config.json", |c| c["chat_template"] = list.clone())
    });
    assert_eq!(Chat::open(folder.path()).unwrap().template(), "{{ messages[0].content }}.");
    std::fs::write(folder.path().join("chat_template.jinja"), "{{ messages[0].content }}!")
        .unwrap();
    assert_eq!(Chat::open(folder.path()).unwrap().template(), "{{ messages[0].content }}!");
    std::fs::write(folder.path().join("chat_template.jinja"), "{% oops %}").unwrap();
    let error = Chat::open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("chat_template.jinja"), "{error}");
    let folder = changed("student", |folder| {
        edit(folder, "tokenizer_config.json", |c| c["chat_template"] = json!([named("x", "y")]))
    });
    let error = Chat::open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("tokenizer_config.json") && error.contains("default"), "{error}");
}

#[test]
fn a_tokenizer_that_loses_text_is_refused_with_its_file() {
    let folder = changed("student", |folder| {
        edit(folder, "tokenizer.json", |t| t["normalizer"] = json!({"type": "Lowercase"}))
    });
    let error = Chat::open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("tokenizer.json") && error.contains("Lowercase"), "{error}");
}
