//! The chat: a person's lines or a pipe's, one after another, and the answers to them.

use super::engine::{Answer, Engine, Said};
use super::prompter::{Prompter, Read};
use super::slash::{self, Line, Slash};
use crate::args::ChatArgs;
use crate::error::Result;
use crate::output;
use uspx_model::chat::Turn;
use uspx_runtime::{Shutdown, memory};

/// How a chat is left.
const LEAVE: &str = "Ctrl-D or /bye ends the chat.";

/// A chat on its way.
struct Chat<'a> {
    engine: &'a mut Engine,
    args: &'a ChatArgs,
    shutdown: &'a Shutdown,
    /// The conversation begins with these.
    opening: Vec<Turn>,
    turns: Vec<Turn>,
    spoken: Spoken,
}

/// What was answered so far.
#[derive(Default)]
struct Spoken {
    answers: usize,
    tokens: usize,
    /// Seconds of decoding.
    seconds: f64,
}

impl Spoken {
    fn add(&mut self, answer: &Answer) {
        self.answers += 1;
        self.tokens += answer.tokens;
        if answer.tokens_per_second > 0.0 {
            self.seconds += answer.tokens as f64 / answer.tokens_per_second;
        }
    }

    fn tokens_per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.tokens as f64 / self.seconds } else { 0.0 }
    }
}

/// Chats until the person leaves, or the pipe ends.
pub fn chat(
    engine: &mut Engine,
    opening: Vec<Turn>,
    args: &ChatArgs,
    shutdown: &Shutdown,
) -> Result<()> {
    let mut prompter = Prompter::new();
    let turns = opening.clone();
    let mut chat = Chat { engine, args, shutdown, opening, turns, spoken: Spoken::default() };
    if !prompter.is_person() {
        return chat.pipe(&mut prompter);
    }
    output::note(&format!("/help says what can be asked of the chat. {LEAVE}"));
    chat.person(&mut prompter)
}

impl Chat<'_> {
    /// Every line that is not empty is a prompt; Ctrl-C ends it all.
    fn pipe(&mut self, prompter: &mut Prompter) -> Result<()> {
        while let Read::Line(line) = prompter.read()? {
            if line.trim().is_empty() {
                continue;
            }
            let said = self.ask(line.trim(), self.shutdown)?;
            if said.stopped {
                return Err(uspx_model::ModelError::Stopped.into());
            }
            if !said.is_read {
                break;
            }
        }
        Ok(())
    }

    fn person(&mut self, prompter: &mut Prompter) -> Result<()> {
        while !self.shutdown.is_cancelled() {
            let line = match prompter.read()? {
                Read::End => break,
                Read::Interrupted => {
                    output::note(LEAVE);
                    continue;
                }
                Read::Line(line) => line,
            };
            if !self.heed(&line)? {
                break;
            }
        }
        Ok(())
    }

    /// Does what a line asks; `false` ends the chat.
    fn heed(&mut self, line: &str) -> Result<bool> {
        match slash::read(line) {
            Line::Empty => {}
            Line::Slash(Slash::Bye) => return Ok(false),
            Line::Slash(Slash::Help) => output::note(&slash::help()),
            Line::Slash(Slash::Stats) => output::note(&self.stats()),
            Line::Slash(Slash::New) => {
                self.turns.clone_from(&self.opening);
                output::note("the conversation is forgotten");
            }
            Line::Unknown(word, nearest) => {
                let or = nearest.map_or_else(String::new, |name| format!(" Did you mean {name}?"));
                output::note(&format!("there is no {word}.{or} /help names all there are."));
            }
            Line::Prompt(prompt) => return self.converse(prompt),
        }
        Ok(true)
    }

    /// An answer that Ctrl-C stops alone.
    fn converse(&mut self, prompt: &str) -> Result<bool> {
        let said = self.ask(prompt, &self.shutdown.of_work())?;
        if said.stopped {
            output::note("stopped");
        }
        Ok(said.is_read)
    }

    /// Asks, and keeps question and answer as turns: of one that was stopped, what was written.
    fn ask(&mut self, prompt: &str, shutdown: &Shutdown) -> Result<Said> {
        self.turns.push(Turn::user(prompt));
        let said = self.engine.answer(&self.turns, self.args, shutdown)?;
        if said.stopped && said.answer.text.is_empty() {
            self.turns.pop();
            return Ok(said);
        }
        if self.args.run.json && said.is_read {
            output::json(&said.answer)?;
        }
        self.spoken.add(&said.answer);
        self.turns.push(Turn::assistant(&said.answer.text));
        Ok(said)
    }

    fn stats(&self) -> String {
        let Spoken { answers, tokens, .. } = self.spoken;
        // What a template opens a conversation with is no part of one that has not begun.
        let begun = (!self.turns.is_empty()).then_some(&self.turns);
        let rendered = begun.and_then(|turns| self.engine.chat().conversation(turns).ok());
        let conversation = rendered.map_or(0, |sequence| sequence.ids.len());
        let memory = memory::peak_rss().map_or_else(String::new, |bytes| {
            format!("\nmemory at most {:.0} MB", bytes as f64 / 1e6)
        });
        format!(
            "answers: {answers}, tokens: {tokens}, {:.1} tokens/s\nthe conversation has {conversation} tokens{memory}",
            self.spoken.tokens_per_second()
        )
    }
}
