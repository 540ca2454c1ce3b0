//! The colony over a real network, and what becomes of it when parts of it are killed: the `uspx` binary, a real
//! nats-server, a real S3 API.
//!
//! Every test that needs a nats-server starts its own. Where none is found they print SKIPPED and their name; with
//! `USPX_REQUIRE_NATS=1` (`USPX_REQUIRE_S3=1` for moto) they fail instead.

mod campaign;
mod crashes;
mod demo;
mod ground;
mod invariant_3;
mod invariant_4;
mod invariant_8;
mod ledger;
mod left_out;
#[path = "../../shared/artifact/tests/contract/moto.rs"]
mod moto;
mod process;
mod replay;
mod seams;
