//! One contract, two backends: `embedded::NAME` and `nats::NAME` run the same code.
//!
//! Every `nats::` test starts a nats-server of its own. Where none is found (or only one that is
//! too old) they are listed as ignored; with `USPX_REQUIRE_NATS=1` they fail instead.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

/// Names and boxes async functions.
macro_rules! clauses {
    ($($name:ident),+ $(,)?) => { vec![$((stringify!($name), (|bus| Box::pin($name(bus))) as $crate::Clause)),+] };
}

mod keys;
mod letters;
mod limited;
mod outage;
mod queues;
mod room;
mod support;
mod topics;

use libtest_mimic::{Arguments, Failed, Trial};
use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use support::Ground;
use uspx_bus::server::find_program;
use uspx_bus::{Bus, EmbeddedBus};
use uspx_tests::Need;

/// A test of the contract.
pub type Clause = fn(Arc<dyn Bus>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

fn run(test: impl Future<Output = ()>) -> Result<(), Failed> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(test);
    Ok(())
}

fn on_embedded(name: &str, clause: Clause) -> Trial {
    Trial::test(format!("embedded::{name}"), move || run(clause(Arc::new(EmbeddedBus::new()))))
}

fn on_nats(name: &str, clause: Clause) -> Trial {
    let test = move || {
        run(async move {
            let ground = Ground::new();
            clause(Arc::new(ground.connect().await)).await;
        })
    };
    Trial::test(format!("nats::{name}"), test)
}

fn main() -> ExitCode {
    if outage::is_child() {
        return outage::child();
    }
    let clauses =
        [queues::clauses(), letters::clauses(), topics::clauses(), keys::clauses()].concat();
    let mut trials: Vec<Trial> =
        clauses.iter().map(|(name, clause)| on_embedded(name, *clause)).collect();
    let mut nats: Vec<Trial> = clauses.iter().map(|(n, clause)| on_nats(n, *clause)).collect();
    nats.extend(outage::trials());
    nats.extend(keys::trials());
    nats.extend(room::trials());
    let need = Need::new("nats-server", "USPX_REQUIRE_NATS", find_program().is_ok());
    trials.extend(need.of_all(nats));
    let disk = Need::new("mountable tmpfs", "USPX_REQUIRE_TMPFS", room::has_small_disks());
    trials.extend(need.of_all(disk.of_all(room::on_a_small_disk())));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
