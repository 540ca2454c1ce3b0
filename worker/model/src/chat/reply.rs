//! What a model writes, token by token: reasoning first where it reasons, then the answer.
//!
//! Only the final channel is the answer (gpt-oss), or what follows the closed think block (Qwen3,
//! R1). Reasoning is kept apart, and one that never ends is not an answer.

use super::reasoning::{Channels, Reasoning, Think};
use super::vocabulary::{TokenBytes, spelled};
use uspx_domain::SkipReason;

/// What a token belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyPart {
    /// The answer.
    Answer,
    /// Reasoning, or a header between the two.
    Reasoning,
    /// Nothing follows: the token ends the turn.
    End,
}

/// What a model wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// The answer's tokens, the end of the turn left out.
    pub ids: Vec<u32>,
    /// Whether the model ended it (otherwise it met its bound).
    pub ended: bool,
    /// What it wrote before the answer: reasoning with its marks and headers.
    pub reasoning: Vec<u32>,
    /// The answer never began: the reasoning met its bound, or the turn ended within it.
    pub unfinished: bool,
}

impl Reply {
    /// Why there is no answer, where it never began.
    pub fn skip_reason(&self) -> Option<SkipReason> {
        self.unfinished.then_some(SkipReason::Unfinished { tokens: self.reasoning.len() as u32 })
    }
}

/// Bounds on what a model may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Tokens of an answer.
    pub answer: usize,
    /// Tokens of reasoning before it.
    pub reasoning: usize,
}

impl Bounds {
    /// Tokens of reasoning where nothing else is said.
    pub const REASONING: usize = 1024;

    /// At most `answer` tokens of answer.
    pub fn answer(answer: usize) -> Self {
        Self { answer, reasoning: Self::REASONING }
    }

    /// Tokens that a reply may take in all, of a model that reasons or does not.
    pub fn total(&self, reasons: bool) -> usize {
        self.answer + if reasons { self.reasoning } else { 0 }
    }
}

/// Reads one reply as it is written.
pub struct Reader<'a> {
    tokens: &'a [TokenBytes],
    ends: &'a [u32],
    state: State,
    bounds: Bounds,
    answer: Reply,
    done: bool,
}

/// Where in its reply a model is.
enum State {
    /// All that comes is the answer.
    Answer,
    /// It may open reasoning first: what it wrote so far is space or the beginning of the tag.
    Maybe(Think, Vec<u8>),
    /// Within reasoning: the last bytes written, as many as the closing tag has.
    Within(Think, Vec<u8>),
    /// Reasoning is closed and the answer has not begun: spaces are dropped.
    Behind,
    /// In a header: the channel's name so far, once its mark was read.
    Header(Channels, Option<Vec<u8>>),
    /// In a message of another channel than the final one.
    Aside(Channels),
    /// In the final message.
    Final(Channels),
}

impl<'a> Reader<'a> {
    /// A reply to `prompt` (ids), whose template opens the answer by `own`.
    pub(super) fn new(
        reasoning: &Reasoning,
        (tokens, ends): (&'a [TokenBytes], &'a [u32]),
        (prompt, own): (&[u32], &str),
        bounds: Bounds,
    ) -> Self {
        let state = match reasoning {
            Reasoning::None => State::Answer,
            Reasoning::Think(think) if think.is_open(own) => State::Within(*think, Vec::new()),
            Reasoning::Think(think) if own.contains(think.close) => State::Answer,
            Reasoning::Think(think) => State::Maybe(*think, Vec::new()),
            Reasoning::Channels(channels) => opened(*channels, prompt, tokens),
        };
        let answer = Reply {
            unfinished: !matches!(state, State::Answer | State::Final(_)),
            ..Reply::default()
        };
        Self { tokens, ends, state, bounds, answer, done: bounds.answer == 0 }
    }

    /// Takes the next token.
    pub fn take(&mut self, id: u32) -> ReplyPart {
        if self.done {
            return ReplyPart::End;
        }
        let part = if self.ends.contains(&id) { ReplyPart::End } else { self.step(id) };
        match part {
            ReplyPart::Answer => {
                self.answer.ids.push(id);
                self.answer.unfinished = false;
                self.done = self.answer.ids.len() >= self.bounds.answer;
            }
            ReplyPart::Reasoning => {
                self.answer.reasoning.push(id);
                self.done = self.answer.reasoning.len() >= self.bounds.reasoning;
            }
            ReplyPart::End => {
                self.done = true;
                self.settle();
                self.answer.ended = !self.answer.unfinished;
            }
        }
        part
    }

    /// Whether nothing more is wanted.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// What was read.
    pub fn finish(mut self) -> Reply {
        self.settle();
        self.answer
    }

    /// What might have become a tag and did not was the answer.
    fn settle(&mut self) {
        if let State::Maybe(..) = self.state {
            self.state = State::Answer;
            self.answer.ids = std::mem::take(&mut self.answer.reasoning);
            self.answer.unfinished = false;
        }
    }

    fn step(&mut self, id: u32) -> ReplyPart {
        let bytes = spelled(self.tokens, id);
        let state = std::mem::replace(&mut self.state, State::Answer);
        let (state, part) = match state {
            State::Answer => (State::Answer, ReplyPart::Answer),
            State::Maybe(think, mut seen) => {
                seen.extend(bytes);
                return self.maybe(think, seen);
            }
            State::Within(think, mut seen) => {
                seen.extend(bytes);
                let closed = seen.windows(think.close.len()).any(|w| w == think.close.as_bytes());
                let keep = seen.len().saturating_sub(think.close.len());
                seen.drain(..keep);
                (
                    if closed { State::Behind } else { State::Within(think, seen) },
                    ReplyPart::Reasoning,
                )
            }
            State::Behind if bytes.iter().all(u8::is_ascii_whitespace) => {
                (State::Behind, ReplyPart::Reasoning)
            }
            State::Behind => (State::Answer, ReplyPart::Answer),
            State::Header(channels, name) => header(channels, name, id, bytes),
            State::Aside(channels) if id == channels.end => {
                (State::Header(channels, None), ReplyPart::Reasoning)
            }
            State::Aside(channels) if id == channels.start => {
                (State::Header(channels, None), ReplyPart::Reasoning)
            }
            State::Aside(channels) => (State::Aside(channels), ReplyPart::Reasoning),
            State::Final(channels) if [channels.end, channels.start].contains(&id) => {
                (State::Answer, ReplyPart::End)
            }
            State::Final(channels) => (State::Final(channels), ReplyPart::Answer),
        };
        self.state = state;
        part
    }

    /// Before anything but space was written.
    fn maybe(&mut self, think: Think, seen: Vec<u8>) -> ReplyPart {
        let begun = seen.trim_ascii_start();
        let open = think.open.as_bytes();
        if begun.starts_with(open) {
            self.state = State::Within(think, begun.get(open.len()..).unwrap_or_default().to_vec());
            return ReplyPart::Reasoning;
        }
        if open.starts_with(begun) {
            self.state = State::Maybe(think, seen);
            return ReplyPart::Reasoning;
        }
        self.state = State::Maybe(think, seen);
        self.settle();
        ReplyPart::Answer
    }
}

fn header(channels: Channels, name: Option<Vec<u8>>, id: u32, bytes: &[u8]) -> (State, ReplyPart) {
    if id == channels.message {
        // A message without a channel is the answer, as in models tuned without reasoning.
        let last = name.is_none_or(|name| name.trim_ascii().starts_with(b"final"));
        return (
            if last { State::Final(channels) } else { State::Aside(channels) },
            ReplyPart::Reasoning,
        );
    }
    if id == channels.channel {
        return (State::Header(channels, Some(Vec::new())), ReplyPart::Reasoning);
    }
    let name = name.map(|name| [&name, bytes].concat());
    (State::Header(channels, name), ReplyPart::Reasoning)
}

/// The state that the generation prompt leaves a model with channels in.
fn opened(channels: Channels, prompt: &[u32], tokens: &[TokenBytes]) -> State {
    let Some(start) = prompt.iter().rposition(|id| *id == channels.start) else {
        return State::Answer;
    };
    let mut state = State::Header(channels, None);
    for id in prompt.iter().skip(start + 1) {
        if let State::Header(channels, name) = state {
            (state, _) = header(channels, name, *id, spelled(tokens, *id));
        }
    }
    state
}

#[cfg(test)]
mod tests;
