//! An S3 API that is not there, says no, or has no such bucket: each told apart, with what to do.

use crate::moto::{Moto, env_for};
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use uspx_artifact::{ArtifactError, ErrorKind, Store};

/// A server that gives every request the same answer; its address.
async fn answering(status: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    format!("http://{address}")
}

fn bucket(endpoint: &str) -> Store {
    Store::open_with("s3://colony/x", env_for(endpoint)).unwrap()
}

#[tokio::test]
async fn nobody_listens() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = Instant::now();
    let error = bucket(&format!("http://127.0.0.1:{port}")).check().await.unwrap_err();
    assert!(matches!(error, ArtifactError::Unreachable { .. }) && error.is_retryable(), "{error:?}");
    assert!(error.kind() == ErrorKind::Unreachable && error.to_string().contains("AWS_ENDPOINT_URL"), "{error}");
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

#[tokio::test]
async fn the_door_is_shut() {
    let store = bucket(&answering("403 Forbidden").await);
    for error in [store.check().await.unwrap_err(), store.put_blob("x".into()).await.unwrap_err()] {
        assert!(matches!(error, ArtifactError::Denied { .. }) && !error.is_retryable(), "{error:?}");
        assert!(error.to_string().contains("AWS_ACCESS_KEY_ID"), "{error}");
    }
}

#[tokio::test]
async fn the_server_has_trouble_of_its_own() {
    let error = bucket(&answering("503 Slow Down").await).check().await.unwrap_err();
    assert!(matches!(error, ArtifactError::Backend { .. }) && error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn the_bucket_is_missing() {
    let Some(moto) = Moto::start() else {
        println!("SKIPPED: the_bucket_is_missing (no moto_server: run tests/tools/venv.sh)");
        return;
    };
    Store::open_with("s3://colony", moto.env()).unwrap().check().await.unwrap();
    let store = Store::open_with("s3://nowhere/x", moto.env()).unwrap();
    let errors = [
        store.check().await.unwrap_err(),
        store.latest().await.unwrap_err(),
        store.put_blob("x".into()).await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, ArtifactError::NoBucket { .. }), "{error:?}");
        assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains("s3://nowhere/x"), "{error}");
    }
}
