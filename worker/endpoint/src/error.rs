//! What can go wrong between a prompt and a served teacher's answer.

use uspx_model::ModelError;

/// Every error of this crate. None of them quotes a prompt, a key, or what a server says: a server may
/// quote both.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The address is none.
    #[error(
        "the teacher's address cannot be used: {0}. It is what the server's paths follow, http://127.0.0.1:8080/v1 say"
    )]
    Address(String),
    /// The key cannot be sent.
    #[error("the teacher's API key has characters that no HTTP header can carry: set it anew")]
    KeyCharacters,
    /// The HTTP client cannot be made.
    #[error("no HTTP client can be made here: {0}")]
    Client(String),
    /// Nobody answers, or only with errors of the server's.
    #[error(
        "{url} does not answer after {tries} tries: {cause}. Is the server up, its model loaded, and the address right?"
    )]
    Unreachable {
        /// What was asked.
        url: String,
        /// How often.
        tries: usize,
        /// The last cause.
        cause: String,
    },
    /// The server wants another key.
    #[error("{url} answers {status}: it wants an API key, or another one")]
    Key {
        /// What was asked.
        url: String,
        /// 401 or 403.
        status: u16,
    },
    /// No such path or model.
    #[error(
        "{url} answers 404: check the address (most end in /v1) and the model's name, `{model}` (GET …/models lists them)"
    )]
    NotThere {
        /// What was asked.
        url: String,
        /// Whom.
        model: String,
    },
    /// An answer that no OpenAI-compatible server gives.
    #[error(
        "{url} answers what is no chat completion ({why}): is it an OpenAI-compatible server, and the address right?"
    )]
    Malformed {
        /// What was asked.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The keeper stopped the work.
    #[error(transparent)]
    Model(#[from] ModelError),
}
