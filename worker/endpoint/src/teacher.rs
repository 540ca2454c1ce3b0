//! A served teacher answers prompts, a few at a time.

use crate::client::{Answer, Client};
use crate::message::{Request, messages};
use crate::pieces::Pieces;
use crate::reply::{Read, read};
use crate::settings::Settings;
use crate::{EndpointError, Result};
use futures::{StreamExt, stream};
use uspx_distill::answers::{Replies, gathered};
use uspx_distill::{Answers, Asking, Labels, Piece, PromptLabels};
use uspx_domain::{Digest, Fingerprint, Prompt, SkipReason, Skipped};
use uspx_model::Progress;

/// A teacher that is asked over the network.
pub struct Endpoint {
    client: Client,
    settings: Settings,
}

/// What it said.
pub struct Said {
    /// The answers, their tokens labelled where the server tells probabilities.
    pub answers: Vec<Answers>,
    /// Prompts without a target, and why.
    pub skipped: Vec<Skipped>,
    pieces: Vec<(u32, Piece)>,
    teacher: Fingerprint,
}

impl Said {
    /// Labels of `lessons`, which are some of the answers.
    pub fn labels(&self, lessons: Vec<PromptLabels>) -> Labels {
        Labels {
            teacher: self.teacher,
            // No tokenizer's: ids mean nothing here, and bytes tell everything.
            vocabulary: Digest::of(b"the vocabulary of a served teacher is not known"),
            pieces: self.pieces.clone(),
            prompts: lessons,
        }
    }
}

/// One request to be made.
#[derive(Clone, Copy)]
struct Ask<'a> {
    prompt: &'a Prompt,
    /// The number of the sample; none for the likeliest answer.
    sample: Option<u32>,
}

impl Endpoint {
    /// A teacher; nothing is asked yet.
    ///
    /// # Errors
    /// An address or key that cannot be used.
    pub fn new(settings: Settings) -> Result<Self> {
        Ok(Self { client: Client::new(&settings)?, settings })
    }

    /// The answers to `prompts`, as [`uspx_distill::answers::answers`] has those of a model here; `room`
    /// means nothing. `progress` counts requests.
    ///
    /// # Errors
    /// A server that cannot be used (see [`EndpointError`]), or what the progress says. A prompt that
    /// the server refuses is left out.
    pub async fn answers(
        &self,
        prompts: &[Prompt],
        how: &Asking,
        progress: &dyn Progress,
    ) -> Result<Said> {
        let asks = asks(prompts, how);
        let total = asks.len() as u64;
        let requests = asks.iter().map(|ask| self.ask(*ask, how));
        let mut answers = stream::iter(requests).buffered(self.settings.at_once.max(1));
        let (mut own, mut drawn, mut pieces) = (Replies::new(), Replies::new(), Pieces::default());
        for (done, ask) in (1..).zip(&asks) {
            let Some(answer) = answers.next().await else { break };
            let said: Read = match answer? {
                Answer::Said(response) => read(ask.prompt, response, how.bounds, &mut pieces),
                Answer::Refused => Err(SkipReason::Refused),
            };
            let replies = if ask.sample.is_some() { &mut drawn } else { &mut own };
            replies.entry(ask.prompt.id.clone()).or_default().push(said);
            progress.report(done, total).map_err(EndpointError::Model)?;
        }
        let (answers, skipped) = gathered(prompts, how.target, (own, drawn));
        let name = format!("{}\n{}", self.settings.url, self.settings.model);
        let teacher = Fingerprint(Digest::of(name.as_bytes()));
        Ok(Said { answers, skipped, pieces: pieces.into_table(), teacher })
    }

    async fn ask(&self, ask: Ask<'_>, how: &Asking) -> Result<Answer> {
        let Asking { sampling, bounds, .. } = how;
        let top_k = self.settings.top_k;
        // Signed 32 bits: what every server takes.
        let seed = |n: u32| sampling.seed.wrapping_add(n.into()) & 0x7fff_ffff;
        let request = Request {
            model: &self.settings.model,
            messages: messages(ask.prompt),
            max_tokens: bounds.total(true),
            temperature: ask.sample.map_or(0.0, |_| sampling.temperature),
            top_p: 1.0,
            seed: ask.sample.map(seed),
            logprobs: (top_k > 0).then_some(true),
            top_logprobs: (top_k > 0).then_some(top_k),
        };
        self.client.chat(&request).await
    }
}

/// All requests that `prompts` need.
fn asks<'a>(prompts: &'a [Prompt], how: &Asking) -> Vec<Ask<'a>> {
    let mut asks = Vec::new();
    for prompt in prompts {
        if how.target.asks(prompt) {
            asks.push(Ask { prompt, sample: None });
        }
        asks.extend((1..=how.sampling.samples).map(|n| Ask { prompt, sample: Some(n) }));
    }
    asks
}
