//! Which answers `uspx distill` has a student learn, and whose.

use super::positive;
use clap::{Args, ValueEnum};
use uspx_domain::Answering;

/// Where the API key of a served teacher is looked for: a flag would stand in the list of processes.
pub const TEACHER_KEY: &str = "USPX_TEACHER_API_KEY";

/// A teacher that a server runs.
#[derive(Args, Debug)]
pub struct ServedArgs {
    /// Instead of --teacher: an OpenAI-compatible server that runs it (llama-server, Ollama, vLLM, a
    /// provider), http://127.0.0.1:8080/v1 say. Its answers are learned, with the probabilities of their
    /// tokens where it tells them. An API key is read from USPX_TEACHER_API_KEY. It cannot be masked, nor
    /// read what it did not write, and tells its likeliest tokens alone: no dreams, no --on-policy, and no --sampled.
    #[arg(
        long,
        value_name = "URL",
        requires = "teacher_model",
        conflicts_with_all = ["teacher", "mask", "folders", "dreams", "on_policy", "sampled", "max_reference_nats"]
    )]
    pub teacher_url: Option<String>,
    /// The teacher's name on that server.
    #[arg(long, value_name = "NAME", requires = "teacher_url")]
    pub teacher_model: Option<String>,
    /// Requests to that server under way at a time.
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 4, requires = "teacher_url")]
    pub teacher_requests: usize,
}

/// What is learned of each prompt.
#[derive(Args, Debug)]
pub struct AnswerArgs {
    /// Which answer is learned of a prompt that has a reference [default: the reference; with
    /// --teacher-url the teacher's, as a server cannot label a reference: its text alone is learned].
    #[arg(long, value_enum)]
    pub target: Option<Target>,
    /// Answers sampled from the teacher to each prompt to learn, learned beside the target where they
    /// say something else.
    #[arg(long, default_value_t = 0, value_name = "K")]
    pub samples: u32,
    /// Temperature of these samples: at 1 they are the teacher's own distribution.
    #[arg(long, default_value_t = 1.0, value_name = "T")]
    pub sample_temperature: f64,
    /// Learn only answers that at least this share of the samples give, 0 to 1. The teacher's own answer
    /// gives way to the one that most samples give.
    #[arg(long, value_name = "SHARE", value_parser = share, requires = "samples")]
    pub min_consistency: Option<f32>,
    /// Leave references out that the teacher finds unlikelier than this, in nats per byte.
    #[arg(long, value_name = "NATS")]
    pub max_reference_nats: Option<f32>,
}

impl AnswerArgs {
    /// All of it; `target` where the flags name none.
    pub fn answering(&self, target: uspx_domain::Target) -> Answering {
        Answering {
            target: self.target.map_or(target, Into::into),
            samples: self.samples,
            temperature: self.sample_temperature,
            min_consistency: self.min_consistency,
            max_reference_nats: self.max_reference_nats,
        }
    }
}

/// A share, as people write it.
pub fn share(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        Ok(_) => Err("0 to 1 are possible".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// See [`uspx_domain::Target`].
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The reference
    Reference,
    /// What the teacher answers itself
    Teacher,
    /// Both, each a lesson of its own
    Both,
}

impl From<Target> for uspx_domain::Target {
    fn from(target: Target) -> Self {
        match target {
            Target::Reference => Self::Reference,
            Target::Teacher => Self::Teacher,
            Target::Both => Self::Both,
        }
    }
}
