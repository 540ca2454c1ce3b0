//! `uspx up`: the whole loop on this machine, from a person's models and prompts to a pulled 4-bit
//! student that answers, or to the mask alone.
//!
//! [`settings`] reads what is wanted; [`foretell`] measures what it will take; [`colony`] brings up
//! bus, coordinator and [`workers`]; [`bars`] shows how far they are; [`page`] prints the end.

mod bars;
mod colony;
mod foretell;
mod layout;
mod machine;
mod models;
mod page;
mod settings;
mod workers;

use super::{pull, run as chat};
use crate::args::UpArgs;
use crate::error::{CliError, Exit, Result};
use crate::progress::bar;
use candle_core::{DType, Device};
use std::path::{Path, PathBuf};
use std::time::Instant;
use tokio::runtime::Runtime;
use uspx_artifact::{PullOptions, PullReport, Store};
use uspx_colony::{CampaignReport, Ending};
use uspx_coordinator::{CampaignPlan, Finished, PromptBook, Prompts};
use uspx_domain::{ExportFormat, Prompt};
use uspx_runtime::Shutdown;

pub use layout::Layout;
pub use machine::Machine;
pub use models::Models;

/// Held-out prompts that the pulled student answers at the end.
const ANSWERS: usize = 3;
/// Bound on such an answer.
const ANSWER_TOKENS: usize = 64;

/// What the loop is run on.
pub struct Inputs {
    /// The colony's name.
    pub name: String,
    /// Where everything is put.
    pub layout: Layout,
    /// The teacher, and the base student; without one the loop ends with the mask.
    pub models: Models,
    /// The person's prompts.
    pub prompts: Prompts,
    /// The campaign.
    pub plan: CampaignPlan,
    /// The object store, where it is not a folder of the layout.
    pub store: Option<String>,
    /// A NATS server, or `auto`; without one all is in this process.
    pub nats: Option<String>,
    /// A credentials file for it.
    pub credentials: Option<PathBuf>,
    /// The colony's names on it.
    pub namespace: Option<String>,
    /// How this machine is used.
    pub machine: Machine,
    /// A file of held-out prompts to go on with, for the closing lines.
    pub held_out: Option<PathBuf>,
    /// Whether the answer is JSON.
    pub json: bool,
}

impl Inputs {
    /// The object store.
    fn store_url(&self) -> String {
        let own = || self.layout.folder("store").display().to_string();
        self.store.clone().unwrap_or_else(own)
    }

    /// The prompts in their splits, as a coordinator without a ledger has them.
    fn split(&self) -> Result<PromptBook> {
        Ok(self.prompts.clone().book(self.plan.seed, None)?)
    }
}

/// How the loop ended, and what it found.
struct Found {
    ending: Ending,
    figures: CampaignReport,
    student: Option<PulledStudent>,
    seconds: f64,
}

/// The released student, pulled as another machine would pull it.
struct PulledStudent {
    pulled: PullReport,
    answers: Vec<Answered>,
}

/// A held-out prompt and what the pulled student says.
struct Answered {
    prompt: String,
    reference: String,
    gptq: String,
    gguf: String,
}

/// `uspx up`.
pub fn run(args: &UpArgs, runtime: &Runtime, shutdown: &Shutdown) -> Result<()> {
    let inputs = settings::inputs(args)?;
    if args.plan {
        return foretell::plan(&inputs, shutdown);
    }
    // A ledger that is there is gone on with: what is left of it cannot be told beforehand.
    if !inputs.layout.colony().exists() {
        foretell::tell(&inputs, shutdown)?;
    }
    whole_loop(&inputs, runtime, shutdown)
}

/// Runs the campaign to its end and tells what it found.
pub fn whole_loop(inputs: &Inputs, runtime: &Runtime, shutdown: &Shutdown) -> Result<()> {
    let start = Instant::now();
    let campaign = runtime.block_on(colony::run(inputs, shutdown))?;
    let ending = match campaign.finished {
        Finished::Stopped => return Err(stopped(&inputs.layout)),
        Finished::Campaign(ending) => ending,
    };
    let student = match ending {
        Ending::Published(_) => {
            let pulled = runtime.block_on(fetch(inputs, shutdown))?;
            let answers = answer(inputs, &pulled, &campaign.held_out)?;
            Some(PulledStudent { pulled, answers })
        }
        _ => None,
    };
    let seconds = start.elapsed().as_secs_f64();
    let found = Found { ending, figures: campaign.figures, student, seconds };
    page::tell(&found, inputs)?;
    match inputs.json && matches!(found.ending, Ending::Measured | Ending::Published(_)) {
        true => Ok(()),
        false => campaign.conclusion.tell(Finished::Campaign(found.ending)),
    }
}

fn stopped(layout: &Layout) -> CliError {
    let out = layout.out().display();
    CliError::new(
        Exit::Interrupted,
        format!("stopped. Started again with --out {out}, it goes on from the ledger"),
    )
}

/// Pulls as another machine would: from the store alone, every hash verified.
async fn fetch(inputs: &Inputs, shutdown: &Shutdown) -> Result<PullReport> {
    let store = Store::open(&inputs.store_url())?;
    pull::fetch(&store, &inputs.layout.student(), &PullOptions::default(), shutdown).await
}

/// Loads the pulled 4-bit files, both of them, and asks them held-out prompts.
fn answer(inputs: &Inputs, pulled: &PullReport, held_out: &[Prompt]) -> Result<Vec<Answered>> {
    let bar = bar("asking the pulled student");
    let prompts: Vec<Prompt> = held_out.iter().take(ANSWERS).cloned().collect();
    let ask = |path: &Path| -> Result<Vec<String>> {
        let model =
            uspx_worker::open_any(path, uspx_model::Placement::floats(DType::F32, &Device::Cpu))?;
        chat::answers(&model, &prompts, ANSWER_TOKENS)
    };
    let gptq = ask(&pulled.folder.join("gptq"))?;
    let gguf = ask(&chat::pulled(Some(&inputs.layout.student()), ExportFormat::GGUF)?)?;
    bar.finish_and_clear();
    let both = gptq.into_iter().zip(gguf);
    let each = |(p, (gptq, gguf)): (Prompt, (String, String))| Answered {
        prompt: p.prompt,
        reference: p.reference.unwrap_or_default(),
        gptq,
        gguf,
    };
    Ok(prompts.into_iter().zip(both).map(each).collect())
}
