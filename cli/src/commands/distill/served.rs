//! A teacher that a server runs: an OpenAI-compatible endpoint.

use super::label::Teacher;
use crate::args::{DistillArgs, TEACHER_KEY};
use crate::error::{CliError, Exit, Result};
use crate::progress::Bar;
use tokio::runtime::Runtime;
use uspx_distill::answers::Answers;
use uspx_distill::quality::Sieve;
use uspx_distill::{Labels, Target};
use uspx_domain::{Answering, Prompt, Skipped};
use uspx_endpoint::{Endpoint, EndpointError, Patience, Settings};
use uspx_model::ModelError;
use uspx_runtime::Shutdown;

/// As many of the likeliest tokens as servers tell.
const MOST_TOP_K: u32 = 20;

/// The endpoint, and what asks it.
pub struct Served<'a> {
    endpoint: Endpoint,
    runtime: Runtime,
    args: &'a DistillArgs,
    shutdown: &'a Shutdown,
}

impl<'a> Served<'a> {
    /// The server that the flags name; it is not asked yet.
    pub fn of(args: &'a DistillArgs, shutdown: &'a Shutdown) -> Result<Self> {
        let settings = Settings {
            url: args.served.teacher_url.clone().unwrap_or_default(),
            model: args.served.teacher_model.clone().unwrap_or_default(),
            key: std::env::var(TEACHER_KEY).ok().filter(|key| !key.is_empty()),
            at_once: args.served.teacher_requests,
            top_k: args.top_k.min(MOST_TOP_K),
            patience: Patience::default(),
        };
        let endpoint = Endpoint::new(settings).map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| CliError::new(Exit::Failed, e))?;
        Ok(Self { endpoint, runtime, args, shutdown })
    }
}

impl Teacher for Served<'_> {
    fn target(&self) -> Target {
        // Its own answers come with probabilities, and references cannot.
        Target::Teacher
    }

    fn lessons(
        &self,
        prompts: &[Prompt],
        how: &Answering,
        what_for: &str,
    ) -> Result<(Labels, Vec<Skipped>)> {
        let bar = Bar::new(&format!("asking, {what_for}"), self.args.run.json, self.shutdown);
        let asking = self.args.asking(how, usize::MAX);
        let mut said = self.runtime.block_on(async {
            tokio::select! {
                said = self.endpoint.answers(prompts, &asking, &bar) => said.map_err(failed),
                () = self.shutdown.cancelled() => Err(ModelError::Stopped.into()),
            }
        })?;
        bar.finish();
        let (kept, doubted) = Sieve::of(how).answers(std::mem::take(&mut said.answers));
        let lessons = kept.into_iter().flat_map(Answers::lessons).collect();
        let labels = said.labels(lessons);
        Ok((labels, said.skipped.into_iter().chain(doubted).collect()))
    }

    fn dreamt(&self, prompts: &[Prompt]) -> Result<Vec<Prompt>> {
        // The API cannot go on with a user's turn.
        Ok(prompts.to_vec())
    }
}

/// An endpoint's trouble, with the exit code of its kind.
fn failed(error: EndpointError) -> CliError {
    let exit = match &error {
        EndpointError::Address(_) | EndpointError::KeyCharacters => Exit::Usage,
        EndpointError::Client(_) => Exit::Failed,
        EndpointError::Unreachable { .. } => Exit::Unreachable,
        EndpointError::Key { .. } => Exit::Refused,
        EndpointError::NotThere { .. } => Exit::NotFound,
        EndpointError::Malformed { .. } => Exit::BadInput,
        EndpointError::Model(_) => Exit::Interrupted,
    };
    let key = matches!(error, EndpointError::Key { .. } | EndpointError::KeyCharacters);
    let failed = match error {
        EndpointError::Model(error) => error.into(),
        error => CliError::new(exit, error),
    };
    if key { failed.help(format!("set {TEACHER_KEY} to the server's API key")) } else { failed }
}
