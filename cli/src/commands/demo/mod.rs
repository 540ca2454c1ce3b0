//! `uspx demo`: the whole loop on the shipped models, from prompts to a pulled 4-bit student that
//! answers.
//!
//! [`colony`] brings up bus, coordinator and workers; [`bars`] shows how far they are; [`page`]
//! prints the end.

mod bars;
mod colony;
mod page;

use super::{pull, run as chat};
use crate::args::DemoArgs;
use crate::error::{CliError, Exit, Result};
use crate::progress::bar;
use crate::{assets, models};
use candle_core::{DType, Device};
use std::path::{Path, PathBuf};
use std::time::Instant;
use tokio::runtime::Runtime;
use uspx_artifact::{PullOptions, PullReport, Store};
use uspx_colony::{CampaignReport, Ending};
use uspx_coordinator::Finished;
use uspx_runtime::Shutdown;

/// Held-out prompts that the pulled student answers at the end.
const ANSWERS: usize = 3;
/// Bound on such an answer.
const ANSWER_TOKENS: usize = 64;

/// Where the demo keeps what.
struct Layout {
    out: PathBuf,
}

impl Layout {
    fn new(out: &Path) -> Result<Self> {
        std::fs::create_dir_all(out).map_err(|e| CliError::file(out, &e))?;
        let out = out.canonicalize().map_err(|e| CliError::file(out, &e))?;
        Ok(Self { out })
    }

    fn model(&self, which: &str) -> PathBuf {
        self.out.join("shipped/nano").join(which)
    }

    fn prompts(&self, which: &str) -> PathBuf {
        self.out.join("shipped/prompts").join(which)
    }

    /// The state folder of a worker, from 1.
    fn worker(&self, number: u16) -> PathBuf {
        self.out.join(format!("worker-{number}"))
    }

    fn laptop(&self) -> PathBuf {
        self.out.join("laptop")
    }
}

/// What the demo found.
struct Found {
    figures: CampaignReport,
    pulled: PullReport,
    answers: Vec<Answered>,
    seconds: f64,
}

/// A held-out prompt and what the pulled student says.
struct Answered {
    prompt: String,
    reference: String,
    gptq: String,
    gguf: String,
}

/// `uspx demo`.
pub fn run(args: &DemoArgs, runtime: &Runtime, shutdown: &Shutdown) -> Result<()> {
    let start = Instant::now();
    let layout = Layout::new(&args.out)?;
    assets::lay_out(&layout.out.join("shipped"))?;
    let store_url =
        args.store.clone().unwrap_or_else(|| layout.out.join("store").display().to_string());
    let campaign = runtime.block_on(colony::run(args, &layout, &store_url, shutdown))?;
    match campaign.finished {
        Finished::Stopped => return Err(stopped(&args.out)),
        Finished::Campaign(Ending::Published(_)) => {}
        other => return super::coordinator::ended(other),
    }
    let pulled = runtime.block_on(fetch(&store_url, &layout, shutdown))?;
    let answers = answer(&layout, &pulled)?;
    let found = Found {
        figures: campaign.figures,
        pulled,
        answers,
        seconds: start.elapsed().as_secs_f64(),
    };
    if args.json { page::json(&found) } else { page::print(&found, &layout, &store_url) }
}

fn stopped(out: &Path) -> CliError {
    CliError::new(
        Exit::Interrupted,
        format!("stopped. Started again with --out {}, it goes on from the ledger", out.display()),
    )
}

/// Pulls as another machine would: from the store alone, every hash verified.
async fn fetch(store_url: &str, layout: &Layout, shutdown: &Shutdown) -> Result<PullReport> {
    let store = Store::open(store_url)?;
    pull::fetch(&store, &layout.laptop(), &PullOptions::default(), shutdown).await
}

/// Loads the pulled 4-bit files, both of them, and asks them held-out prompts.
fn answer(layout: &Layout, pulled: &PullReport) -> Result<Vec<Answered>> {
    let bar = bar("asking the pulled student");
    let mut prompts = models::prompts(&layout.prompts("cli-heldout.jsonl"), false)?;
    prompts.truncate(ANSWERS);
    let ask = |path: &Path| -> Result<Vec<String>> {
        let model =
            uspx_worker::open_any(path, uspx_model::Placement::floats(DType::F32, &Device::Cpu))?;
        chat::answers(&model, &prompts, ANSWER_TOKENS)
    };
    let gptq = ask(&pulled.folder.join("gptq"))?;
    let gguf = ask(&chat::pulled(Some(&layout.laptop()), crate::args::StudentFormat::Gguf)?)?;
    bar.finish_and_clear();
    let both = gptq.into_iter().zip(gguf);
    let each = |(p, (gptq, gguf)): (uspx_domain::Prompt, (String, String))| Answered {
        prompt: p.prompt,
        reference: p.reference.unwrap_or_default(),
        gptq,
        gguf,
    };
    Ok(prompts.into_iter().zip(both).map(each).collect())
}
