//! Bills for what another server generated.

use protocol::{messages::FinishReason, transcript::response_hash};
use serde_json::{Value, json};

use super::world::{MeteredServer, Payer, World, eventually};
use crate::{
    support::{chat_body, events, with},
    upstream::scripted::{Piece, Reply, ScriptedServer, done, ended, saying, text, usage},
};

const ENOUGH: u128 = 1_000_000;

/// Asks for a stream: all of it, and the statement under its id.
async fn stream(host: &MeteredServer, payer: &Payer) -> (String, Value) {
    let body = with(chat_body("hi"), json!({"stream": true}));
    let response = host.post("/v1/chat/completions", &[payer.header(ENOUGH)], &body).await;
    let text = response.text().await.unwrap();
    let path = format!("/v1/statements/{}", events(&text)[0]["id"].as_str().unwrap());
    eventually("a statement", || async { host.get(&path).await.0 == 200 }).await;
    let (_, found) = host.get(&path).await;
    (text, found["statement"]["message"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn server_that_dies_leaves_a_bill_for_what_was_delivered() {
    let world = World::new().await;
    let payer = world.payer(20_000_000).await;
    for (lane, ending) in
        [(1, vec![Piece::Break]), (2, vec![done()]), (3, vec![ended("stop")]), (4, vec![ended("abort")])]
    {
        let pieces = [vec![text("ha"), text("lf")], ending].concat();
        let server = ScriptedServer::start(Reply::Stream(pieces)).await;
        let host = world.host(server.model().await).await;
        let (text, message) = stream(&host, &payer.on_lane(lane)).await;
        assert!(!text.contains("[DONE]"), "{text}");
        assert_eq!(events(&text).last().unwrap()["error"]["code"], "engine_error", "{text}");
        assert_eq!(message["completionTokens"], 4, "{message}");
        assert_eq!(message["finishReason"], FinishReason::EngineError.code());
        assert_eq!(message["responseHash"], json!(response_hash(["half"])));
        host.stop().await;
    }
    // Nothing was delivered: nothing is owed, and the same voucher is still the lane's next one.
    let mut payer = payer.on_lane(5);
    let voucher = [payer.header(ENOUGH)];
    for (reply, expected) in
        [(Reply::Status(500), 503), (Reply::Status(429), 429), (Reply::Stream(vec![Piece::Break]), 500)]
    {
        let server = ScriptedServer::start(reply).await;
        let host = world.host(server.model().await).await;
        assert_eq!(host.refused(&voucher, &chat_body("hi")).await.0, expected);
        host.stop().await;
    }
    let server = ScriptedServer::start(saying("ok")).await;
    let host = world.host(server.model().await).await;
    let answer = host.post("/v1/chat/completions", &voucher, &chat_body("hi")).await;
    payer.accept(&answer.json::<Value>().await.unwrap()["hallmark"]);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bill_is_the_host_s_count_and_not_the_server_s() {
    let world = World::new().await;
    let payer = world.payer(20_000_000).await;
    let mut charges = Vec::new();
    for (lane, figures) in [(1, None), (2, Some((20, 5, 0))), (3, Some((9_000, 9_000, 0))), (4, Some((0, 0, 0)))] {
        let figures = figures.map(|(prompt, completion, cached)| usage(prompt, completion, cached));
        let pieces = [text("four"), ended("stop")].into_iter().chain(figures).chain([done()]).collect();
        let server = ScriptedServer::start(Reply::Stream(pieces)).await;
        let host = world.host(server.model().await).await;
        let mut payer = payer.on_lane(lane);
        let answer = host.chat(&mut payer, ENOUGH, &chat_body("hi")).await;
        assert_eq!(answer["usage"]["completion_tokens"], 4);
        assert!(answer["hallmark"]["record"].as_str().unwrap().contains("upstream vllm"));
        charges.push(payer.charged);
        host.stop().await;
    }
    assert!(charges[0] > 0 && charges.iter().all(|charge| *charge == charges[0]), "{charges:?}");
}
