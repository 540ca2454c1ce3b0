//! The engine against values computed with PyTorch and transformers (tests/data/nano.json), and
//! against finite differences.

mod architectures;
mod exact;
mod features;
mod gradients;
mod reasoning;
mod reference;
mod support;
mod tokens;
