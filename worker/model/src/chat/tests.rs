//! What the folder's files mean together, on the shipped models and on changed copies of them.

mod folders;

use super::*;
use serde_json::{Value, json};

fn nano(which: &str) -> Chat {
    Chat::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/nano").join(which))
        .unwrap()
}

/// From the text of a tokenizer.json, a template and tokenizer_config.json.
fn chat_of(tokenizer: &str, template: &str, settings: &Value) -> Chat {
    let (tokenizer, file) = (serde_json::from_str(tokenizer).unwrap(), Path::new("tokenizer.json"));
    Chat::of(
        &ChatFiles::of_parts(tokenizer, template, settings.clone(), Value::Null, file).unwrap(),
    )
    .unwrap()
}

fn prompt(text: &str) -> Prompt {
    Prompt { id: "p".into(), prompt: text.into(), ..Prompt::default() }
}

#[test]
fn the_answer_begins_after_the_opening_of_its_channel() {
    for which in ["teacher", "student"] {
        let chat = nano(which);
        let open = chat.sequence(&prompt("List files"), None).unwrap();
        let whole = chat.sequence(&prompt("List files"), Some("ls -l")).unwrap();
        assert_eq!(&whole.ids[..whole.response_start], &open.ids[..]);
        assert_eq!(chat.decode(&whole.ids[whole.response_start..]), "ls -l");
        assert!(chat.ends().contains(whole.ids.last().unwrap()));
    }
}

#[test]
fn what_was_said_before_stands_before_the_prompt() {
    let turns = [
        Turn::system("Be short"),
        Turn::user("List files"),
        Turn::assistant("find ."),
        Turn::user("By size"),
    ];
    let said = uspx_domain::Exchange { user: "List files".into(), assistant: "find .".into() };
    let (system, earlier) = (Some("Be short".into()), vec![said]);
    let later = Prompt { system, earlier, ..prompt("By size") };
    for which in ["teacher", "student"] {
        let chat = nano(which);
        let open = chat.sequence(&later, None).unwrap();
        assert_eq!(open.ids, chat.conversation(&turns).unwrap().ids);
        assert!(chat.decode(&open.ids).contains("find ."), "{which}");
        let whole = chat.answered(&later, "ls -S").unwrap().sequence;
        assert!(whole.ids.starts_with(&open.ids), "{which}");
        assert_eq!(chat.decode(&whole.ids[whole.response_start..]), "ls -S");
    }
}

#[test]
fn token_bytes_join_to_the_text() {
    let chat = nano("student");
    let text = "grep -r 'naïve\t§' ./dir | wc -l\n";
    let ids = chat.encode(text).unwrap();
    let bytes: Vec<u8> = ids
        .iter()
        .flat_map(|id| match chat.token(*id) {
            TokenBytes::Text(b) => b.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(bytes, text.as_bytes());
}

#[test]
fn a_template_that_opens_a_channel_only_with_the_answer_counts_it_as_prompt() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/nano/teacher");
    let tokenizer = std::fs::read_to_string(folder.join("tokenizer.json")).unwrap();
    let template = "{% for m in messages %}<|start|>{{ m.role }}{% if m.role == 'assistant' %}<|channel|>final{% endif %}\
         <|message|>{{ m.content | trim }}{% if m.role == 'assistant' %}<|return|>\n{% else %}<|end|>{% endif %}{% endfor %}\
         {% if add_generation_prompt %}<|start|>assistant{% endif %}";
    let chat = chat_of(&tokenizer, template, &json!({"eos_token": "<|return|>"}));
    let sequence = chat.sequence(&prompt("x"), Some(" ls ")).unwrap();
    let message = chat.encode("<|message|>").unwrap();
    assert_eq!(sequence.ids[sequence.response_start - 1], message[0]);
    assert_eq!(sequence.ids.last(), chat.encode("<|return|>").unwrap().first());
}

#[test]
fn a_folder_without_a_template_is_refused_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/nano/teacher");
    std::fs::copy(folder.join("tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    std::fs::write(dir.path().join("tokenizer_config.json"), "{}").unwrap();
    let error = Chat::open(dir.path()).err().unwrap().to_string();
    assert!(error.contains("chat template") && error.contains("instruct"), "{error}");
}

/// A changed copy of a shipped model's chat files.
fn changed(which: &str, change: impl Fn(&Path)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/nano").join(which);
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "config.json"]
    {
        std::fs::copy(shipped.join(name), dir.path().join(name)).unwrap();
    }
    change(dir.path());
    dir
}

fn edit(folder: &Path, name: &str, change: impl Fn(&mut Value)) {
    let path = folder.join(name);
    let mut value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

fn answered(chat: &Chat, user: &str, answer: &str) -> Answered {
    let found = chat.answered(&prompt(user), answer).unwrap();
    let open = chat.sequence(&prompt(user), None).unwrap();
    assert!(
        found.sequence.ids.starts_with(&open.ids),
        "a conversation begins with what generation is given"
    );
    found
}

fn response(answered: &Answered) -> &[u32] {
    &answered.sequence.ids[answered.sequence.response_start..]
}

/// Templates that open a channel or an empty think block only with the answer: "a" stands in
/// "channel", "hi" in "think".
#[test]
fn an_answer_is_never_found_in_what_opens_its_turn() {
    let channel = "{%- for m in messages -%}{{ '<|start|>' + m['role'] + ('<|channel|>final' if m['role']=='assistant' else '') + \
        '<|message|>' + m['content'] + ('<|return|>' if m['role']=='assistant' else '<|end|>') }}{%- endfor -%}\
        {%- if add_generation_prompt -%}<|start|>assistant{%- endif -%}";
    let think = "{%- for m in messages -%}{{ '<|start|>' + m['role'] + '<|message|>' }}\
        {%- if m['role'] == 'assistant' -%}{{ '<think>\\n\\n</think>\\n\\n' + m['content'] + '<|return|>' }}\
        {%- else -%}{{ m['content'] + '<|end|>' }}{%- endif -%}{%- endfor -%}\
        {%- if add_generation_prompt -%}{{ '<|start|>assistant<|message|>' }}{%- endif -%}";
    for (template, opening) in
        [(channel, "<|channel|>final<|message|>"), (think, "<think>\n\n</think>\n\n")]
    {
        let folder = changed("teacher", |folder| {
            std::fs::write(folder.join("chat_template.jinja"), template).unwrap()
        });
        let chat = Chat::open(folder.path()).unwrap();
        for answer in ["a", "hi", "final", "think", "channel", "message", "return", "x a x"] {
            let found = answered(&chat, "Say it", answer);
            let wanted = chat.encode(&format!("{answer}<|return|>")).unwrap();
            assert_eq!(response(&found), wanted, "{answer}");
            let open = chat.sequence(&prompt("Say it"), None).unwrap().ids.len();
            assert_eq!(
                found.sequence.ids[open..found.sequence.response_start],
                chat.encode(opening).unwrap()
            );
        }
    }
}

#[test]
fn reasoning_that_the_generation_prompt_opens_is_closed_empty() {
    let template = "{%- for m in messages -%}{{ '<|start|>' + m.role + '<|message|>' + m.content.split('</think>')[-1] + \
        ('<|return|>' if m.role == 'assistant' else '<|end|>') }}{%- endfor -%}\
        {%- if add_generation_prompt -%}{{ '<|start|>assistant<|message|><think>\\n' }}{%- endif -%}";
    let folder = changed("teacher", |folder| {
        std::fs::write(folder.join("chat_template.jinja"), template).unwrap()
    });
    let mut chat = Chat::open(folder.path()).unwrap();
    // Words of the person are not structure.
    for user in ["List files", "What does <think> mean?", "</think>"] {
        let open = chat.sequence(&prompt(user), None).unwrap().ids;
        let closed = answered(&chat, user, "ls");
        assert_eq!(chat.decode(&closed.sequence.ids[open.len()..]), "\n</think>\n\nls");
        assert_eq!(response(&closed), chat.encode("ls<|return|>").unwrap());
    }
    chat.set_opened_reasoning(OpenedReasoning::Open);
    let open = chat.sequence(&prompt("List files"), None).unwrap().ids;
    assert_eq!(answered(&chat, "List files", "ls").sequence.response_start, open.len());
    assert!(chat.reasons());
}

/// A SentencePiece-like BPE as Llama 2's and Mixtral's: a space marker before a text, bytes for
/// what is unknown.
fn sentencepiece(metaspace: bool) -> Value {
    let mut vocab: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    vocab.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    vocab.extend("\u{2581}etaoinsrhldcumfpgwyINST[]/-\u{fc}\u{df}".chars().map(String::from));
    let merges = [
        ("l", "s"),
        ("\u{2581}", "ls"),
        ("f", "\u{fc}"),
        ("f\u{fc}", "r"),
        ("\u{2581}", "f\u{fc}r"),
        ("I", "N"),
    ];
    vocab.extend(merges.iter().map(|(a, b)| format!("{a}{b}")));
    let vocab: serde_json::Map<String, Value> =
        vocab.into_iter().zip(0..).map(|(t, id)| (t, json!(id))).collect();
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
    let prepend = json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u{2581}"}, spaces]});
    let special = |(id, t): (u32, &str)| json!({"id": id, "content": t, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let added = [(0, "<unk>"), (1, "<s>"), (2, "</s>")].map(special);
    let merges = merges.map(|(a, b)| json!([a, b]));
    json!({
        "version": "1.0", "truncation": null, "padding": null, "post_processor": null,
        "added_tokens": added,
        "normalizer": if metaspace { Value::Null } else { prepend },
        "pre_tokenizer": if metaspace { json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first", "split": false}) } else { Value::Null },
        "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "vocab": vocab, "merges": merges},
    })
}

const MISTRAL: &str = "{{ bos_token }}{% for m in messages %}{% if m['role']=='user' %}{{ ' [INST] ' + m['content'] + ' [/INST]' }}\
    {% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}";

#[test]
fn no_space_marker_is_gained_at_the_seam() {
    let settings = json!({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"});
    for metaspace in [false, true] {
        let json = sentencepiece(metaspace).to_string();
        let chat = chat_of(&json, MISTRAL, &settings);
        for (answer, pieces) in [
            ("ls", vec![" ls"]),
            ("f\u{fc}r", vec![" f\u{fc}r"]),
            ("\u{e6}", vec!["", "\u{fffd}", "\u{fffd}"]),
            ("a", vec!["a"]),
        ] {
            let found = answered(&chat, "List", answer);
            // The whole is what transformers makes of the whole text, and the answer is all there.
            let whole = chat.encode(&format!("<s> [INST] List [/INST] {answer}</s>")).unwrap();
            assert_eq!((&found.sequence.ids, &found.seam), (&whole, &None), "{answer}");
            let ids = response(&found);
            assert_eq!(ids.last(), Some(&2));
            assert_eq!(chat.answer_text(&ids[..ids.len() - 1]), *answer);
            let shared = pieces[0].starts_with(' ');
            assert_eq!(
                (ids.len() - 1, found.lead.as_slice()),
                (
                    pieces.iter().filter(|p| !p.is_empty()).count(),
                    if shared { &b" "[..] } else { b"" }
                )
            );
        }
        assert_eq!(chat.encode_continuing("ls").unwrap().len(), 1);
        assert_eq!(chat.token(chat.encode("\u{e6}").unwrap()[1]), &TokenBytes::Text(vec![0xc3]));
    }
}

#[test]
fn where_letters_join_over_the_seam_the_ids_in_use_count_and_it_is_told() {
    let template = "{% for m in messages %}{{ m.content }}{% endfor %}{{ eos_token if not add_generation_prompt }}";
    let folder = changed("student", |folder| {
        std::fs::write(folder.join("chat_template.jinja"), template).unwrap()
    });
    let chat = Chat::open(folder.path()).unwrap();
    // "l" and "s" are one token of the whole text; in use the model has read the one and has to
    // emit the other.
    let found = answered(&chat, "cd; l", "s");
    let seam = found.seam.as_ref().unwrap();
    assert_eq!(
        (chat.decode(&seam.used), chat.decode(&seam.joint)),
        ("; ls".to_owned(), "; ls".to_owned())
    );
    assert_eq!(response(&found), chat.encode("s<|eot_id|>").unwrap());
    assert_eq!(answered(&nano("student"), "Say it", "ls").seam, None);
}
