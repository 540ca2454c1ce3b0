//! New prompts of the person's kind, from the teacher itself: more to learn from than the person
//! has written.
//!
//! A chat model that is given the beginning of a user's turn goes on with a plausible one (Magpie,
//! Xu et al. 2024). Here it begins with the first tokens of one of the person's own prompts, so
//! that the new ones ask for the same kind of thing.

use crate::Result;
use crate::labels::{Piece, piece_of};
use crate::masked::taps_of;
use crate::stages::Stage;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::HashSet;
use uspx_domain::{Dreams, Mask, Prompt};
use uspx_model::batch::{Sequence, pack};
use uspx_model::chat::Chat;
use uspx_model::generate::{go_on, sampler};
use uspx_model::{LoadedModel, Progress};

/// Temperature of the sampling.
const TEMPERATURE: f64 = 0.9;
/// The most tokens of a person's prompt that a new one begins with.
const SEED_TOKENS: usize = 3;
/// No new prompt is longer, in tokens.
const LONGEST: u32 = 256;
/// Seeds of a campaign are so far apart.
const ROUNDS: u64 = 1 << 16;
/// Padded tokens per batch.
const BATCH_TOKENS: usize = 16384;
/// Ids of new prompts begin with this.
pub const PREFIX: &str = "dream-";

/// At most one new prompt for each of `prompts`, with the answer that the teacher (masked where
/// `mask` is given) samples to it as `reference`; of those, the ones that end within `max_tokens`
/// and that are neither among `prompts` nor repeated.
///
/// Ids are `dream-SEED-ORIGIN`. Equal `seed`, equal prompts. A template that ends a user's turn as
/// it ends an answer gives prompts without a reference; labelling answers them. `progress` counts
/// prompts.
///
/// # Errors
/// A mask that does not fit, or what the model and the progress say.
pub fn dream(
    teacher: &LoadedModel,
    prompts: &[Prompt],
    mask: Option<&Mask>,
    max_tokens: u32,
    seed: u64,
    progress: &dyn Progress,
) -> Result<Vec<Prompt>> {
    let mut taps = taps_of(teacher, mask)?;
    let openings = openings(&teacher.chat, prompts, seed)?;
    let lengths: Vec<usize> =
        openings.iter().map(|o| o.turn.ids.len() + max_tokens as usize).collect();
    let mut choice = sampler(seed, TEMPERATURE);
    let mut seen: HashSet<String> = prompts.iter().map(|p| p.prompt.clone()).collect();
    let (mut dreams, mut done) = (Vec::new(), 0);
    for group in pack(&lengths, BATCH_TOKENS) {
        let members: Vec<&Opening> = group.iter().filter_map(|i| openings.get(*i)).collect();
        let turns: Vec<&Sequence> = members.iter().map(|o| &o.turn).collect();
        let answers = go_on(teacher, &turns, max_tokens as usize, &mut choice, &mut taps)?;
        for ((opening, answer), origin) in
            members.iter().zip(answers).zip(group.iter().filter_map(|i| prompts.get(*i)))
        {
            let dreamt = if answer.ended { opening.read(&teacher.chat, &answer.ids) } else { None };
            if let Some((prompt, reference)) =
                dreamt.filter(|(prompt, _)| seen.insert(prompt.clone()))
            {
                let id = format!("{PREFIX}{seed:x}-{}", origin.id);
                dreams.push(Prompt { id, prompt, reference, ..origin.clone() });
            }
        }
        done += group.len() as u64;
        progress.report(done, prompts.len() as u64)?;
    }
    Ok(dreams)
}

/// Several rounds of [`dream`], no prompt twice, each at most as long as the longest of `prompts` and
/// an answer of `answer` tokens need. `progress` counts the prompts of all rounds together.
///
/// # Errors
/// As [`dream`].
pub fn dreams(
    teacher: &LoadedModel,
    prompts: &[Prompt],
    mask: Option<&Mask>,
    (how, answer): (Dreams, u32),
    progress: &dyn Progress,
) -> Result<Vec<Prompt>> {
    if how.is_none() {
        return Ok(Vec::new());
    }
    // One that the template refuses gives rise to none.
    let length = |prompt: &Prompt| Some(teacher.chat.sequence(prompt, None).ok()?.ids.len() as u32);
    let usable = prompts.iter().filter_map(|p| Some((length(p)?, p.clone())));
    let (lengths, prompts): (Vec<u32>, Vec<Prompt>) = usable.unzip();
    let most = lengths.into_iter().max().unwrap_or(0).min(LONGEST) + answer;
    let mut seen: HashSet<String> = HashSet::new();
    let mut all = Vec::new();
    for round in 0..u64::from(how.rounds) {
        let seed = how.seed.wrapping_mul(ROUNDS).wrapping_add(round);
        let of_all = Stage { all: progress, before: round, parts: how.rounds.into() };
        let dreamt = dream(teacher, &prompts, mask, most, seed, &of_all)?;
        all.extend(dreamt.into_iter().filter(|p| seen.insert(p.prompt.clone())));
    }
    Ok(all)
}

/// A user's turn just begun.
struct Opening {
    /// Its tokens; `response_start` is where the user's own words begin.
    turn: Sequence,
    /// What the template writes between the user's words and the answer's.
    between: Vec<u32>,
}

/// The beginning of a user's turn for each prompt.
fn openings(chat: &Chat, prompts: &[Prompt], seed: u64) -> Result<Vec<Opening>> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    prompts
        .iter()
        .map(|prompt| opening(chat, prompt, random.random_range(1..=SEED_TOKENS)))
        .collect()
}

fn opening(chat: &Chat, prompt: &Prompt, tokens: usize) -> Result<Opening> {
    // Where two prompts under the same system message differ, the user's own words stand.
    let other = |text: &str| chat.sequence(&Prompt { prompt: text.into(), ..prompt.clone() }, None);
    let (one, two) = (other("A")?.ids, other("b")?.ids);
    let same = |(a, b): &(&u32, &u32)| a == b;
    let start = one.iter().zip(&two).take_while(same).count();
    let tail =
        one.iter().rev().zip(two.iter().rev()).take_while(same).count().min(one.len() - start);
    let between = one.get(one.len() - tail..).unwrap_or_default().to_vec();
    let mut ids = chat.sequence(prompt, None)?.ids;
    ids.truncate((start + tokens).min(ids.len().saturating_sub(tail)));
    Ok(Opening { turn: Sequence { ids, response_start: start }, between })
}

impl Opening {
    /// The user's words and the answer in what the teacher went on with; none if either is not
    /// whole text.
    fn read(&self, chat: &Chat, further: &[u32]) -> Option<(String, Option<String>)> {
        let control = |id: &u32| !matches!(piece_of(chat, *id), Piece::Text(_));
        let end = further.iter().position(control).unwrap_or(further.len());
        let (own, rest) = further.split_at(end);
        let seed = self.turn.ids.get(self.turn.response_start..).unwrap_or_default();
        let prompt = whole(chat, &[seed, own].concat())?;
        if rest.is_empty() {
            return Some((prompt, None));
        }
        let answer =
            rest.strip_prefix(self.between.as_slice()).filter(|a| !a.iter().any(control))?;
        whole(chat, answer).map(|answer| (prompt, Some(answer)))
    }
}

/// The text of tokens, trimmed; none if it is empty or holds broken characters.
fn whole(chat: &Chat, ids: &[u32]) -> Option<String> {
    let text = chat.decode(ids);
    let text = text.trim();
    (!text.is_empty() && !text.contains('\u{fffd}')).then(|| text.to_owned())
}
