//! What is sent to a chat endpoint and what comes back, as far as it is read.

use serde::{Deserialize, Serialize};
use uspx_domain::Prompt;

/// The body of `POST /chat/completions`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Request<'a> {
    pub model: &'a str,
    pub messages: Vec<Message<'a>>,
    /// Of reasoning and answer together: the API knows one bound.
    pub max_tokens: usize,
    pub temperature: f64,
    /// All of the distribution; some servers cut it unless they are told.
    pub top_p: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<u32>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Message<'a> {
    role: &'static str,
    content: &'a str,
}

/// The turns of a prompt, what was said before included.
pub(crate) fn messages(prompt: &Prompt) -> Vec<Message<'_>> {
    let of = |role, content| Message { role, content };
    let system = prompt.system.as_deref().map(|text| of("system", text));
    let earlier =
        prompt.earlier.iter().flat_map(|e| [of("user", &e.user), of("assistant", &e.assistant)]);
    system.into_iter().chain(earlier).chain([of("user", &prompt.prompt)]).collect()
}

/// The answer's body.
#[derive(Debug, Deserialize)]
pub(crate) struct Response {
    pub choices: Vec<Choice>,
    pub usage: Option<Usage>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Usage {
    pub completion_tokens: Option<u32>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Choice {
    pub message: Written,
    pub finish_reason: Option<String>,
    pub logprobs: Option<LogProbs>,
}

/// What the model wrote. Servers that tell reasoning apart name it in one of two ways.
#[derive(Debug, Deserialize)]
pub(crate) struct Written {
    pub content: Option<String>,
    pub reasoning_content: Option<String>,
    pub reasoning: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct LogProbs {
    pub content: Option<Vec<Token>>,
}

/// A token that was written, and what else might have been.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Token {
    #[serde(flatten)]
    pub own: Candidate,
    #[serde(default)]
    pub top_logprobs: Option<Vec<Candidate>>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Candidate {
    pub token: String,
    /// In nats; none where it is minus infinity.
    pub logprob: Option<f32>,
    /// What it spells: a token need not be whole characters.
    pub bytes: Option<Vec<u8>>,
    /// Its place in the vocabulary; llama.cpp tells it.
    pub id: Option<u64>,
}

impl Candidate {
    /// What it spells. Without bytes, what its text does.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or(self.token.as_bytes())
    }
}
