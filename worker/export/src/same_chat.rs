//! Whether a written student, opened from its files alone, makes the same tokens of a conversation
//! as the one that was trained. If not, an answer differs for a reason that no loss names.

use crate::difference::{Difference, Part, Place};
use crate::held_out;
use crate::{ExportError, Result};
use std::path::Path;
use uspx_domain::Prompt;
use uspx_model::batch::Sequence;
use uspx_model::chat::{Chat, ChatFiles, TokenBytes};

/// Ids told before and after the first that differs.
const AROUND: usize = 4;

/// What a student makes conversations with.
struct Side<'a> {
    chat: &'a Chat,
    bos: Option<String>,
}

impl<'a> Side<'a> {
    fn new(chat: &'a Chat, files: &ChatFiles) -> Self {
        Self { chat, bos: files.special().remove("bos_token") }
    }
}

/// Holds the student that was written to `path`, whose files gave `written`, against the one that
/// was trained, whose files lie in `base`: on built-in conversations, `prompts`, and every token's
/// text. Returns how many conversations were compared.
///
/// # Errors
/// [`ExportError::OtherTokens`] with the first difference, or files without a chat.
pub(crate) fn check(
    (trained, base): (&Chat, &Path),
    (written, path): (&ChatFiles, &Path),
    prompts: &[Prompt],
) -> Result<usize> {
    let base = ChatFiles::read(base)?;
    let mut conversations = held_out::conversations(&base.tokenizer);
    conversations.extend_from_slice(prompts);
    let chat = Chat::of(written)?;
    match compare(&Side::new(trained, &base), &Side::new(&chat, written), &conversations) {
        Some(difference) => Err(ExportError::OtherTokens {
            path: path.to_owned(),
            difference: Box::new(difference),
        }),
        // What both templates refuse, a system message say, was not compared.
        None => Ok(conversations.iter().filter(|c| trained.sequence(c, None).is_ok()).count()),
    }
}

/// The first difference, if there is one.
fn compare(trained: &Side<'_>, written: &Side<'_>, conversations: &[Prompt]) -> Option<Difference> {
    let place = conversations.iter().find_map(|c| differs(trained.chat, written.chat, c));
    let (a, b) = (trained.chat, written.chat);
    let mut parts = Vec::new();
    let mut note = |differs: bool, part| parts.extend(differs.then_some(part));
    note(a.template() != b.template(), Part::Template);
    note(trained.bos != written.bos, Part::Bos);
    note(a.ends() != b.ends(), Part::Ends);
    note(a.tokens() != b.tokens() || splits_otherwise(a, b), Part::Tokenizer);
    if parts.is_empty() && place.is_some() {
        // Nothing else is left that makes tokens.
        parts.push(Part::Tokenizer);
    }
    (!parts.is_empty()).then_some(Difference { parts, place })
}

/// Whether some token's own text is split in two ways: a merge that is missing, or a rule that
/// takes words whole.
fn splits_otherwise(a: &Chat, b: &Chat) -> bool {
    let texts = a.tokens().iter().filter_map(|token| match token {
        TokenBytes::Text(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    });
    texts.into_iter().any(|text| a.encode(text).ok() != b.encode(text).ok())
}

/// Where a conversation's tokens differ, prompt alone and with its answer. Two templates that
/// refuse it agree.
fn differs(trained: &Chat, written: &Chat, conversation: &Prompt) -> Option<Place> {
    let answers = [None, conversation.reference.as_deref()];
    answers.into_iter().find_map(|answer| {
        let [a, b] = [trained, written].map(|chat| chat.sequence(conversation, answer).ok());
        let position = first_difference(a.as_ref(), b.as_ref())?;
        let around = |s: Option<Sequence>| s.map(|s| window(&s.ids, position));
        Some(Place {
            conversation: conversation.id.clone(),
            position,
            trained: around(a),
            written: around(b),
        })
    })
}

fn first_difference(a: Option<&Sequence>, b: Option<&Sequence>) -> Option<usize> {
    let (a, b) = match (a, b) {
        (None, None) => return None,
        (Some(a), Some(b)) if a == b => return None,
        (Some(a), Some(b)) => (a, b),
        _ => return Some(0),
    };
    let equal = a.ids.iter().zip(&b.ids).take_while(|(x, y)| x == y).count();
    // The same ids, of which more or fewer are the answer's.
    Some(equal.min(if a.ids == b.ids { a.response_start.min(b.response_start) } else { equal }))
}

fn window(ids: &[u32], position: usize) -> Vec<u32> {
    ids.iter().skip(position.saturating_sub(AROUND)).take(2 * AROUND + 1).copied().collect()
}
