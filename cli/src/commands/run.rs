//! `uspx run`: chat with the student that was pulled, or with any model, by our own engine or an
//! installed llama.cpp.

mod llama_cpp;

use crate::args::{ChatArgs, StudentFormat};
use crate::error::{CliError, Exit, Result};
use crate::{models, output};
use llama_cpp::LlamaCpp;
use serde::Serialize;
use std::cell::Cell;
use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use uspx_model::chat::{Bounds, Chat, ReplyPart, Turn};
use uspx_model::generate::{Choice, generate, sampler};
use uspx_model::taps::NoTaps;
use uspx_model::{LoadedModel, ModelError};
use uspx_runtime::Shutdown;

/// `uspx run`.
pub fn run(args: &ChatArgs, shutdown: &Shutdown) -> Result<()> {
    let path = match &args.model {
        Some(path) => path.clone(),
        None => pulled(args.from.as_deref(), args.format)?,
    };
    let mut engine = match llama_cpp::chosen(args, &path)? {
        Some(program) => {
            Engine::LlamaCpp(Box::new(LlamaCpp::start(&program, &path, args, shutdown)?))
        }
        None => Engine::own(models::model(&path, &args.run)?, args, shutdown),
    };
    let mut turns: Vec<Turn> = args.system.iter().map(|s| Turn::system(s)).collect();
    match &args.prompt {
        Some(prompt) => {
            turns.push(Turn::user(prompt));
            match engine.answer(&turns, args)? {
                Some(answer) if args.run.json => output::json(&answer),
                _ => Ok(()),
            }
        }
        None => chat(&mut engine, turns, args),
    }
}

/// The model of the release in use.
pub fn pulled(from: Option<&Path>, format: StudentFormat) -> Result<PathBuf> {
    let folder = super::pull::students(from)?;
    let release = uspx_artifact::current(&folder)?.ok_or_else(|| {
        CliError::new(Exit::NotFound, format!("no student was pulled into {}", folder.display()))
            .help("fetch one first: uspx pull STORE-URL")
    })?;
    match format {
        StudentFormat::Gptq => Ok(release.folder.join("gptq")),
        StudentFormat::Gguf => {
            let gguf = release.manifest.files.iter().find(|f| f.path.ends_with(".gguf"));
            let gguf = gguf.ok_or_else(|| {
                CliError::new(Exit::NotFound, "this release has no GGUF file")
                    .help("use --format gptq")
            })?;
            Ok(release.folder.join(&gguf.path))
        }
    }
}

/// An answer, for `--json`.
#[derive(Serialize)]
struct Answer {
    text: String,
    /// What a model that reasons wrote before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<String>,
    tokens: usize,
    ended: bool,
    /// Tokens per second of decoding: the time from the first token to the last, the prompt left
    /// out.
    tokens_per_second: f64,
    /// Tokens per second of reading the prompt.
    prompt_tokens_per_second: f64,
    /// `own` or `llama.cpp`.
    engine: &'static str,
}

/// What answers.
enum Engine<'a> {
    Own { model: Box<LoadedModel>, choice: Choice, shutdown: &'a Shutdown },
    LlamaCpp(Box<LlamaCpp<'a>>),
}

impl<'a> Engine<'a> {
    fn own(model: LoadedModel, args: &ChatArgs, shutdown: &'a Shutdown) -> Self {
        let choice = if args.temperature > 0.0 {
            sampler(args.seed, args.temperature)
        } else {
            Choice::Greedy
        };
        Self::Own { model: Box::new(model), choice, shutdown }
    }

    /// Answers the conversation so far, and prints the words: as they are made, or at the end by
    /// llama.cpp. `None` where nobody reads them any more.
    fn answer(&mut self, turns: &[Turn], args: &ChatArgs) -> Result<Option<Answer>> {
        match self {
            Self::Own { model, choice, shutdown } => answer(model, turns, args, choice, shutdown),
            Self::LlamaCpp(server) => {
                let reply = server.answer(turns, args)?;
                let mut shown = Shown::new(args);
                reply.answer.ids.iter().for_each(|id| shown.push(&server.chat, *id));
                if !shown.end(&server.chat)? {
                    return Ok(None);
                }
                Ok(Some(Answer {
                    text: server.chat.answer_text(&reply.answer.ids),
                    reasoning: reasoning(&server.chat, &reply.answer),
                    tokens: reply.answer.ids.len(),
                    ended: reply.answer.ended,
                    tokens_per_second: reply.decoding,
                    prompt_tokens_per_second: reply.prompt,
                    engine: "llama.cpp",
                }))
            }
        }
    }
}

/// Answers the conversation so far by our own engine; the words come as they are made.
fn answer(
    model: &LoadedModel,
    turns: &[Turn],
    args: &ChatArgs,
    choice: &mut Choice,
    shutdown: &Shutdown,
) -> Result<Option<Answer>> {
    let sequence = model.chat.conversation(turns)?;
    let (mut shown, unread) = (Shown::new(args), Cell::new(false));
    let mut watch = |site: uspx_model::taps::Site<'_>, _: &candle_core::Tensor| {
        let first = matches!(site, uspx_model::taps::Site::ResidPre { layer: 0 });
        if first && (shutdown.is_cancelled() || unread.get()) {
            Err(ModelError::Stopped)
        } else {
            Ok(None)
        }
    };
    let (start, mut first) = (Instant::now(), None);
    let bounds = args.run.bounds(args.max_new_tokens);
    let answers = generate(model, &[&sequence], bounds, choice, &mut watch, &mut |_, id, part| {
        first.get_or_insert_with(Instant::now);
        if part == ReplyPart::Answer {
            shown.push(&model.chat, id);
            unread.set(shown.is_over());
        }
    });
    let end = Instant::now();
    if !shown.end(&model.chat)? {
        return Ok(None);
    }
    let ids = answers?
        .into_iter()
        .next()
        .ok_or_else(|| CliError::new(Exit::Failed, "no answer was made"))?;
    let first = first.unwrap_or(end);
    // The first token comes of the prompt's pass; the end of the turn takes a step like any other.
    let written = ids.reasoning.len() + ids.ids.len();
    let steps = (written + usize::from(ids.ended)).saturating_sub(1);
    Ok(Some(Answer {
        text: model.chat.answer_text(&ids.ids),
        reasoning: reasoning(&model.chat, &ids),
        tokens: ids.ids.len(),
        ended: ids.ended,
        tokens_per_second: per_second(steps, end - first),
        prompt_tokens_per_second: per_second(sequence.ids.len(), first - start),
        engine: "own",
    }))
}

/// What was written before the answer; says so where it never came to one.
fn reasoning(chat: &Chat, answer: &uspx_model::chat::Reply) -> Option<String> {
    if answer.unfinished {
        let written = answer.reasoning.len();
        eprintln!(
            "the reasoning ended after {written} tokens without an answer: --max-reasoning-tokens gives it more room"
        );
    }
    (!answer.reasoning.is_empty()).then(|| chat.decode(&answer.reasoning))
}

fn per_second(count: usize, took: Duration) -> f64 {
    if count == 0 { 0.0 } else { count as f64 / took.as_secs_f64().max(1e-9) }
}

/// Prints text as tokens come; a character whose bytes are not all there yet waits.
struct Shown {
    ids: Vec<u32>,
    printed: usize,
    quiet: bool,
    /// Whether somebody still reads, or why nothing more can be printed.
    reader: Result<bool>,
}

impl Shown {
    fn new(args: &ChatArgs) -> Self {
        Self { ids: Vec::new(), printed: 0, quiet: args.run.json, reader: Ok(true) }
    }

    fn push(&mut self, chat: &Chat, id: u32) {
        self.ids.push(id);
        if self.quiet {
            return;
        }
        let text = chat.answer_text(&self.ids);
        if !text.ends_with('\u{fffd}') {
            self.print(&text);
        }
    }

    fn print(&mut self, text: &str) {
        if let (false, Some(new)) = (self.quiet || self.is_over(), text.get(self.printed..)) {
            self.reader = output::piece(new);
            self.printed = text.len();
        }
    }

    /// Whether nothing more can be printed.
    fn is_over(&self) -> bool {
        !matches!(self.reader, Ok(true))
    }

    /// Ends the line; `false` where nobody reads it.
    fn end(mut self, chat: &Chat) -> Result<bool> {
        self.print(&chat.answer_text(&self.ids));
        if self.quiet || self.is_over() { self.reader } else { output::piece("\n") }
    }
}

fn chat(engine: &mut Engine<'_>, mut turns: Vec<Turn>, args: &ChatArgs) -> Result<()> {
    let input = std::io::stdin();
    let person = input.is_terminal();
    if person {
        output::note("Ctrl-D ends the chat.");
    }
    loop {
        if person {
            output::remark("> ");
        }
        let mut line = String::new();
        let read =
            input.lock().read_line(&mut line).map_err(|e| CliError::new(Exit::BadInput, e))?;
        if read == 0 {
            return Ok(());
        }
        if line.trim().is_empty() {
            continue;
        }
        turns.push(Turn::user(line.trim()));
        let Some(said) = engine.answer(&turns, args)? else { return Ok(()) };
        if args.run.json {
            output::json(&said)?;
        }
        turns.push(Turn::assistant(&said.text));
    }
}

/// Greedy answers to single prompts, for the demo's last page.
pub fn answers(
    model: &LoadedModel,
    prompts: &[uspx_domain::Prompt],
    bound: usize,
) -> Result<Vec<String>> {
    let asked = prompts
        .iter()
        .map(|p| model.chat.sequence(p, None))
        .collect::<uspx_model::Result<Vec<_>>>()?;
    let asked: Vec<_> = asked.iter().collect();
    let bounds = Bounds::answer(bound);
    let answers =
        generate(model, &asked, bounds, &mut Choice::Greedy, &mut NoTaps, &mut |_, _, _| {})?;
    Ok(answers.iter().map(|a| model.chat.answer_text(&a.ids)).collect())
}
