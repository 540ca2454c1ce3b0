//! How models that reason write their reasoning: in channels (gpt-oss) or between tags (Qwen3, R1).

use super::files::id_of;
use super::vocabulary::TokenBytes;
use serde_json::Value;

/// How a model writes reasoning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reasoning {
    /// It does not.
    None,
    /// Between tags.
    Think(Think),
    /// In channels of its own (OpenAI's harmony format).
    Channels(Channels),
}

/// Tags around reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Think {
    pub open: &'static str,
    pub close: &'static str,
}

/// Known tags.
const TAGS: [Think; 3] = [
    Think { open: "<think>", close: "</think>" },
    Think { open: "[THINK]", close: "[/THINK]" },
    Think { open: "<seed:think>", close: "</seed:think>" },
];

/// The control tokens of the harmony format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Channels {
    /// Begins a message's header.
    pub start: u32,
    /// Begins the channel's name in the header.
    pub channel: u32,
    /// Ends the header.
    pub message: u32,
    /// Ends a message that another one follows.
    pub end: u32,
}

impl Reasoning {
    /// Told by the template, and for channels by the vocabulary.
    pub fn of(template: &str, tokenizer: &Value, bytes: &[TokenBytes]) -> Self {
        let control = |token| {
            let id = id_of(tokenizer, token)?;
            (bytes.get(id as usize) == Some(&TokenBytes::Special)).then_some(id)
        };
        let channels = || {
            let [start, channel, message, end] =
                ["<|start|>", "<|channel|>", "<|message|>", "<|end|>"].map(control);
            Some(Channels { start: start?, channel: channel?, message: message?, end: end? })
        };
        if let Some(channels) = channels().filter(|_| template.contains("<|channel|>")) {
            return Self::Channels(channels);
        }
        let written = |tags: &&Think| template.contains(tags.open) || template.contains(tags.close);
        let known = |tags: &&Think| {
            id_of(tokenizer, tags.open).is_some() && id_of(tokenizer, tags.close).is_some()
        };
        let found = TAGS.iter().find(written).or_else(|| TAGS.iter().find(known));
        found.map_or(Self::None, |tags| Self::Think(*tags))
    }

    /// The tags, if it is these.
    pub fn think(&self) -> Option<&Think> {
        match self {
            Self::Think(think) => Some(think),
            _ => None,
        }
    }
}

impl Think {
    /// Whether reasoning is open at the end of `text`.
    pub fn is_open(&self, text: &str) -> bool {
        match (text.rfind(self.open), text.rfind(self.close)) {
            (Some(open), Some(close)) => open > close,
            (open, _) => open.is_some(),
        }
    }

    /// What closes reasoning that is open at the end of `text`, without a word: `<think>`, an empty
    /// line, `</think>`, an empty line, as Qwen3's template writes it. Empty where none is open.
    pub fn closing(&self, text: &str) -> String {
        let Some((_, inside)) = text.rsplit_once(self.open).filter(|_| self.is_open(text)) else {
            return String::new();
        };
        let gap = "\n\n";
        let rest = gap.strip_prefix(inside).unwrap_or_default();
        format!("{rest}{}{gap}", self.close)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opened_reasoning_is_closed_empty() {
        let think = TAGS[0];
        for (text, closing) in [
            ("<think>\n", "\n</think>\n\n"),
            ("<think>", "\n\n</think>\n\n"),
            ("<think>\n\n", "</think>\n\n"),
            ("<think>\nWell,", "</think>\n\n"),
            ("<think>\n\n</think>\n\n", ""),
            ("<|assistant|>", ""),
            ("</think><think>\n", "\n</think>\n\n"),
        ] {
            assert_eq!(think.closing(text), closing, "{text:?}");
        }
    }
}
