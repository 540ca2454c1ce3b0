//! Trains a sparse autoencoder on what leaves a layer, and judges it on other prompts.
//!
//! The training's state lies in a file of the task's own, so that one that was interrupted goes on
//! where the same worker gets the task again.

use super::{Run, Workbench, some_readable};
use crate::error::JobError;
use crate::product::Product;
use std::path::Path;
use uspx_domain::{Outcome, Prompt, Sae as SaeJob, SaeRecipe, SaeSummary};
use uspx_model::Progress;
use uspx_model::budget::{Beside, Workload};
use uspx_runtime::telemetry::TOLD;
use uspx_sae::evaluate::EvaluateRequest;
use uspx_sae::fit::Keep;
use uspx_sae::rank::rank;
use uspx_sae::saelens::{self, About, CONFIG, WEIGHTS};
use uspx_sae::{Evaluation, FitRequest, Fitted, Place, SaeError, Site, evaluate, fit, memory};

/// Steps between two states that are kept, at least: one is after every round of activations, which
/// took longer to make than its state takes to write.
const KEEP_EVERY: u64 = 1;
/// The file of the features by what they tell of answers, most first.
const FEATURES: &str = "features.json";

impl Run for SaeJob<Prompt> {
    fn workload(&self) -> Workload {
        Workload::Forward
    }

    fn beside(&self) -> Beside {
        memory::of_training(&self.recipe).most(memory::of_judging(self.recipe.features))
    }

    fn keeps_state(&self) -> bool {
        true
    }

    fn run(&self, bench: &mut Workbench<'_>) -> Result<Product, JobError> {
        let opened = bench.model_beside(self.workload(), self.beside())?;
        let (model, tokens) = (&*opened.model, opened.plan.batch_tokens);
        let place = Place { layer: self.layer as usize, site: Site::ResidPost };
        if place.layer >= model.transformer.layers() {
            return Err(JobError::Task(format!("the model has no layer {}", self.layer)));
        }
        let (train, judged) = self.split();
        let (train, judged) = (some_readable(model, train)?, some_readable(model, judged)?);
        let request = FitRequest {
            model,
            prompts: &train,
            place,
            recipe: self.recipe,
            batch_tokens: tokens,
            keep: None,
        };
        let fitted = trained(request, bench.inputs.kept().map(|kept| &*kept.file), bench.progress)?;
        if fitted.resumed > 0 {
            let (step, all) = (fitted.resumed, fitted.steps);
            tracing::info!(target: TOLD, "a training goes on at step {step} of {all}");
        }
        let request = EvaluateRequest {
            model,
            prompts: &judged,
            place,
            sae: &fitted.sae,
            batch_tokens: tokens,
            skip: self.recipe.skip,
        };
        let found = evaluate(&request, bench.progress)?;
        let name = uspx_model::model_name(bench.models.folder(bench.model)?);
        let about = About::trained(&name, bench.model, place, self.recipe.skip);
        let scratch = bench.models.scratch()?;
        write(scratch.path(), (&fitted, &about, &self.recipe), &found)?;
        let (paths, summary) = ([WEIGHTS, CONFIG, FEATURES], summary(&fitted, &found));
        let product = Product::with_folder(scratch, paths.map(str::to_owned), |files| {
            Outcome::Sae { files, summary }
        })?;
        let skipped = train.skipped.into_iter().chain(judged.skipped).collect();
        Ok(Product { skipped, seams: train.seams + judged.seams, ..product })
    }
}

/// Trains, from the state that is kept where there is one of this very training.
fn trained(
    request: FitRequest<'_>,
    kept: Option<&Path>,
    progress: &dyn Progress,
) -> Result<Fitted, SaeError> {
    let keep = |resume| kept.map(|file| Keep { file, every: KEEP_EVERY, resume });
    if kept.is_some_and(Path::exists) {
        match fit(&FitRequest { keep: keep(true), ..request.clone() }, progress) {
            Err(error @ (SaeError::Format { .. } | SaeError::OtherTraining { .. })) => {
                tracing::warn!(%error, "a training begins anew");
            }
            outcome => return outcome,
        }
    }
    fit(&FitRequest { keep: keep(false), ..request }, progress)
}

fn summary(fitted: &Fitted, found: &Evaluation) -> SaeSummary {
    SaeSummary {
        steps: fitted.steps,
        tokens: found.tokens,
        l0: found.l0 as f32,
        explained_variance: found.explained_variance as f32,
        dead: found.dead() as u32,
        clean: found.clean as f32,
        grafted: found.sae.loss as f32,
        zero: found.zero.loss as f32,
        mean: found.mean.loss as f32,
    }
}

/// Writes SAELens' folder, and beside it what the features tell of answers.
fn write(
    folder: &Path,
    (fitted, about, recipe): (&Fitted, &About, &SaeRecipe),
    found: &Evaluation,
) -> Result<(), JobError> {
    let told = serde_json::to_value(recipe).map_err(std::io::Error::from)?;
    saelens::write(folder, &fitted.sae, about, &told)?;
    let features = rank(&found.activity, &found.losses, recipe.features);
    let text = serde_json::to_vec_pretty(&features).map_err(std::io::Error::from)?;
    Ok(std::fs::write(folder.join(FEATURES), text)?)
}
