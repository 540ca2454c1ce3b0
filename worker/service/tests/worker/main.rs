//! The worker on the shipped models: its jobs, the models that it keeps open, what it posts.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::expect_used)]

mod dreams;
mod jobs;
mod not_spoken;
mod open_models;
mod sae;
mod small_memory;
mod speed;
mod spooled;
mod streamed;
mod trained_elsewhere;

use std::path::{Path, PathBuf};
use uspx_domain::{Prompt, Task, TaskId, Work, parse_prompts};
use uspx_model::fingerprint;
use uspx_worker::holdings::Holdings;
use uspx_worker::open_models::OpenModels;
use uspx_worker::planning::Machine;

fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets")
}

fn prompts(count: usize) -> Vec<Prompt> {
    let text = std::fs::read_to_string(assets().join("prompts/cli-train.jsonl")).unwrap();
    parse_prompts(&text, false).unwrap().prompts.into_iter().take(count).collect()
}

fn task(work: Work<Prompt>) -> Task {
    let model = fingerprint(&assets().join("nano/teacher")).unwrap();
    Task { id: TaskId::derived(b"t"), epoch: 1, model, work }
}

fn models(machine: Machine, scratch: &Path) -> OpenModels {
    let holdings = Holdings::scan(&[assets().join("nano/teacher")]).unwrap();
    OpenModels::new(holdings, machine, scratch.to_owned())
}
