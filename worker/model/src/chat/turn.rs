//! Where the answer's turn begins and ends in the text of a conversation, found from the template's
//! structure.
//!
//! A template is rendered with a *sentinel* in the answer's place: letters that neither the
//! template nor the conversation contains. What stands before it opens the answer, what stands
//! after it closes it. The answer's own text is never looked for: "a" stands in "channel", "hi" in
//! "think".
//!
//! The rule: the conversation's text is the generation prompt, then what the template writes to
//! open an answer (a channel, an empty think block), then the answer, then what closes it. Where
//! the generation prompt itself opens reasoning (R1: `<think>`), which a template leaves out of a
//! given answer's turn, the reasoning is closed empty.

use super::reasoning::Think;
use super::template::{Template, Turn};
use crate::Result;

/// What becomes of reasoning that the generation prompt opens, where a given answer is scored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OpenedReasoning {
    /// It is closed without a word: the answer follows an empty think block.
    #[default]
    Closed,
    /// It stays open: the answer stands in the place of the reasoning.
    Open,
}

/// A conversation with its answer, as text in four parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AnsweredText {
    /// What generation is given.
    pub prompt: String,
    /// What follows it before the answer begins.
    pub opening: String,
    /// The answer, as the template writes it.
    pub answer: String,
    /// What the template writes after it.
    pub closing: String,
}

impl AnsweredText {
    /// Renders `turns` and `answer` to them.
    ///
    /// # Errors
    /// A template that refuses the conversation, or whose text with an answer does not extend its
    /// generation prompt.
    pub fn render(
        template: &Template,
        turns: &[Turn],
        answer: &str,
        think: Option<&Think>,
        opened: OpenedReasoning,
    ) -> Result<Self> {
        let prompt = template.render(turns, true)?;
        let (before, closing) = around(template, turns)?;
        let answer = answer_between(template, turns, answer, (&before, &closing))?;
        let mut opening = match opening(&prompt, &before) {
            Some(opening) => opening,
            None => opening_behind_words(template, turns)?,
        };
        if let Some(think) = think.filter(|_| opened == OpenedReasoning::Closed) {
            // Only what the template wrote itself counts, not the words of the conversation.
            let own = own_tail(template, turns)?;
            opening.push_str(&think.closing(&format!("{own}{opening}")));
        }
        Ok(Self { prompt, opening, answer, closing })
    }

    /// The whole text.
    pub fn whole(&self) -> String {
        [self.prompt.as_str(), &self.opening, &self.answer, &self.closing].concat()
    }
}

/// Letters that neither the template nor the conversation contains.
fn sentinel(template: &Template, turns: &[Turn]) -> String {
    let taken =
        |s: &String| template.source().contains(s.as_str()) || turns.iter().any(|t| t.contains(s));
    let mut candidates = (0u32..).map(|n| format!("\u{f5d7}{n}\u{f5d8}"));
    candidates.find(|s| !taken(s)).unwrap_or_default()
}

/// What the template writes before and after an answer.
fn around(template: &Template, turns: &[Turn]) -> Result<(String, String)> {
    let sentinel = sentinel(template, turns);
    let mut turns = turns.to_vec();
    turns.push(Turn::assistant(&sentinel));
    let whole = template.render(&turns, false)?;
    match whole.split_once(&sentinel) {
        Some((before, after)) if !after.contains(&sentinel) => {
            Ok((before.to_owned(), after.to_owned()))
        }
        Some(_) => Err(template.unfit("writes an answer more than once")),
        None => Err(template.unfit("leaves the answer out")),
    }
}

/// The answer's text as the template writes it: some trim it. A template that takes it apart (at a
/// think block, say) is not followed: the model has to emit the answer as it stands.
fn answer_between(
    template: &Template,
    turns: &[Turn],
    answer: &str,
    around: (&str, &str),
) -> Result<String> {
    let mut turns = turns.to_vec();
    turns.push(Turn::assistant(answer));
    let whole = template.render(&turns, false)?;
    let between = whole.strip_prefix(around.0).and_then(|rest| rest.strip_suffix(around.1));
    let trimmed = [answer, answer.trim(), answer.trim_start(), answer.trim_end()];
    Ok(between.filter(|text| trimmed.contains(text)).unwrap_or(answer).to_owned())
}

/// What follows the generation prompt where an answer is given; `None` where the two part ways.
fn opening(prompt: &str, before: &str) -> Option<String> {
    // A generation prompt may say more than the template keeps of it in a finished turn: an opened
    // think block.
    let more = || prompt.starts_with(before).then(String::new);
    before.strip_prefix(prompt).map(str::to_owned).or_else(more)
}

/// The same where a template writes earlier turns otherwise once they are answered (Mistral's moves
/// the system message): what stands between the person's last words and the answer is compared
/// instead.
fn opening_behind_words(template: &Template, turns: &[Turn]) -> Result<String> {
    let sentinel = sentinel(template, turns);
    let (before, _) = around(template, &last_saying(turns, &sentinel))?;
    let gap = before.rsplit(&sentinel).next().unwrap_or_default();
    let unfit = || {
        template.unfit(
            "writes a conversation with an answer that does not begin with its generation prompt",
        )
    };
    opening(&own_tail(template, turns)?, gap)
        .filter(|_| before.contains(&sentinel))
        .ok_or_else(unfit)
}

/// What the template itself writes after the last turn to open the answer.
pub(super) fn own_tail(template: &Template, turns: &[Turn]) -> Result<String> {
    let sentinel = sentinel(template, turns);
    let prompt = template.render(&last_saying(turns, &sentinel), true)?;
    Ok(prompt.rsplit(&sentinel).next().unwrap_or_default().to_owned())
}

/// The turns with other words in the last one.
fn last_saying(turns: &[Turn], text: &str) -> Vec<Turn> {
    let mut turns = turns.to_vec();
    if let Some(last) = turns.last_mut() {
        *last = last.saying(text);
    }
    turns
}
