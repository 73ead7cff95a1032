//! Customers who pay in money, and answers that are asked for twice.

use alloy::{primitives::U256, sol_types::SolCall as _};
use licensing_contracts::{
    actions::{payments, registry},
    bindings::{PaymentEscrow, TestToken},
    client::Action,
    deploy::ProtocolSetup,
    devnet::{CONTRIBUTOR, CREATOR, HOST, PAYER},
};
use protocol::{
    counts::UsageTotals,
    messages::{Signed, Statement},
    units::{Amount, UnixSeconds},
};
use serde_json::{Value, json};
use serving::books::{Books, CustomerId, Limit, NewCustomer, NewLimits};
use tokio_util::task::TaskTracker;

use super::world::{MeteredServer, World, eventually};
use crate::support::{Ending, ScriptedEngine, byte_model, chat_body, events, with};

const KEY: &str = "hmk-0123456789abcdef";

async fn world() -> (World, MeteredServer) {
    let world = World::with(ProtocolSetup {
        epoch_s: 2,
        claim_interval_s: 30,
        commit_grace_s: 2,
        ..ProtocolSetup::development()
    });
    let world = world.await;
    let host = world.host(byte_model(ScriptedEngine::saying("hello there", Ending::Finish))).await;
    (world, host)
}

pub(crate) async fn add(world: &World, name: &str, key: &str, budget: Option<u128>, requests_per_minute: Option<u64>) {
    let books = Books::open(&world.books()).await.unwrap();
    let new = NewCustomer {
        id: CustomerId::new(name).unwrap(),
        key_digest: Books::key_digest(key),
        budget: budget.map(Amount::new),
        requests_per_minute,
        created_at: UnixSeconds::new(1),
    };
    assert!(books.add_customer(&new).await.unwrap());
}

fn bearer(key: &str) -> (&'static str, String) {
    ("authorization", format!("Bearer {key}"))
}

async fn code(host: &MeteredServer, key: &str) -> (u16, String) {
    let (status, body) = host.refused(&[bearer(key)], &with(chat_body("hi"), json!({"max_tokens": 11}))).await;
    (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn budgets_rates_and_revocations_hold_at_once() {
    let (world, host) = world().await;
    assert_eq!(code(&host, KEY).await, (401, "invalid_api_key".to_owned()));
    add(&world, "acme", KEY, Some(25_000), None).await;
    // A hundredth of a token each, and a little.
    assert_eq!((code(&host, KEY).await.0, code(&host, KEY).await.0), (200, 200));
    assert_eq!(code(&host, KEY).await, (402, "budget_exceeded".to_owned()));

    add(&world, "busy", "hmk-busy", None, Some(2)).await;
    let statuses = [code(&host, "hmk-busy").await.0, code(&host, "hmk-busy").await.0];
    // The minute may have turned in between.
    if statuses == [200, 200] {
        let response = host.post("/v1/chat/completions", &[bearer("hmk-busy")], &chat_body("hi")).await;
        if response.status() == 429 {
            let seconds: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((1..=60).contains(&seconds));
        }
    }
    let books = Books::open(&world.books()).await.unwrap();
    books.revoke_customer(&CustomerId::new("busy").unwrap(), UnixSeconds::new(2)).await.unwrap();
    assert_eq!(code(&host, "hmk-busy").await, (401, "invalid_api_key".to_owned()));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_limits_hold_at_the_next_request() {
    let (world, host) = world().await;
    let books = Books::open(&world.books()).await.unwrap();
    let id = CustomerId::new("acme").unwrap();
    let change = async |new: NewLimits| books.limit_customer(&id, &new).await.unwrap();
    let budget = |budget| NewLimits { budget: Some(budget), requests_per_minute: None };
    let budget_of = |most| budget(Limit::Most(Amount::new(most)));
    assert_eq!(change(budget(Limit::Lifted)).await, None, "there is no such customer yet");
    add(&world, "acme", KEY, Some(25_000), None).await;
    add(&world, "other", "hmk-other", Some(1), Some(1)).await;
    assert_eq!((code(&host, KEY).await.0, code(&host, KEY).await.0), (200, 200));
    assert_eq!(code(&host, KEY).await, (402, "budget_exceeded".to_owned()));

    // Raised, what was charged before counts.
    change(budget_of(35_000)).await.unwrap();
    assert_eq!(code(&host, KEY).await.0, 200);
    assert_eq!(code(&host, KEY).await, (402, "budget_exceeded".to_owned()));
    // Lowered below what was charged already: nothing is left, and nothing wraps.
    for lowered in [30_000, 1, 0] {
        change(budget_of(lowered)).await.unwrap();
        let (status, refused) = host.refused(&[bearer(KEY)], &chat_body("hi")).await;
        assert_eq!((status, &refused["error"]["code"]), (402, &json!("budget_exceeded")));
        assert_eq!(refused["error"]["available"], "0", "{refused}");
    }
    let changed = change(NewLimits { budget: Some(Limit::Lifted), requests_per_minute: Some(Limit::Most(4)) }).await;
    let changed = changed.unwrap();
    assert_eq!((changed.budget, changed.requests_per_minute), (None, Some(4)));
    let statuses = [code(&host, KEY).await, code(&host, KEY).await, code(&host, KEY).await, code(&host, KEY).await];
    assert!(statuses.iter().all(|(status, code)| *status == 200 || code == "rate_limit_exceeded"), "{statuses:?}");
    let changed = change(NewLimits { budget: None, requests_per_minute: Some(Limit::Lifted) }).await.unwrap();
    assert_eq!((changed.budget, changed.requests_per_minute), (None, None));
    assert_eq!(code(&host, KEY).await.0, 200);

    // Nobody else is touched, and a refused key has no limits to change.
    let other = books.customers().await.unwrap().into_iter().find(|customer| customer.id.as_str() == "other").unwrap();
    assert_eq!((other.budget, other.requests_per_minute), (Some(Amount::new(1)), Some(1)));
    books.revoke_customer(&id, UnixSeconds::new(2)).await.unwrap();
    assert_eq!(change(budget(Limit::Lifted)).await, None);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_is_lowered_while_requests_run_bills_them_and_admits_no_more() {
    let (world, host) = world().await;
    host.stop().await;
    let host = world.host(byte_model(ScriptedEngine::saying("hi", Ending::Hang))).await;
    add(&world, "acme", KEY, Some(1_000_000), None).await;
    let body = with(chat_body("hi"), json!({"stream": true, "max_tokens": 11}));
    let mut running = host.post("/v1/chat/completions", &[bearer(KEY)], &body).await;
    running.chunk().await.unwrap();
    let books = Books::open(&world.books()).await.unwrap();
    let id = CustomerId::new("acme").unwrap();
    let lowered = NewLimits { budget: Some(Limit::Most(Amount::new(1))), requests_per_minute: None };
    books.limit_customer(&id, &lowered).await.unwrap().unwrap();
    assert_eq!(code(&host, KEY).await, (402, "budget_exceeded".to_owned()));
    drop(running);
    let charged = || async { books.charged(&id).await.unwrap() };
    eventually("the bill", || async { charged().await > Amount::new(1) }).await;
    assert_eq!(code(&host, KEY).await, (402, "budget_exceeded".to_owned()));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_customers_never_pass_their_budget_and_their_statements_are_one_chain() {
    let (world, host) = world().await;
    add(&world, "acme", KEY, Some(200_000), None).await;
    let host = std::sync::Arc::new(host);
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let host = host.clone();
            TaskTracker::new().spawn(async move {
                let body = with(chat_body("hi"), json!({"max_tokens": 11}));
                let response = host.post("/v1/chat/completions", &[bearer(KEY)], &body).await;
                let status = response.status().as_u16();
                (status, response.json::<Value>().await.unwrap()["hallmark"]["statement"].clone())
            })
        })
        .collect();
    let mut statements: Vec<Signed<Statement>> = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            (200, statement) => statements.push(serde_json::from_value(statement).unwrap()),
            (402, _) => {}
            other => panic!("{other:?}"),
        }
    }
    let charged: u128 = statements.iter().map(|signed| signed.message.charge.get()).sum();
    assert!(charged <= 200_000 && statements.len() > 10, "{charged} in {}", statements.len());
    statements.sort_by_key(|signed| signed.message.step.after().requests());
    let steps = statements.windows(2).all(|pair| pair[1].message.step.before() == pair[0].message.step.after());
    assert!(steps, "each begins where the one before ended");
    let books = Books::open(&world.books()).await.unwrap();
    assert_eq!(books.charged(&CustomerId::new("acme").unwrap()).await.unwrap(), Amount::new(charged));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_creator_is_paid_for_what_customers_pay_in_money() {
    let (world, host) = world().await;
    add(&world, "acme", KEY, None, None).await;
    for _ in 0..4 {
        assert_eq!(code(&host, KEY).await.0, 200);
    }
    let books = Books::open(&world.books()).await.unwrap();
    let charged = books.charged(&CustomerId::new("acme").unwrap()).await.unwrap().get();
    let royalty = || async { world.earned(CREATOR.address).await + world.earned(CONTRIBUTOR.address).await };
    // By epochs, each rounded down.
    eventually("the royalty", || async { royalty().await + 4 >= charged / 10 }).await;
    assert!(royalty().await <= charged / 10);
    let call = PaymentEscrow::settledCall { leaseId: world.market.lease.get() };
    let settled = world.client().call(world.to().payment_escrow, &call).await.unwrap();
    assert_eq!((settled.requests, settled.charge), (4, charged));
    host.stop().await;
    // Started again, it pays nothing twice.
    let host = world.host(byte_model(ScriptedEngine::saying("hello there", Ending::Finish))).await;
    let before = royalty().await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(royalty().await, before);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_royalty_that_was_taken_from_the_bond_is_not_paid_again() {
    let world = World::with(ProtocolSetup { epoch_s: 2, commit_grace_s: 2, ..ProtocolSetup::development() }).await;
    let (client, lease) = (world.client(), world.market.lease);
    let tokens = async || {
        client.call(world.token(), &TestToken::balanceOfCall { account: HOST.address }).await.unwrap().to::<u128>()
    };
    // A host without tokens cannot pay in time.
    let all = TestToken::transferCall { to: PAYER.address, value: U256::from(tokens().await) };
    world.send(&HOST, &Action::call("transfer", world.token(), &all)).await;
    let host = world.host(byte_model(ScriptedEngine::saying("hello there", Ending::Finish))).await;
    add(&world, "acme", KEY, None, None).await;
    assert_eq!(code(&host, KEY).await.0, 200);
    let books = Books::open(&world.books()).await.unwrap();
    let due = async || books.royalties_due(lease).await.unwrap().len();
    eventually("the report", async || due().await == 1).await;
    world.wait(2 * 86_400).await;
    let splits = registry::splits(&client, world.to(), world.market.terms).await.unwrap().unwrap();
    let settle = payments::settle_royalty(world.to(), lease, 0, UsageTotals::ZERO, &splits).unwrap();
    let splits = PaymentEscrow::settleRoyaltyCall::abi_decode(&settle.data).unwrap().splits;
    let enforce = PaymentEscrow::enforceRoyaltyCall { leaseId: lease.get(), reportIndex: U256::ZERO, splits };
    world.send(&PAYER, &Action::call("enforcement", world.to().payment_escrow, &enforce)).await;
    let royalty = world.earned(CREATOR.address).await + world.earned(CONTRIBUTOR.address).await;
    assert!(royalty > 0);
    // Once it could, it must not.
    let some = TestToken::transferCall { to: HOST.address, value: U256::from(1_000_000_000) };
    world.send(&PAYER, &Action::call("transfer", world.token(), &some)).await;
    eventually("the host sees it", async || due().await == 0).await;
    assert_eq!(tokens().await, 1_000_000_000);
    assert_eq!(world.earned(CREATOR.address).await + world.earned(CONTRIBUTOR.address).await, royalty);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_twice_with_one_key_gets_one_answer_and_one_bill() {
    let (world, host) = world().await;
    add(&world, "acme", KEY, None, None).await;
    let headers = |key: &str| [bearer(KEY), ("idempotency-key", key.to_owned())];
    let body = chat_body("hi");
    let first = host.refused(&headers("a"), &body).await;
    assert_eq!(first.0, 200, "{}", first.1);
    assert_eq!(host.refused(&headers("a"), &body).await, first, "the same answer, its statement included");
    let (status, other) = host.refused(&headers("a"), &chat_body("something else")).await;
    assert_eq!((status, other["error"]["code"].as_str()), (422, Some("idempotency_mismatch")));
    assert_ne!(host.refused(&headers("b"), &body).await.1["id"], first.1["id"]);
    let with_tokens = with(body.clone(), json!({"logprobs": true}));
    assert_eq!(host.refused(&headers("c"), &with_tokens).await.0, 400);
    assert_eq!(host.refused(&headers(&"k".repeat(256)), &body).await.0, 400);

    // A stream again as a stream, and by a payer whose voucher is used up.
    let mut payer = world.payer(20_000_000).await;
    let headers = [payer.header(1_000_000), ("idempotency-key", "s".to_owned())];
    let body = with(chat_body("hi"), json!({"stream": true, "stream_options": {"include_usage": true}, "n": 2}));
    let stream = host.post("/v1/chat/completions", &headers, &body).await.text().await.unwrap();
    payer.accept(&events(&stream).last().unwrap()["hallmark"]);
    let again = host.post("/v1/chat/completions", &headers, &body).await.text().await.unwrap();
    let said = |stream: &str, index: u64| -> String {
        let chunks = events(stream).into_iter().flat_map(|event| event["choices"].as_array().unwrap().clone());
        chunks.filter(|choice| choice["index"] == index).map(|choice| crate::support::content_of(&choice)).collect()
    };
    assert_eq!((said(&again, 0), said(&again, 1)), (said(&stream, 0), said(&stream, 1)));
    assert_eq!(events(&again).last(), events(&stream).last(), "usage and statement");
    assert!(again.ends_with("data: [DONE]\n\n"));

    // Forty at once: one works, the others wait or get what it made.
    let host = std::sync::Arc::new(host);
    let tasks: Vec<_> = (0..40)
        .map(|_| {
            let host = host.clone();
            TaskTracker::new().spawn(async move {
                host.refused(&[bearer(KEY), ("idempotency-key", "many".to_owned())], &chat_body("hi")).await
            })
        })
        .collect();
    let mut ids = std::collections::HashSet::new();
    for task in tasks {
        match task.await.unwrap() {
            (200, answer) => {
                ids.insert(answer["hallmark"]["statement_id"].to_string());
            }
            (409, refused) => assert_eq!(refused["error"]["code"], "idempotency_in_progress"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ids.len(), 1);
}
