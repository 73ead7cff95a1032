//! Payments that nobody would send in good faith.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Value, json};

use super::world::World;
use crate::support::{Ending, ScriptedEngine, byte_model, chat_body};

/// A payment with something changed: a byte, a member, a type, a number, or everything.
fn damaged(valid: &Value, random: &mut StdRng) -> Vec<u8> {
    let mut sent = valid.clone();
    let odd = [
        json!(null),
        json!(-1),
        json!(1e300),
        json!("0x"),
        json!([]),
        json!({}),
        json!(u64::MAX),
        json!(u128::MAX.to_string()),
        json!(format!("0x{}", "ff".repeat(random.random_range(0..80)))),
        json!("9".repeat(random.random_range(1..200))),
    ];
    let members = [
        "/channel",
        "/channel/payer",
        "/channel/withdrawDelay",
        "/channel/salt",
        "/voucher",
        "/voucher/signature",
        "/voucher/message/lane",
        "/voucher/message/requests",
        "/voucher/message/cachedTokens",
        "/voucher/message/ceiling",
        "/voucher/message/statementsHead",
        "/voucher/message/expiresAt",
    ];
    match random.random_range(0..5) {
        0 => {
            let mut bytes = sent.to_string().into_bytes();
            let at = random.random_range(0..bytes.len());
            bytes[at] = random.random();
            return bytes;
        }
        1 => *sent.pointer_mut(members.choose(random).unwrap()).unwrap() = odd.choose(random).unwrap().clone(),
        2 => {
            let (parent, name) = members.choose(random).unwrap().rsplit_once('/').unwrap();
            sent.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
        }
        3 => sent["voucher"]["message"]["more"] = odd.choose(random).unwrap().clone(),
        _ => return (0..random.random_range(0..400)).map(|_| random.random()).collect(),
    }
    sent.to_string().into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_payments_are_refused_and_harm_nobody() {
    let world = World::new().await;
    let host = world.host(byte_model(ScriptedEngine::saying("hello", Ending::Finish))).await;
    let mut payer = world.payer(20_000_000).await;
    let mut valid = json!({ "channel": payer.channel, "voucher": payer.voucher(1_000_000) });
    let mut random = StdRng::seed_from_u64(11);
    let mut statuses = std::collections::BTreeSet::new();
    for _ in 0..600 {
        let sent = damaged(&valid, &mut random);
        let name = *["hallmark-voucher", "payment-signature"].choose(&mut random).unwrap();
        let (status, body) = host.refused(&[(name, STANDARD.encode(&sent))], &chat_body("hi")).await;
        if status == 200 {
            // A letter's case was all that changed: a payment like any other, and the next one follows it.
            payer.accept(&body["hallmark"]);
            valid = json!({ "channel": payer.channel, "voucher": payer.voucher(1_000_000) });
            continue;
        }
        assert!((400..500).contains(&status), "{status} {body} for {}", String::from_utf8_lossy(&sent));
        statuses.insert(status);
    }
    assert!(statuses.len() > 1, "{statuses:?}");
    host.chat(&mut payer, 1_000_000, &chat_body("hi")).await;
    host.stop().await;
}
