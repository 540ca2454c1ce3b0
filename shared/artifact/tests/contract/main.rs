//! The contract of the store: the same tests over memory, a folder, and a real S3 API (moto).
//!
//! Where moto is not installed (`tests/tools/venv.sh` does that) the S3 tests are listed as
//! ignored; with `USPX_REQUIRE_S3=1` they fail instead.

// The lint's leave for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod backends;
mod blobs;
mod carry;
mod causes;
mod collect;
mod faulty;
mod invariant_6;
#[cfg(unix)]
mod private;
mod pulls;
mod pulls_local;
mod releases;
mod rollbacks;
mod s3_errors;
mod samples;
mod states;

use libtest_mimic::Arguments;
use std::process::ExitCode;

fn main() -> ExitCode {
    let trials = [
        blobs::trials(),
        carry::trials(),
        causes::trials(),
        collect::trials(),
        invariant_6::trials(),
        #[cfg(unix)]
        private::trials(),
        pulls::trials(),
        pulls_local::trials(),
        releases::trials(),
        rollbacks::trials(),
        s3_errors::trials(),
        states::trials(),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials.into_iter().flatten().collect()).exit_code()
}
