//! From labels to a judged 4-bit student.

use super::{Piece, Planner, batches, label_mask};
use crate::{Contender, Dice, Purpose, Split};
use uspx_domain::{BlobRef, Distil, DistilRecipe, Export, ExportFormat, Judge, Label, Subject, Work};

/// Every format that is written; the gate looks at the first.
const FORMATS: [ExportFormat; 3] = [ExportFormat::Gptq, ExportFormat::Rtn, ExportFormat::Gguf];

impl Planner<'_> {
    pub(super) fn label(&self) -> Vec<Piece> {
        let mask = label_mask(self.state);
        let student = &self.campaign.distil;
        let work = |prompts| {
            Work::Label(Label {
                prompts,
                mask: mask.clone(),
                top_k: student.top_k,
                max_new_tokens: student.max_new_tokens,
                max_reasoning_tokens: student.max_reasoning_tokens,
            })
        };
        let of = |split| {
            let batches = batches(&self.campaign.split(split), student.label_batch);
            batches.into_iter().map(move |prompts| (prompts, split))
        };
        let all = of(Split::Train).chain(of(Split::Validation));
        all.map(|(prompts, split)| self.teacher(Purpose::Labels(split), work(prompts))).collect()
    }

    pub(super) fn distil(&self) -> Vec<Piece> {
        let (train, validation) = (self.labels(Split::Train), self.labels(Split::Validation));
        let work = |(number, recipe): (u32, &DistilRecipe)| {
            let (train, validation) = (train.clone(), validation.clone());
            let distil = Distil { train, validation, recipe: *recipe };
            self.student(Purpose::Adapter(number), Work::Distil(distil))
        };
        (0..).zip(&self.campaign.distil.recipes).map(work).collect()
    }

    fn labels(&self, split: Split) -> Vec<BlobRef> {
        self.state.results.labels.get(&split).into_iter().flat_map(|l| l.values().copied()).collect()
    }

    pub(super) fn export(&self) -> Vec<Piece> {
        let Some((_, adapter, _)) = self.state.results.best_adapter() else { return Vec::new() };
        let mut calibration = self.campaign.split(Split::Train);
        Dice::new(self.campaign.seed, "calibration", 0).shuffle(&mut calibration);
        calibration.truncate(self.campaign.distil.calibration as usize);
        let work = |format: &ExportFormat| {
            let (format, calibration) = (*format, calibration.clone());
            let export = Export { adapter: Some(adapter), calibration, format };
            self.student(Purpose::Contender(format.into()), Work::Export(export))
        };
        FORMATS.iter().map(work).collect()
    }

    /// Whom a new student must beat: the published one, or the base student where there is none.
    pub(super) fn rival(&self) -> Contender {
        crate::gate::rival(self.state)
    }

    pub(super) fn judge_students(&self) -> Vec<Piece> {
        let prompts = batches(&self.campaign.split(Split::Gate), self.campaign.distil.judge_batch);
        let works = |(contender, subject): (Contender, Subject)| {
            let judge = |prompts: &Vec<u32>| {
                let judge = Judge { prompts: prompts.clone(), subject: subject.clone() };
                let (purpose, work) = (Purpose::Contender(contender), Work::Judge(judge));
                match contender {
                    Contender::Teacher => self.teacher(purpose, work),
                    _ => self.student(purpose, work),
                }
            };
            prompts.iter().map(judge).collect::<Vec<_>>()
        };
        self.contenders().into_iter().flat_map(works).collect()
    }

    fn contenders(&self) -> Vec<(Contender, Subject)> {
        let results = &self.state.results;
        let mut all = vec![(Contender::Teacher, Subject::Model), (Contender::Base, Subject::Model)];
        all.extend(results.adapters.iter().map(|(n, (blob, _))| (Contender::Distilled(*n), Subject::Adapted(*blob))));
        for format in FORMATS {
            let files = results.exports.get(&format.into()).cloned();
            all.extend(files.map(|files| (format.into(), Subject::Exported { format, files })));
        }
        let published = self.state.published.as_ref().filter(|p| !p.gptq.is_empty());
        let gptq = |files| Subject::Exported { format: ExportFormat::Gptq, files };
        all.extend(published.map(|p| (Contender::Published, gptq(p.gptq.clone()))));
        all
    }
}
