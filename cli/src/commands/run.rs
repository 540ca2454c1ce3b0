//! `uspx run`: chat with the student that was pulled.

use crate::args::{ChatArgs, StudentFormat};
use crate::error::{CliError, Exit, Result};
use crate::{models, output};
use serde::Serialize;
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;
use uspx_model::LoadedModel;
use uspx_model::chat::Turn;
use uspx_model::generate::{Choice, generate, sampler};
use uspx_model::taps::NoTaps;
use uspx_runtime::Shutdown;

/// `uspx run`.
pub fn run(args: &ChatArgs, shutdown: &Shutdown) -> Result<()> {
    let path = match &args.model {
        Some(path) => path.clone(),
        None => pulled(args.from.as_deref(), args.format)?,
    };
    let model = models::model(&path, &args.run)?;
    let mut choice = match args.temperature {
        t if t > 0.0 => sampler(args.seed, t),
        _ => Choice::Greedy,
    };
    let mut turns: Vec<Turn> = args.system.iter().map(|s| Turn::system(s)).collect();
    match &args.prompt {
        Some(prompt) => {
            turns.push(Turn::user(prompt));
            let answer = answer(&model, &turns, args, &mut choice, shutdown)?;
            if args.run.json { output::json(&answer) } else { Ok(()) }
        }
        None => chat(&model, turns, args, &mut choice, shutdown),
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
                CliError::new(Exit::NotFound, "this release has no GGUF file").help("use --format gptq")
            })?;
            Ok(release.folder.join(&gguf.path))
        }
    }
}

/// An answer, for `--json`.
#[derive(Serialize)]
struct Answer {
    text: String,
    tokens: usize,
    ended: bool,
    tokens_per_second: f64,
}

/// Answers the conversation so far; on a terminal the words come as they are made.
fn answer(
    model: &LoadedModel,
    turns: &[Turn],
    args: &ChatArgs,
    choice: &mut Choice,
    shutdown: &Shutdown,
) -> Result<Answer> {
    let sequence = model.chat.conversation(turns)?;
    let mut shown = Shown { ids: Vec::new(), printed: 0, quiet: args.run.json };
    let start = Instant::now();
    let mut watch = |site: uspx_model::taps::Site<'_>, _: &candle_core::Tensor| {
        let first = matches!(site, uspx_model::taps::Site::Residual { layer: 0 });
        if first && shutdown.is_asked() { Err(uspx_model::ModelError::Stopped) } else { Ok(None) }
    };
    let answers = generate(model, &[&sequence], args.max_new_tokens, choice, &mut watch, &mut |_, id| {
        shown.push(model, id);
    })?;
    shown.end(model);
    let ids = answers.into_iter().next().ok_or_else(|| CliError::new(Exit::Failed, "no answer was made"))?;
    Ok(Answer {
        text: model.chat.decode(&ids.ids)?,
        tokens: ids.ids.len(),
        ended: ids.ended,
        tokens_per_second: ids.ids.len() as f64 / start.elapsed().as_secs_f64(),
    })
}

/// Prints text as tokens come; a character whose bytes are not all there yet waits.
struct Shown {
    ids: Vec<u32>,
    printed: usize,
    quiet: bool,
}

impl Shown {
    fn push(&mut self, model: &LoadedModel, id: u32) {
        self.ids.push(id);
        if let Ok(text) = model.chat.decode(&self.ids)
            && !text.ends_with('\u{fffd}')
        {
            self.print(&text);
        }
    }

    fn print(&mut self, text: &str) {
        if let (false, Some(new)) = (self.quiet, text.get(self.printed..)) {
            print!("{new}");
            // A closed pipe shows at the next line printed.
            let _ = std::io::stdout().flush();
            self.printed = text.len();
        }
    }

    fn end(&mut self, model: &LoadedModel) {
        if let Ok(text) = model.chat.decode(&self.ids) {
            self.print(&text);
        }
        if !self.quiet {
            println!();
        }
    }
}

fn chat(
    model: &LoadedModel,
    mut turns: Vec<Turn>,
    args: &ChatArgs,
    choice: &mut Choice,
    shutdown: &Shutdown,
) -> Result<()> {
    let input = std::io::stdin();
    let person = input.is_terminal();
    if person {
        eprintln!("Ctrl-D ends the chat.");
    }
    loop {
        if person {
            eprint!("> ");
        }
        let mut line = String::new();
        let read = input.lock().read_line(&mut line).map_err(|e| CliError::new(Exit::BadInput, e))?;
        if read == 0 {
            return Ok(());
        }
        if line.trim().is_empty() {
            continue;
        }
        turns.push(Turn::user(line.trim()));
        let said = answer(model, &turns, args, choice, shutdown)?;
        if args.run.json {
            output::json(&said)?;
        }
        turns.push(Turn::assistant(&said.text));
    }
}

/// Greedy answers to single prompts, for the demo's last page.
pub fn answers(model: &LoadedModel, prompts: &[uspx_domain::Prompt], bound: usize) -> Result<Vec<String>> {
    let asked = prompts.iter().map(|p| model.chat.sequence(p, None)).collect::<uspx_model::Result<Vec<_>>>()?;
    let asked: Vec<_> = asked.iter().collect();
    let answers = generate(model, &asked, bound, &mut Choice::Greedy, &mut NoTaps, &mut |_, _| {})?;
    Ok(answers.iter().map(|a| model.chat.decode(&a.ids)).collect::<uspx_model::Result<_>>()?)
}
