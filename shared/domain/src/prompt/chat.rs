//! A prompt written as a conversation, in the form of chat APIs: `{"messages": [{"role",
//! "content"}, ..]}`. The system message first; then the person and the model in turns. The last
//! answer is the reference, what the person said before it the prompt.

use super::{Exchange, Prompt};
use serde::Deserialize;
use serde_json::Value;

/// One message.
#[derive(Deserialize)]
pub(super) struct Message {
    role: String,
    content: Option<Value>,
    /// What would be lost without a word.
    tool_calls: Option<Value>,
}

/// The prompt that a conversation is; its `id` and `tags` are left empty.
///
/// # Errors
/// Why it is none, in words that name the message by its number.
pub(super) fn prompt_of(messages: Vec<Message>) -> Result<Prompt, String> {
    let mut read = Prompt::default();
    let mut turns: Vec<(Role, String)> = Vec::new();
    for (at, message) in messages.into_iter().enumerate() {
        let bad = |what: String| format!("message {}: {what}", at + 1);
        let (role, text) = message.read().map_err(bad)?;
        match (role, turns.last().map(|(role, _)| *role)) {
            (Role::System, _) if at == 0 => read.system = Some(text),
            (Role::System, _) => {
                return Err(bad("a system message stands first or nowhere".into()));
            }
            (Role::Assistant, None) => return Err(bad("an answer to nothing".into())),
            (role, Some(before)) if role == before => {
                return Err(bad(format!("a second `{}` message in a row", role.name())));
            }
            _ => turns.push((role, text)),
        }
    }
    if turns.last().is_some_and(|(role, _)| *role == Role::Assistant) {
        read.reference = turns.pop().map(|(_, text)| text);
    }
    let (_, prompt) = turns.pop().ok_or("`messages` has none of the role `user`")?;
    read.prompt = prompt;
    read.earlier = exchanges(turns);
    Ok(read)
}

/// Turns that alternate, the person's first.
fn exchanges(turns: Vec<(Role, String)>) -> Vec<Exchange> {
    let mut texts = turns.into_iter().map(|(_, text)| text);
    std::iter::from_fn(|| Some(Exchange { user: texts.next()?, assistant: texts.next()? }))
        .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    System,
    User,
    Assistant,
}

impl Role {
    fn of(name: &str) -> Option<Self> {
        match name {
            "system" | "developer" => Some(Self::System),
            "user" => Some(Self::User),
            "assistant" => Some(Self::Assistant),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

impl Message {
    fn read(self) -> Result<(Role, String), String> {
        let role = Role::of(&self.role).ok_or_else(|| {
            format!("the role `{}` is none of system, user and assistant", self.role)
        })?;
        if self.tool_calls.is_some_and(|calls| !calls.is_null()) {
            return Err("it calls tools, which no prompt here can say".to_owned());
        }
        let text = text_of(self.content)?;
        if text.trim().is_empty() && role != Role::System {
            return Err("its `content` is empty".to_owned());
        }
        Ok((role, text))
    }
}

/// Content as a text, or as parts that are all text.
fn text_of(content: Option<Value>) -> Result<String, String> {
    match content {
        Some(Value::String(text)) => Ok(text),
        Some(Value::Array(parts)) => parts.iter().map(text_part).collect(),
        None | Some(Value::Null) => Err("it has no `content`".to_owned()),
        Some(_) => Err("its `content` is neither text nor a list of parts".to_owned()),
    }
}

fn text_part(part: &Value) -> Result<&str, String> {
    let of = |key: &str| part.get(key).and_then(Value::as_str);
    match (of("type"), of("text")) {
        (Some("text"), Some(text)) => Ok(text),
        (kind, _) => Err(format!(
            "a part of its `content` is {}, and only text can be read",
            kind.map_or_else(|| "nameless".to_owned(), |kind| format!("`{kind}`"))
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(messages: Value) -> Result<Prompt, String> {
        prompt_of(serde_json::from_value(messages).unwrap())
    }

    fn says(role: &str, content: impl Into<Value>) -> Value {
        json!({"role": role, "content": content.into()})
    }

    #[test]
    fn the_last_answer_is_the_reference_and_nothing_before_it_is_lost() {
        let parts = json!([{"type": "text", "text": "by "}, {"type": "text", "text": "size"}]);
        let whole = read(json!([
            says("system", "be short"),
            says("user", "list"),
            says("assistant", "ls"),
            says("user", parts),
            says("assistant", "ls -S"),
        ]))
        .unwrap();
        let wanted = Prompt {
            prompt: "by size".into(),
            reference: Some("ls -S".into()),
            system: Some("be short".into()),
            earlier: vec![Exchange { user: "list".into(), assistant: "ls".into() }],
            ..Prompt::default()
        };
        assert_eq!(whole, wanted);
        let open = read(json!([says("user", "list"), says("assistant", "ls"), says("user", "x")]));
        let Prompt { prompt, reference, earlier, system, .. } = open.unwrap();
        assert_eq!((prompt.as_str(), reference, system, earlier.len()), ("x", None, None, 1));
    }

    #[test]
    fn what_cannot_be_carried_is_refused_by_its_number() {
        let user = || says("user", "x");
        let image = json!([{"type": "image_url", "image_url": {"url": "x"}}]);
        let calls = json!({"role": "assistant", "content": "x", "tool_calls": [{}]});
        for (messages, words) in [
            (json!([]), "none of the role `user`"),
            (json!([says("system", "x")]), "none of the role `user`"),
            (json!([says("assistant", "x")]), "message 1: an answer to nothing"),
            (json!([user(), says("system", "x")]), "message 2: a system message stands first"),
            (json!([user(), user()]), "message 2: a second `user`"),
            (json!([user(), says("tool", "x")]), "message 2: the role `tool`"),
            (json!([user(), says("assistant", " ")]), "message 2: its `content` is empty"),
            (json!([user(), calls]), "message 2: it calls tools"),
            (json!([says("user", image)]), "message 1: a part of its `content` is `image_url`"),
            (json!([says("user", Value::Null)]), "message 1: it has no `content`"),
            (json!([says("user", 7)]), "message 1: its `content` is neither"),
        ] {
            let error = read(messages).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
