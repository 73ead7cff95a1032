//! Payers who hang up before anything arrives.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    customers,
    world::{MeteredServer, World, eventually},
};
use crate::support::{Ending, ScriptedEngine, byte_model, chat_body, with};

const ENOUGH: u128 = 1_000_000;
/// Answers that anybody may leave behind.
const FORGIVEN: usize = 8;

/// Says ten letters and then nothing more: an answer of fewer comes to its end, and one of more never does.
async fn host(world: &World) -> (MeteredServer, Arc<ScriptedEngine>) {
    let engine = ScriptedEngine::saying(&"x".repeat(10), Ending::Hang);
    (world.host(byte_model(engine.clone())).await, engine)
}

fn endless() -> Value {
    with(chat_body("hi"), json!({"max_tokens": 100}))
}

fn short() -> Value {
    with(chat_body("hi"), json!({"max_tokens": 5}))
}

/// Hangs up while the engine works on an answer, so many times after one another.
async fn hang_up(
    (host, engine): &(MeteredServer, Arc<ScriptedEngine>),
    header: impl Fn() -> (&'static str, String),
    times: usize,
) {
    let asked = || engine.requests.lock().unwrap().len();
    for _ in 0..times {
        let (asked_before, gone_before) = (asked(), gone(host).await);
        let (headers, body) = ([header()], endless());
        tokio::select! {
            () = eventually("the engine's work", || async { asked() > asked_before }) => {}
            answer = host.post("/v1/chat/completions", &headers, &body) => panic!("{answer:?}"),
        }
        eventually("the host sees that the client is gone", || async { gone(host).await > gone_before }).await;
    }
}

/// Requests whose clients went away.
async fn gone(host: &MeteredServer) -> usize {
    let metrics = host.client.get(format!("{}/metrics", host.operator_url)).send().await.unwrap().text().await.unwrap();
    let line = "hallmark_requests_total{model=\"bytes\",outcome=\"client_gone\"} ";
    metrics.lines().find_map(|counted| counted.strip_prefix(line)?.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_no_answers_is_slowed_down_and_nobody_else_is() {
    let world = World::new().await;
    let scene = host(&world).await;
    let host = &scene.0;
    let payer = world.payer(20_000_000).await;
    let other = world.payer(20_000_000).await;
    hang_up(&scene, || payer.on_new_lane().header(ENOUGH), FORGIVEN).await;
    // One more, which may be the one that is taken at last.
    hang_up(&scene, || payer.on_new_lane().header(ENOUGH), 1).await;
    for lane in [payer.clone(), payer.on_new_lane()] {
        let response = host.post("/v1/chat/completions", &[lane.header(ENOUGH)], &short()).await;
        let wait: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
        let (status, refused) = (response.status(), response.json::<Value>().await.unwrap());
        assert_eq!((status.as_u16(), &refused["error"]["code"]), (429, &json!("answers_not_taken")));
        assert!(refused["error"]["message"].as_str().unwrap().starts_with("9 answers"), "{refused}");
    }
    // What is wrong for another reason is told as before.
    let (_, refused) = host.refused(&[payer.header(1)], &short()).await;
    assert_eq!(refused["error"]["code"], "ceiling_too_low");
    let mut other = other.on_new_lane();
    host.chat(&mut other, ENOUGH, &short()).await;
    scene.0.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_paid_for_more_may_leave_some_behind() {
    let world = World::new().await;
    let scene = host(&world).await;
    let host = &scene.0;
    let mut payer = world.payer(20_000_000).await;
    for _ in 0..FORGIVEN + 3 {
        host.chat(&mut payer, ENOUGH, &short()).await;
    }
    hang_up(&scene, || payer.on_new_lane().header(ENOUGH), FORGIVEN + 1).await;
    for _ in 0..3 {
        host.chat(&mut payer, ENOUGH, &short()).await;
    }
    scene.0.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_which_something_arrived_are_billed_and_do_not_count() {
    let world = World::new().await;
    let scene = host(&world).await;
    let host = &scene.0;
    let payer = world.payer(20_000_000).await;
    let body = with(endless(), json!({"stream": true}));
    for _ in 0..FORGIVEN + 4 {
        let before = gone(host).await;
        let mut stream = host.post("/v1/chat/completions", &[payer.on_new_lane().header(ENOUGH)], &body).await;
        while !String::from_utf8_lossy(&stream.chunk().await.unwrap().unwrap()).contains('x') {}
        drop(stream);
        eventually("the bill", || async { gone(host).await == before + 1 }).await;
    }
    let mut lane = payer.on_new_lane();
    host.chat(&mut lane, ENOUGH, &short()).await;
    host.chat(&mut lane, ENOUGH, &short()).await;
    scene.0.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn customers_who_pay_in_money_are_slowed_down_too() {
    let world = World::new().await;
    let scene = host(&world).await;
    let host = &scene.0;
    customers::add(&world, "acme", "hmk-acme", None, None).await;
    let header = || ("authorization", "Bearer hmk-acme".to_owned());
    hang_up(&scene, header, FORGIVEN + 1).await;
    let (status, refused) = host.refused(&[header()], &short()).await;
    assert_eq!((status, &refused["error"]["code"]), (429, &json!("answers_not_taken")));
    scene.0.stop().await;
}
