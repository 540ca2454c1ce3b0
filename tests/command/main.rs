//! The `uspx` command from outside: what it prints, where it ends, and what it leaves alone when it
//! refuses.
//!
//! Tests that need llama.cpp, or Python for what stands in its place, are listed as ignored where
//! there is none; with `USPX_REQUIRE_LLAMA_CPP=1` and `USPX_REQUIRE_PYTHON=1` they fail instead. So are
//! those that need a pseudo-terminal (`USPX_REQUIRE_PTY=1`).

mod causes;
#[cfg(unix)]
mod chat;
mod configs;
mod cuts;
#[cfg(unix)]
mod deploy;
mod depth;
mod engines;
mod forms;
mod inputs;
mod ledger;
mod llama_cpp;
mod masks;
mod one_job;
mod others_gguf;
mod prompts;
mod ranks;
mod releases;
mod report;
mod sae;
mod scripts;
mod served;
mod sizes;
mod students;
mod support;
mod width;
mod worker;

use libtest_mimic::Arguments;
use std::process::ExitCode;

fn main() -> ExitCode {
    let trials = [
        causes::trials(),
        #[cfg(unix)]
        chat::trials(),
        configs::trials(),
        cuts::trials(),
        depth::trials(),
        #[cfg(unix)]
        deploy::trials(),
        engines::trials(),
        forms::trials(),
        inputs::trials(),
        ledger::trials(),
        llama_cpp::trials(),
        masks::trials(),
        one_job::trials(),
        others_gguf::trials(),
        prompts::trials(),
        ranks::trials(),
        releases::trials(),
        report::trials(),
        sae::trials(),
        scripts::trials(),
        served::trials(),
        sizes::trials(),
        students::trials(),
        width::trials(),
        worker::trials(),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials.into_iter().flatten().collect()).exit_code()
}
