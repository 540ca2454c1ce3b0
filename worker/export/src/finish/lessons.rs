//! What a finish learns from: the person's prompts, and others that the student of floats makes up and answers
//! itself. It is to be like that student, so what that student says is to the point (LLM-QAT, Liu et al. 2023,
//! arXiv 2305.17888), and few prompts are soon learned by heart.

use super::LEAST_PROMPTS;
use crate::{ExportError, ExportRequest, Result};
use uspx_distill::{DistillError, dreams};
use uspx_domain::{Dreams, Prompt};
use uspx_model::Progress;
use uspx_model::batch::Sequence;
use uspx_model::chat::Bounds;
use uspx_model::generate::fill_references;
use uspx_model::taps::NoTaps;

/// With so many sequences nothing is made up.
const ENOUGH: usize = 2000;
/// How often a prompt gives rise to another one, at most.
const MOST_ROUNDS: usize = 5;
/// Bound on an answer, in tokens.
const ANSWER: usize = 64;
/// Tokens that run together.
const ROOM: usize = 16_384;

/// The calibration's sequences; where there are few, up to [`ENOUGH`] with those that the student makes up. Equal
/// request, equal sequences. None where the request has no finish.
///
/// # Errors
/// Those of the student; a stop by the progress.
pub fn lessons(request: &ExportRequest<'_>, progress: &dyn Progress) -> Result<Vec<Sequence>> {
    if request.settings.finish == 0 {
        return Ok(Vec::new());
    }
    let mut all = request.calibration.to_vec();
    let lacking = ENOUGH.saturating_sub(all.len());
    let prompts = request.conversations;
    if all.len() < LEAST_PROMPTS || prompts.is_empty() || lacking == 0 {
        return Ok(all);
    }
    let rounds = lacking.div_ceil(prompts.len()).min(MOST_ROUNDS) as u32;
    let (student, how) = (request.student, Dreams { rounds, seed: 0 });
    // Its own progress counts prompts, not linear maps: only the wish to stop is passed on.
    let alive = |_: u64, _: u64| progress.report(0, 1).is_ok();
    let mut own: Vec<Prompt> =
        dreams(student, prompts, None, (how, ANSWER as u32), &alive).map_err(as_own)?;
    own.truncate(lacking);
    fill_references(student, &mut own, Bounds::answer(ANSWER), ROOM, &mut NoTaps, &alive)?;
    own.retain(|prompt| prompt.reference.is_some());
    all.extend(student.readable(&own)?.sequences);
    Ok(all)
}

fn as_own(error: DistillError) -> ExportError {
    match error {
        DistillError::Model(error) => error.into(),
        other => ExportError::Refused(other.to_string()),
    }
}
