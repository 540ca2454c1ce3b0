//! Against bitsandbytes itself (tests/parity/nf4_golden.py), and the products against plain loops.

use super::*;
use serde_json::Value;

fn mixed(mut value: u32) -> u32 {
    value ^= value >> 16;
    value = value.wrapping_mul(0x85eb_ca6b);
    value ^= value >> 13;
    value = value.wrapping_mul(0xc2b2_ae35);
    value ^ value >> 16
}

/// The formula of the script.
fn weight(at: u32) -> f32 {
    let around = mixed(at + 1).to_le_bytes().iter().map(|b| i32::from(*b)).sum::<i32>() - 510;
    (around * (16 + (mixed(at / 50 + 1_000_000) % 48) as i32)) as f32 / 65536.0
}

fn matrix(rows: usize, columns: usize) -> Nf4Matrix {
    let values: Vec<f32> = (0..(rows * columns) as u32).map(weight).collect();
    Nf4Matrix::quantise(rows, columns, &values).unwrap()
}

fn bits(values: &[f32]) -> Vec<u64> {
    values.iter().map(|v| u64::from(v.to_bits())).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// FNV-1a of the values' bytes.
fn digest(values: &[f32]) -> String {
    let state = values
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |s, b| (s ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    format!("{state:016x}")
}

#[test]
fn codes_of_both_levels_and_values_are_those_of_bitsandbytes() {
    let golden: Value = serde_json::from_str(include_str!("../../tests/data/nf4.json")).unwrap();
    let number = |key: &str| golden[key].as_u64().unwrap() as usize;
    let numbers = |key: &str| -> Vec<u64> {
        golden[key].as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect()
    };
    assert_eq!(bits(&VALUES), numbers("values"));
    assert_eq!(bits(double::STEPS.as_slice()), numbers("steps"));
    let matrix = matrix(number("rows"), number("columns"));
    let Nf4Parts { codes, scales, numbers: read_with } = matrix.parts();
    assert_eq!(hex(codes), golden["codes"].as_str().unwrap());
    assert_eq!(bits(&read_with[..256]), numbers("steps"));
    assert_eq!(read_with[256].to_bits() as usize, number("offset"));
    assert_eq!(bits(&read_with[257..]), numbers("scale_absmax"));
    assert_eq!(hex(scales), golden["scale_codes"].as_str().unwrap());
    assert_eq!(digest(&matrix.expand()), golden["dequantised"].as_str().unwrap());
}

/// A device that expands the matrix goes by this alone.
#[test]
fn its_parts_say_its_values() {
    let matrix = matrix(33, 1001);
    let Nf4Parts { codes, scales, numbers } = matrix.parts();
    let value = |at: usize| {
        let code = codes[at / 2] >> if at.is_multiple_of(2) { 4 } else { 0 };
        let (block, group) = (at / 64, at / 64 / 256);
        let scale = numbers[usize::from(scales[block])] * numbers[257 + group] + numbers[256];
        VALUES[usize::from(code & 15)] * scale
    };
    let all: Vec<f32> = (0..33 * 1001).map(value).collect();
    assert_eq!(bits(&all), bits(&matrix.expand()));
}

#[test]
fn products_are_those_of_the_expanded_matrix() {
    // Rows that are blocks, rows that end within one, rows of an odd count; several panels.
    for (rows, columns) in [(70, 128), (33, 100), (5, 7), (300, 2048)] {
        let w = matrix(rows, columns);
        let values = w.expand();
        let part: Vec<f32> = (0..columns).map(|c| values[2 * columns + c]).collect();
        let mut row = vec![0.0; columns];
        w.expand_rows(2, &mut row);
        assert_eq!(row, part);
        for n in [1, 3] {
            let x: Vec<f32> = (0..(n * columns) as u32).map(|at| weight(at + 7)).collect();
            let g: Vec<f32> = (0..(n * rows) as u32).map(|at| weight(at + 9)).collect();
            let (mut y, mut dx) = (vec![f32::NAN; n * rows], vec![f32::NAN; n * columns]);
            w.multiply(&x, n, &mut y).unwrap();
            w.multiply_transposed(&g, n, &mut dx).unwrap();
            let close = |got: f32, terms: &mut dyn Iterator<Item = f64>| {
                let (sum, size) = terms.fold((0.0, 1e-30), |(s, z), t| (s + t, z + t.abs()));
                assert!((f64::from(got) - sum).abs() <= 1e-6 * size, "{got}, not {sum}");
            };
            let product = |a: f32, b: f32| f64::from(a) * f64::from(b);
            for t in 0..n {
                for r in 0..rows {
                    let mut terms =
                        (0..columns).map(|c| product(x[t * columns + c], values[r * columns + c]));
                    close(y[t * rows + r], &mut terms);
                }
                for c in 0..columns {
                    let mut terms =
                        (0..rows).map(|r| product(g[t * rows + r], values[r * columns + c]));
                    close(dx[t * columns + c], &mut terms);
                }
            }
        }
    }
}

#[test]
fn what_does_not_fit_or_is_not_finite_is_refused_and_zeros_stay() {
    assert!(Nf4Matrix::quantise(2, 64, &[0.0; 127]).is_err());
    assert!(Nf4Matrix::quantise(1, 2, &[f32::NAN, 1.0]).is_err());
    assert!(Nf4Matrix::quantise(1, 2, &[1.0, f32::INFINITY]).is_err());
    let zeros = Nf4Matrix::quantise(3, 50, &[0.0; 150]).unwrap();
    assert_eq!(zeros.expand(), [0.0; 150]);
    assert_eq!(Nf4Matrix::bytes_of(150), zeros.codes.len() + 3 + 4 + 4);
    assert!(zeros.multiply(&[0.0; 50], 1, &mut [0.0; 2]).is_err());
    assert!(zeros.multiply_transposed(&[0.0; 3], 1, &mut [0.0; 49]).is_err());
    assert!(Nf4Matrix::quantise(0, 5, &[]).unwrap().multiply(&[0.0; 5], 1, &mut []).is_ok());
}
