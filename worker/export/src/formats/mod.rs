//! How 4-bit students are written, opened and read back, one format a file. Its row stands in the
//! domain's table of export formats.

mod gguf;
mod gptq;
mod packed;
mod rtn;

pub use gguf::GGUF_FILE;

use crate::coded::{Coded, Moved};
use crate::hessian::Hessian;
use crate::{ExportError, ExportRequest, ExportSettings, Result};
use candle_core::Tensor;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use uspx_domain::ExportFormat;
use uspx_model::chat::ChatFiles;
use uspx_model::{LoadedModel, Placement};

/// A format: how a student gets into it and out again.
pub trait Format: Sync {
    /// Its row.
    fn format(&self) -> ExportFormat;

    /// How it is quantised where nothing is said.
    fn settings(&self) -> ExportSettings;

    /// Begins to write a student.
    ///
    /// # Errors
    /// A student that the format cannot hold.
    fn begin<'a>(&self, request: &'a ExportRequest<'a>) -> Result<Box<dyn Writer + 'a>>;

    /// What is opened of a folder that was written: the folder itself, or a file in it.
    fn path(&self, folder: &Path) -> PathBuf {
        folder.to_owned()
    }

    /// Whether what lies at `path`, ours or another's, is of this format.
    fn is_at(&self, path: &Path) -> bool;

    /// Makes a running model of it.
    ///
    /// # Errors
    /// What is wrong with its files, by name.
    fn open(&self, path: &Path, placement: Placement) -> Result<LoadedModel>;

    /// What its conversations are made with.
    ///
    /// # Errors
    /// As for [`Format::open`].
    fn chat(&self, path: &Path) -> Result<ChatFiles> {
        Ok(ChatFiles::read(path)?)
    }

    /// Reads every tensor back, f32 on the CPU, under the base's names.
    ///
    /// # Errors
    /// As for [`Format::open`].
    fn tensors(&self, path: &Path) -> Result<HashMap<String, Tensor>>;
}

/// A student on its way into a format.
pub trait Writer {
    /// Inputs that share a scale.
    fn group(&self) -> usize;

    /// Quantises one linear map, and keeps it to be written.
    ///
    /// # Errors
    /// Weights that the format cannot hold.
    fn linear(&mut self, linear: &Linear<'_>) -> Result<Stored>;

    /// The linear map kept for that module, where its codes may still be moved.
    fn coded(&self, module: &str) -> Option<&dyn Coded>;

    /// Moves it, and gives the weight that the file will hold, f32 `[outputs, inputs]`.
    ///
    /// # Errors
    /// A module that has none; what cannot be stored.
    fn recode(&mut self, module: &str, moved: &Moved) -> Result<Tensor>;

    /// Writes what was kept and `rest`, the tensors that are no linear maps (f32), into the folder
    /// `out`. Returns how the rest is stored.
    ///
    /// # Errors
    /// A file that cannot be written; a student that the format cannot hold.
    fn write(
        &mut self,
        rest: &BTreeMap<String, Tensor>,
        out: &Path,
    ) -> Result<BTreeMap<String, Stored>>;
}

/// A linear map of the student, its adapter merged.
pub struct Linear<'a> {
    /// Its module: `model.layers.0.mlp.up_proj`.
    pub module: String,
    /// Its tensor: the module's `weight`.
    pub name: String,
    /// Its weight, f32 `[outputs, inputs]` on the CPU.
    pub weight: Tensor,
    /// The same, row by row.
    pub values: Vec<f32>,
    /// 2·XᵀX of its inputs.
    pub hessian: &'a Hessian,
}

/// A tensor as its file has it.
pub struct Stored {
    /// How: `int4 g128`, `Q4_0`, `F16`.
    pub kind: String,
    /// Bytes that it takes in the file.
    pub bytes: u64,
    /// What reading it back must give, f32.
    pub values: Tensor,
    /// The damping that GPTQ needed, where it was used.
    pub damping: Option<f64>,
}

/// Every format there is.
const ALL: &[&dyn Format] = &[&gptq::Gptq, &rtn::RoundToNearest, &gguf::Gguf];

/// A row's writer and reader.
///
/// # Errors
/// [`ExportError::Unsupported`] where there is none here.
pub fn of(format: ExportFormat) -> Result<&'static dyn Format> {
    let found = ALL.iter().copied().find(|f| f.format() == format);
    let why = || format!("this uspx cannot write or read students as {format}: upgrade");
    found.ok_or_else(|| ExportError::Unsupported(why()))
}

/// The format of what lies at `path`; none for a folder that is not quantised.
pub fn at(path: &Path) -> Option<&'static dyn Format> {
    ALL.iter().copied().find(|format| format.is_at(path))
}

#[cfg(test)]
mod tests;
