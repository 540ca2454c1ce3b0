//! A student that is read from its file layer by layer becomes the same files, bit by bit, as one that is held
//! in memory: with an adapter, with a head of its own and without; and one wrong bit is found.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // Clippy knows test functions, not their helpers.

use candle_core::{DType, Device, Tensor, safetensors};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use uspx_domain::{ExportFormat, Prompt, parse_prompts};
use uspx_export::compare::compare;
use uspx_export::{
    ExportError, ExportReport, ExportRequest, ExportSettings, export, formats, write_floats,
};
use uspx_model::layers::adapter::Adapter;
use uspx_model::taps::Projection;
use uspx_model::{Holding, LoadedModel, NoProgress, Placement};

/// Blocks of K-quants fit it, groups of 128, and its vocabulary is no whole number of panels.
const HIDDEN: usize = 256;
const INNER: usize = 512;
const VOCAB: usize = 2348;

fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets")
}

fn random(rng: &mut ChaCha8Rng, shape: &[usize]) -> Tensor {
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|_| rng.random_range(-0.1..0.1)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// A student of two layers of random bf16, with the shipped student's tokenizer.
fn student(tied: bool) -> TempDir {
    let (from, to) = (assets().join("nano/student"), tempfile::tempdir().unwrap());
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        std::fs::copy(from.join(name), to.path().join(name)).unwrap();
    }
    let text = std::fs::read_to_string(from.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    for (key, value) in [
        ("hidden_size", HIDDEN),
        ("intermediate_size", INNER),
        ("num_hidden_layers", 2),
        ("num_attention_heads", 4),
        ("num_key_value_heads", 2),
        ("head_dim", 64),
        ("vocab_size", VOCAB),
    ] {
        config[key] = value.into();
    }
    config["tie_word_embeddings"] = tied.into();
    std::fs::write(to.path().join("config.json"), config.to_string()).unwrap();
    let tensors = tensors(tied);
    safetensors::save(&tensors, to.path().join("model.safetensors")).unwrap();
    to
}

fn tensors(tied: bool) -> HashMap<String, Tensor> {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut shapes =
        BTreeMap::from([("model.embed_tokens.weight".to_owned(), vec![VOCAB, HIDDEN])]);
    if !tied {
        shapes.insert("lm_head.weight".into(), vec![VOCAB, HIDDEN]);
    }
    for layer in 0..2 {
        for projection in Projection::DENSE {
            let (out, into) = match projection {
                Projection::Q | Projection::O => (HIDDEN, HIDDEN),
                Projection::K | Projection::V => (HIDDEN / 2, HIDDEN),
                Projection::Gate | Projection::Up => (INNER, HIDDEN),
                Projection::Down => (HIDDEN, INNER),
            };
            shapes.insert(format!("{}.weight", projection.path(layer)), vec![out, into]);
        }
    }
    let norms = (0..2).flat_map(|layer| {
        ["input_layernorm", "post_attention_layernorm"]
            .map(|norm| format!("model.layers.{layer}.{norm}.weight"))
    });
    let norms: Vec<String> = norms.chain(["model.norm.weight".to_owned()]).collect();
    let mut tensors: HashMap<String, Tensor> =
        shapes.into_iter().map(|(name, shape)| (name, random(&mut rng, &shape))).collect();
    for name in norms {
        tensors.insert(name, (random(&mut rng, &[HIDDEN]) + 1.0).unwrap());
    }
    tensors.into_iter().map(|(name, t)| (name, t.to_dtype(DType::BF16).unwrap())).collect()
}

fn open(folder: &Path, holding: Holding) -> LoadedModel {
    let placement = Placement::new(holding, DType::F32, &Device::Cpu);
    // So small that what enters a layer goes to a file.
    let placement = Placement { boundaries: 4096, ..placement };
    let mut model = LoadedModel::open(folder, placement).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    for layer in 0..2 {
        for projection in Projection::DENSE {
            let (out, into) = model.transformer.linear_dims(layer, projection).unwrap();
            let (a, b) = (random(&mut rng, &[2, into]), random(&mut rng, &[out, 2]));
            let adapter = Adapter { a, b, scale: 0.5 };
            model.transformer.attach(layer, projection, adapter).unwrap();
        }
    }
    model
}

fn prompts() -> Vec<Prompt> {
    let text = std::fs::read_to_string(assets().join("prompts/cli-train.jsonl")).unwrap();
    let mut all = parse_prompts(&text, false).unwrap().prompts;
    all.truncate(24);
    all
}

fn run(
    (model, base): (&LoadedModel, &Path),
    format: ExportFormat,
    out: &Path,
) -> Result<ExportReport, ExportError> {
    let prompts = prompts();
    let calibration = model.readable(&prompts).unwrap().sequences;
    let settings = ExportSettings { finish: 0, ..ExportSettings::shipped(format).unwrap() };
    let request = ExportRequest {
        student: model,
        base,
        name: "a student",
        calibration: &calibration,
        batch_tokens: 300,
        conversations: &prompts,
        labels: &[],
        format,
        settings,
    };
    export(&request, out, &NoProgress)
}

/// The bytes of each file of a folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let read = |entry: std::fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
    };
    entries.map(read).collect()
}

#[test]
fn streamed_and_held_students_become_the_same_files() {
    for (tied, format) in [
        (true, ExportFormat::GPTQ),
        (false, ExportFormat::GPTQ),
        (true, ExportFormat::GGUF),
        (false, ExportFormat::GGUF),
        (false, ExportFormat::RTN),
    ] {
        let base = student(tied);
        let written = |holding| {
            let (model, out) = (open(base.path(), holding), tempfile::tempdir().unwrap());
            assert_eq!(model.transformer.is_streamed(), holding == Holding::Streamed);
            let report = run((&model, base.path()), format, out.path()).unwrap();
            assert_eq!(report.verification.tensors, 21 - usize::from(tied), "{format}");
            (files(out.path()), report.mean_output_error())
        };
        let [(held, error), (streamed, other), (stored, _)] =
            [Holding::Floats, Holding::Streamed, Holding::Stored].map(written);
        assert!(error > 0.0 && (error - other).abs() < 1e-3 * error, "{error} {other}");
        for (name, bytes) in &held {
            assert!(streamed[name] == *bytes && stored[name] == *bytes, "{format}, {name}, {tied}");
        }
        assert_eq!(held.len(), streamed.len());
    }
}

#[test]
fn floats_too_and_with_the_adapter_merged() {
    let base = student(false);
    let written = |holding| {
        let (model, out) = (open(base.path(), holding), tempfile::tempdir().unwrap());
        let report = write_floats(&model, base.path(), &prompts(), out.path()).unwrap();
        assert_eq!((report.verification.tensors, report.dtype.as_str()), (21, "bf16"));
        let path = out.path().join("model.safetensors");
        (files(out.path()), safetensors::load(path, &Device::Cpu).unwrap())
    };
    let [(held, tensors), (streamed, _)] = [Holding::Floats, Holding::Streamed].map(written);
    assert!(held == streamed);
    let model = open(base.path(), Holding::Floats);
    let merged = model.transformer.linear(1, Projection::K).unwrap().merged().unwrap();
    let merged = merged.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap();
    let read = &tensors["model.layers.1.self_attn.k_proj.weight"];
    let values = |t: &Tensor| t.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(values(read), values(&merged));
}

#[test]
fn one_wrong_bit_is_found_whichever_tensor_it_is_in() {
    let base = student(true);
    let model = open(base.path(), Holding::Streamed);
    for (format, file) in
        [(ExportFormat::RTN, "model.safetensors"), (ExportFormat::GGUF, uspx_export::GGUF_FILE)]
    {
        let out = tempfile::tempdir().unwrap();
        run((&model, base.path()), format, out.path()).unwrap();
        let of = formats::of(format).unwrap();
        let (path, file) = (of.path(out.path()), out.path().join(file));
        let (meant, whole) = (of.contents(&path).unwrap(), std::fs::read(&file).unwrap());
        // In codes of a linear map, and in the vocabulary.
        for at in [3, 5, 7].map(|tenths| whole.len() * tenths / 10) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&file, &bytes).unwrap();
            let found = compare(&of.contents(&path).unwrap(), &meant);
            assert!(
                matches!(found, Err(ExportError::Mismatch { .. })),
                "{format} at {at}: {found:?}"
            );
        }
    }
}

#[test]
fn a_streamed_student_has_no_finish() {
    let base = student(true);
    let (model, out) = (open(base.path(), Holding::Streamed), tempfile::tempdir().unwrap());
    let prompts = prompts();
    let request = ExportRequest {
        student: &model,
        base: base.path(),
        name: "a student",
        calibration: &model.readable(&prompts).unwrap().sequences,
        batch_tokens: 300,
        conversations: &[],
        labels: &[],
        format: ExportFormat::GPTQ,
        settings: ExportSettings::shipped(ExportFormat::GPTQ).unwrap(),
    };
    let refused = export(&request, out.path(), &NoProgress).unwrap_err().to_string();
    assert!(refused.contains("finish") && refused.contains("leave it out"), "{refused}");
}
