//! The engine against values computed with PyTorch and transformers (tests/data/nano.json), and against finite
//! differences.

mod gradients;
mod reference;
mod support;
