//! `uspx demo`: `uspx up` on the models and prompts that come with uspx.

use super::up::{self, Inputs, Layout, Machine, Models};
use crate::args::DemoArgs;
use crate::assets;
use crate::error::Result;
use crate::prompts::PromptSource;
use crate::splits::SplitSources;
use std::path::PathBuf;
use tokio::runtime::Runtime;
use uspx_coordinator::CampaignPlan;
use uspx_runtime::Shutdown;

/// Tokens run together: with two workers in one process the demo stays well under 2 GiB.
const BATCH_TOKENS: usize = 2048;

/// `uspx demo`.
pub fn run(args: &DemoArgs, runtime: &Runtime, shutdown: &Shutdown) -> Result<()> {
    let inputs = inputs(args)?;
    up::whole_loop(&inputs, runtime, shutdown)
}

/// The shipped inputs, laid out in the demo's folder.
fn inputs(args: &DemoArgs) -> Result<Inputs> {
    let layout = Layout::new(&args.out)?;
    let shipped = layout.folder("shipped");
    assets::lay_out(&shipped)?;
    let model = |which: &str| -> PathBuf { shipped.join("nano").join(which) };
    let prompts = |which: &str| shipped.join("prompts").join(which);
    let (train, gate) = (prompts("cli-train.jsonl"), prompts("cli-heldout.jsonl"));
    let (train, gate_source) = (PromptSource::json(&train), PromptSource::json(&gate));
    let book = SplitSources { train, validation: None, gate: gate_source }.read()?.book()?;
    let models = Models::look(model("teacher"), Some(model("student")))?;
    let mut plan = plan();
    models.name_in(&mut plan);
    Ok(Inputs {
        name: "demo".to_owned(),
        models,
        prompts: book.into(),
        plan,
        store: args.store.clone(),
        nats: args.nats.clone(),
        credentials: None,
        namespace: None,
        machine: Machine::cpu(args.workers, args.threads_per_worker(), BATCH_TOKENS),
        held_out: Some(gate),
        json: args.json,
        layout,
    })
}

/// The demo's campaign: the defaults, with the recipes that were tuned on the shipped student.
fn plan() -> CampaignPlan {
    let mut plan = CampaignPlan { name: Some("demo".to_owned()), ..CampaignPlan::default() };
    // Minutes on a laptop, not hours: the shipped prompts alone show the way.
    plan.dream.rounds = 0;
    plan.distil.recipes = vec![uspx_distill::recipe_references(), uspx_distill::recipe_teacher()];
    // Enough for a student of this size.
    (plan.distil.calibration, plan.finish.passes) = (128, 1);
    plan
}
