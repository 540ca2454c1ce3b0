//! What a probe brings: values per prompt and unit, moments, and losses.

use super::floats::Floats;
use super::names::{known, name};
use super::{all, try_all};
use crate::Unread;
use serde::{Deserialize, Serialize};
use uspx_domain as domain;

#[derive(Serialize, Deserialize)]
pub(crate) struct Unit {
    kind: String,
    layer: u32,
    index: u32,
}

impl From<&domain::Unit> for Unit {
    fn from(unit: &domain::Unit) -> Self {
        Self { kind: name(unit.kind), layer: unit.layer, index: unit.index }
    }
}

impl TryFrom<Unit> for domain::Unit {
    type Error = Unread;
    fn try_from(unit: Unit) -> Result<Self, Unread> {
        Ok(Self { kind: known(&unit.kind)?, layer: unit.layer, index: unit.index })
    }
}

/// A prompt and its response tokens.
#[derive(Serialize, Deserialize)]
struct PromptTokens {
    id: String,
    tokens: u32,
}

impl From<&domain::PromptTokens> for PromptTokens {
    fn from(prompt: &domain::PromptTokens) -> Self {
        Self { id: prompt.id.clone(), tokens: prompt.tokens }
    }
}

fn tokens(prompts: Vec<PromptTokens>) -> Vec<domain::PromptTokens> {
    prompts
        .into_iter()
        .map(|PromptTokens { id, tokens }| domain::PromptTokens { id, tokens })
        .collect()
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Deposit {
    prompts: Vec<PromptTokens>,
    columns: Vec<Column>,
    moments: Vec<Moments>,
}

impl From<&domain::Deposit> for Deposit {
    fn from(deposit: &domain::Deposit) -> Self {
        let domain::Deposit { prompts, columns, moments } = deposit;
        Self { prompts: all(prompts), columns: all(columns), moments: all(moments) }
    }
}

impl TryFrom<Deposit> for domain::Deposit {
    type Error = Unread;
    fn try_from(deposit: Deposit) -> Result<Self, Unread> {
        let Deposit { prompts, columns, moments } = deposit;
        Ok(Self {
            prompts: tokens(prompts),
            columns: try_all(columns)?,
            moments: try_all(moments)?,
        })
    }
}

/// One statistic of one unit on every prompt.
#[derive(Serialize, Deserialize)]
struct Column {
    unit: Unit,
    statistic: String,
    values: Floats,
}

impl From<&domain::Column> for Column {
    fn from(column: &domain::Column) -> Self {
        let values = column.values.as_slice().into();
        Self { unit: (&column.unit).into(), statistic: name(column.statistic), values }
    }
}

impl TryFrom<Column> for domain::Column {
    type Error = Unread;
    fn try_from(column: Column) -> Result<Self, Unread> {
        let (statistic, values) = (known(&column.statistic)?, column.values.try_into()?);
        Ok(Self { unit: column.unit.try_into()?, statistic, values })
    }
}

/// One statistic of all units of a layer, summed over prompts.
#[derive(Serialize, Deserialize)]
struct Moments {
    kind: String,
    layer: u32,
    statistic: String,
    x: Floats,
    xx: Floats,
    xt: Floats,
}

impl From<&domain::Moments> for Moments {
    fn from(moments: &domain::Moments) -> Self {
        Self {
            kind: name(moments.kind),
            layer: moments.layer,
            statistic: name(moments.statistic),
            x: moments.x.as_slice().into(),
            xx: moments.xx.as_slice().into(),
            xt: moments.xt.as_slice().into(),
        }
    }
}

impl TryFrom<Moments> for domain::Moments {
    type Error = Unread;
    fn try_from(moments: Moments) -> Result<Self, Unread> {
        let Moments { kind, layer, statistic, x, xx, xt } = moments;
        let (kind, statistic) = (known(&kind)?, known(&statistic)?);
        Ok(Self {
            kind,
            layer,
            statistic,
            x: x.try_into()?,
            xx: xx.try_into()?,
            xt: xt.try_into()?,
        })
    }
}

/// Summed losses of a run, prompt by prompt.
#[derive(Serialize, Deserialize)]
pub(crate) struct LossRow {
    prompts: Vec<PromptTokens>,
    nats: Floats,
    bytes: Vec<u32>,
    /// Unsaid where the model gave no answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    right: Vec<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pace: Option<Pace>,
}

/// Tokens of answers, and how long they took.
#[derive(Serialize, Deserialize)]
struct Pace {
    tokens: u64,
    micros: u64,
}

impl From<&domain::LossRow> for LossRow {
    fn from(row: &domain::LossRow) -> Self {
        Self {
            prompts: all(&row.prompts),
            nats: row.nats.as_slice().into(),
            bytes: row.bytes.clone(),
            right: row.right.clone(),
            pace: row.pace.map(|domain::Pace { tokens, micros }| Pace { tokens, micros }),
        }
    }
}

impl TryFrom<LossRow> for domain::LossRow {
    type Error = Unread;
    fn try_from(row: LossRow) -> Result<Self, Unread> {
        let LossRow { prompts, nats, bytes, right, pace } = row;
        let pace = pace.map(|Pace { tokens, micros }| domain::Pace { tokens, micros });
        Ok(Self { prompts: tokens(prompts), nats: nats.try_into()?, bytes, right, pace })
    }
}
