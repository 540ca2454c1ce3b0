//! GGUF files: students written for llama.cpp, Ollama and LM Studio, and dense models of anybody
//! read for our own forward pass.
//!
//! [`names`] (what each tensor is called) and [`rope_order`] (how q and k rows lie) hold for both
//! directions; [`tokenizer`], [`special`] and [`metadata`] translate the rest; [`encode`] and `q4_k` make
//! blocks, `write` and `file` are the bytes.

mod block_types;
pub mod encode;
pub mod file;
mod header;
mod llama3;
pub mod metadata;
pub mod names;
mod pairs;
pub(crate) mod q4_k;
mod read;
pub mod rope_order;
mod sentencepiece;
pub mod special;
mod token;
pub mod tokenizer;
pub mod write;

pub use header::TensorType;
pub(crate) use read::format_of;
pub use read::{
    ChatFromGguf, FromGguf, contents, has_other_matrices, in_hf_order, read_chat, read_gguf,
    read_quantised,
};
pub use write::{GgufWriter, Preface, in_gguf_order, write_gguf};
