//! PEFT's two files, as a release holds them, from the one blob that a worker sent: the tensors are
//! the blob, and the configuration lies in its header (`uspx_distill::adapter_file` writes it; this
//! crate links no tensor library).

use crate::ServiceError;
use serde::Deserialize;
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Longer headers are refused; an adapter on a hundred layers has a few hundred KiB.
const MAX_HEADER: u64 = 64 << 20;

/// What a safetensors header begins with, as far as it is looked at.
#[derive(Deserialize)]
struct Header {
    #[serde(rename = "__metadata__")]
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    /// JSON within JSON: the metadata of safetensors are texts.
    uspx_adapter: String,
}

#[derive(Deserialize)]
struct Info {
    peft: Value,
}

/// PEFT's configuration of the adapter in a safetensors file.
///
/// # Errors
/// [`ServiceError::File`], [`ServiceError::Adapter`] for a file without one.
pub(crate) fn config(path: &Path) -> Result<Value, ServiceError> {
    let header = header(path).map_err(ServiceError::file(path))?;
    let parsed = serde_json::from_slice::<Header>(&header)
        .and_then(|header| serde_json::from_str::<Info>(&header.metadata.uspx_adapter));
    parsed
        .map(|info| info.peft)
        .map_err(|source| ServiceError::Adapter { path: path.to_owned(), source })
}

/// A safetensors file's header: its length in eight bytes, then JSON.
fn header(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let mut header = Vec::new();
    file.take(u64::from_le_bytes(length).min(MAX_HEADER)).read_to_end(&mut header)?;
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use uspx_domain::ADAPTER_TENSORS;

    fn read(header: &Value, length: Option<u64>) -> Result<Value, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(ADAPTER_TENSORS);
        let text = header.to_string();
        let mut bytes = length.unwrap_or(text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text.bytes());
        bytes.extend([0; 16]);
        std::fs::write(&path, bytes).unwrap();
        config(&path).map_err(|e| e.to_string())
    }

    #[test]
    fn the_configuration_is_found_in_the_header() {
        let info = json!({"version": 2, "peft": {"r": 4}}).to_string();
        let header = json!({"__metadata__": {"uspx_adapter": info}, "a": {"dtype": "F32"}});
        assert_eq!(read(&header, None).unwrap(), json!({"r": 4}));
        for length in [0, 10, u64::MAX] {
            assert!(read(&header, Some(length)).unwrap_err().contains(ADAPTER_TENSORS), "{length}");
        }
        for bare in [
            json!({}),
            json!({"__metadata__": {}}),
            json!({"__metadata__": {"uspx_adapter": "{}"}}),
        ] {
            let error = read(&bare, None).unwrap_err();
            assert!(error.contains(ADAPTER_TENSORS) && error.contains("distil again"), "{error}");
        }
    }
}
