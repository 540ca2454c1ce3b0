//! Cut models against the whole ones: bytes against the source's, logits against the mask's; and
//! what is refused. Here of mixtures of experts, in `dense` of the others, in `depth` of those without
//! whole layers.

mod dense;
mod depth;
mod merged;

use super::*;
use candle_core::{DType, Device};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;
use uspx_domain::{LayerLists, UnitKind};
use uspx_model::batch::{Batch, Sequence};
use uspx_model::checkpoint::Checkpoint;
use uspx_model::config::ModelConfig;
use uspx_model::cuts::CutTaps;
use uspx_model::taps::{NoTaps, Taps};
use uspx_model::transformer::Transformer;
use uspx_model::{Holding, NoProgress, Placement, fingerprint};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn teacher() -> PathBuf {
    root().join("cli/assets/nano/teacher")
}

fn copied(from: &Path, to: &Path, names: impl Fn(&str) -> bool) {
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = (entry.as_ref().unwrap().path(), entry.unwrap().file_name());
        if names(name.to_str().unwrap()) {
            fs::copy(path, to.join(name)).unwrap();
        }
    }
}

/// A committed checkpoint with the teacher's tokenizer beside it: a folder has to be whole.
fn architecture(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    copied(&root().join("tests/data/architectures").join(name), folder.path(), |_| true);
    let of_chat = |name: &str| name.starts_with("tokenizer") || name.starts_with("generation");
    copied(&teacher(), folder.path(), of_chat);
    folder
}

fn keeping(model: Fingerprint, lists: &[&[u32]]) -> Mask {
    let mut mask = Mask::everything(model);
    let lists: LayerLists = lists.iter().map(|l| l.to_vec()).collect();
    mask.keep.0.insert(UnitKind::Expert, lists);
    mask
}

fn cut_by(folder: &Path, mask: &Mask, out: &Path) -> Result<CutReport> {
    let (source, fingerprint) = (StoredModel::open(folder).unwrap(), fingerprint(folder).unwrap());
    write_cut(
        &CutRequest { folder, source: &source, fingerprint, mask, adapter: None },
        out,
        &NoProgress,
    )
}

/// The folder without all but these experts.
fn cut(folder: &Path, lists: &[&[u32]]) -> (TempDir, CutReport) {
    let out = tempfile::tempdir().unwrap();
    let mask = keeping(fingerprint(folder).unwrap(), lists);
    let report = cut_by(folder, &mask, out.path()).unwrap();
    (out, report)
}

fn refused(folder: &Path, mask: &Mask) -> String {
    let out = tempfile::tempdir().unwrap();
    match cut_by(folder, mask, out.path()) {
        Err(ExportError::Refused(reason)) => {
            let entries = fs::read_dir(out.path()).unwrap().count();
            assert_eq!(entries, 0, "refused before anything is written");
            reason
        }
        other => panic!("{other:?}"),
    }
}

/// Every position's logits of some tokens.
fn logits(folder: &Path, holding: Holding, taps: &mut dyn Taps) -> Vec<f32> {
    let config = ModelConfig::open(folder).unwrap();
    let placement = Placement::new(holding, DType::F32, &Device::Cpu);
    let model = Transformer::load(config, Checkpoint::open(folder).unwrap(), placement).unwrap();
    logits_of(&model, taps)
}

fn logits_of(model: &Transformer, taps: &mut dyn Taps) -> Vec<f32> {
    let vocab = model.config().vocab;
    let ids: Vec<u32> = (0..40).map(|i| (i * 7919 % vocab) as u32).collect();
    let batch = Batch::new(&[&Sequence { response_start: ids.len(), ids }]).unwrap();
    let frame = model.frame(&batch).unwrap();
    let x = model.forward(&batch, &frame, taps).unwrap();
    let rows: Vec<u32> = (0..40).collect();
    model.logits(&x, &rows).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference over the largest value.
fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert!(a.len() == b.len() && a.iter().chain(b).all(|v| v.is_finite()));
    let top = a.iter().fold(0.0f32, |top, v| top.max(v.abs()));
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max) / top
}

/// The written model's logits are those of the mask, held in either way, and others than the whole
/// model's.
fn same_as_the_mask(folder: &Path, lists: &[&[u32]]) -> (TempDir, CutReport) {
    same_as(folder, &keeping(fingerprint(folder).unwrap(), lists))
}

fn same_as(folder: &Path, mask: &Mask) -> (TempDir, CutReport) {
    let out = tempfile::tempdir().unwrap();
    let report = cut_by(folder, mask, out.path()).unwrap();
    let shape = ModelConfig::open(folder).unwrap().shape();
    let mut taps = CutTaps::of_mask(mask, &shape, &Device::Cpu).unwrap();
    let masked = logits(folder, Holding::Floats, &mut taps);
    for holding in [Holding::Floats, Holding::Streamed] {
        let gap = apart(&masked, &logits(out.path(), holding, &mut NoTaps));
        assert!(gap < 1e-5, "{}: {gap} away from the mask", folder.display());
    }
    let moved = apart(&logits(folder, Holding::Floats, &mut NoTaps), &masked);
    assert!(moved > 1e-3, "{}: the cut moves nothing: {moved}", folder.display());
    (out, report)
}

/// Experts of each layer, and the dead ones among them.
fn experts(report: &CutReport) -> (usize, Vec<usize>) {
    match &report.kept {
        Kept::Experts { experts, dead, .. } => (*experts, dead.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_architecture_without_its_cut_experts_is_the_masked_one() {
    let cases: [(&str, &[&[u32]]); 7] = [
        ("gpt-oss-floats", &[&[0, 3, 4], &[1, 2, 3]]),
        ("gpt-oss-mxfp4", &[&[0, 1, 3, 4], &[1, 2, 3, 4]]),
        ("mixtral-hub", &[&[1, 4], &[0, 3]]),
        ("mixtral-fused", &[&[0, 2, 3, 6], &[1, 2, 5, 6]]),
        ("qwen3-moe-hub", &[&[0, 2, 3, 5, 6], &[1, 2, 3, 4, 6]]),
        ("qwen3-moe-fused", &[&[0, 2, 4], &[], &[1, 2, 3]]),
        ("qwen3-moe-sparse", &[&[], &[1, 4], &[], &[0, 3]]),
    ];
    for (name, lists) in cases {
        let (_, report) = same_as_the_mask(architecture(name).path(), lists);
        let counts: Vec<usize> = lists.iter().map(|l| l.len()).collect();
        let (experts, dead) = experts(&report);
        assert_eq!(experts, counts.into_iter().max().unwrap(), "{name}");
        assert!(dead.iter().all(|n| *n == 0) && report.bytes < report.bytes_before);
    }
}

#[test]
fn layers_that_keep_different_counts_are_padded_and_a_mask_that_runs_again_is_too() {
    let floats = architecture("gpt-oss-floats");
    same_as_the_mask(floats.path(), &[&[0, 3], &[0, 1, 2, 4]]);
    let top1 = architecture("gpt-oss-top1");
    same_as_the_mask(top1.path(), &[&[2], &[0, 1]]);
    let lists: [&[u32]; 4] = [&[0, 3, 4, 9, 10, 11, 15], &[2, 7], &[5, 6, 14], &[1, 2, 3, 8]];
    let (out, report) = same_as_the_mask(&teacher(), &lists);
    assert_eq!(experts(&report), (7, vec![0, 5, 4, 3]));

    // Cut once more, the dead are gone from every layer that has no need of them.
    let again = same_as_the_mask(out.path(), &[&[1, 4, 5], &[0, 1, 4], &[0, 2], &[1, 2, 6]]);
    assert_eq!(experts(&again.1), (3, vec![0, 1, 1, 1]));
    let note: Value = hf_json(again.0.path(), NOTE);
    assert_eq!(note["expert_of_source"][1], json!([0, 1, null]));
    assert_eq!(
        note["source"]["cut"]["expert_of_source"][1],
        json!([2, 7, null, null, null, null, null])
    );
    let only_dead =
        keeping(fingerprint(out.path()).unwrap(), &[&[0, 1], &[0, 5], &[0, 1], &[0, 1]]);
    let reason = refused(out.path(), &only_dead);
    assert!(reason.contains("layer 1 would keep 1 of the experts"), "{reason}");
}

fn hf_json(folder: &Path, name: &str) -> Value {
    crate::hf::read_json(&folder.join(name)).unwrap()
}

/// Every tensor of a folder as the format's own reader finds it: file, type, shape, bytes.
type Tensors = BTreeMap<String, (String, safetensors::Dtype, Vec<usize>, Vec<u8>)>;

fn tensors(folder: &Path) -> Tensors {
    let mut found = Tensors::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "safetensors") {
            continue;
        }
        let (file, bytes) = (path.file_name().unwrap(), fs::read(&path).unwrap());
        for (name, tensor) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            let data = tensor.data().to_vec();
            let file = file.to_string_lossy().into_owned();
            found.insert(name, (file, tensor.dtype(), tensor.shape().to_vec(), data));
        }
    }
    found
}

#[test]
fn kept_experts_are_the_sources_bit_for_bit_and_dead_ones_are_zeros_with_a_bias_of_minus_infinity()
{
    let lists: [&[u32]; 4] = [&[0, 3, 15], &[2, 7], &[5, 6, 14], &[1, 2]];
    let (out, report) = cut(&teacher(), &lists);
    let (before, after) = (tensors(&teacher()), tensors(out.path()));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    let mut cut = 0;
    for (name, (file, dtype, shape, bytes)) in &before {
        let (file_now, dtype_now, shape_now, bytes_now) = &after[name];
        assert_eq!((file, dtype), (file_now, dtype_now), "{name}");
        if !name.contains(".mlp.") {
            assert_eq!((shape, bytes), (shape_now, bytes_now), "{name}");
            continue;
        }
        cut += 1;
        let layer: usize = name.split('.').nth(2).unwrap().parse().unwrap();
        assert_eq!((shape_now[0], &shape_now[1..]), (3, &shape[1..]), "{name}");
        let size = bytes.len() / 16;
        for (at, entry) in bytes_now.chunks(size).enumerate() {
            match lists[layer].get(at) {
                Some(expert) => {
                    assert_eq!(entry, &bytes[*expert as usize * size..][..size], "{name}")
                }
                // bf16's -inf.
                None if name.ends_with("router.bias") => assert_eq!(entry, [0x80, 0xff], "{name}"),
                None => assert!(entry.iter().all(|b| *b == 0), "{name}"),
            }
        }
    }
    assert_eq!(cut, 4 * 8, "router and experts of each layer: weights, biases, blocks, scales");
    let index = hf_json(out.path(), "model.safetensors.index.json");
    let map = index["weight_map"].as_object().unwrap();
    assert_eq!(map.len(), after.len());
    assert!(map.iter().all(|(name, file)| after[name].0 == *file));
    let total: usize = after.values().map(|(.., bytes)| bytes.len()).sum();
    assert_eq!(
        (index["metadata"]["total_size"].as_u64(), report.bytes),
        (Some(total as u64), total as u64)
    );
}

#[test]
fn experts_with_tensors_of_their_own_are_numbered_anew() {
    let folder = architecture("mixtral-hub");
    let (out, _) = cut(folder.path(), &[&[1, 4], &[0, 3]]);
    let (before, after) = (tensors(folder.path()), tensors(out.path()));
    let at = |layer: usize, expert: usize, part: &str| {
        format!("model.layers.{layer}.block_sparse_moe.experts.{expert}.{part}.weight")
    };
    for (layer, kept) in [[1, 4], [0, 3]].iter().enumerate() {
        for (number, expert) in kept.iter().enumerate() {
            for part in ["w1", "w2", "w3"] {
                let (ours, theirs) =
                    (&after[&at(layer, number, part)], &before[&at(layer, *expert, part)]);
                assert_eq!((&ours.2, &ours.3), (&theirs.2, &theirs.3), "{layer} {number} {part}");
            }
        }
    }
    assert_eq!(
        before.len() - after.len(),
        2 * 3 * 3,
        "three experts of five are gone in two layers"
    );
}

#[test]
fn the_folder_is_whole_and_says_where_it_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    copied(&teacher(), folder.path(), |_| true);
    for name in ["README.md", "chat_notes.txt", "pytorch_model.bin", "model.Q8_0.gguf", ".hidden"] {
        fs::write(folder.path().join(name), name).unwrap();
    }
    fs::create_dir(folder.path().join("original")).unwrap();
    let lists: [&[u32]; 4] = [&[0, 3], &[2, 7], &[5, 14], &[1, 2]];
    let (out, report) = cut(folder.path(), &lists);
    let (model, whole) = (fingerprint(out.path()).unwrap(), fingerprint(folder.path()).unwrap());
    assert_eq!(report.fingerprint, model);
    assert_ne!(model, whole);
    assert_eq!(report.left_out, ["model.Q8_0.gguf", "pytorch_model.bin"]);
    let files = [
        "README.md",
        "chat_notes.txt",
        "config.json",
        "generation_config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
        NOTE,
    ];
    assert_eq!(report.files, files);
    for name in ["README.md", "tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        let read = |folder: &Path| fs::read(folder.join(name)).unwrap();
        assert_eq!(read(folder.path()), read(out.path()), "{name}");
    }
    let mut config = hf_json(folder.path(), "config.json");
    config["num_local_experts"] = json!(2);
    assert_eq!(hf_json(out.path(), "config.json"), config);
    let note = hf_json(out.path(), NOTE);
    assert_eq!(note["source"]["fingerprint"], serde_json::to_value(whole).unwrap());
    assert_eq!(note["mask"], serde_json::to_value(keeping(whole, &lists)).unwrap());
}

#[test]
fn the_count_stands_under_every_name_that_the_source_has_or_its_family_uses() {
    for (name, given, wanted) in [
        ("qwen3-moe-hub", json!({"num_experts": 7}), json!({"num_experts": 5})),
        (
            "qwen3-moe-hub",
            json!({"num_experts": 7, "num_local_experts": 7}),
            json!({"num_experts": 5, "num_local_experts": 5}),
        ),
        (
            "mixtral-hub",
            json!({"num_local_experts": 5, "num_experts": null}),
            json!({"num_local_experts": 3, "num_experts": 3}),
        ),
    ] {
        let folder = architecture(name);
        let mut config = hf_json(folder.path(), "config.json");
        config.as_object_mut().unwrap().extend(given.as_object().unwrap().clone());
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let lists: [&[u32]; 2] = if name.starts_with("qwen") {
            [&[0, 2, 3, 5, 6], &[0, 1, 2, 3, 4]]
        } else {
            [&[0, 1, 2], &[2, 3, 4]]
        };
        let (out, _) = cut(folder.path(), &lists);
        config.as_object_mut().unwrap().extend(wanted.as_object().unwrap().clone());
        assert_eq!(hf_json(out.path(), "config.json"), config);
    }
}

#[test]
fn what_cannot_be_carried_out_is_refused_with_the_remedy() {
    let model = fingerprint(&teacher()).unwrap();
    let good: [&[u32]; 4] = [&[0, 1], &[0, 1], &[0, 1], &[0, 1]];
    let mut heads = keeping(model, &good);
    heads
        .keep
        .0
        .insert(UnitKind::Head, vec![vec![0, 1, 2, 3], vec![0, 1], vec![0], vec![0, 1, 2, 3]]);
    let mixtral = architecture("mixtral-hub");
    let ragged = keeping(fingerprint(mixtral.path()).unwrap(), &[&[0, 1], &[0, 1, 2]]);
    let everything = Mask::everything(model);
    let other = keeping(Fingerprint(Digest::of(b"other")), &good);
    let few = keeping(model, &[&[0, 1], &[0], &[0, 1], &[0, 1]]);
    for (folder, mask, words) in [
        (teacher(), heads, vec!["5 heads", "only experts", "--units expert"]),
        (mixtral.path().to_owned(), ragged, vec!["from 2 to 3", "mixtral", "--spread uniform"]),
        (teacher(), everything, vec!["keeps every expert"]),
        (teacher(), other, vec!["the mask is of model"]),
        (teacher(), few, vec!["layer 1", "keep at least"]),
    ] {
        let reason = refused(&folder, &mask);
        assert!(words.iter().all(|word| reason.contains(word)), "{reason}");
    }
    // Heads that are listed and all kept are no cut.
    let mut all_heads = keeping(model, &good);
    all_heads.keep.0.insert(UnitKind::Head, vec![vec![0, 1, 2, 3]; 4]);
    cut_by(&teacher(), &all_heads, tempfile::tempdir().unwrap().path()).unwrap();
}

#[test]
fn progress_never_goes_backwards_and_may_end_the_work() {
    let model = fingerprint(&teacher()).unwrap();
    let mask = keeping(model, &[&[0, 1], &[0, 1], &[0, 1], &[0, 1]]);
    let source = StoredModel::open(&teacher()).unwrap();
    let folder = teacher();
    let request = CutRequest {
        folder: &folder,
        source: &source,
        fingerprint: model,
        mask: &mask,
        adapter: None,
    };
    let seen = std::sync::Mutex::new(Vec::new());
    let keep = |done: u64, total: u64| {
        seen.lock().unwrap().push((done, total));
        true
    };
    write_cut(&request, tempfile::tempdir().unwrap().path(), &keep).unwrap();
    let seen = seen.into_inner().unwrap();
    assert!(seen.is_sorted_by_key(|(done, total)| *done as f64 / *total as f64), "{seen:?}");
    assert!(seen.iter().all(|(done, total)| done <= total));
    let last = seen.last().unwrap();
    assert_eq!(last.0, last.1);
    for stop in [1, seen.len() / 2, seen.len()] {
        let count = std::sync::atomic::AtomicUsize::new(0);
        let until =
            |_: u64, _: u64| count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1 < stop;
        let ended = write_cut(&request, tempfile::tempdir().unwrap().path(), &until);
        assert!(matches!(ended, Err(ExportError::Model(uspx_model::ModelError::Stopped))));
    }
}

#[test]
fn a_full_disk_is_told_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    check_room(folder.path(), 1).unwrap();
    let error = check_room(folder.path(), 1 << 60).unwrap_err().to_string();
    assert!(error.contains("has room for") && error.contains("GB are needed"), "{error}");
}

/// A routers' bias may be -∞ for some, and no other number that is none.
#[test]
fn a_router_that_can_choose_too_few_or_is_not_a_number_is_refused() {
    let (out, _) = cut(&teacher(), &[&[0, 3, 15], &[2, 7], &[5, 6, 14], &[1, 2]]);
    let path = out.path().join(&tensors(out.path())["model.layers.0.mlp.router.bias"].0);
    let whole = fs::read(&path).unwrap();
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let parsed: Value = serde_json::from_slice(&whole[8..8 + header]).unwrap();
    let offset = &parsed["model.layers.0.mlp.router.bias"]["data_offsets"][0];
    let at = 8 + header + offset.as_u64().unwrap() as usize;
    let error = |bias: [u16; 3]| {
        let mut spoilt = whole.clone();
        for (i, value) in bias.iter().enumerate() {
            spoilt[at + 2 * i..][..2].copy_from_slice(&value.to_le_bytes());
        }
        fs::write(&path, spoilt).unwrap();
        let config = ModelConfig::open(out.path()).unwrap();
        let placement = Placement::floats(DType::F32, &Device::Cpu);
        let opened = Transformer::load(config, Checkpoint::open(out.path()).unwrap(), placement);
        opened.err().map(|e| e.to_string()).unwrap_or_default()
    };
    const DEAD: u16 = 0xff80;
    assert_eq!(error([0, DEAD, 0]), "");
    assert!(error([DEAD, 0, DEAD]).contains("all experts but 1"));
    for not_a_number in [0x7f80, 0x7fc0] {
        assert!(error([0, not_a_number, 0]).contains("not a finite number"));
    }
}
