//! The chain over HTTP, as wallets, broken clients and hostile ones meet it.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use alloy::{
    primitives::{B256, U256},
    providers::Provider as _,
    rpc::client::{BatchRequest, ClientBuilder},
};
use licensing_contracts::devchain::{DevChain, Server};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::{Probe, address, allow_http, chain, deploy, provider, request};

async fn serve(chain: &DevChain) -> Server {
    allow_http();
    chain.serve("127.0.0.1:0".parse().unwrap(), &CancellationToken::new()).await.unwrap()
}

async fn post(server: &Server, body: impl Into<reqwest::Body>) -> (u16, String) {
    let answer = reqwest::Client::new().post(server.url()).body(body).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn post_json(server: &Server, body: &str) -> Value {
    let (status, text) = post(server, body.to_owned()).await;
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn envelopes_are_those_of_json_rpc() {
    let server = serve(&chain()).await;
    for (body, id, code) in [
        ("", json!(null), -32700),
        ("{", json!(null), -32700),
        ("\u{0}", json!(null), -32700),
        ("[", json!(null), -32700),
        ("[]", json!(null), -32600),
        ("7", json!(null), -32600),
        ("{}", json!(null), -32600),
        (r#"{"jsonrpc":"1.0","id":1,"method":"eth_chainId"}"#, json!(null), -32600),
        (r#"{"id":1,"method":"eth_chainId"}"#, json!(null), -32600),
        (r#"{"jsonrpc":"2.0","id":{},"method":"eth_chainId"}"#, json!(null), -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, json!(null), -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"eth_mystery"}"#, json!(1), -32601),
        (r#"{"jsonrpc":"2.0","id":"a","method":"eth_getBalance","params":{"x":1}}"#, json!("a"), -32602),
        (r#"{"jsonrpc":"2.0","id":null,"method":"eth_getBalance","params":[7]}"#, json!(null), -32602),
    ] {
        let answer = post_json(&server, body).await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&id, &json!(code)), "{body}: {answer}");
        assert!(answer.get("result").is_none() && answer["error"]["message"].is_string(), "{answer}");
        assert!(answer["error"].get("data").is_none(), "{answer}");
    }
    let invalid_utf8 = post(&server, vec![b'"', 0xff, b'"']).await.1;
    assert!(invalid_utf8.contains("-32700"), "{invalid_utf8}");
    let deep = "[".repeat(100_000);
    assert!(post(&server, deep).await.1.contains("-32700"));
    let good = post_json(&server, r#" {"jsonrpc":"2.0","id":7,"method":"eth_chainId","params":null} "#).await;
    assert_eq!(good, json!({ "jsonrpc": "2.0", "id": 7, "result": "0x7a69" }));
    server.stop().await;
}

#[tokio::test]
async fn batches_are_answered_in_order_and_notifications_are_not_answered() {
    let chain = chain();
    let server = serve(&chain).await;
    let batch = r#"[{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}, 7, {"jsonrpc":"2.0","method":"evm_mine"},
                    {"jsonrpc":"2.0","id":"b","method":"eth_blockNumber"}, {"jsonrpc":"2.0","id":3,"method":"nothing"}]"#;
    let answers = post_json(&server, batch).await;
    let ids: Vec<&Value> = answers.as_array().unwrap().iter().map(|answer| &answer["id"]).collect();
    assert_eq!(ids, [&json!(1), &json!(null), &json!("b"), &json!(3)]);
    assert_eq!((&answers[1]["error"]["code"], &answers[2]["result"]), (&json!(-32600), &json!("0x1")));
    let notification = r#"{"jsonrpc":"2.0","method":"evm_mine"}"#;
    assert_eq!(post(&server, notification).await, (204, String::new()));
    assert_eq!(post(&server, format!("[{notification},{notification}]")).await, (204, String::new()));
    let number = chain.request("eth_blockNumber", None).unwrap();
    assert_eq!(number.get(), "\"0x4\"");
    let many = format!("[{}]", vec![r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}"#; 1_001].join(","));
    assert_eq!(post_json(&server, &many).await["error"]["code"], json!(-32600));
    // As alloy sends them.
    let client = ClientBuilder::default().http(server.url().parse().unwrap());
    let mut batch = BatchRequest::new(&client);
    let number = batch.add_call::<_, U256>("eth_blockNumber", &()).unwrap();
    let balance = batch.add_call::<_, U256>("eth_getBalance", &(address(1), "latest")).unwrap();
    batch.send().await.unwrap();
    assert_eq!((number.await.unwrap(), balance.await.unwrap()), (U256::from(4), crate::support::ether(1_000)));
    server.stop().await;
}

#[tokio::test]
async fn bodies_that_are_too_large_are_refused_and_the_server_goes_on() {
    let server = serve(&chain()).await;
    let (status, text) = post(&server, vec![b' '; 8 * 1024 * 1024 + 1]).await;
    assert_eq!(status, 413);
    assert!(text.contains("-32600"), "{text}");
    // Also when nothing says beforehand how large it is.
    let chunks = (0..20).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1024 * 1024]));
    let body = reqwest::Body::wrap_stream(tokio_stream::iter(chunks));
    let sent = reqwest::Client::new().post(server.url()).body(body).send().await;
    // The server may close before the client has sent all of it.
    assert!(sent.is_err() || sent.is_ok_and(|answer| answer.status() == 413));
    let largest =
        format!("{}{}", " ".repeat(8 * 1024 * 1024 - 100), r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}"#);
    assert_eq!(post_json(&server, &largest).await["result"], json!("0x7a69"));
    server.stop().await;
}

#[tokio::test]
async fn browsers_may_ask_from_any_page() {
    let server = serve(&chain()).await;
    let client = reqwest::Client::new();
    let preflight = client
        .request(reqwest::Method::OPTIONS, server.url())
        .header("origin", "https://wallet.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type")
        .header("access-control-request-private-network", "true")
        .send()
        .await
        .unwrap();
    assert_eq!(preflight.status(), 204);
    assert_eq!(preflight.headers()["access-control-allow-origin"], "*");
    assert_eq!(preflight.headers()["access-control-allow-private-network"], "true");
    assert!(preflight.headers()["access-control-allow-headers"].to_str().unwrap().contains("content-type"));
    let answer = client.post(server.url()).body("{}").send().await.unwrap();
    assert_eq!(answer.headers()["access-control-allow-origin"], "*");
    assert_eq!(answer.headers()["content-type"], "application/json");
    let get = client.get(server.url()).send().await.unwrap();
    assert_eq!((get.status().as_u16(), get.headers()["allow"].to_str().unwrap()), (405, "POST, OPTIONS"));
    server.stop().await;
}

#[tokio::test]
async fn revert_data_comes_through() {
    let server = serve(&chain()).await;
    let provider = provider(ClientBuilder::default().http(server.url().parse().unwrap()));
    let probe = deploy(&provider, "Probe", &[]).await;
    let error = provider.call(request(1, probe, &Probe::failCall { asked: U256::from(3) })).await.unwrap_err();
    let payload = error.as_error_resp().unwrap();
    assert_eq!((payload.code, payload.as_decoded_error::<Probe::TooMuch>().unwrap().asked), (3, U256::from(3)));
    server.stop().await;
}

fn raw(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_finishes_what_is_open_and_closes_the_port() {
    let server = serve(&chain()).await;
    let address = server.address();
    // One connection is idle, one has sent half a request and never sends the rest.
    let mut idle = raw(address, b"");
    let half = raw(address, b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{");
    assert_eq!(post(&server, r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}"#).await.0, 200);
    let start = Instant::now();
    server.stop().await;
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    assert_eq!(idle.read(&mut [0; 16]).unwrap(), 0, "the idle connection is closed");
    drop(half);
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_cancelled_token_stops_the_server_and_an_address_in_use_is_named() {
    allow_http();
    let chain = chain();
    let token = CancellationToken::new();
    let server = chain.serve("127.0.0.1:0".parse().unwrap(), &token).await.unwrap();
    let address = server.address();
    let error = chain.serve(address, &token).await.unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    token.cancel();
    server.stopped().await;
    // And a dropped one frees its port.
    let again = chain.serve(address, &CancellationToken::new()).await.unwrap();
    let hash: B256 = provider(ClientBuilder::default().http(again.url().parse().unwrap()))
        .get_block_by_number(0.into())
        .await
        .unwrap()
        .unwrap()
        .header
        .hash;
    assert_ne!(hash, B256::ZERO);
    drop(again);
    let deadline = Instant::now() + Duration::from_secs(5);
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < deadline, "a dropped server goes on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
