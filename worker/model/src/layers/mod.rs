//! The parts of a transformer block, each differentiable.

pub mod attention;
pub mod cache;
mod fused;
mod gated;
pub mod linear;
pub mod mlp;
pub mod moe;
pub mod norm;
pub mod rope;
pub mod rows;
pub(crate) mod slices;
pub mod weight;
