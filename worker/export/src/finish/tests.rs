//! The trained weight against finite differences, and against what the file holds of it.

use super::latent::Latent;
use crate::coded::{Coded, Moved};
use crate::gguf::q4_k::{Q4K, Q4KMatrix};
use crate::gptq::Steps;
use crate::grid::ScaleRule;
use crate::{grid, rtn};
use candle_core::{Device, Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use uspx_model::taps::Projection;

const OUTPUTS: usize = 3;
const INPUTS: usize = 512;

fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// A linear map in groups of 128, and one in blocks of 256 whose parts have offsets.
fn both(weights: &[f32]) -> [Box<dyn Coded>; 2] {
    let symmetric = rtn::quantise(weights, INPUTS, 128, ScaleRule::AbsMax, &[]).unwrap();
    let mut steps = Q4K::default();
    for column in 0..INPUTS / 256 {
        let rows = weights.chunks_exact(INPUTS);
        let own: Vec<f32> = rows.flat_map(|row| row[column * 256..][..256].to_vec()).collect();
        steps.find(column, &own, &[]).unwrap();
    }
    let code = |(i, w): (usize, &f32)| steps.round(i / INPUTS, i % INPUTS, *w).0;
    let codes = weights.iter().enumerate().map(code).collect();
    [Box::new(symmetric), Box::new(Q4KMatrix { steps, codes })]
}

fn latent<'a>(coded: &'a dyn Coded, weights: &[f32]) -> Latent<'a> {
    let weight = Tensor::from_slice(weights, (OUTPUTS, INPUTS), &Device::Cpu).unwrap();
    Latent::new((0, Projection::Up), coded, &weight).unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn it_begins_with_what_the_file_holds_and_the_file_holds_where_it_went() {
    let weights = random(1, OUTPUTS * INPUTS);
    for coded in both(&weights) {
        let latent = latent(&*coded, &weights);
        assert_eq!(flat(&latent.weight().unwrap()), flat(&coded.values().unwrap()));
        // The weight itself is as near to its place as its code allows.
        let near =
            flat(&latent.places).iter().zip(coded.codes()).all(|(p, c)| p.round() == f32::from(*c));
        assert!(near);
        // Other codes, and factors that half floats hold.
        let moved = (latent.places.as_tensor() + 1.0).unwrap();
        latent.places.set(&moved).unwrap();
        for factors in [Some(&latent.steps), latent.offsets.as_ref()].into_iter().flatten() {
            factors.set(&(factors.as_tensor() * 0.5).unwrap()).unwrap();
        }
        assert_eq!(flat(&latent.weight().unwrap()), flat(&latent.stored().unwrap()));
        let (others, all) = latent.recoded(&latent.moved().unwrap());
        let largest = coded.codes().iter().filter(|c| **c == grid::MAX_CODE).count();
        assert_eq!((others, all), (OUTPUTS * INPUTS - largest, OUTPUTS * INPUTS));
    }
}

/// Σ aᵢ·wᵢ² for some a, in f64.
fn loss(weight: &[f32], a: &[f32]) -> f64 {
    weight.iter().zip(a).map(|(w, a)| f64::from(*a) * f64::from(*w).powi(2)).sum()
}

#[test]
fn factors_learn_by_finite_differences_and_places_as_if_nothing_were_rounded() {
    let (weights, a) = (random(2, OUTPUTS * INPUTS), random(3, OUTPUTS * INPUTS));
    let shape = (OUTPUTS, INPUTS);
    let a_tensor = Tensor::from_slice(&a, shape, &Device::Cpu).unwrap();
    for coded in both(&weights) {
        let latent = latent(&*coded, &weights);
        let weight = latent.weight().unwrap();
        let total = (weight.sqr().unwrap() * &a_tensor).unwrap().sum_all().unwrap();
        let gradients = total.backward().unwrap();
        for factors in [Some(&latent.steps), latent.offsets.as_ref()].into_iter().flatten() {
            let got = flat(gradients.get(factors).unwrap());
            for (i, got) in got.iter().enumerate() {
                let at = |by: f32| moved_loss(&latent, factors, (i, by), &a);
                let want = (at(1e-2) - at(-1e-2)) / 2e-2;
                assert!(
                    (f64::from(*got) - want).abs() < 1e-3 * want.abs().max(1.0),
                    "{got} {want}"
                );
            }
        }
        // A place moved by a whole code moves the weight by its step.
        let got = flat(gradients.get(&latent.places).unwrap());
        let affine = coded.affine();
        for (i, (got, w)) in got.iter().zip(flat(&weight)).enumerate() {
            let want = 2.0 * a[i] * w * affine.steps[i / affine.part];
            assert!((got - want).abs() < 1e-6 + 1e-5 * want.abs(), "{got} {want}");
        }
    }
}

/// The loss with one factor moved.
fn moved_loss(latent: &Latent<'_>, factors: &Var, (i, by): (usize, f32), a: &[f32]) -> f64 {
    let before = factors.as_tensor().copy().unwrap();
    let mut values = flat(&before);
    values[i] += by;
    factors.set(&Tensor::from_vec(values, before.dims(), &Device::Cpu).unwrap()).unwrap();
    let loss = loss(&flat(&latent.weight().unwrap()), a);
    factors.set(&before).unwrap();
    loss
}

#[test]
fn factors_beyond_what_the_file_holds_are_refused() {
    let weights = random(4, OUTPUTS * INPUTS);
    for coded in both(&weights) {
        let affine = coded.affine();
        let blocks = OUTPUTS * INPUTS / affine.block;
        let offsets = affine.offsets.map_or(Vec::new(), |_| vec![1.0; blocks]);
        let moved = |steps: f32| Moved {
            codes: coded.codes().to_vec(),
            steps: vec![steps; blocks],
            offsets: offsets.clone(),
        };
        assert_eq!(
            flat(&coded.moved(&moved(1.0)).unwrap().values().unwrap()),
            flat(&coded.values().unwrap())
        );
        for wrong in [f32::NAN, f32::INFINITY, 1e30] {
            assert!(coded.moved(&moved(wrong)).is_err(), "{wrong}");
        }
    }
}
