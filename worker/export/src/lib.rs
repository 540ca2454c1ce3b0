//! 4-bit writers of the dense student (Llama layout): GPTQ folders for transformers and vLLM, GGUF
//! files for llama.cpp and its family. Each is read back and compared before it is called written.
//!
//! Begin at [`export()`]; what differs between formats stands in [`formats`], one file each. In the
//! order of the work: [`calibrate`] walks the layers and gathers each linear's [`hessian`]; [`gptq`]
//! or [`rtn`] choose codes and scales on the [`grid`]; [`mod@finish`] trains them, as far as [`coded`] says that they
//! may be; [`pack`] and [`hf`], or [`gguf`], write files;
//! [`compare`] reads them back, and `same_chat` holds their tokens against the trained student's on
//! [`held_out`] conversations. [`open_any`] makes a running model of whatever lies at a path.
//!
//! `floats` writes the student as it was trained, and [`cut`] is apart: it writes a model without what a mask cuts, quantising
//! nothing. [`planned`] says of a student how large its file would be, before any is written.

pub mod calibrate;
pub mod coded;
pub mod compare;
pub mod cut;
mod difference;
mod error;
mod export;
pub mod finish;
mod floats;
pub mod formats;
pub mod gguf;
pub mod gptq;
pub mod grid;
pub mod held_out;
pub mod hessian;
pub mod hf;
pub mod matrix;
mod open;
pub mod pack;
pub mod planned;
mod product;
pub mod quantised;
mod report;
pub mod rtn;
mod same_chat;
mod settings;
mod tensor_file;
pub mod weights;

pub use difference::{Difference, Part, Place};
pub use error::{ExportError, Result};
pub use export::{ExportRequest, export};
pub use floats::{FloatsReport, write_floats};
pub use formats::GGUF_FILE;
pub use open::{gguf_chat, open_any, open_gguf, open_gptq, slower_than_llama_cpp};
pub use report::{ExportReport, TensorReport, Timing};
pub use settings::ExportSettings;
