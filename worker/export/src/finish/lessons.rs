//! What a finish learns from: the person's prompts, what a teacher answered to others, and, where these are few, prompts
//! that the student of floats makes up and answers itself. It is to be like that student, so what that student says is
//! to the point (LLM-QAT, Liu et al. 2023, arXiv 2305.17888), and few prompts are soon learned by heart.

use super::LEAST_PROMPTS;
use crate::{ExportError, ExportRequest, Result};
use std::collections::HashSet;
use uspx_distill::{DistillError, PromptLabels, dreams, reading};
use uspx_domain::{Dreams, Prompt};
use uspx_model::Progress;
use uspx_model::batch::Sequence;
use uspx_model::chat::Bounds;
use uspx_model::generate::fill_references;
use uspx_model::taps::NoTaps;

/// With so many sequences nothing is made up, and no more are taken of the labels.
const ENOUGH: usize = 2000;
/// How often a prompt gives rise to another one, at most.
const MOST_ROUNDS: usize = 5;
/// Bound on an answer, in tokens.
const ANSWER: usize = 64;
/// Tokens that run together.
const ROOM: usize = 16_384;

/// The calibration's sequences; where there are few, up to [`ENOUGH`] with those of the labels, then with those that the
/// student makes up. Equal request, equal sequences. None where the request has no finish.
///
/// # Errors
/// Those of the student; a stop by the progress.
pub fn lessons(request: &ExportRequest<'_>, progress: &dyn Progress) -> Result<Vec<Sequence>> {
    if request.settings.finish == 0 {
        return Ok(Vec::new());
    }
    let mut all = request.calibration.to_vec();
    all.extend(labelled(request, ENOUGH.saturating_sub(all.len()))?);
    let lacking = ENOUGH.saturating_sub(all.len());
    if all.len() < LEAST_PROMPTS || request.conversations.is_empty() || lacking == 0 {
        return Ok(all);
    }
    all.extend(made_up(request, lacking, progress)?);
    Ok(all)
}

/// At most so many of the labels' sequences, from all over them; a prompt that calibrates is not among them.
fn labelled(request: &ExportRequest<'_>, most: usize) -> Result<Vec<Sequence>> {
    let known: HashSet<&str> = request.conversations.iter().map(|p| p.id.as_str()).collect();
    let is_other = |label: &&PromptLabels| !known.contains(label.prompt.id.as_str());
    let others: Vec<&PromptLabels> = request.labels.iter().filter(is_other).collect();
    let (count, most) = (others.len(), most.min(others.len()));
    let is_taken = |at: usize| at * most / count != (at + 1) * most / count;
    let mut all = Vec::new();
    for (_, label) in others.into_iter().enumerate().filter(|(at, _)| is_taken(*at)) {
        let sequence = reading::text(label, &request.student.chat).map_err(as_own)?;
        if request.student.check_context(&sequence).is_ok() {
            all.push(sequence);
        }
    }
    Ok(all)
}

/// At most so many sequences that the student makes up.
fn made_up(
    request: &ExportRequest<'_>,
    most: usize,
    progress: &dyn Progress,
) -> Result<Vec<Sequence>> {
    let (student, prompts) = (request.student, request.conversations);
    let how = Dreams { rounds: most.div_ceil(prompts.len()).min(MOST_ROUNDS) as u32, seed: 0 };
    // Its own progress counts prompts, not linear maps: only the wish to stop is passed on.
    let alive = |_: u64, _: u64| progress.report(0, 1).is_ok();
    let mut own: Vec<Prompt> =
        dreams(student, prompts, None, (how, ANSWER as u32), &alive).map_err(as_own)?;
    own.truncate(most);
    fill_references(student, &mut own, Bounds::answer(ANSWER), ROOM, &mut NoTaps, &alive)?;
    own.retain(|prompt| prompt.reference.is_some());
    Ok(student.readable(&own)?.sequences)
}

fn as_own(error: DistillError) -> ExportError {
    match error {
        DistillError::Model(error) => error.into(),
        other => ExportError::Refused(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ExportSettings;
    use candle_core::{DType, Device};
    use std::path::Path;
    use uspx_domain::ExportFormat;
    use uspx_model::{LoadedModel, Placement};

    #[test]
    fn labels_are_learned_from_all_over_and_none_twice() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/nano/student");
        let placement = Placement::floats(DType::F32, &Device::Cpu);
        let student = LoadedModel::open(&folder, placement).unwrap();
        let prompt = |at: usize| Prompt {
            id: at.to_string(),
            prompt: format!("List {at} files"),
            ..Prompt::default()
        };
        let label = |at: usize| PromptLabels::text(prompt(at), format!("ls | head -{at}"));
        let (conversations, labels): (Vec<_>, Vec<_>) =
            ((0..5).map(prompt).collect(), (0..12).map(label).collect());
        let request = ExportRequest {
            student: &student,
            base: &folder,
            name: "student",
            calibration: &[],
            batch_tokens: 2048,
            conversations: &conversations,
            labels: &labels,
            format: ExportFormat::GPTQ,
            settings: ExportSettings::shipped(ExportFormat::GPTQ).unwrap(),
        };
        let ids = |all: &[Sequence]| all.iter().map(|s| s.ids.clone()).collect::<Vec<_>>();
        let of = |at: &usize| reading::text(&label(*at), &student.chat).unwrap();
        let wanted = |which: &[usize]| ids(&which.iter().map(of).collect::<Vec<_>>());
        let got = |most| ids(&labelled(&request, most).unwrap());
        assert_eq!(got(100), wanted(&[5, 6, 7, 8, 9, 10, 11]));
        assert_eq!(got(7), got(100));
        assert_eq!(got(3), wanted(&[7, 9, 11]));
        assert!(got(0).is_empty());
    }
}
