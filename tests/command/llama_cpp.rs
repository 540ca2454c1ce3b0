//! Our GGUF files in llama.cpp: first-token log-probabilities against our own reading of the same
//! file.
//!
//! Two files. With the same weights written as F32, llama.cpp multiplies floats as we do: any
//! mistake in names, rows, rotation or metadata shows, and the worst logit is bound. The 4-bit file
//! is what ships; there llama.cpp rounds the inputs of every product to 8 bits (Q8_0), which we do
//! not. Where the head or one layer was looked at alone that was shown to be the whole gap (see the
//! head of tests/parity/export.sh); for the whole file it is likely, and some 1.5e-2 at worst, 3e-3
//! to 5e-3 rms. Hence a bound of 1e-2 on rms, and the same first token; the worst is printed.

use crate::students::{student, write};
use crate::support::{prompts, root};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device};
use libtest_mimic::Trial;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use uspx_domain::ExportFormat;
use uspx_export::{GGUF_FILE, gguf, open_gguf};
use uspx_model::batch::{Batch, Sequence};
use uspx_model::taps::NoTaps;
use uspx_model::{Holding, Placement};
use uspx_tests::{Need, trials};

const PROMPTS: usize = 8;
/// A Python with xllamacpp; `tests/tools/venv.sh` makes the one that is looked for without it.
const PYTHON: &str = "USPX_TEST_PYTHON";

pub fn trials() -> Vec<Trial> {
    need().of_all(trials![llama_cpp_reads_what_we_write])
}

/// What tests with llama.cpp need. A Python that somebody names is taken to have it.
pub fn need() -> Need {
    let libraries = std::fs::read_dir(venv().join("lib")).into_iter().flatten().flatten();
    let mut packages = libraries.map(|library| library.path().join("site-packages/xllamacpp"));
    let there = std::env::var_os(PYTHON).is_some() || packages.any(|package| package.is_dir());
    Need::new("llama.cpp", "USPX_REQUIRE_LLAMA_CPP", there)
}

fn venv() -> PathBuf {
    root().join(".tools/venv-test")
}

/// The Python that has llama.cpp.
pub fn python() -> PathBuf {
    std::env::var_os(PYTHON).map_or_else(|| venv().join("bin/python"), PathBuf::from)
}

/// The same weights as F32.
pub fn expand(from: &Path, to: &Path) {
    let parts = gguf::read_gguf(from).unwrap();
    let heads = gguf::metadata::head_counts(&parts.config_json).unwrap();
    let mut tensors = BTreeMap::new();
    for (name, tensor) in parts.tensors {
        let tensor = gguf::in_gguf_order(&name, &tensor, heads).unwrap();
        tensors.insert(name, QTensor::quantize(&tensor, GgmlDType::F32).unwrap());
    }
    gguf::write_gguf(to, &crate::support::model("student"), "expanded", &tensors).unwrap();
}

/// Log-probabilities after each list of ids, in llama.cpp.
pub fn theirs(file: &Path, ids: &Path) -> Vec<Vec<f32>> {
    let (python, script) = (python(), root().join("tests/parity/gguf_logits.py"));
    let output = Command::new(&python).arg(script).arg(file).arg(ids).output();
    let output = output.unwrap_or_else(|e| {
        panic!("{}: {e}: run tests/tools/venv.sh, or set {PYTHON}", python.display())
    });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut answer: serde_json::Value =
        serde_json::from_str(text.trim().lines().last().unwrap()).unwrap();
    serde_json::from_value(answer["values"].take()).unwrap()
}

/// Logits after each list of ids, in our own reading.
pub fn ours(file: &Path, asked: &[Vec<u32>], holding: Holding) -> Vec<Vec<f32>> {
    let placement = Placement::new(holding, DType::F32, &Device::Cpu);
    let model = open_gguf(file, placement).unwrap();
    let sequences: Vec<Sequence> =
        asked.iter().map(|ids| Sequence { response_start: ids.len(), ids: ids.clone() }).collect();
    let batch = Batch::new(&sequences.iter().collect::<Vec<_>>()).unwrap();
    let frame = model.transformer.frame(&batch).unwrap();
    let x = model.transformer.forward(&batch, &frame, &mut NoTaps).unwrap();
    model.transformer.logits(&x, &batch.last_rows()).unwrap().to_vec2().unwrap()
}

/// Logits and log-probabilities are the same up to a constant: brought to mean 0, they can be
/// compared.
fn centred(values: &[f32]) -> Vec<f64> {
    let mean = values.iter().copied().map(f64::from).sum::<f64>() / values.len() as f64;
    values.iter().map(|v| f64::from(*v) - mean).collect()
}

fn top(values: &[f64]) -> usize {
    (0..values.len()).max_by(|a, b| values[*a].total_cmp(&values[*b])).unwrap()
}

/// The most likely token must be the same.
fn same_first_tokens(ours: &[Vec<f32>], theirs: &[Vec<f32>]) {
    let tops = |all: &[Vec<f32>]| all.iter().map(|v| top(&centred(v))).collect::<Vec<_>>();
    assert_eq!(tops(ours), tops(theirs), "a first token differs");
}

/// (worst, rms) over the prompts, each relative to its largest logit.
pub fn apart(ours: &[Vec<f32>], theirs: &[Vec<f32>]) -> (f64, f64) {
    assert_eq!(ours.len(), theirs.len());
    let mut worst = (0f64, 0f64);
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert_eq!(ours.len(), theirs.len());
        let (a, b) = (centred(ours), centred(theirs));
        let largest = a.iter().map(|v| v.abs()).fold(0.0, f64::max);
        let gaps: Vec<f64> = a.iter().zip(&b).map(|(x, y)| (x - y).abs()).collect();
        assert!(gaps.iter().all(|g| g.is_finite()), "llama.cpp gave no value for some token");
        let rms = (gaps.iter().map(|g| g * g).sum::<f64>() / gaps.len() as f64).sqrt();
        worst.0 = worst.0.max(gaps.iter().copied().fold(0.0, f64::max) / largest);
        worst.1 = worst.1.max(rms / largest);
    }
    worst
}

fn llama_cpp_reads_what_we_write() {
    let (folder, student) = (tempfile::tempdir().unwrap(), student());
    write(&student, ExportFormat::GGUF, folder.path());
    let (four, floats) = (folder.path().join(GGUF_FILE), folder.path().join("f32.gguf"));
    expand(&four, &floats);
    let text = std::fs::read_to_string(prompts("cli-heldout.jsonl")).unwrap();
    let some = uspx_domain::parse_prompts(&text, false).unwrap().prompts;
    let asked: Vec<Vec<u32>> =
        some.iter().take(PROMPTS).map(|p| student.chat.sequence(p, None).unwrap().ids).collect();
    let ids = folder.path().join("ids.json");
    std::fs::write(&ids, serde_json::to_string(&asked).unwrap()).unwrap();

    let wanted = ours(&four, &asked, Holding::Floats);
    let got = theirs(&floats, &ids);
    same_first_tokens(&wanted, &got);
    let (worst, rms) = apart(&wanted, &got);
    println!("weights as F32: worst {worst:.2e}, rms {rms:.2e} of the largest logit");
    assert!(worst < 1e-4, "on the same weights as floats llama.cpp is {worst} away");
    let got = theirs(&four, &ids);
    same_first_tokens(&wanted, &got);
    let (worst, rms) = apart(&wanted, &got);
    println!("as it ships: worst {worst:.2e}, rms {rms:.2e} of the largest logit");
    assert!(rms < 1e-2, "on the file as it ships llama.cpp is {rms} away");
}
