//! Tests across crates; see the folders beside `src`.
