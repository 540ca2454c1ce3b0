//! What of its machine a worker may use: flags, environment and file say it alike, and what cannot
//! be is refused before anything is reached.

use crate::support::{BAD_INPUT, UNREACHABLE, USAGE, model, refuses, uspx};
use assert_cmd::Command;
use libtest_mimic::Trial;
use std::path::Path;
use tempfile::tempdir;
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    trials![
        what_a_machine_cannot_do_is_refused_before_anything_is_reached,
        the_flags_of_everything_that_runs_a_model_are_the_workers_too,
    ]
}

/// A worker whose server is not there.
fn worker(folder: &Path, file: &str) -> Command {
    let config = folder.join("uspx.toml");
    let common = format!(
        "name = 'w'\nnats = 'nats://127.0.0.1:9'\nstore = '{}'\nmodels = ['{}']\nworker_state = '{}'\n",
        folder.join("store").display(),
        model("student").display(),
        folder.join("state").display(),
    );
    std::fs::write(&config, common + file).unwrap();
    let mut command = uspx();
    command.args(["worker", "-c"]).arg(config);
    command
}

fn what_a_machine_cannot_do_is_refused_before_anything_is_reached() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    refuses(&mut worker(path, "dtype = 'bf16'"), USAGE, &["bf16 is for GPUs", "--dtype"]);
    refuses(worker(path, "").args(["--dtype", "bf16"]), USAGE, &["bf16 is for GPUs"]);
    refuses(worker(path, "").env("USPX_DTYPE", "bf16"), USAGE, &["bf16 is for GPUs"]);
    refuses(&mut worker(path, "device = 'tpu'"), USAGE, &["tpu", "cuda:0"]);
    refuses(&mut worker(path, "memory = 'much'"), BAD_INPUT, &["memory", "uspx.toml"]);
    refuses(&mut worker(path, "stream = 'perhaps'"), BAD_INPUT, &["stream", "uspx.toml"]);
    refuses(worker(path, "").args(["--memory", "much"]), USAGE, &["--memory", "much"]);
    refuses(worker(path, "").args(["--threads", "0"]), USAGE, &["at least 1"]);
}

/// What is right gets as far as the server.
fn the_flags_of_everything_that_runs_a_model_are_the_workers_too() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    let all = "memory = '2GiB'\nstream = true\ndtype = 'f32'\nthreads = 1\nbatch_tokens = 64\n";
    refuses(&mut worker(path, all), UNREACHABLE, &["127.0.0.1:9"]);
    refuses(&mut worker(path, "memory = 2147483648"), UNREACHABLE, &["127.0.0.1:9"]);
    let mut flags = worker(path, "memory = 'much'\ndtype = 'bf16'");
    flags.args(["--memory", "2GiB", "--dtype", "f32", "--stream", "--batch-tokens", "64"]);
    refuses(flags.args(["--device", "cpu", "--threads", "1"]), UNREACHABLE, &["127.0.0.1:9"]);
}
