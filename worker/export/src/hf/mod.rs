//! Students as Hugging Face folders, in GPTQ or as floats: written for transformers, vLLM and SGLang, and read back.

mod config;
mod header;
mod read;
mod write;

pub(crate) use config::{meant, scaling, set, write_json};
pub use config::{read_json, student_config, write_chat};
pub(crate) use header::{header, places};
pub use read::{float_contents, gptq_contents, is_gptq, read_gptq};
pub use write::{FolderWriter, Layout, float_type};
pub(crate) use write::{fits_f16, folder_bytes};
