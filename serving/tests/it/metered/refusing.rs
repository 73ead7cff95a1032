//! Requests that are not paid for, and what their senders are told.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use licensing_contracts::{
    client::{ChainClient, RpcSettings},
    devnet::{HOST, SESSION_KEY},
};
use protocol::{Address, ids::LeaseId, messages::Message as _};
use serde_json::{Value, json};

use super::world::{MeteredServer, Options, Payer, World, eventually};
use crate::support::{Ending, ScriptedEngine, byte_model, chat_body, with};

const ENOUGH: u128 = 1_000_000;

async fn code(host: &MeteredServer, header: (&str, String)) -> (u16, String) {
    let (status, body) = host.refused(&[header], &chat_body("hi")).await;
    (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
}

async fn host(world: &World) -> MeteredServer {
    world.host(byte_model(ScriptedEngine::saying("hello", Ending::Finish))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_pays_nothing_gets_an_offer_that_x402_clients_read() {
    let world = World::new().await;
    let host = host(&world).await;
    let response = host.post("/v1/chat/completions", &[], &chat_body("hi")).await;
    assert_eq!(response.status(), 402);
    let offer = response.headers()["payment-required"].to_str().unwrap().to_owned();
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["code"], "payment_required");
    assert!(body["error"]["message"].as_str().unwrap().contains("hallmark-voucher"));
    let header: Value = serde_json::from_slice(&STANDARD.decode(offer).unwrap()).unwrap();
    assert_eq!((&header["x402Version"], &header["accepts"]), (&json!(2), &body["accepts"]));
    assert!(header["error"].is_string() && header["resource"]["url"] == "/v1/chat/completions");
    let accepted = &body["accepts"][0];
    assert_eq!(accepted["network"], "eip155:31337");
    assert_eq!(accepted["payTo"].as_str().unwrap().parse::<Address>().unwrap(), HOST.address);
    assert_eq!(accepted["asset"].as_str().unwrap().parse::<Address>().unwrap(), world.token());
    let extra = &accepted["extra"];
    assert_eq!(extra["escrow"].as_str().unwrap().parse::<Address>().unwrap(), world.to().payment_escrow);
    assert_eq!(extra["prices"], json!(world.market.prices));

    // x402's own header carries the same voucher.
    let mut payer = world.payer(20_000_000).await;
    let payload = json!({ "channel": payer.channel, "voucher": payer.voucher(ENOUGH) });
    let payment = json!({ "x402Version": 2, "accepted": accepted, "payload": payload });
    let header = ("payment-signature", STANDARD.encode(payment.to_string()));
    let response = host.post("/v1/chat/completions", &[header], &chat_body("hi")).await;
    assert_eq!(response.status(), 200);
    payer.accept(&response.json::<Value>().await.unwrap()["hallmark"]);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vouchers_for_others_are_refused_by_name() {
    let world = World::new().await;
    let host = host(&world).await;
    let payer = world.payer(20_000_000).await;
    let refused = async |payer: &Payer| code(&host, payer.header(ENOUGH)).await;
    let expect = |status: u16, code: &str| (status, code.to_owned());
    let changed = |change: &dyn Fn(&mut Payer)| {
        let mut payer = payer.clone();
        change(&mut payer);
        payer
    };
    let rechannel = |change: &dyn Fn(&mut protocol::messages::Channel)| {
        changed(&|payer| {
            change(&mut payer.channel);
            payer.id = payer.channel.digest(&world.escrow());
        })
    };
    let other = Address::repeat_byte(9);
    assert_eq!(refused(&rechannel(&|channel| channel.host = other)).await, expect(400, "wrong_host"));
    assert_eq!(refused(&rechannel(&|channel| channel.token = other)).await, expect(400, "wrong_token"));
    assert_eq!(refused(&changed(&|payer| payer.channel.salt.0[0] ^= 1)).await, expect(400, "wrong_channel"));
    assert_eq!(refused(&changed(&|payer| payer.lease = LeaseId::new(2))).await, expect(400, "wrong_lease"));
    assert_eq!(refused(&changed(&|payer| payer.expires_in_s = 100)).await, expect(400, "expires_too_soon"));
    assert_eq!(refused(&payer.with_key(&SESSION_KEY)).await, expect(401, "key_not_granted"));
    // No deposit, and too low a ceiling.
    assert_eq!(refused(&rechannel(&|channel| channel.salt.0[1] ^= 1)).await, expect(402, "insufficient_deposit"));
    assert_eq!(code(&host, payer.header(10)).await, expect(402, "ceiling_too_low"));
    // Counts that nobody stated.
    let ahead = changed(&|payer| payer.counts = protocol::counts::UsageCounts::new(1, 5, 0, 5).unwrap());
    assert_eq!(refused(&ahead).await, expect(409, "nothing_stated"));

    let mut payer = payer;
    host.chat(&mut payer, ENOUGH, &chat_body("hi")).await;
    let old = payer.on_lane(0);
    assert_eq!(refused(&old).await, expect(409, "statement_not_accepted"), "a replay");
    let mut other_head = payer.clone();
    other_head.head = Some(protocol::B256::repeat_byte(7).into());
    assert_eq!(refused(&other_head).await, expect(409, "other_statement"));
    world.grant(&payer.channel, ENOUGH, ENOUGH).await;
    assert_eq!(refused(&payer.with_key(&SESSION_KEY)).await, expect(409, "lane_of_other_key"));

    // Headers that are none.
    for text in ["", "%%%", "e30=", &STANDARD.encode("{\"channel\":1}"), &"A".repeat(10_000)] {
        assert_eq!(code(&host, ("hallmark-voucher", text.to_owned())).await, expect(400, "invalid_voucher"), "{text}");
    }
    let mut signed = serde_json::to_value(payer.voucher(ENOUGH)).unwrap();
    let signature = signed["signature"].as_str().unwrap().to_owned();
    signed["signature"] = json!(format!("{}1d", &signature[..signature.len() - 2]));
    let sent = json!({ "channel": payer.channel, "voucher": signed }).to_string();
    let (status, body) = host.refused(&[("hallmark-voucher", STANDARD.encode(sent))], &chat_body("hi")).await;
    assert_eq!((status, body["error"]["code"].as_str()), (400, Some("invalid_voucher")));
    assert!(!body.to_string().contains(&signature[2..20]), "no signature in an answer");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_takes_one_request_at_a_time() {
    let world = World::new().await;
    let host = world.host(byte_model(ScriptedEngine::saying("hi", Ending::Hang))).await;
    let payer = world.payer(20_000_000).await;
    let body = with(chat_body("hi"), json!({"stream": true}));
    let mut first = host.post("/v1/chat/completions", &[payer.header(ENOUGH)], &body).await;
    first.chunk().await.unwrap();
    let response = host.post("/v1/chat/completions", &[payer.header(ENOUGH)], &body).await;
    assert_eq!(response.headers()["x-should-retry"], "true");
    let (status, refused) = (response.status(), response.json::<Value>().await.unwrap());
    assert_eq!((status.as_u16(), refused["error"]["code"].as_str()), (409, Some("lane_busy")));
    let other = payer.on_lane(1);
    let second = host.post("/v1/chat/completions", &[other.header(ENOUGH)], &body).await;
    assert_eq!(second.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_named_limit_the_ceiling_is_the_limit() {
    let world = World::new().await;
    let host = world.host(byte_model(ScriptedEngine::saying(&"x".repeat(2_000), Ending::Finish))).await;
    let mut payer = world.payer(20_000_000).await;
    // A hundredth of a token for the request, two millionths a prompt token, six a completion token.
    let prompt = 3 + "user:hi".len() as u128 + "assistant:".len() as u128;
    let ceiling = 10_000 + prompt * 2 + 6 * 50 + 3;
    let answer = host.chat(&mut payer, ceiling, &chat_body("hi")).await;
    assert_eq!(
        (&answer["usage"]["completion_tokens"], &answer["choices"][0]["finish_reason"]),
        (&json!(50), &json!("length"))
    );
    let named = with(chat_body("hi"), json!({"max_tokens": 51}));
    let (status, refused) = host.refused(&[payer.header(ceiling)], &named).await;
    assert_eq!((status, refused["error"]["code"].as_str()), (402, Some("ceiling_too_low")));
    let required = refused["error"]["required"].as_str().unwrap().parse().unwrap();
    host.chat(&mut payer, required, &named).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn withdrawals_and_revoked_keys_stop_new_work() {
    let world = World::new().await;
    let host = host(&world).await;
    let mut payer = world.payer(100_000).await;
    let body = with(chat_body("hi"), json!({"max_tokens": 5}));
    host.chat(&mut payer, ENOUGH, &body).await;
    let announce = licensing_contracts::actions::payments::announce_withdrawal(
        world.to(),
        &payer.channel,
        protocol::units::Amount::new(85_000),
    );
    world.send(&licensing_contracts::devnet::PAYER, &announce.unwrap()).await;
    eventually("the announcement", || async {
        code(&host, payer.on_new_lane().header(ENOUGH)).await.1 == "insufficient_deposit"
    })
    .await;
    let cancel = licensing_contracts::actions::payments::cancel_withdrawal(world.to(), &payer.channel);
    world.send(&licensing_contracts::devnet::PAYER, &cancel.unwrap()).await;

    world.grant(&payer.channel, ENOUGH, ENOUGH).await;
    let session = payer.with_key(&SESSION_KEY);
    eventually("the cancellation", || async {
        host.post("/v1/chat/completions", &[session.on_new_lane().header(ENOUGH)], &body).await.status() == 200
    })
    .await;
    let revoke = licensing_contracts::actions::payments::revoke_grant(world.to(), &payer.channel, SESSION_KEY.address);
    world.send(&licensing_contracts::devnet::PAYER, &revoke.unwrap()).await;
    eventually("the revocation", || async {
        code(&host, session.on_new_lane().header(ENOUGH)).await.1 == "key_not_granted"
    })
    .await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_was_not_heard_from_closes_the_host_with_its_age() {
    let world = World::new().await;
    let (port, stop, server) = world.serve(0).await;
    let url = format!("http://127.0.0.1:{port}").parse().unwrap();
    let settings = RpcSettings { rounds: 1, ..RpcSettings::default() };
    let client = ChainClient::connect(&[url], None, &settings).await.unwrap();
    let options = Options { most_age: Duration::from_secs(3), client: Some(client), ..Options::default() };
    let host = world.host_with(byte_model(ScriptedEngine::saying("hi", Ending::Finish)), options).await;
    let mut payer = world.payer(20_000_000).await;
    host.chat(&mut payer, ENOUGH, &chat_body("hi")).await;
    stop.cancel();
    server.stopped().await;
    eventually("the host to close", || async {
        code(&host, payer.on_new_lane().header(ENOUGH)).await.1 == "stale_chain"
    })
    .await;
    let (status, refused) = host.refused(&[payer.header(ENOUGH)], &chat_body("hi")).await;
    assert_eq!(status, 503);
    assert!(refused["error"]["age_s"].as_u64().unwrap() >= 2, "{refused}");
    let _server = world.serve(port).await;
    eventually("the host to open", || async {
        host.post("/v1/chat/completions", &[payer.on_new_lane().header(ENOUGH)], &chat_body("hi")).await.status() == 200
    })
    .await;
    host.stop().await;
}
