//! A student whose adapter is merged before it is cut.

use super::*;
use crate::write_floats;
use candle_core::Tensor;
use uspx_distill::lora;
use uspx_model::LoadedModel;

/// The shipped student, whose merged weights are to be written as 32-bit floats.
fn student() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    copied(&root().join("cli/assets/nano/student"), folder.path(), |_| true);
    let mut config = hf_json(folder.path(), "config.json");
    config["torch_dtype"] = json!("float32");
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

/// With an adapter whose values are nowhere zero.
fn adapted(folder: &Path) -> LoadedModel {
    let mut student =
        LoadedModel::open(folder, Placement::floats(DType::F32, &Device::Cpu)).unwrap();
    for pair in lora::attach(&mut student, 4, 8.0, 1).unwrap() {
        let (out, rank) = pair.b.dims2().unwrap();
        let value = |i: usize| (i * 7919 % 211) as f32 / 2110.0 - 0.05;
        let values: Vec<f32> = (0..out * rank).map(value).collect();
        pair.b.set(&Tensor::from_vec(values, (out, rank), &Device::Cpu).unwrap()).unwrap();
    }
    student
}

#[test]
fn a_cut_student_with_its_adapter_is_the_masked_one_with_it() {
    let (base, merged, out) =
        (student(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let student = adapted(base.path());
    let mut mask = Mask::everything(student.fingerprint);
    mask.keep.0.insert(UnitKind::Head, vec![vec![0, 2], vec![1, 3], vec![0, 3], vec![1, 2]]);
    let channels: Vec<u32> = (0..384).filter(|at| at % 3 != 1).collect();
    mask.keep.0.insert(UnitKind::Channel, vec![channels; 4]);
    write_floats(&student, base.path(), &[], merged.path()).unwrap();
    let request = CutRequest {
        folder: merged.path(),
        source: &StoredModel::open(merged.path()).unwrap(),
        fingerprint: student.fingerprint,
        mask: &mask,
        adapter: Some(Digest::of(b"adapter")),
    };
    write_cut(&request, out.path(), &NoProgress).unwrap();

    let mut taps = student.cut_of_mask(&mask).unwrap();
    let wanted = logits_of(&student.transformer, &mut taps);
    let found = logits(out.path(), Holding::Floats, &mut NoTaps);
    let gap = apart(&wanted, &found);
    assert!(gap < 1e-4, "{gap}");
    let without = logits(base.path(), Holding::Floats, &mut taps);
    assert!(apart(&wanted, &without) > 1e-2, "the adapter changes nothing");

    let source = &hf_json(out.path(), NOTE)["source"];
    assert_eq!(source["fingerprint"], json!(student.fingerprint));
    assert_eq!(source["adapter"], json!(Digest::of(b"adapter").hex()));
    let config = hf_json(out.path(), "config.json");
    assert_eq!(
        (&config["num_attention_heads"], &config["intermediate_size"]),
        (&json!(2), &json!(256))
    );
}
