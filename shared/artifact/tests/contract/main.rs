//! The contract of the store: the same tests over memory, a folder, and a real S3 API (moto).
//!
//! Where moto is not installed (`tests/tools/venv.sh` does that) the S3 tests say so by name and are skipped;
//! `USPX_REQUIRE_S3=1` makes them fail instead.

// The lint's leave for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod backends;
mod blobs;
mod faulty;
mod moto;
mod pulls;
mod pulls_local;
mod releases;
mod s3_errors;
mod samples;
