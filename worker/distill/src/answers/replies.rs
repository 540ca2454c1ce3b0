//! What the teacher answers: prompts of like length decode in lockstep, as many as there is room for.

use crate::Result;
use crate::answers::Replies;
use crate::labels::PromptLabels;
use uspx_domain::{Prompt, SkipReason};
use uspx_model::batch::{Sequence, pack};
use uspx_model::chat::{Bounds, Reply};
use uspx_model::generate::{Choice, generate};
use uspx_model::taps::Taps;
use uspx_model::{LoadedModel, Progress};

/// Padded tokens per batch that decodes in lockstep: each step runs one token of each.
const LOCKSTEP_TOKENS: usize = 8192;

/// The same where every step reads all weights from their file.
const LOCKSTEP_STREAMED: usize = 32_768;

/// An answer to a prompt, or why it has none.
pub type Said = std::result::Result<PromptLabels, SkipReason>;

/// A teacher to ask.
pub(super) struct Ask<'a> {
    pub teacher: &'a LoadedModel,
    pub bounds: Bounds,
    pub room: usize,
    pub taps: &'a mut dyn Taps,
}

impl Ask<'_> {
    /// So many answers to each of `prompts`, tokens chosen by `choice`. `progress` counts answers.
    pub fn of_all(
        &mut self,
        prompts: &[Prompt],
        (choice, times): (&mut Choice, usize),
        progress: &dyn Progress,
    ) -> Result<Replies> {
        let asked = self.teacher.askable(prompts)?;
        let mut replies: Replies = asked
            .skipped
            .into_iter()
            .map(|left_out| (left_out.id, vec![Err(left_out.reason)]))
            .collect();
        let sequences: Vec<&Sequence> =
            asked.sequences.iter().flat_map(|s| std::iter::repeat_n(s, times)).collect();
        let all = self.in_lockstep(&sequences, choice, progress)?;
        for (prompt, replied) in asked.prompts.iter().zip(all.chunks(times.max(1))) {
            let said = replied.iter().map(|reply| self.read(prompt, reply)).collect();
            replies.insert(prompt.id.clone(), said);
        }
        Ok(replies)
    }

    /// A reply to each of the sequences.
    fn in_lockstep(
        &mut self,
        sequences: &[&Sequence],
        choice: &mut Choice,
        progress: &dyn Progress,
    ) -> Result<Vec<Reply>> {
        let Self { teacher, bounds, room, .. } = *self;
        let further = bounds.total(teacher.chat.reasons());
        let lengths: Vec<usize> = sequences.iter().map(|s| s.ids.len() + further).collect();
        let streamed = teacher.transformer.is_streamed();
        let most = if streamed { LOCKSTEP_STREAMED } else { LOCKSTEP_TOKENS };
        let mut replies = vec![Reply::default(); sequences.len()];
        let mut done = 0;
        for group in pack(&lengths, most.min(room)) {
            let members: Vec<&Sequence> =
                group.iter().filter_map(|i| sequences.get(*i).copied()).collect();
            let written =
                generate(teacher, &members, bounds, choice, self.taps, &mut |_, _, _| {})?;
            for (at, reply) in group.iter().zip(written) {
                if let Some(place) = replies.get_mut(*at) {
                    *place = reply;
                }
            }
            done += group.len();
            progress.report(done as u64, sequences.len() as u64)?;
        }
        Ok(replies)
    }

    /// A reply as text.
    fn read(&self, prompt: &Prompt, reply: &Reply) -> Said {
        if let Some(reason) = reply.skip_reason() {
            return Err(reason);
        }
        let chat = &self.teacher.chat;
        let answer = chat.answer_text(&reply.ids);
        if answer.trim().is_empty() {
            return Err(SkipReason::Empty);
        }
        let reasoning = (!reply.reasoning.is_empty()).then(|| chat.decode(&reply.reasoning));
        let text = PromptLabels::text(prompt.clone(), answer);
        Ok(PromptLabels { ended: reply.ended, reasoning, ..text })
    }
}
