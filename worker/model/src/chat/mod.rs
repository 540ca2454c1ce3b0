//! Text to tokens and back: the model's own tokenizer and its own chat template, never a guessed
//! format.
//!
//! [`ChatFiles`] reads what determines tokens; `template` renders; `turn` finds where the answer
//! begins; `encode` makes ids; `vocabulary` says what each id stands for; `reasoning` and
//! [`Reader`] tell reasoning from the answer.

mod encode;
mod files;
mod reasoning;
mod reply;
mod template;
mod tojson;
mod turn;
mod vocabulary;

pub use encode::{Answered, Seam};
pub use files::{ChatFiles, id_of};
pub use reply::{Bounds, Reader, Reply, ReplyPart};
pub use template::Turn;
pub use turn::OpenedReasoning;
pub use vocabulary::TokenBytes;

use crate::batch::Sequence;
use crate::{ModelError, Result};
use encode::Encoder;
use reasoning::Reasoning;
use std::path::Path;
use template::Template;
use turn::AnsweredText;
use uspx_domain::Prompt;

/// A tokenizer with its chat template.
pub struct Chat {
    encoder: Encoder,
    template: Template,
    tokens: Vec<TokenBytes>,
    ends: Vec<u32>,
    /// The end token that the tokenizer names.
    eos: Option<u32>,
    reasoning: Reasoning,
    opened: OpenedReasoning,
    /// What the template itself writes to open an answer that is to be generated.
    own: String,
    /// What a reply to it begins with before its text: a space that the template writes there, or a
    /// space marker.
    before_text: String,
}

/// What the check on opening says, as a person would: with and without a system message, over one
/// line and several.
const CHECKED: [(Option<&str>, &str, &str); 4] = [
    (None, "List the files here.", "ls -l"),
    (Some("Answer with one command."), "How large is this folder?", "du -sh ."),
    (None, "Gr\u{fc}\u{df}e?\n", "\u{1f44b} Hallo!\nWie geht's?"),
    (None, "Print a", "a"),
];

impl Chat {
    /// Reads tokenizer and template of a model folder, and checks that a conversation in two pieces
    /// is the whole.
    ///
    /// # Errors
    /// As [`ChatFiles::read`] and [`Self::of`].
    pub fn open(folder: &Path) -> Result<Self> {
        let chat = Self::of(&ChatFiles::read(folder)?)?;
        chat.explain_seams(folder);
        Ok(chat)
    }

    /// Says once, about the model at `place`, where a conversation in two pieces is not the whole,
    /// if it is not.
    pub fn explain_seams(&self, place: &Path) {
        let Some(seam) = self.check() else { return };
        tracing::warn!(
            model = %place.display(),
            position = seam.at,
            in_use = ?seam.used,
            whole = ?seam.joint,
            "the tokenizer joins what generation is given with what follows it: ids in use are measured, \
             reports count the prompts concerned",
        );
    }

    /// From what the files say.
    ///
    /// # Errors
    /// A tokenizer or template that does not parse, or a tokenizer that does not keep the text.
    pub fn of(files: &ChatFiles) -> Result<Self> {
        let named = |e: ModelError| match e {
            ModelError::Chat(reason) => ModelError::malformed(&files.tokenizer_file, reason),
            other => other,
        };
        if let Some(why) = vocabulary::loses_text(&files.tokenizer) {
            let reason = format!(
                "this tokenizer cannot be used: {why}. Byte-level BPE, SentencePiece's BPE and Unigram can"
            );
            return Err(ModelError::malformed(&files.tokenizer_file, reason));
        }
        let encoder =
            Encoder::new(&files.tokenizer, files.splits_special_tokens()).map_err(named)?;
        let template = Template::new(&files.template, &files.template_file, files.special())?;
        let tokens = vocabulary::token_bytes(encoder.tokenizer(), &files.tokenizer);
        let reasoning = Reasoning::of(&files.template, &files.tokenizer, &tokens);
        let eos = files.special().get("eos_token").and_then(|t| id_of(&files.tokenizer, t));
        let ends = files.ends();
        let eos = eos.or(ends.first().copied());
        let (opened, own, before_text) = (OpenedReasoning::default(), String::new(), String::new());
        let mut chat =
            Self { encoder, template, tokens, ends, eos, reasoning, opened, own, before_text };
        chat.look_at_openings();
        Ok(chat)
    }

    /// How an answer opens, learned from a conversation that any template takes.
    fn look_at_openings(&mut self) {
        let turns = [Turn::user("x")];
        self.own = turn::own_tail(&self.template, &turns).unwrap_or_default();
        let (Ok(prompt), Ok(answered)) = (self.conversation(&turns), self.answer_to(&turns, "x"))
        else {
            return;
        };
        let reply = answered.sequence.ids.get(prompt.ids.len()..).unwrap_or_default();
        let (_, reply) = reply.split_last().unwrap_or((&0, &[]));
        // Behind the last control token: what stands before it (a channel's name) is read as a
        // header.
        let control = reply
            .iter()
            .rposition(|id| self.token(*id) == &TokenBytes::Special)
            .map_or(0, |at| at + 1);
        let text = self.decode(reply.get(control..).unwrap_or_default());
        self.before_text = text.strip_suffix('x').unwrap_or_default().to_owned();
    }

    /// What is to become of reasoning that the generation prompt opens, where a given answer is
    /// scored.
    pub fn set_opened_reasoning(&mut self, opened: OpenedReasoning) {
        self.opened = opened;
    }

    /// Token ids of text in which special tokens count as such.
    ///
    /// # Errors
    /// The tokenizer failed.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.encoder.ids(text)
    }

    /// The same of text that goes on from other text: no space marker is put before it.
    ///
    /// # Errors
    /// The tokenizer failed.
    pub fn encode_continuing(&self, text: &str) -> Result<Vec<u32>> {
        self.encoder.continuing_ids(text)
    }

    /// A prompt up to where its answer begins, or with its answer if it is given: see
    /// [`Self::answered`].
    ///
    /// # Errors
    /// A template that refuses the conversation, or a tokenizer that fails.
    pub fn sequence(&self, prompt: &Prompt, answer: Option<&str>) -> Result<Sequence> {
        match answer {
            None => self.conversation(&turns(prompt)),
            Some(answer) => Ok(self.answered(prompt, answer)?.sequence),
        }
    }

    /// A prompt with its answer.
    ///
    /// The ids begin with exactly those that generation is given. What the template writes to open
    /// the answer (a channel, an empty think block) follows and counts as prompt; the answer is
    /// what the model has to emit after that, its end of turn included.
    ///
    /// # Errors
    /// A template that refuses the conversation, or whose text with an answer does not extend its
    /// generation prompt.
    pub fn answered(&self, prompt: &Prompt, answer: &str) -> Result<Answered> {
        self.answer_to(&turns(prompt), answer)
    }

    fn answer_to(&self, turns: &[Turn], answer: &str) -> Result<Answered> {
        let text = AnsweredText::render(
            &self.template,
            turns,
            answer,
            self.reasoning.think(),
            self.opened,
        )?;
        self.encoder.answered(text, &self.tokens, &self.ends, self.eos)
    }

    /// A conversation up to where the next answer begins.
    ///
    /// # Errors
    /// A template or tokenizer that fails.
    pub fn conversation(&self, turns: &[Turn]) -> Result<Sequence> {
        let ids = self.encode(&self.template.render(turns, true)?)?;
        Ok(Sequence { response_start: ids.len(), ids })
    }

    /// The first of a few conversations whose ids in use are not those of the whole text.
    fn check(&self) -> Option<Seam> {
        CHECKED.into_iter().find_map(|(system, user, answer)| {
            let turns: Vec<Turn> =
                system.map(Turn::system).into_iter().chain([Turn::user(user)]).collect();
            self.answer_to(&turns, answer).ok()?.seam
        })
    }

    /// Text of ids, special tokens left out; what is not a whole character becomes U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> =
            ids.iter().flat_map(|id| vocabulary::spelled(&self.tokens, *id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Text of an answer's ids, without what stands before an answer's text (a space that its first
    /// token spells, say).
    pub fn answer_text(&self, ids: &[u32]) -> String {
        let text = self.decode(ids);
        text.strip_prefix(self.before_text.as_str()).map(str::to_owned).unwrap_or(text)
    }

    /// Reads a reply to `prompt`, a conversation's ids, as it is written.
    pub fn reader(&self, prompt: &[u32], bounds: Bounds) -> Reader<'_> {
        Reader::new(&self.reasoning, (&self.tokens, &self.ends), (prompt, &self.own), bounds)
    }

    /// Reads whatever comes, at most `bound` tokens, as one text.
    pub fn plain_reader(&self, bound: usize) -> Reader<'_> {
        Reader::new(
            &Reasoning::None,
            (&self.tokens, &self.ends),
            (&[], ""),
            Bounds { answer: bound, reasoning: 0 },
        )
    }

    /// Whether the model may write reasoning before its answer.
    pub fn reasons(&self) -> bool {
        self.reasoning != Reasoning::None
    }

    /// Tokens that end an answer.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// What a token stands for.
    pub fn token(&self, id: u32) -> &TokenBytes {
        self.tokens.get(id as usize).unwrap_or(&TokenBytes::Unused)
    }

    /// All tokens, by id.
    pub fn tokens(&self) -> &[TokenBytes] {
        &self.tokens
    }

    /// The template's source.
    pub fn template(&self) -> &str {
        self.template.source()
    }
}

/// The turns of a prompt, what was said before included.
fn turns(prompt: &Prompt) -> Vec<Turn> {
    let earlier = prompt.earlier.iter();
    let before = earlier.flat_map(|e| [Turn::user(&e.user), Turn::assistant(&e.assistant)]);
    let system = prompt.system.iter().map(|s| Turn::system(s));
    system.chain(before).chain([Turn::user(&prompt.prompt)]).collect()
}

#[cfg(test)]
mod tests;
