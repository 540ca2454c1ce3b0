//! What stands for our CUDA kernels in a build without them: nothing is ever served.

use crate::batch::Span;
use candle_core::{DType, Device, Result, Tensor};

#[derive(Debug)]
pub(crate) struct Ragged;

impl Ragged {
    pub fn new(_: &[Span], _: usize, _: usize, _: &Device) -> Result<Self> {
        absent()
    }
}

pub(crate) fn attends(_: &Tensor, _: usize) -> bool {
    false
}

pub(crate) fn attend(
    _: [&Tensor; 3],
    _: &Ragged,
    _: Option<&Tensor>,
    _: Option<usize>,
) -> Result<Tensor> {
    absent()
}

pub(crate) fn serves(_: &Tensor) -> bool {
    false
}

pub(crate) fn free_memory(_: &Device) -> Option<u64> {
    None
}

pub(crate) fn keep_freed_memory(_: &Device) {}

fn absent<T>() -> Result<T> {
    candle_core::bail!("this build has no CUDA kernels: build with --features cuda")
}

pub(crate) fn expand(_: &Tensor, _: &Tensor, _: (usize, usize), _: DType) -> Result<Tensor> {
    absent()
}

pub(crate) fn expand_nf4(_: [&Tensor; 3], _: usize, _: (usize, usize), _: DType) -> Result<Tensor> {
    absent()
}

pub(crate) fn unit(_: &Tensor, _: f64, _: f64) -> Result<Tensor> {
    absent()
}

pub(crate) fn unit_back(_: &Tensor, _: &Tensor, _: f64, _: f64) -> Result<Tensor> {
    absent()
}

pub(crate) fn gather(_: &Tensor, _: &Tensor) -> Result<Tensor> {
    absent()
}

pub(crate) fn add_bias(_: &Tensor, _: &Tensor) -> Result<Tensor> {
    absent()
}

pub(crate) fn sum_places(_: &Tensor, _: &Tensor, _: &Tensor, _: usize) -> Result<Tensor> {
    absent()
}

pub(crate) fn norms(_: &Tensor) -> Result<Tensor> {
    absent()
}
