//! S3 and what speaks its protocol: settings from the usual environment, checked before the first
//! request.

use crate::error::ArtifactError;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use url::{Host, Url};

/// Any one of these says where credentials come from.
const CREDENTIALS: [&str; 7] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_METADATA_ENDPOINT",
    "AWS_SKIP_SIGNATURE",
];

/// A bucket, or a folder within one.
pub(crate) fn open(
    url: &str,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Arc<dyn ObjectStore>, ArtifactError> {
    let (bucket, prefix) = bucket_and_prefix(url)?;
    let env: BTreeMap<String, String> =
        env.into_iter().filter(|(name, _)| name.starts_with("AWS_")).collect();
    need_credentials(url, &env)?;
    let mut builder = AmazonS3Builder::new().with_retry(retries()).with_client_options(patience());
    for (name, value) in &env {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
    let builder = builder
        .with_allow_http(plain_http(url, endpoint.as_deref(), &env)?)
        .with_bucket_name(bucket);
    use_ring();
    let built = builder.build();
    let s3 = built.map_err(|e| ArtifactError::bad_url(url, &e.to_string()))?;
    Ok(if prefix.is_empty() { Arc::new(s3) } else { Arc::new(PrefixStore::new(s3, prefix)) })
}

fn bucket_and_prefix(url: &str) -> Result<(String, String), ArtifactError> {
    let parsed = Url::parse(url).map_err(|e| ArtifactError::bad_url(url, &e.to_string()))?;
    if !parsed.username().is_empty() || parsed.password().is_some() || parsed.query().is_some() {
        // The address itself is not repeated: it may hold the secret.
        let reason = "credentials and options do not belong in the address: set AWS_ACCESS_KEY_ID and the like";
        return Err(ArtifactError::bad_url("s3://…", reason));
    }
    let bucket = parsed.host_str().filter(|host| !host.is_empty());
    let bucket = bucket.ok_or_else(|| {
        ArtifactError::bad_url(url, "it names no bucket: write s3://bucket/prefix")
    })?;
    Ok((bucket.to_owned(), parsed.path().trim_matches('/').to_owned()))
}

/// Without this the library would ask a cloud machine's metadata address, and a laptop would wait
/// for its time-out.
fn need_credentials(url: &str, env: &BTreeMap<String, String>) -> Result<(), ArtifactError> {
    if CREDENTIALS.iter().any(|name| env.contains_key(*name)) {
        return Ok(());
    }
    let reason = "no credentials in the environment: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SKIP_SIGNATURE=true \
                  for a public bucket, AWS_METADATA_ENDPOINT on a machine with a role; profiles are not read)";
    Err(ArtifactError::bad_url(url, reason))
}

/// Whether plain http may be spoken to the endpoint: to this machine, or where it is asked for.
fn plain_http(
    url: &str,
    endpoint: Option<&str>,
    env: &BTreeMap<String, String>,
) -> Result<bool, ArtifactError> {
    let Some(endpoint) = endpoint.filter(|e| e.starts_with("http://")) else { return Ok(false) };
    let asked =
        env.get("AWS_ALLOW_HTTP").is_some_and(|v| v.eq_ignore_ascii_case("true") || v == "1");
    if asked || is_loopback(endpoint) {
        return Ok(true);
    }
    let reason = format!(
        "{endpoint} is not encrypted: use https, or set AWS_ALLOW_HTTP=true on a network that you trust"
    );
    Err(ArtifactError::bad_url(url, &reason))
}

fn is_loopback(endpoint: &str) -> bool {
    match Url::parse(endpoint).ok().as_ref().and_then(Url::host) {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// A stalled transfer is given up, a slow one is not: there is no bound on a whole request.
fn patience() -> ClientOptions {
    ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(Duration::from_secs(5))
        .with_read_timeout(Duration::from_secs(30))
}

fn retries() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(3),
        ..BackoffConfig::default()
    };
    RetryConfig { backoff, max_retries: 4, retry_timeout: Duration::from_secs(45) }
}

/// The http client takes the process's TLS provider and panics without one. One that is set already
/// stays.
fn use_ring() {
    let already_set = rustls::crypto::ring::default_provider().install_default().is_err();
    tracing::trace!(already_set, "tls provider");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let keys = [("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s")];
        keys.iter().chain(pairs).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn plain_http_needs_loopback_or_a_word() {
        let remote = ("AWS_ENDPOINT_URL", "http://s3.example:9000");
        let error = open("s3://b/p", env(&[remote])).unwrap_err();
        assert!(error.to_string().contains("AWS_ALLOW_HTTP"), "{error}");
        assert!(open("s3://b/p", env(&[remote, ("AWS_ALLOW_HTTP", "true")])).is_ok());
        for local in ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"] {
            assert!(open("s3://b", env(&[("AWS_ENDPOINT_URL", local)])).is_ok(), "{local}");
        }
        assert!(!is_loopback("http://localhost.example:1"));
    }

    #[test]
    fn https_builds_with_ring() {
        assert!(
            open("s3://bucket/a/b", env(&[("AWS_ENDPOINT_URL", "https://s3.example")])).is_ok()
        );
        assert!(open("s3://bucket", env(&[])).is_ok());
    }

    #[test]
    fn missing_settings_are_named() {
        let error = open("s3://b", Vec::new()).unwrap_err();
        assert!(error.to_string().contains("AWS_ACCESS_KEY_ID"), "{error}");
        assert!(open("s3://", env(&[])).unwrap_err().to_string().contains("bucket"));
        let secret = open("s3://user:hunter2@b/p", env(&[])).unwrap_err();
        assert!(!secret.to_string().contains("hunter2"), "{secret}");
    }
}
