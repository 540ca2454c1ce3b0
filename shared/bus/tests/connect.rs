//! Connecting to what is not a usable server. Needs no nats-server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use uspx_bus::{BusError, NatsBus, NatsOptions};

/// Speaks just enough of the protocol for a client to believe it.
async fn fake_server(version: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://secret@{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let info = format!(
                "INFO {{\"server_id\":\"X\",\"server_name\":\"x\",\"version\":\"{version}\",\"go\":\"go1\",\"host\":\"127.0.0.1\",\
                 \"port\":1,\"headers\":true,\"max_payload\":1048576,\"proto\":1}}\r\n"
            );
            stream.write_all(info.as_bytes()).await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                    if String::from_utf8_lossy(&buffer[..n]).contains("PING") {
                        stream.write_all(b"PONG\r\n").await.unwrap();
                    }
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused() {
    let url = fake_server("2.9.10").await;
    let error = NatsBus::connect(&NatsOptions::new(&url)).await.err().expect("refused");
    assert!(matches!(&error, BusError::ServerTooOld { found, .. } if found == "2.9.10"), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("2.9.10") && text.contains("2.10.27") && text.contains("upgrade"),
        "{text}"
    );
    assert!(!text.contains("secret"), "{text}");
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn nobody_there_is_said_in_time() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let options = NatsOptions {
        connect_within: Duration::from_millis(700),
        ..NatsOptions::new(format!("nats://me:secret@127.0.0.1:{port}"))
    };
    let started = Instant::now();
    let error = NatsBus::connect(&options).await.err().expect("refused");
    assert!(started.elapsed() < Duration::from_secs(3));
    let text = error.to_string();
    assert!(
        text.contains(&format!("nats://127.0.0.1:{port}")) && text.contains("is it running"),
        "{text}"
    );
    assert!(!text.contains("secret") && error.is_retryable());
}

#[tokio::test]
async fn nonsense_for_an_address_is_refused_at_once() {
    let started = Instant::now();
    assert!(NatsBus::connect(&NatsOptions::new("nats://[")).await.is_err());
    assert!(started.elapsed() < Duration::from_secs(2));
}
