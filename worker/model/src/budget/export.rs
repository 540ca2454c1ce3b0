//! What writing a student in 4 bits demands of memory, beside what runs: one layer, the second moments of one
//! input, and one linear map while it is rounded.

use super::mlp::MlpDemands;
use crate::config::ModelConfig;

/// Bytes for each weight of the map that is rounded: itself and what its codes stand for as floats, and the
/// codes, which are put together from parts.
const ROUNDED: u64 = 10;
/// Output rows that a thread rounds together.
const PANEL: u64 = 512;
/// Bytes for each weight of those.
const PANELLED: u64 = 9;

/// What an export asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct ExportDemands {
    /// The second moments of the widest input, f64.
    hessian: u64,
    /// Values of the widest input.
    widest: u64,
    /// Weights of the largest map, and of a layer.
    map: u64,
    layer: u64,
}

impl ExportDemands {
    pub fn new(config: &ModelConfig, mlps: &[MlpDemands]) -> Self {
        let (hidden, query) = (config.hidden as u64, (config.heads * config.head_dim) as u64);
        let kv = (config.kv_heads * config.head_dim) as u64;
        let most = |of: fn(&MlpDemands) -> u64| mlps.iter().map(of).max().unwrap_or(0);
        let widest = most(|m| m.widest).max(query).max(hidden);
        let layer = hidden * (2 * query + 2 * kv) + most(|m| m.all);
        Self { hessian: 8 * widest.pow(2), widest, map: widest * hidden.max(query), layer }
    }

    /// What is there while the map of the widest input is rounded, the last of its layer: the others are in
    /// 4 bits by then.
    pub fn taken(&self) -> u64 {
        let panels = PANEL * self.widest * rayon::current_num_threads() as u64;
        let rounded = ROUNDED * self.map + PANELLED * panels.min(self.map);
        let layer = self.layer * 9 / 16 + 2 * self.map;
        self.hessian + rounded + layer
    }
}
