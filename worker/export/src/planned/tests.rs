//! Bytes that were planned against those of files that were really written.

use super::*;
use crate::cut::{CutRequest, write_cut};
use crate::{ExportRequest, ExportSettings, export};
use candle_core::{DType, Device};
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;
use uspx_domain::{LayerLists, Mask};
use uspx_model::{LoadedModel, NoProgress, Placement, fingerprint};

fn student() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/nano/student")
}

/// The first heads of each KV head and the first channels.
fn cut(folder: &Path, sizes: Sizes) -> TempDir {
    let source = StoredModel::open(folder).unwrap();
    let (whole, fingerprint) = (Sizes::of(&source.config), fingerprint(folder).unwrap());
    let (of_group, kept) = (whole.heads / whole.kv_heads, sizes.heads / sizes.kv_heads);
    let heads = (0..sizes.kv_heads).flat_map(|kv| (0..kept).map(move |at| kv * of_group + at));
    let heads: Vec<u32> = heads.map(|head| head as u32).collect();
    let mut mask = Mask::everything(fingerprint);
    let lists = |list: Vec<u32>| -> LayerLists { vec![list; whole.layers] };
    mask.keep.0.insert(UnitKind::Head, lists(heads));
    mask.keep.0.insert(UnitKind::Channel, lists((0..sizes.channels as u32).collect()));
    let out = tempfile::tempdir().unwrap();
    let request = CutRequest { folder, source: &source, fingerprint, mask: &mask, adapter: None };
    write_cut(&request, out.path(), &NoProgress).unwrap();
    out
}

/// Bytes of the files of weights.
fn written(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let weights = entries.filter(|entry| {
        let name = entry.file_name().into_string().unwrap();
        name.ends_with(".safetensors") || name.ends_with(".gguf")
    });
    weights.map(|entry| entry.metadata().unwrap().len()).sum()
}

fn exported(folder: &Path, format: ExportFormat) -> TempDir {
    let student = LoadedModel::open(folder, Placement::floats(DType::F32, &Device::Cpu)).unwrap();
    let text = r#"{"prompt": "List files by size", "reference": "ls -lS"}"#;
    let prompts = uspx_domain::parse_prompts(text, false).unwrap().prompts;
    let request = ExportRequest {
        student: &student,
        base: folder,
        name: "student",
        calibration: &student.readable(&prompts).unwrap().sequences,
        batch_tokens: 2048,
        conversations: &[],
        labels: &[],
        format,
        settings: ExportSettings { finish: 0, ..ExportSettings::shipped(format).unwrap() },
    };
    let out = tempfile::tempdir().unwrap();
    export(&request, out.path(), &NoProgress).unwrap();
    out
}

/// The whole student, and cut ones in groups of 128, 64 and 32 inputs.
#[test]
fn planned_bytes_are_those_of_the_written_file() {
    let whole = Planned::open(&student(), None).unwrap().whole();
    for [heads, channels] in [[4, 384], [4, 256], [2, 192], [2, 32]] {
        let sizes = Sizes { heads, channels, ..whole };
        let folder = if sizes == whole { None } else { Some(cut(&student(), sizes)) };
        for format in [ExportFormat::GPTQ, ExportFormat::RTN, ExportFormat::GGUF] {
            let planned = Planned::open(&student(), Some(format)).unwrap().bytes(sizes).unwrap();
            let from = folder.as_ref().map_or(student(), |folder| folder.path().to_owned());
            let file = written(exported(&from, format).path());
            assert_eq!(planned, file, "{format} of {sizes:?}");
        }
        if let Some(folder) = folder {
            let planned = Planned::open(&student(), None).unwrap().bytes(sizes).unwrap();
            assert_eq!(planned, written(folder.path()), "floats of {sizes:?}");
        }
    }
}

/// Biases, norms of heads, heads of their own, other types.
#[test]
fn floats_of_every_dense_architecture_are_planned_as_they_are_cut() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/architectures");
    for name in ["llama-bias", "llama31", "llama32-tied", "mistral-window", "qwen2", "qwen3"] {
        let folder = tempfile::tempdir().unwrap();
        for (from, wanted) in [(root.join(name), ""), (student(), "tokenizer")] {
            for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
                if entry.file_name().to_str().unwrap().starts_with(wanted) {
                    fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
                }
            }
        }
        let planned = Planned::open(folder.path(), None).unwrap();
        let kinds = [UnitKind::Head, UnitKind::Channel];
        let target = planned.bytes(planned.whole()).unwrap() - 2000;
        let Fit::Cut(sizes, bytes) = planned.largest(&kinds, target).unwrap() else {
            panic!("{name}: nothing fits")
        };
        assert!(bytes <= target);
        assert_eq!(bytes, written(cut(folder.path(), sizes).path()), "{name}: {sizes:?}");
    }
}

/// Against all sizes there are, tried one by one.
#[test]
fn the_largest_that_fits_is_found() {
    let kinds = [UnitKind::Head, UnitKind::Channel];
    for format in [Some(ExportFormat::GPTQ), Some(ExportFormat::GGUF), None] {
        let planned = Planned::open(&student(), format).unwrap();
        let whole = planned.bytes(planned.whole()).unwrap();
        assert_eq!(planned.largest(&kinds, whole).unwrap(), Fit::Whole);
        let all = widths::sizes(&planned.source.config, &kinds, format);
        let bytes: Vec<u64> = all.iter().map(|sizes| planned.bytes(*sizes).unwrap()).collect();
        for target in bytes.iter().flat_map(|bytes| [bytes - 1, *bytes, bytes + 1]) {
            let first = bytes.iter().position(|bytes| *bytes <= target);
            let wanted = match first {
                Some(_) if whole <= target => Fit::Whole,
                Some(at) => Fit::Cut(all[at], bytes[at]),
                None => Fit::None(*all.last().unwrap(), *bytes.last().unwrap()),
            };
            assert_eq!(planned.largest(&kinds, target).unwrap(), wanted);
        }
    }
}

#[test]
fn what_has_no_one_size_or_no_file_is_refused() {
    let teacher = student().with_file_name("teacher");
    let error = Planned::open(&teacher, None).err().unwrap().to_string();
    assert!(error.contains("experts") && error.contains("--keep"), "{error}");
}
