//! An S3 API that is not there, says no, or has no such bucket: each told apart, with what to do.

use libtest_mimic::Trial;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use uspx_artifact::{ArtifactError, ErrorKind, Store, silent};
use uspx_tests::moto::{Moto, env_for};
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    let mut trials = trials![nobody_listens, the_door_is_shut, the_server_has_trouble_of_its_own];
    trials.extend(Moto::need().of_all(trials![the_bucket_is_missing]));
    trials
}

/// A server that gives every request the same answer; its address.
async fn answering(status: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let answer =
                    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    format!("http://{address}")
}

fn bucket(endpoint: &str) -> Store {
    Store::open_with("s3://colony/x", env_for(endpoint)).unwrap()
}

#[tokio::main(flavor = "current_thread")]
async fn nobody_listens() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = Instant::now();
    let error = bucket(&format!("http://127.0.0.1:{port}")).check().await.unwrap_err();
    assert!(
        matches!(error, ArtifactError::Unreachable { .. }) && error.is_retryable(),
        "{error:?}"
    );
    assert!(
        error.kind() == ErrorKind::Unreachable && error.to_string().contains("AWS_ENDPOINT_URL"),
        "{error}"
    );
    // The system's own words lie four errors deep.
    assert_eq!(error.to_string().matches("Connection refused").count(), 1, "{error}");
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

#[tokio::main(flavor = "current_thread")]
async fn the_door_is_shut() {
    let store = bucket(&answering("403 Forbidden").await);
    for error in
        [store.check().await.unwrap_err(), store.put_blob("x".into(), &silent).await.unwrap_err()]
    {
        assert!(
            matches!(error, ArtifactError::Denied { .. }) && !error.is_retryable(),
            "{error:?}"
        );
        assert!(error.to_string().contains("AWS_ACCESS_KEY_ID"), "{error}");
        assert_eq!(error.to_string().matches("403").count(), 1, "{error}");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn the_server_has_trouble_of_its_own() {
    let error = bucket(&answering("503 Slow Down").await).check().await.unwrap_err();
    assert!(matches!(error, ArtifactError::Backend { .. }) && error.is_retryable(), "{error:?}");
    assert!(error.to_string().contains("503"), "{error}");
}

#[tokio::main(flavor = "current_thread")]
async fn the_bucket_is_missing() {
    let moto = Moto::start();
    Store::open_with("s3://colony", moto.env()).unwrap().check().await.unwrap();
    let store = Store::open_with("s3://nowhere/x", moto.env()).unwrap();
    let errors = [
        store.check().await.unwrap_err(),
        store.latest().await.unwrap_err(),
        store.put_blob("x".into(), &silent).await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, ArtifactError::NoBucket { .. }), "{error:?}");
        assert!(
            error.kind() == ErrorKind::NotFound && error.to_string().contains("s3://nowhere/x"),
            "{error}"
        );
    }
}
