//! What a role would use, where each value comes from, and what is wrong with it.

use super::table::{Key, Role, Usual, keys_of};
use super::{CoordinatorFile, WorkerFile, missing, unknown};
use crate::error::Result;
use serde::Serialize;
use serde_json::{Map, Value};
use uspx_bus::NatsOptions;
use uspx_domain::WorkerId;
use uspx_runtime::config::{Origin, Sources};
use uspx_wire::subjects::Names;

/// A value as a role would use it.
#[derive(Debug, Serialize)]
pub struct Used {
    /// Its key.
    pub key: &'static str,
    /// As it would be written in the file; none where nothing is set.
    pub value: Option<String>,
    /// Where it comes from.
    pub from: String,
}

/// What a role would use.
#[derive(Debug, Serialize)]
pub struct RoleExplained {
    /// The role.
    pub role: String,
    /// Each of its keys.
    pub values: Vec<Used>,
    /// What it cannot do without and nothing sets.
    pub missing: Vec<String>,
}

/// What a configuration says.
#[derive(Debug, Serialize)]
pub struct Explained {
    /// Role by role.
    pub roles: Vec<RoleExplained>,
    /// What is wrong.
    pub wrong: Vec<String>,
    /// What is odd, and nobody's business but the person's.
    pub odd: Vec<String>,
}

/// Explains the configuration to the roles. What one of two roles lacks is not wrong: a file may be
/// for the other, or flags may add it.
///
/// # Errors
/// The file is not TOML.
pub fn explain(roles: &[Role], sources: &Sources) -> Result<Explained> {
    let mut wrong = unknown::of(&sources.keys_of_file()?);
    let mut explained = Vec::new();
    for role in roles {
        let missing: Vec<String> = missing::of(*role, sources)
            .iter()
            .map(|k| format!("{}: {}", k.path, k.ways()))
            .collect();
        wrong.extend(faults(*role, sources));
        if roles.len() == 1 {
            wrong.extend(missing.iter().map(|what| format!("missing: {what}")));
        }
        let values = keys_of(*role).map(|key| used(key, sources)).collect();
        explained.push(RoleExplained { role: role.to_string(), values, missing });
    }
    wrong.dedup();
    Ok(Explained { roles: explained, wrong, odd: unknown::variables() })
}

fn used(key: &'static Key, sources: &Sources) -> Used {
    let (value, from) = match (sources.find::<Value>(key.path), key.usual) {
        (Some((value, origin)), _) => (Some(shown(key, &value)), said(&origin)),
        (None, Usual::Is(value)) => (Some(value.to_owned()), "default".to_owned()),
        (None, Usual::Needed(_)) => (None, "missing".to_owned()),
        (None, Usual::Open { then, .. }) => (None, format!("not set: {then}")),
    };
    Used { key: key.path, value, from }
}

/// A value without the password that an address may hold.
fn shown(key: &Key, value: &Value) -> String {
    match value.as_str() {
        Some(url) if key.path == "nats" => format!("{:?}", NatsOptions::new(url).shown_url()),
        _ => value.to_string(),
    }
}

fn said(origin: &Origin) -> String {
    match origin {
        Origin::Flag => "flag".to_owned(),
        Origin::Variable(name) => name.clone(),
        Origin::File(path) => path.display().to_string(),
    }
}

/// What does not fit in the values of a role.
fn faults(role: Role, sources: &Sources) -> Vec<String> {
    let found = match role {
        Role::Coordinator => coordinator(sources),
        Role::Worker => worker(sources),
    };
    found.err().into_iter().collect()
}

fn coordinator(sources: &Sources) -> std::result::Result<(), String> {
    let file: CoordinatorFile =
        sources.settings_with(stand_ins(Role::Coordinator)).map_err(|e| e.to_string())?;
    file.campaign.check().map_err(|e| format!("campaign: {e}"))?;
    namespace(file.namespace.as_deref())
}

fn worker(sources: &Sources) -> std::result::Result<(), String> {
    let file: WorkerFile =
        sources.settings_with(stand_ins(Role::Worker)).map_err(|e| e.to_string())?;
    file.name.parse::<WorkerId>().map_err(|e| format!("name: {e}"))?;
    namespace(file.namespace.as_deref())
}

fn namespace(name: Option<&str>) -> std::result::Result<(), String> {
    name.map_or(Ok(()), |name| Names::new(name).map(drop).map_err(|e| format!("namespace: {e}")))
}

/// Values in the place of those that are missing, so that the others can be read.
fn stand_ins(role: Role) -> Map<String, Value> {
    let needed = keys_of(role).filter(|key| matches!(key.usual, Usual::Needed(_)));
    let value = |key: &Key| match key.path {
        "models" => Value::Array(Vec::new()),
        _ => Value::String("missing".to_owned()),
    };
    needed.map(|key| (key.path.to_owned(), value(key))).collect()
}
