//! The parts of a transformer block, each differentiable.

pub mod attention;
pub mod linear;
pub mod mlp;
pub mod moe;
pub mod norm;
pub mod rope;
mod swiglu;
