//! Requests that are paid for, from the voucher to the statement.

use std::sync::Arc;

use licensing_contracts::devnet::SESSION_KEY;
use protocol::{messages::FinishReason, transcript::response_hash};
use serde_json::json;
use tokio_util::task::TaskTracker;

use super::world::{World, eventually};
use crate::support::{Ending, ScriptedEngine, byte_model, chat_body, content_of, events, with};

const ENOUGH: u128 = 1_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_a_statement_that_the_next_voucher_accepts() {
    let world = World::new().await;
    let host = world.host(byte_model(ScriptedEngine::saying("hello there", Ending::Finish))).await;
    let mut payer = world.payer(20_000_000).await;
    for number in 1..=3 {
        let answer = host.chat(&mut payer, ENOUGH, &chat_body("hi")).await;
        assert_eq!(payer.counts.requests(), number);
        // A byte a token: the template's two special tokens, "user:hi", and "assistant:" behind another one.
        let prompt = 3 + "user:hi".len() + "assistant:".len();
        assert_eq!(answer["usage"]["prompt_tokens"], prompt);
        assert_eq!(answer["usage"]["completion_tokens"], "hello there".len());
        let statement = &answer["hallmark"]["statement"]["message"];
        assert_eq!(statement["responseHash"], json!(response_hash(["hello there"])));
        // The statement is in the journal before the answer ends, under both of its names.
        for id in [&answer["id"], &answer["hallmark"]["statement_id"]] {
            let (status, found) = host.get(&format!("/v1/statements/{}", id.as_str().unwrap())).await;
            assert_eq!((status, &found["statement"]), (200, &answer["hallmark"]["statement"]));
        }
    }
    assert_eq!(host.get("/v1/statements/chatcmpl-unknown").await.0, 404);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_statement() {
    let world = World::new().await;
    let host = world.host(byte_model(ScriptedEngine::saying("hello", Ending::Finish))).await;
    let mut payer = world.payer(20_000_000).await;
    for options in [json!({"stream": true}), json!({"stream": true, "stream_options": {"include_usage": true}})] {
        let body = with(chat_body("hi"), options);
        let response = host.post("/v1/chat/completions", &[payer.header(ENOUGH)], &body).await;
        let text = response.text().await.unwrap();
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        let events = events(&text);
        let (last, others) = events.split_last().unwrap();
        assert!(others.iter().all(|event| event.get("hallmark").is_none()));
        let statement = payer.accept(&last["hallmark"]);
        assert_eq!(statement.message.finish_reason, FinishReason::Stop);
        let said: String = events.iter().map(|event| content_of(&event["choices"][0])).collect();
        assert_eq!((said.as_str(), statement.message.response_hash), ("hello", response_hash(["hello"])));
    }
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_pays_once_for_what_was_delivered() {
    let world = World::new().await;
    let engine = ScriptedEngine::saying("delivered", Ending::Hang);
    let host = world.host(byte_model(engine.clone())).await;
    let mut payer = world.payer(20_000_000).await;
    let body = with(chat_body("hi"), json!({"stream": true}));
    let mut response = host.post("/v1/chat/completions", &[payer.header(ENOUGH)], &body).await;
    let mut read = String::new();
    while !read.contains('v')
        || events(&read).iter().map(|event| content_of(&event["choices"][0])).collect::<String>() != "delivered"
    {
        read += std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap();
    }
    let id = events(&read)[0]["id"].as_str().unwrap().to_owned();
    drop(response);
    let path = format!("/v1/statements/{id}");
    eventually("a statement", || async { host.get(&path).await.0 == 200 }).await;
    let (_, found) = host.get(&path).await;
    let message = &found["statement"]["message"];
    assert_eq!(message["completionTokens"], 9, "{message}");
    assert_eq!(message["finishReason"], FinishReason::Cancelled.code());
    assert_eq!(message["responseHash"], json!(response_hash(["delivered"])));
    assert!(engine.is_abandoned());
    // The voucher that was sent is used up: the lane is one request further.
    let (status, refused) = host.refused(&[payer.header(ENOUGH)], &chat_body("again")).await;
    assert_eq!((status, refused["error"]["code"].as_str()), (409, Some("statement_not_accepted")), "{refused}");
    assert_eq!(refused["error"]["statements_head"], found["statement_id"]);
    let mut hallmark = found.clone();
    hallmark["record"] = json!("");
    // What a payer knows of the request is checked elsewhere; here it takes the host's word and goes on.
    payer.head = serde_json::from_value(found["statement_id"].clone()).unwrap();
    let statement: protocol::messages::Signed<protocol::messages::Statement> =
        serde_json::from_value(found["statement"].clone()).unwrap();
    payer.counts = statement.message.step.after();
    let (status, _) = host.refused(&[payer.header(1)], &chat_body("again")).await;
    assert_eq!(status, 402, "the lane is free again");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_fails_ends_with_an_error_and_a_right_bill() {
    let world = World::new().await;
    let mut payer = world.payer(20_000_000).await;
    for (lane, ending) in [(1, Ending::Fail), (2, Ending::Die)] {
        let host = world.host(byte_model(ScriptedEngine::saying("half", ending))).await;
        payer = payer.on_lane(lane);
        let body = with(chat_body("hi"), json!({"stream": true}));
        let response = host.post("/v1/chat/completions", &[payer.header(ENOUGH)], &body).await;
        let text = response.text().await.unwrap();
        assert!(!text.contains("[DONE]"), "{text}");
        let events = events(&text);
        assert_eq!(events.last().unwrap()["error"]["code"], "engine_error", "{text}");
        let id = events[0]["id"].as_str().unwrap();
        let path = format!("/v1/statements/{id}");
        eventually("a statement", || async { host.get(&path).await.0 == 200 }).await;
        let (_, found) = host.get(&path).await;
        let message = &found["statement"]["message"];
        assert_eq!((&message["completionTokens"], &message["finishReason"]), (&json!(4), &json!(4)));
        host.stop().await;
    }
    // Nothing was delivered: nothing is owed.
    let host = world.host(byte_model(ScriptedEngine::saying("", Ending::Fail))).await;
    payer = payer.on_lane(3);
    let (status, _) = host.refused(&[payer.header(ENOUGH)], &chat_body("hi")).await;
    assert_eq!(status, 500);
    let (status, _) = host.refused(&[payer.header(ENOUGH)], &chat_body("hi")).await;
    assert_eq!(status, 500, "the same voucher is still the lane's next one");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_key_spends_within_its_caps() {
    let world = World::new().await;
    let host = world.host(byte_model(ScriptedEngine::saying("0123456789", Ending::Finish))).await;
    let payer = world.payer(20_000_000).await;
    let mut session = payer.with_key(&SESSION_KEY);
    let (status, refused) = host.refused(&[session.header(ENOUGH)], &chat_body("hi")).await;
    assert_eq!((status, refused["error"]["code"].as_str()), (401, Some("key_not_granted")), "{refused}");
    world.grant(&payer.channel, 25_000, ENOUGH).await;
    let body = with(chat_body("hi"), json!({"max_tokens": 10}));
    host.chat(&mut session, ENOUGH, &body).await;
    host.chat(&mut session, ENOUGH, &body).await;
    // Each costs a hundredth of a token for the request and little more.
    let (status, refused) = host.refused(&[session.header(ENOUGH)], &body).await;
    assert_eq!((status, refused["error"]["code"].as_str()), (402, Some("session_cap_reached")), "{refused}");
    let (status, refused) = host.refused(&[session.header(ENOUGH + 1)], &body).await;
    assert_eq!((status, refused["error"]["code"].as_str()), (403, Some("request_cap_exceeded")), "{refused}");
    // More is granted: the host learns of it by itself.
    world.grant(&payer.channel, 1_000_000, ENOUGH).await;
    eventually("a wider grant", || async {
        host.refused(&[session.header(1)], &body).await.1["error"]["code"] == "ceiling_too_low"
    })
    .await;
    eventually("a wider grant", || async {
        let response = host.post("/v1/chat/completions", &[session.header(ENOUGH)], &body).await;
        response.status() == 200
    })
    .await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_requests_never_spend_more_than_the_deposit() {
    let world = World::new().await;
    let host = Arc::new(world.host(byte_model(ScriptedEngine::saying("0123456789", Ending::Finish))).await);
    // Worth ten requests and a half.
    let body = with(chat_body("hi"), json!({"max_tokens": 10}));
    let one = {
        let mut payer = world.payer(1_000_000).await;
        host.chat(&mut payer, ENOUGH, &body).await;
        payer.charged
    };
    let payer = world.payer(one * 10 + one / 2).await;
    let tasks: Vec<_> = (0..64_u64)
        .map(|lane| {
            let (host, mut payer, body) = (host.clone(), payer.on_lane(lane), body.clone());
            TaskTracker::new().spawn(async move {
                let response = host.post("/v1/chat/completions", &[payer.header(ENOUGH)], &body).await;
                let (status, answer) =
                    (response.status().as_u16(), response.json::<serde_json::Value>().await.unwrap());
                match status {
                    200 => {
                        payer.accept(&answer["hallmark"]);
                    }
                    402 => assert_eq!(answer["error"]["code"], "insufficient_deposit"),
                    other => panic!("{other}: {answer}"),
                }
                payer.charged
            })
        })
        .collect();
    let mut charged = 0;
    for task in tasks {
        charged += task.await.unwrap();
    }
    assert!(charged <= one * 10 + one / 2, "{charged}");
    assert!(charged >= one, "somebody was served");
    // What was set aside for others is free again: in the end ten were served.
    for lane in 100..200 {
        let mut payer = payer.on_lane(lane);
        let response = host.post("/v1/chat/completions", &[payer.header(ENOUGH)], &body).await;
        if response.status() == 200 {
            payer.accept(&response.json::<serde_json::Value>().await.unwrap()["hallmark"]);
            charged += payer.charged;
        }
    }
    assert_eq!(charged, one * 10);
    // More money lets more in.
    world.deposit(&payer.channel, one).await;
    let late = payer.on_lane(500);
    eventually("a deposit", || async {
        host.post("/v1/chat/completions", &[late.header(ENOUGH)], &body).await.status() == 200
    })
    .await;
}
