//! Every row has its file, and what adding a format takes.

use super::*;
use crate::grid::ScaleRule;
use crate::{export::export_by, hf, weights};
use candle_core::{DType, Device, safetensors};
use std::collections::HashMap;
use uspx_domain::{ExportFormatRow, Prompt};
use uspx_model::NoProgress;

#[test]
fn every_row_has_its_format() {
    let rows: Vec<ExportFormat> = ALL.iter().map(|f| f.format()).collect();
    assert_eq!(rows, ExportFormat::ALL);
}

static ROW: ExportFormatRow = ExportFormatRow {
    name: "example",
    title: "half precision",
    help: "a Hugging Face folder in half precision",
    folder: Some("example"),
    is_gated: false,
};

/// A format for tests: what adding one takes, besides its row and its place in `ALL`.
struct Example;

impl Format for Example {
    fn format(&self) -> ExportFormat {
        ExportFormat::of(&ROW)
    }

    fn settings(&self) -> ExportSettings {
        let rule = ScaleRule::AbsMax;
        ExportSettings { rule, damping: 0.0, act_order: false, fitted_blocks: false, finish: 0 }
    }

    fn begin<'a>(
        &self,
        request: &'a ExportRequest<'a>,
        out: &Path,
    ) -> Result<Box<dyn Writer + 'a>> {
        let (base, out) = (request.base, out.to_owned());
        Ok(Box::new(Halves { base, out, tensors: HashMap::new() }))
    }

    fn sizer(&self, _: &Path) -> Result<Sizer> {
        let weights = |config: &ModelConfig| -> Result<u64> {
            let linears = weights::linears(config)?.into_values().map(|(n, k)| n * k);
            let rest = weights::rest(config).into_values().map(|shape| shape.iter().product());
            Ok(2 * linears.chain(rest).sum::<usize>() as u64)
        };
        Ok(Box::new(weights))
    }

    fn is_at(&self, path: &Path) -> bool {
        path.join("model.safetensors").exists()
    }

    fn open(&self, path: &Path, placement: Placement) -> Result<LoadedModel> {
        Ok(LoadedModel::open(path, placement)?)
    }

    fn contents(&self, path: &Path) -> Result<Contents> {
        hf::float_contents(path)
    }
}

struct Halves<'a> {
    base: &'a Path,
    out: PathBuf,
    tensors: HashMap<String, Vec<Tensor>>,
}

impl Halves<'_> {
    fn keep(&mut self, name: &str, tensor: &Tensor) -> Result<Stored> {
        let half = tensor.to_dtype(DType::F16)?;
        let (bytes, values) = (2 * half.elem_count() as u64, half.to_dtype(DType::F32)?);
        self.tensors.entry(name.to_owned()).or_default().push(half);
        Ok(Stored { kind: "F16".into(), bytes, values })
    }
}

impl Writer for Halves<'_> {
    fn group(&self) -> usize {
        1
    }

    fn prepare(&self, hessian: Hessian) -> Result<Inputs> {
        Ok(Inputs::Whole(hessian))
    }

    fn linear(&mut self, linear: &Linear<'_>) -> Result<StoredLinear> {
        let weight = Tensor::from_slice(&linear.values, linear.dims, &Device::Cpu)?;
        let stored = self.keep(&linear.name, &weight)?;
        let moved = difference(&linear.values, &stored.values.flatten_all()?.to_vec1::<f32>()?);
        let output_energy = linear.inputs.whole()?.output_energy(&moved)?;
        let weight = running(linear.dims, None, &stored.values)?;
        Ok(StoredLinear { stored, weight, output_energy, damping: None })
    }

    fn coded(&self, _: &str) -> Option<&dyn Coded> {
        None
    }

    fn recode(&mut self, module: &str, _: &Moved) -> Result<Tensor> {
        Err(ExportError::MissingTensor(module.to_owned()))
    }

    fn piece(&mut self, piece: &Piece<'_>) -> Result<Stored> {
        self.keep(piece.name, &piece.rows)
    }

    fn finish(&mut self) -> Result<()> {
        let whole =
            |(name, parts): (&String, &Vec<Tensor>)| Ok((name.clone(), Tensor::cat(parts, 0)?));
        let tensors = self.tensors.iter().map(whole).collect::<Result<HashMap<_, _>>>()?;
        safetensors::save(&tensors, self.out.join("model.safetensors"))?;
        let config = hf::read_json(&self.base.join("config.json"))?;
        let config = hf::student_config(&config, "float16", None)?;
        std::fs::write(self.out.join("config.json"), config.to_string())
            .map_err(ExportError::writing(&self.out))?;
        hf::write_chat(self.base, &self.out)
    }
}

fn prompt() -> Prompt {
    let (id, prompt, reference) = ("p".into(), "list files".into(), Some("ls".into()));
    Prompt { id, prompt, reference, system: None, earlier: vec![], tags: vec![] }
}

#[test]
fn a_format_is_one_file_and_one_row() {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/nano/student");
    let placement = Placement::floats(DType::F32, &Device::Cpu);
    let student = LoadedModel::open(&base, placement.clone()).unwrap();
    let (out, prompts) = (tempfile::tempdir().unwrap(), [prompt()]);
    let calibration = student.readable(&prompts).unwrap().sequences;
    let request = ExportRequest {
        student: &student,
        base: &base,
        name: "example",
        calibration: &calibration,
        batch_tokens: 64,
        conversations: &prompts,
        labels: &[],
        format: ExportFormat::of(&ROW),
        settings: Example.settings(),
    };
    let report = export_by(&Example, &request, out.path(), &NoProgress).unwrap();
    assert_eq!(report.verification.tensors, 38);
    assert!(report.conversations > 1 && report.files.contains(&"model.safetensors".to_owned()));
    assert!(Example.is_at(out.path()) && Example.open(out.path(), placement).is_ok());

    let refused = crate::export(&request, out.path(), &NoProgress).unwrap_err().to_string();
    assert!(refused.contains("example: upgrade"), "it has a row and no file: {refused}");
}

#[test]
fn what_lies_somewhere_is_recognised() {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/nano/student");
    assert!(at(&assets).is_none(), "floats");
    let file = at(&assets.join("config.json")).map(|format| format.format());
    assert_eq!(file, Some(ExportFormat::GGUF), "its reader says what is wrong with the file");
}
