//! A teacher that runs here, in memory or streamed.

use super::label::Teacher;
use crate::args::DistillArgs;
use crate::error::Result;
use crate::models;
use crate::progress::Bar;
use crate::saes::Saes;
use std::path::Path;
use uspx_distill::answers::{Answers, answers};
use uspx_distill::on_policy::Own;
use uspx_distill::quality::Sieve;
use uspx_distill::teach::label_own;
use uspx_distill::{Labels, Target, dreams, label};
use uspx_domain::{Answering, Dreams, Mask, Prompt, Skipped};
use uspx_model::LoadedModel;
use uspx_model::budget::Workload;
use uspx_runtime::Shutdown;

/// The model, and how it is asked.
pub struct Local<'a> {
    model: LoadedModel,
    mask: Option<Mask>,
    /// Tokens that there is memory for at once.
    room: usize,
    args: &'a DistillArgs,
    shutdown: &'a Shutdown,
}

impl<'a> Local<'a> {
    /// Opens the model at `path`.
    pub fn open(path: &Path, args: &'a DistillArgs, shutdown: &'a Shutdown) -> Result<Self> {
        args.keeping().check()?;
        let with = (Workload::Forward, Saes::read(&args.saes)?);
        let opened = models::opened_with(path, &args.run, with)?;
        let (model, room) = (opened.model, opened.room);
        let mask = args.mask.as_deref().map(|path| models::mask(path, &model)).transpose()?;
        Ok(Self { model, mask, room, args, shutdown })
    }

    /// What it says of a student's own answers. `progress` counts them.
    pub fn judged(&self, own: &[Own], progress: &Bar) -> Result<Labels> {
        let how = (self.args.top_k, self.room);
        Ok(label_own(&self.model, own, self.mask.as_ref(), how, progress)?.0)
    }

    fn bar(&self, what: &str) -> Bar {
        Bar::new(what, self.args.run.json, self.shutdown)
    }
}

impl Teacher for Local<'_> {
    fn target(&self) -> Target {
        Target::Reference
    }

    fn lessons(
        &self,
        prompts: &[Prompt],
        how: &Answering,
        what_for: &str,
    ) -> Result<(Labels, Vec<Skipped>)> {
        let mask = self.mask.as_ref();
        let bar = self.bar(&format!("answering, {what_for}"));
        let asking = self.args.asking(how, self.room);
        let (all, mut skipped) = answers(&self.model, prompts, mask, &asking, &bar)?;
        bar.finish();
        let (kept, doubted) = Sieve::of(how).answers(all);
        let lessons = kept.into_iter().flat_map(Answers::lessons).collect();
        let bar = self.bar(&format!("labelling, {what_for}"));
        let keeping = (self.args.keeping(), self.room);
        let (labels, more) = label(&self.model, lessons, mask, keeping, &bar)?;
        bar.finish();
        skipped.extend(doubted.into_iter().chain(more));
        Ok((labels, skipped))
    }

    fn dreamt(&self, prompts: &[Prompt]) -> Result<Vec<Prompt>> {
        let how = Dreams { rounds: self.args.dreams, seed: self.args.recipe.seed };
        if how.is_none() {
            return Ok(prompts.to_vec());
        }
        let bar = self.bar("dreaming");
        let length = self.args.max_new_tokens as u32;
        let all = dreams(&self.model, prompts, self.mask.as_ref(), (how, length), &bar)?;
        bar.finish();
        Ok([prompts, &all].concat())
    }
}
