//! The parts of a transformer block, each differentiable.

pub mod adapter;
pub mod attention;
mod attention_back;
pub mod block;
pub mod cache;
pub mod frame;
mod fused;
mod gated;
pub mod kept;
pub mod linear;
pub mod mlp;
pub mod moe;
pub mod norm;
pub mod on_device;
pub mod rectangle;
pub mod relevance;
pub mod rope;
pub mod rows;
pub(crate) mod slices;
pub mod weight;
