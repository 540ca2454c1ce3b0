//! Students as Hugging Face folders, in GPTQ or as floats: written for transformers, vLLM and SGLang, and read back.

mod config;
mod read;
mod write;

pub(crate) use config::{meant, scaling, set, write_json};
pub use config::{read_json, student_config, write_chat};
pub use read::{is_gptq, read_gptq};
pub(crate) use write::float_type;
pub use write::{Weights, write_floats, write_folder};
