//! Coordinators on one bus: the second refuses, takes over from a dead one, and a zombie settles
//! nothing; answers to what was never issued are nobody's to acknowledge; a bus without room ends
//! nobody. On the embedded bus under a paused clock, and on real nats-servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod embedded;
mod gate;
mod ground;
#[path = "../../../../shared/bus/tests/contract/limited.rs"]
mod limited;
mod nats;

use libtest_mimic::{Arguments, Failed, Trial};
use std::future::Future;
use std::process::ExitCode;
use uspx_bus::server::find_program;
use uspx_tests::Need;

/// A test under a paused clock.
fn paused(name: &str, test: impl Future<Output = ()> + Send + 'static) -> Trial {
    let run = move || -> Result<(), Failed> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()?;
        runtime.block_on(test);
        Ok(())
    };
    Trial::test(format!("embedded::{name}"), run)
}

/// A test against a real server.
fn real(name: &str, test: impl Future<Output = ()> + Send + 'static) -> Trial {
    let run = move || -> Result<(), Failed> {
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(test);
        Ok(())
    };
    Trial::test(format!("nats::{name}"), run)
}

fn main() -> ExitCode {
    if nats::is_child() {
        return nats::child();
    }
    let need = Need::new("nats-server", "USPX_REQUIRE_NATS", find_program().is_ok());
    let mut trials = embedded::trials();
    trials.extend(need.of_all(nats::trials()));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
