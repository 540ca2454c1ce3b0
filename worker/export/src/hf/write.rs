//! Writes a student's folder: model.safetensors, linear map by linear map, packed or as floats, and
//! everything else beside it in pieces; then what stands beside the weights.

use crate::hf::config;
use crate::hf::header::{Coming, header, places};
use crate::pack::{PackedWeights, pack};
use crate::quantised::QuantLinear;
use crate::tensor_file::{Place, TensorFile};
use crate::weights::{HEAD, Piece};
use crate::{ExportError, Result, weights};
use candle_core::{DType, Tensor};
use half::{bf16, f16};
use safetensors::tensor::Dtype;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use uspx_model::checkpoint::SINGLE;
use uspx_model::transformer::Transformer;

/// What a folder is to hold.
#[derive(Debug, Clone)]
pub struct Layout {
    /// 4-bit linears by module (`model.layers.0.mlp.up_proj`): (outputs, inputs).
    pub linears: BTreeMap<String, (usize, usize)>,
    /// Inputs that share a scale.
    pub group: usize,
    /// The damping that quantize_config.json tells.
    pub damping: f64,
    /// What stays floats by tensor: shapes. The head is absent where it is the embedding.
    pub floats: BTreeMap<String, Vec<usize>>,
    /// The type of the floats.
    pub dtype: DType,
}

/// A folder on its way.
#[derive(Debug)]
pub struct FolderWriter {
    to: PathBuf,
    from: PathBuf,
    layout: Layout,
    file: TensorFile,
}

impl FolderWriter {
    /// Begins the folder `to` (made if need be); `from` is the base's, for configuration and conversations.
    ///
    /// # Errors
    /// A file that cannot be written, or weights that the layout cannot hold.
    pub fn create(to: &Path, from: &Path, layout: Layout) -> Result<Self> {
        std::fs::create_dir_all(to).map_err(ExportError::writing(to))?;
        let path = to.join(SINGLE);
        let (header, places, length) = begun(&path, &layout)?;
        let file = TensorFile::create(&path, &header, places, length)?;
        Ok(Self { to: to.to_owned(), from: from.to_owned(), layout, file })
    }

    /// Writes a 4-bit linear.
    ///
    /// # Errors
    /// A file that cannot be written; a linear that the layout does not name.
    pub fn linear(&mut self, module: &str, linear: &QuantLinear) -> Result<()> {
        let PackedWeights { qweight, qzeros, scales, g_idx, .. } = pack(linear)?;
        let words =
            |values: &[i32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let scales: Vec<u8> = scales.iter().flat_map(|s| s.to_le_bytes()).collect();
        self.file.put(&format!("{module}.qweight"), 0, &words(&qweight))?;
        self.file.put(&format!("{module}.qzeros"), 0, &words(&qzeros))?;
        self.file.put(&format!("{module}.scales"), 0, &scales)?;
        self.file.put(&format!("{module}.g_idx"), 0, &words(&g_idx))
    }

    /// Writes rows of a tensor that stays a float; what a reader makes of them, and their bytes.
    ///
    /// # Errors
    /// A file that cannot be written; a tensor that the layout does not name.
    pub fn floats(&mut self, piece: &Piece<'_>) -> Result<(Tensor, u64)> {
        let (stored, width) = (piece.rows.to_dtype(self.layout.dtype)?, row(piece.shape));
        let bytes = float_bytes(&stored)?;
        let at = piece.first * width * self.layout.dtype.size_in_bytes();
        self.file.put(piece.name, at as u64, &bytes)?;
        Ok((stored.to_dtype(DType::F32)?, bytes.len() as u64))
    }

    /// Ends it, with config.json made from the base's, quantize_config.json, and what conversations are
    /// made with.
    ///
    /// # Errors
    /// A tensor that was not written; a file that cannot be read or written.
    pub fn finish(&self) -> Result<()> {
        self.file.finish()?;
        let Layout { linears, group, damping, floats, dtype } = &self.layout;
        let quantisation = (!linears.is_empty()).then(|| config::quantisation(*group, *damping));
        let tied = !floats.contains_key(HEAD);
        write_config(&self.to, &self.from, (*dtype, tied), quantisation.as_ref())?;
        if let Some(quantisation) = &quantisation {
            config::write_json(&self.to.join("quantize_config.json"), quantisation)?;
        }
        config::write_chat(&self.from, &self.to)
    }
}

/// The file's header, where each tensor lies, and its length.
fn begun(path: &Path, layout: &Layout) -> Result<(Vec<u8>, BTreeMap<String, Place>, u64)> {
    let coming = coming(layout)?;
    let header = header(path, coming.clone())?;
    let (places, length) = places(&coming, header.len());
    Ok((header, places, length))
}

/// Bytes of the file that a folder of this layout holds its weights in.
///
/// # Errors
/// Weights that the layout cannot hold.
pub(crate) fn folder_bytes(layout: &Layout) -> Result<u64> {
    Ok(begun(Path::new(SINGLE), layout)?.2)
}

/// The tensors of the file in their order: the wider types first, so that each is aligned.
fn coming(layout: &Layout) -> Result<Vec<Coming>> {
    let mut all = Vec::new();
    for (module, (outputs, inputs)) in &layout.linears {
        let (n, k) = (*outputs, *inputs);
        crate::pack::check_sides(n, k)?;
        let groups = k / layout.group;
        all.extend([
            (format!("{module}.qweight"), Dtype::I32, vec![k / 8, n]),
            (format!("{module}.qzeros"), Dtype::I32, vec![groups, n / 8]),
            (format!("{module}.scales"), Dtype::F16, vec![groups, n]),
            (format!("{module}.g_idx"), Dtype::I32, vec![k]),
        ]);
    }
    let dtype = match layout.dtype {
        DType::F16 => Dtype::F16,
        DType::F32 => Dtype::F32,
        _ => Dtype::BF16,
    };
    all.extend(layout.floats.iter().map(|(name, shape)| (name.clone(), dtype, shape.clone())));
    all.sort_by(|(a, x, _), (b, y, _)| y.bitsize().cmp(&x.bitsize()).then_with(|| a.cmp(b)));
    Ok(all)
}

/// Values of a row.
fn row(shape: &[usize]) -> usize {
    shape.iter().skip(1).product()
}

/// Writes config.json, made from the base's.
fn write_config(
    to: &Path,
    from: &Path,
    (dtype, tied): (DType, bool),
    quantisation: Option<&Value>,
) -> Result<()> {
    let base = config::read_json(&from.join("config.json"))?;
    let name = match dtype {
        DType::F16 => "float16",
        DType::F32 => "float32",
        _ => "bfloat16",
    };
    let mut config = config::student_config(&base, name, quantisation)?;
    // A head of its own may stand beside a key that ties it: older readers would pass over the
    // head.
    config::set(&mut config, "tie_word_embeddings", tied.into());
    config::write_json(&to.join("config.json"), &config)
}

/// f16, which holds the scales exactly and any bf16 weight of ordinary size too; bf16 where a value of
/// what stays floats exceeds f16.
///
/// # Errors
/// Values that are not finite; a model that cannot be read.
pub fn float_type(student: &Transformer) -> Result<DType> {
    let mut dtype = DType::F16;
    weights::each_piece(student, &mut |piece| {
        if !fits_f16(&weights::values(piece.name, &piece.rows)?) {
            dtype = DType::BF16;
        }
        Ok(())
    })?;
    Ok(dtype)
}

/// Whether f16 has room for the largest of them.
pub(crate) fn fits_f16(values: &[f32]) -> bool {
    values.iter().all(|v| v.abs() <= f16::MAX.to_f32())
}

fn float_bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let flat = tensor.flatten_all()?;
    Ok(match flat.dtype() {
        DType::F16 => flat.to_vec1::<f16>()?.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::F32 => flat.to_vec1::<f32>()?.iter().flat_map(|v| v.to_le_bytes()).collect(),
        _ => flat.to_vec1::<bf16>()?.iter().flat_map(|v| v.to_le_bytes()).collect(),
    })
}
