//! GGUF students for llama.cpp, Ollama, LM Studio and our own forward pass: written, and read back.
//!
//! [`names`] (what each tensor is called) and [`rope_order`] (how q and k rows lie) hold for both directions;
//! [`tokenizer`] and [`metadata`] translate the rest; `write` and `file` are the bytes.

pub mod encode;
pub mod file;
pub mod metadata;
pub mod names;
mod read;
pub mod rope_order;
pub mod tokenizer;
pub mod write;

pub use read::{LlamaFromGguf, in_hf_order, read_gguf};
pub use write::{in_gguf_order, write_gguf};
