//! A host is ready when its engines are.

use std::{
    net::SocketAddr,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use super::scripted::{ScriptedServer, saying};
use crate::{
    metered::world::eventually,
    support::{Ending, Host, ScriptedEngine, byte_model},
};

async fn ready(host: &Host) -> (u16, Value) {
    let response = host.get("/readyz").await;
    (response.status().as_u16(), response.json().await.unwrap())
}

/// A host in front of a server that is gone, and where it was.
async fn abandoned() -> (Host, SocketAddr) {
    let server = ScriptedServer::start(saying("one")).await;
    let host = Host::start_with(
        vec![byte_model(ScriptedEngine::saying("ok", Ending::Finish)), server.model().await],
        serving::Limits::default(),
    );
    let host = host.await;
    let address = server.url.strip_prefix("http://").unwrap().parse().unwrap();
    drop(server);
    (host, address)
}

/// The address, as soon as nobody has it any more.
async fn listen(address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_server_is_gone_is_not_ready_until_it_is_back() {
    let server = ScriptedServer::start(saying("one")).await;
    let host = Host::start(server.model().await).await;
    assert_eq!(ready(&host).await, (200, serde_json::json!({"ready": true, "reasons": []})));
    // The answer is kept for a moment, however often it is asked for.
    let asked = || server.heard.connections.load(Ordering::SeqCst);
    let before = asked();
    for _ in 0..50 {
        assert_eq!(ready(&host).await.0, 200);
    }
    assert!(asked() <= before + 1, "{} questions", asked() - before);
    let address: SocketAddr = server.url.strip_prefix("http://").unwrap().parse().unwrap();
    drop(server);
    eventually("the host sees it", || async { ready(&host).await.0 == 503 }).await;
    let (_, body) = ready(&host).await;
    assert_eq!(body["ready"], false);
    let reason = body["reasons"][0].as_str().unwrap();
    assert!(reason.starts_with("bytes: ") && reason.contains("cannot be reached"), "{reason}");
    assert!(!reason.contains("127.0.0.1"), "where the server is, is the operator's business: {reason}");

    let _server = ScriptedServer::again(listen(address).await);
    eventually("the host sees that it is back", || async { ready(&host).await.0 == 200 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_keeps_nobody_waiting() {
    let (host, address) = abandoned().await;
    // Connections are taken by the kernel, and nobody reads them.
    let _silent = listen(address).await;
    let host = std::sync::Arc::new(host);
    let began = Instant::now();
    let tasks = TaskTracker::new();
    let asked: Vec<_> = (0..100)
        .map(|_| {
            let host = host.clone();
            tasks.spawn(async move { ready(&host).await })
        })
        .collect();
    for answer in asked {
        let (status, body) = answer.await.unwrap();
        assert_eq!(status, 503);
        assert_eq!(body["reasons"].as_array().unwrap().len(), 1, "the other engine is well: {body}");
        assert!(body["reasons"][0].as_str().unwrap().contains("did not answer within 2 s"), "{body}");
    }
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(host.get("/healthz").await.status(), 200, "the process is alive");
}
