//! What answers: our own engine, or an installed llama.cpp.

use super::llama_cpp::{self, LlamaCpp};
use super::shown::Shown;
use crate::args::ChatArgs;
use crate::error::{CliError, Exit, Result};
use crate::models;
use serde::Serialize;
use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};
use uspx_model::chat::{Chat, Reply, ReplyPart, Turn};
use uspx_model::generate::{Choice, generate, sampler};
use uspx_model::{LoadedModel, ModelError};
use uspx_runtime::Shutdown;

/// An answer, for `--json`.
#[derive(Serialize, Default)]
pub struct Answer {
    /// What it says.
    pub text: String,
    /// What a model that reasons wrote before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// Its tokens.
    pub tokens: usize,
    /// Whether it ended by itself.
    pub ended: bool,
    /// Tokens per second of decoding: the time from the first token to the last, the prompt left
    /// out.
    pub tokens_per_second: f64,
    /// Tokens per second of reading the prompt.
    pub prompt_tokens_per_second: f64,
    /// `own` or `llama.cpp`.
    pub engine: &'static str,
}

/// What came of a question.
pub struct Said {
    /// The answer, or as much of it as was written before it was stopped.
    pub answer: Answer,
    /// Whether it was stopped.
    pub stopped: bool,
    /// Whether somebody still reads what is printed.
    pub is_read: bool,
}

/// What answers.
pub enum Engine {
    /// Our own.
    Own {
        /// The model.
        model: Box<LoadedModel>,
        /// How tokens are chosen.
        choice: Choice,
    },
    /// llama.cpp's server.
    LlamaCpp(Box<LlamaCpp>),
}

impl Engine {
    /// The one that is to answer, with the model at `path`.
    pub fn start(path: &Path, args: &ChatArgs, shutdown: &Shutdown) -> Result<Self> {
        if let Some(program) = llama_cpp::chosen(args, path)? {
            let server = LlamaCpp::start(&program, path, args, shutdown)?;
            return Ok(Self::LlamaCpp(Box::new(server)));
        }
        let choice = if args.temperature > 0.0 {
            sampler(args.seed, args.temperature)
        } else {
            Choice::Greedy
        };
        Ok(Self::Own { model: Box::new(models::model(path, &args.run)?), choice })
    }

    /// Its tokenizer and template.
    pub fn chat(&self) -> &Chat {
        match self {
            Self::Own { model, .. } => &model.chat,
            Self::LlamaCpp(server) => &server.chat,
        }
    }

    /// Answers the conversation so far, and prints the words: as they are made, or at the end by
    /// llama.cpp.
    pub fn answer(&mut self, turns: &[Turn], args: &ChatArgs, shutdown: &Shutdown) -> Result<Said> {
        match self {
            Self::Own { model, choice } => own(model, turns, args, choice, shutdown),
            Self::LlamaCpp(server) => by_llama_cpp(server, turns, args, shutdown),
        }
    }
}

/// An answer by llama.cpp. One that is stopped is lost whole: its words come at its end.
fn by_llama_cpp(
    server: &mut LlamaCpp,
    turns: &[Turn],
    args: &ChatArgs,
    shutdown: &Shutdown,
) -> Result<Said> {
    let engine = "llama.cpp";
    let Some(reply) = server.answer(turns, args, shutdown)? else {
        let answer = Answer { engine, ..Answer::default() };
        return Ok(Said { answer, stopped: true, is_read: true });
    };
    let mut shown = Shown::new(args.run.json);
    reply.answer.ids.iter().for_each(|id| shown.push(&server.chat, *id));
    let answer = Answer {
        text: server.chat.answer_text(&reply.answer.ids),
        reasoning: reasoning(&server.chat, &reply.answer),
        tokens: reply.answer.ids.len(),
        ended: reply.answer.ended,
        tokens_per_second: reply.decoding,
        prompt_tokens_per_second: reply.prompt,
        engine,
    };
    Ok(Said { answer, stopped: false, is_read: shown.end(&server.chat)? })
}

/// When tokens came.
struct Times {
    start: Instant,
    first: Option<Instant>,
}

/// An answer by our own engine; the words come as they are made.
fn own(
    model: &LoadedModel,
    turns: &[Turn],
    args: &ChatArgs,
    choice: &mut Choice,
    shutdown: &Shutdown,
) -> Result<Said> {
    let sequence = model.chat.conversation(turns)?;
    let (mut shown, unread) = (Shown::new(args.run.json), Cell::new(false));
    let mut watch = |site: uspx_model::taps::Site<'_>, _: &candle_core::Tensor| {
        let first = matches!(site, uspx_model::taps::Site::ResidPre { layer: 0 });
        if first && (shutdown.is_cancelled() || unread.get()) {
            Err(ModelError::Stopped)
        } else {
            Ok(None)
        }
    };
    let mut times = Times { start: Instant::now(), first: None };
    let bounds = args.run.bounds(args.max_new_tokens);
    let made = generate(model, &[&sequence], bounds, choice, &mut watch, &mut |_, id, part| {
        times.first.get_or_insert_with(Instant::now);
        if part == ReplyPart::Answer {
            shown.push(&model.chat, id);
            unread.set(shown.is_over());
        }
    });
    let (reply, stopped) = match made {
        Ok(replies) => (replies.into_iter().next(), false),
        Err(ModelError::Stopped) => {
            (Some(Reply { ids: shown.ids().to_vec(), ..Reply::default() }), true)
        }
        Err(error) => return Err(error.into()),
    };
    let reply = reply.ok_or_else(|| CliError::new(Exit::Failed, "no answer was made"))?;
    let answer = answer(model, &reply, sequence.ids.len(), &times);
    let is_read = shown.end(&model.chat)?;
    Ok(Said { answer, stopped: stopped && is_read, is_read })
}

fn answer(model: &LoadedModel, reply: &Reply, prompt: usize, times: &Times) -> Answer {
    let end = Instant::now();
    let first = times.first.unwrap_or(end);
    // The first token comes of the prompt's pass; the end of the turn takes a step like any other.
    let written = reply.reasoning.len() + reply.ids.len();
    let steps = (written + usize::from(reply.ended)).saturating_sub(1);
    Answer {
        text: model.chat.answer_text(&reply.ids),
        reasoning: reasoning(&model.chat, reply),
        tokens: reply.ids.len(),
        ended: reply.ended,
        tokens_per_second: per_second(steps, end - first),
        prompt_tokens_per_second: per_second(prompt, first - times.start),
        engine: "own",
    }
}

/// What was written before the answer; says so where it never came to one.
fn reasoning(chat: &Chat, answer: &Reply) -> Option<String> {
    if answer.unfinished {
        let written = answer.reasoning.len();
        crate::output::note(&format!(
            "the reasoning ended after {written} tokens without an answer: --max-reasoning-tokens gives it more room"
        ));
    }
    (!answer.reasoning.is_empty()).then(|| chat.decode(&answer.reasoning))
}

fn per_second(count: usize, took: Duration) -> f64 {
    if count == 0 { 0.0 } else { count as f64 / took.as_secs_f64().max(1e-9) }
}
