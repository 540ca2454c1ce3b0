//! The colony over a real network, and what becomes of it when parts of it are killed: the `uspx`
//! binary, a real nats-server, a real S3 API.
//!
//! Every test that needs a nats-server starts its own. Where none is found they are listed as
//! ignored; with `USPX_REQUIRE_NATS=1` (`USPX_REQUIRE_S3=1` for moto) they fail instead.

mod campaign;
mod crashes;
mod demo;
mod faults;
mod ground;
mod invariant_3;
mod invariant_4;
mod invariant_8;
mod ledger;
mod left_out;
mod living;
mod names;
mod process;
mod readme;
mod replay;
mod saes;
mod seams;
mod together;
mod up;

use libtest_mimic::Arguments;
use std::process::ExitCode;

fn main() -> ExitCode {
    let needs = ground::Needs::look();
    let trials = [
        campaign::trials(&needs),
        crashes::trials(&needs),
        demo::trials(&needs),
        faults::trials(&needs),
        invariant_3::trials(&needs),
        invariant_4::trials(),
        invariant_8::trials(),
        left_out::trials(&needs),
        living::trials(&needs),
        names::trials(&needs),
        readme::trials(&needs),
        replay::trials(),
        saes::trials(&needs),
        seams::trials(),
        together::trials(&needs),
        up::trials(),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials.into_iter().flatten().collect()).exit_code()
}
