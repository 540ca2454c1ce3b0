//! Files of SAELens: what is written comes back, what means the same computes the same, what is
//! wrong is named. That SAELens itself agrees is checked by `tests/parity/saelens_peer.py`.

use super::*;
use crate::Site;
use crate::parameters::Parameters;
use crate::sae::Normalisation;
use crate::select::Select;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use uspx_model::whole_file::{self, Named, floats};

const WIDTH: usize = 6;
const FEATURES: usize = 17;

fn random(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

fn list(n: usize, random: &mut ChaCha8Rng) -> Vec<f32> {
    (0..n).map(|_| random.random_range(-1.0..1.0)).collect()
}

fn made(select: Select<f32>, normalisation: Normalisation) -> Sae<f32> {
    let mut parameters = Parameters::random(WIDTH, FEATURES, &mut random(1));
    parameters.encoder = list(WIDTH * FEATURES, &mut random(2));
    parameters.encoder_bias = list(FEATURES, &mut random(3));
    parameters.decoder_bias = list(WIDTH, &mut random(4));
    Sae { parameters, select, normalisation }
}

fn about() -> About {
    let place = Place { layer: 1, site: Site::ResidPost };
    About {
        model_name: Some("nano".into()),
        model: Some("00".into()),
        hook_name: Some(place.hook_name()),
        place: Some(place),
        skip: 1,
    }
}

#[test]
fn what_is_written_comes_back() {
    let thresholds = (0..FEATURES).map(|f| f as f32 / 20.0).collect();
    for select in [Select::TopK(3), Select::Above(thresholds), Select::Positive] {
        for normalisation in
            [Normalisation::None, Normalisation::ConstantNorm, Normalisation::LayerNorm]
        {
            let folder = tempfile::tempdir().unwrap();
            let sae = made(select.clone(), normalisation);
            write(folder.path(), &sae, &about(), &Value::Null).unwrap();
            assert_eq!(read(folder.path()).unwrap(), (sae, about()));
        }
    }
}

/// A folder as somebody else might have written it.
fn folder(config: &Value, change: impl FnOnce(&mut Vec<Named>)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(CONFIG), config.to_string()).unwrap();
    let mut all = vec![
        floats("W_enc", &[WIDTH, FEATURES], &list(WIDTH * FEATURES, &mut random(5))),
        floats("W_dec", &[FEATURES, WIDTH], &list(WIDTH * FEATURES, &mut random(6))),
        floats("b_enc", &[FEATURES], &list(FEATURES, &mut random(7))),
        floats("b_dec", &[WIDTH], &list(WIDTH, &mut random(8))),
    ];
    change(&mut all);
    whole_file::tensors(&folder.path().join(WEIGHTS), &all, None).unwrap();
    folder
}

fn config(more: Value) -> Value {
    let mut config = json!({"d_in": WIDTH, "d_sae": FEATURES, "architecture": "topk", "k": 4});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

/// The dense formula of SAELens' TopKSAE, with nothing folded.
fn dense(centres: bool, by_norm: bool, k: usize, x: &[f32]) -> Vec<f32> {
    let [w_enc, w_dec, b_enc, b_dec] = [
        list(WIDTH * FEATURES, &mut random(5)),
        list(WIDTH * FEATURES, &mut random(6)),
        list(FEATURES, &mut random(7)),
        list(WIDTH, &mut random(8)),
    ];
    let norm = |f: usize| {
        let row = &w_dec[f * WIDTH..][..WIDTH];
        if by_norm { row.iter().map(|w| w * w).sum::<f32>().sqrt() } else { 1.0 }
    };
    let mut pre: Vec<(usize, f32)> = (0..FEATURES)
        .map(|f| {
            let terms = (0..WIDTH)
                .map(|i| (x[i] - if centres { b_dec[i] } else { 0.0 }) * w_enc[i * FEATURES + f]);
            (f, (terms.sum::<f32>() + b_enc[f]) * norm(f))
        })
        .collect();
    pre.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut out = b_dec;
    for (f, value) in pre.into_iter().take(k).filter(|(_, value)| *value > 0.0) {
        for (i, out) in out.iter_mut().enumerate() {
            *out += value / norm(f) * w_dec[f * WIDTH + i];
        }
    }
    out
}

#[test]
fn what_is_folded_computes_the_same() {
    let x = list(WIDTH, &mut random(9));
    for (centres, by_norm) in [(true, false), (false, false), (true, true), (false, true)] {
        let more =
            json!({"apply_b_dec_to_input": centres, "rescale_acts_by_decoder_norm": by_norm});
        let (sae, _) = read(folder(&config(more), |_| {}).path()).unwrap();
        let (found, wanted) = (sae.through(&x).1, dense(centres, by_norm, 4, &x));
        let apart = found.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-5, "{centres} {by_norm}: {found:?} {wanted:?}");
    }
}

#[test]
fn files_of_before_version_6_are_read() {
    let old = json!({
        "d_in": WIDTH, "d_sae": FEATURES, "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 4}, "hook_point": "blocks.2.hook_resid_pre",
        "model_name": "gpt2-small", "normalize_activations": false, "dtype": "float32",
    });
    let (sae, about) = read(folder(&old, |_| {}).path()).unwrap();
    assert_eq!(sae.select, Select::TopK(4));
    assert_eq!(about.place, Some(Place { layer: 2, site: Site::ResidPre }));
    assert_eq!(about.model_name.as_deref(), Some("gpt2-small"));
    let ones =
        folder(&old, |all| all.push(floats("scaling_factor", &[FEATURES], &[1.0; FEATURES])));
    assert_eq!(read(ones.path()).unwrap().0, sae);
}

#[test]
fn a_batchtopk_sae_of_a_training_has_one_threshold() {
    let config = config(json!({"architecture": "batchtopk", "k": 4.5}));
    let folder = folder(&config, |all| all.push(floats("topk_threshold", &[], &[0.25])));
    assert_eq!(read(folder.path()).unwrap().0.select, Select::Above(vec![0.25; FEATURES]));
}

#[test]
fn what_is_wrong_is_named() {
    let says = |config: &Value, change: fn(&mut Vec<Named>), words: &str| {
        let error = read(folder(config, change).path()).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    let with = |more: Value| config(more);
    says(&with(json!({"architecture": "gated"})), |_| {}, "architecture gated is not known");
    says(&with(json!({"d_in": 7})), |_| {}, "`W_enc` is [6, 17], by cfg.json it is [7, 17]");
    says(&with(json!({"d_sae": "many"})), |_| {}, "d_sae must be a whole number");
    says(&with(json!({"k": 0})), |_| {}, "k must be a whole number");
    says(&with(json!({"k": 18})), |_| {}, "k is 18, of 17 features");
    says(&with(json!({"architecture": "jumprelu"})), |_| {}, "`threshold` is missing");
    says(&with(json!({"reshape_activations": "hook_z"})), |_| {}, "hook_z");
    let average = json!({"normalize_activations": "expected_average_only_in"});
    says(&with(average), |_| {}, "fold_activation_norm_scaling_factor");
    let nan = |all: &mut Vec<Named>| all[3] = floats("b_dec", &[WIDTH], &[f32::NAN; 6]);
    says(&with(json!({})), nan, "`b_dec` holds numbers that are not finite");
    let scaled = |all: &mut Vec<Named>| {
        all.push(floats("scaling_factor", &[FEATURES], &[2.0; FEATURES]));
    };
    says(&with(json!({})), scaled, "scaling_factor");
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(read(empty.path()), Err(SaeError::File { .. })));
}
