//! How 4-bit students are written, opened and read back, one format a file. Its row stands in the
//! domain's table of export formats.

mod gguf;
mod gptq;
mod packed;
mod rtn;

pub use gguf::GGUF_FILE;

use crate::coded::{Coded, Moved};
use crate::compare::Contents;
use crate::gguf::format_of as gguf_format;
use crate::gptq::Factored;
use crate::hessian::Hessian;
use crate::weights::Piece;
use crate::{ExportError, ExportRequest, ExportSettings, Result};
use candle_core::Tensor;
use candle_core::quantized::GgmlDType;
use std::path::{Path, PathBuf};
use uspx_domain::ExportFormat;
use uspx_kernel::BlockMatrix;
use uspx_model::chat::ChatFiles;
use uspx_model::config::ModelConfig;
use uspx_model::layers::weight::Weight;
use uspx_model::{LoadedModel, Placement};

/// A format: how a student gets into it and out again.
pub trait Format: Sync {
    /// Its row.
    fn format(&self) -> ExportFormat;

    /// How it is quantised where nothing is said.
    fn settings(&self) -> ExportSettings;

    /// Begins to write a student into the folder `out`, which is there.
    ///
    /// # Errors
    /// A student that the format cannot hold; a file that cannot be written.
    fn begin<'a>(&self, request: &'a ExportRequest<'a>, out: &Path)
    -> Result<Box<dyn Writer + 'a>>;

    /// What tells how large the weights' file of a student will be whose base, but for its sizes, lies in
    /// the folder `base`.
    ///
    /// # Errors
    /// A base that the format cannot hold.
    fn sizer(&self, base: &Path) -> Result<Sizer>;

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

    /// Reads every tensor back, in f32 under the base's names, one after another.
    ///
    /// # Errors
    /// As for [`Format::open`].
    fn contents(&self, path: &Path) -> Result<Contents>;
}

/// Gives the bytes of a file of weights, from a student's configuration alone: what its writer would begin
/// it with.
pub type Sizer = Box<dyn Fn(&ModelConfig) -> Result<u64>>;

/// A student on its way into a format. What has come is in its file and no longer in memory, but for linear
/// maps that a finish is still to move.
pub trait Writer {
    /// Inputs that share a scale.
    fn group(&self) -> usize;

    /// Makes of a Hessian what the linear maps behind it are quantised by.
    ///
    /// # Errors
    /// One that is of no use.
    fn prepare(&self, hessian: Hessian) -> Result<Inputs>;

    /// Quantises one linear map.
    ///
    /// # Errors
    /// Weights that the format cannot hold; a file that cannot be written.
    fn linear(&mut self, linear: &Linear<'_>) -> Result<StoredLinear>;

    /// The linear map kept for that module, where its codes may still be moved.
    fn coded(&self, module: &str) -> Option<&dyn Coded>;

    /// Moves it, and gives the weight that the file will hold, f32 `[outputs, inputs]`.
    ///
    /// # Errors
    /// A module that has none; what cannot be stored.
    fn recode(&mut self, module: &str, moved: &Moved) -> Result<Tensor>;

    /// Takes up rows of a tensor that is no linear map.
    ///
    /// # Errors
    /// Values that the format cannot hold; a file that cannot be written.
    fn piece(&mut self, piece: &Piece<'_>) -> Result<Stored>;

    /// Writes what was kept, and what stands beside the weights.
    ///
    /// # Errors
    /// A tensor that never came; a file that cannot be written; a student that the format cannot hold.
    fn finish(&mut self) -> Result<()>;
}

/// What is known of a linear map's inputs.
pub enum Inputs {
    /// 2·XᵀX, factored.
    Factored(Factored),
    /// 2·XᵀX as it is.
    Whole(Hessian),
}

impl Inputs {
    /// The factored one.
    ///
    /// # Errors
    /// It is not: another format's.
    pub fn factored(&self) -> Result<&Factored> {
        match self {
            Self::Factored(factored) => Ok(factored),
            Self::Whole(_) => Err(ExportError::Unsupported("the Hessian is not factored".into())),
        }
    }

    /// The one that is whole.
    ///
    /// # Errors
    /// It is not: another format's.
    pub fn whole(&self) -> Result<&Hessian> {
        match self {
            Self::Whole(hessian) => Ok(hessian),
            Self::Factored(_) => Err(ExportError::Unsupported("the Hessian is factored".into())),
        }
    }
}

/// A linear map of the student, its adapter merged.
pub struct Linear<'a> {
    /// Its module: `model.layers.0.mlp.up_proj`.
    pub module: String,
    /// Its tensor: the module's `weight`.
    pub name: String,
    /// (outputs, inputs).
    pub dims: (usize, usize),
    /// Its weight, row by row.
    pub values: Vec<f32>,
    /// What is known of its inputs.
    pub inputs: &'a Inputs,
}

/// A tensor, or rows of one, as its file has it.
pub struct Stored {
    /// How: `int4 g128`, `Q4_0`, `F16`.
    pub kind: String,
    /// Bytes that it takes in the file.
    pub bytes: u64,
    /// What reading it back must give, f32.
    pub values: Tensor,
}

/// A linear map as its file has it.
pub struct StoredLinear {
    /// What any tensor has.
    pub stored: Stored,
    /// The same weight, held so that it takes little memory where it can be.
    pub weight: Weight,
    /// tr(D·H·Dᵀ) of the difference D from the weight that it was.
    pub output_energy: f64,
    /// The damping that GPTQ needed, where it was used.
    pub damping: Option<f64>,
}

/// A weight to run on with, in the blocks that hold its values if there are such.
pub(crate) fn running(
    (outputs, inputs): (usize, usize),
    blocks: Option<(GgmlDType, Vec<u8>)>,
    values: &Tensor,
) -> Result<Weight> {
    let known = blocks.and_then(|(dtype, bytes)| Some((gguf_format(dtype)?, bytes)));
    let Some((format, bytes)) = known else { return Ok(Weight::Float(values.clone())) };
    let matrix = BlockMatrix::new(format, outputs, inputs, bytes);
    Ok(Weight::Quantised(matrix.map_err(|e| ExportError::Unsupported(e.to_string()))?))
}

/// The difference between two weights.
pub(crate) fn difference(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
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
