//! The engine against values computed with PyTorch and transformers (tests/data/nano.json), and
//! against finite differences.

mod architectures;
mod circuits;
mod exact;
mod features;
mod gradients;
mod layers;
mod reasoning;
mod reference;
mod relevance;
mod slopes;
mod support;
mod tokens;
mod trace;
