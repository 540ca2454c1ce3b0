//! `uspx run`: chat with the student that was pulled, or with any model, by our own engine or an
//! installed llama.cpp.

mod chat;
mod engine;
mod llama_cpp;
mod prompter;
mod shown;
mod slash;

use crate::args::ChatArgs;
use crate::error::{CliError, Exit, Result};
use crate::output;
use engine::Engine;
use std::path::{Path, PathBuf};
use uspx_domain::ExportFormat;
use uspx_export::formats;
use uspx_model::LoadedModel;
use uspx_model::chat::{Bounds, Turn};
use uspx_model::generate::{Choice, generate};
use uspx_model::taps::NoTaps;
use uspx_runtime::Shutdown;

/// `uspx run`.
pub fn run(args: &ChatArgs, shutdown: &Shutdown) -> Result<()> {
    let path = match &args.model {
        Some(path) => path.clone(),
        None => pulled(args.from.as_deref(), args.format)?,
    };
    let mut engine = Engine::start(&path, args, shutdown)?;
    let mut turns: Vec<Turn> = args.system.iter().map(|s| Turn::system(s)).collect();
    match &args.prompt {
        Some(prompt) => {
            turns.push(Turn::user(prompt));
            let said = engine.answer(&turns, args, shutdown)?;
            if said.stopped {
                return Err(uspx_model::ModelError::Stopped.into());
            }
            if args.run.json && said.is_read { output::json(&said.answer) } else { Ok(()) }
        }
        None => chat::chat(&mut engine, turns, args, shutdown),
    }
}

/// The model of the release in use.
pub fn pulled(from: Option<&Path>, format: ExportFormat) -> Result<PathBuf> {
    let folder = super::pull::students(from)?;
    let release = uspx_artifact::current(&folder)?.ok_or_else(|| {
        CliError::new(Exit::NotFound, format!("no student was pulled into {}", folder.display()))
            .help("fetch one first: uspx pull STORE-URL")
    })?;
    let folder = |format: ExportFormat| {
        format.row().folder.map(|name| release.folder.join(name)).filter(|path| path.is_dir())
    };
    let Some(found) = folder(format) else {
        let others: Vec<&str> = ExportFormat::released()
            .filter(|other| folder(*other).is_some())
            .map(ExportFormat::name)
            .collect();
        return Err(CliError::new(Exit::NotFound, format!("this release has no {format} student"))
            .help(format!("use --format {}", others.join(" or "))));
    };
    Ok(formats::of(format)?.path(&found))
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
