//! Proposes that every model of the final comparison be judged on the gate prompts, and that those
//! which people would use answer them.

use super::{Offer, Piece, Proposer, View, batches};
use crate::state::{PublishedStudent, Stage};
use crate::{Contender, Purpose, Split};
use uspx_domain::{Answers, ExportFormat, Judge, Subject, Work};

pub(super) struct JudgeStudents;

impl Proposer for JudgeStudents {
    fn stage(&self) -> Stage {
        Stage::JudgeStudents
    }

    fn offer(&self, view: &View<'_>) -> Offer {
        if view.was_opened(Stage::JudgeStudents) {
            return Offer::Nothing;
        }
        let gated = ExportFormat::gated();
        if !view.state.results.exports.contains_key(&gated.into()) {
            let what = format!("the {gated} export was given up, and the gate judges no other");
            return Offer::Blocked(view.because(&what, &["export"]));
        }
        let prompts = view.campaign.split(Split::Gate);
        let works = |(contender, subject): (Contender, Subject)| {
            let model = match contender {
                Contender::Teacher => view.campaign.teacher,
                _ => view.campaign.student?,
            };
            let answers = view.answers(contender);
            let judge = |prompts: Vec<u32>| {
                let judge = Judge { prompts, subject: subject.clone(), answers };
                (model, Purpose::Contender(contender), Work::Judge(judge))
            };
            let batches = batches(&prompts, view.judge_batch((model, answers), prompts.len()));
            Some(batches.into_iter().map(judge).collect::<Vec<Piece>>())
        };
        contenders(view).into_iter().filter_map(works).flatten().collect::<Vec<Piece>>().into()
    }
}

impl View<'_> {
    /// The answers that a contender is to give: none where nobody will ever run it, as it is before
    /// its export.
    pub(super) fn answers(&self, contender: Contender) -> Answers {
        let distil = &self.campaign.distil;
        match contender {
            Contender::Distilled(_) => Answers::default(),
            _ => Answers { tokens: distil.max_new_tokens, reasoning: distil.max_reasoning_tokens },
        }
    }
}

fn contenders(view: &View<'_>) -> Vec<(Contender, Subject)> {
    let results = &view.state.results;
    let mut all = vec![(Contender::Teacher, Subject::Model), (Contender::Base, Subject::Model)];
    let adapted =
        |(n, (blob, _)): (&u32, &(_, _))| (Contender::Distilled(*n), Subject::Adapted(*blob));
    all.extend(results.adapters.iter().map(adapted));
    for format in ExportFormat::ALL.iter().copied() {
        let files = results.exports.get(&format.into()).cloned();
        all.extend(files.map(|files| (format.into(), Subject::Exported { format, files })));
    }
    let published = view.state.published.as_ref().and_then(PublishedStudent::judged);
    let subject = |(format, files)| Subject::Exported { format, files };
    all.extend(published.map(|judged| (Contender::Published, subject(judged))));
    all
}

/// The losses that the gate cannot do without.
pub(super) fn lacks_judgement(view: &View<'_>) -> Option<String> {
    let missing = |who| view.state.judged(who).is_none_or(|rows| rows.is_empty());
    let gated = ExportFormat::gated();
    let what = match () {
        () if missing(gated.into()) => format!("the {gated} student was not judged"),
        () if missing(crate::gate::rival(view.state)) => {
            "what the student is to beat was not judged".to_owned()
        }
        () => return None,
    };
    Some(view.because(&what, &["judge", "answer"]))
}
