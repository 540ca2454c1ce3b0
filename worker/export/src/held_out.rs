//! Conversations that every written student is held against: built in, awkward, and of no training
//! set.

use serde_json::Value;
use uspx_domain::Prompt;

/// What is asked, with or without a system message, and what is answered.
const TEXTS: [(Option<&str>, &str, &str); 16] = [
    (None, "List all files, the newest first.", "ls -lt"),
    (Some("You answer with one command."), "How large is this folder?", "du -sh ."),
    (Some(""), "An empty system message stands before this.", "Yes."),
    (Some("  Spaces around.  "), "  leading and trailing spaces  ", "  as they are  "),
    (None, "x", "a"),
    (None, "Which word opens a turn?", "assistant"),
    (None, "What is 1234567890 / 12?\t\t= ?", "102882407.5"),
    (None, "first line\r\nsecond line\r\n\r\nfourth", "one\r\ntwo\r\n"),
    (None, "\n\nlines before and after\n\n\n", "\n"),
    (
        None,
        "What do \u{1f600}\u{1f44d}\u{1f3fd} and \u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467} say?",
        "\u{1f680}",
    ),
    (None, "na\u{ef}ve, Stra\u{df}e, cafe\u{301} and caf\u{e9}", "d\u{e9}j\u{e0} vu: e\u{301}"),
    (
        None,
        "\u{65e5}\u{672c}\u{8a9e}\u{306e}\u{6587}\u{7ae0}\u{3002}\u{ff11}\u{ff12}",
        "\u{306f}\u{3044}\u{3002}",
    ),
    (
        None,
        "\u{395}\u{3bb}\u{3bb}\u{3b7}\u{3bd}\u{3b9}\u{3ba}\u{3ac}, \u{440}\u{443}\u{441}\u{441}\u{43a}\u{438}\u{439}",
        "\u{434}\u{430}",
    ),
    (
        None,
        "\u{5e2}\u{5d1}\u{5e8}\u{5d9}\u{5ea} \u{639}\u{631}\u{628}\u{64a} \u{939}\u{93f}\u{928}\u{94d}\u{926}\u{940} \u{e44}\u{e17}\u{e22}",
        "\u{5db}\u{5df}",
    ),
    (
        None,
        "if (a<b && c>d) { return \"x\\n\"; } // it's we'll they'VE I'D",
        "let x = |y| y[0] ^ !z;",
    ),
    (
        None,
        "<think>\nno\n</think> <|im_end|> </s> [INST] {{ bos_token }} {% raw %}",
        "<|end|> {# x #} [/INST]",
    ),
];

/// The conversations, named by number. The last is of the text of the tokenizer's own added tokens.
pub fn conversations(tokenizer: &Value) -> Vec<Prompt> {
    let built_in = TEXTS
        .map(|(system, prompt, answer)| (system.map(str::to_owned), prompt.to_owned(), answer));
    let added = (None, added_tokens(tokenizer), "No.");
    let named = |(at, (system, prompt, answer)): (usize, (Option<String>, String, &str))| Prompt {
        id: format!("built-in {at}"),
        prompt,
        reference: Some(answer.to_owned()),
        system,
        ..Prompt::default()
    };
    (1..).zip(built_in.into_iter().chain([added])).map(named).collect()
}

/// Every added token with and without spaces around it.
fn added_tokens(tokenizer: &Value) -> String {
    let tokens = tokenizer.get("added_tokens").and_then(Value::as_array).into_iter().flatten();
    let texts = tokens.filter_map(|token| token.get("content")?.as_str());
    texts.map(|text| format!("a{text}b {text} c")).collect()
}
