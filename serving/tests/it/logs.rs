//! What is written down about requests.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use licensing_contracts::{
    deploy::ProtocolSetup,
    devnet::{HOST, LEASE_KEY},
};
use serde_json::json;
use serving::engine::upstream::UpstreamSettings;
use tracing::{
    Event, Id, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Record},
};

use crate::{
    metered::world::{World, eventually},
    support::{Ending, Host, ScriptedEngine, byte_model, chat_body, completion_body, with},
    upstream::scripted::{Reply, ScriptedServer, done, ended, event, text, usage},
};

/// Keeps everything that this project's code logs, whatever its level.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<String>>);

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        *self.0.lock().unwrap() += &format!("{field}={value:?} ");
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("serving") || metadata.target().starts_with("model")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut self.clone());
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

/// Pays and is refused in every way, and returns what nobody may read in a log: signatures and keys.
async fn metered() -> Vec<String> {
    let setup = ProtocolSetup { epoch_s: 2, claim_interval_s: 30, commit_grace_s: 2, ..ProtocolSetup::development() };
    let world = World::with(setup).await;
    let host = world.host(byte_model(ScriptedEngine::saying("zanzibar-answer", Ending::Finish))).await;
    let mut payer = world.payer(20_000_000).await;
    let body = chat_body("zanzibar-prompt");
    let mut secrets = Vec::new();
    for ceiling in [1, 1_000_000] {
        let voucher = payer.voucher(ceiling);
        let (name, header) = payer.header(ceiling);
        secrets.extend([voucher.signature.to_string(), header.clone(), header[200..300].to_owned()]);
        let (_, answer) = host.refused(&[(name, header)], &body).await;
        if let Some(signature) = answer["hallmark"]["statement"]["signature"].as_str() {
            secrets.push(signature.to_owned());
        }
    }
    payer = payer.on_new_lane();
    host.chat(&mut payer, 1_000_000, &body).await;
    for key in ["zanzibar-key", "zanzibar-other-key"] {
        host.refused(&[("authorization", format!("Bearer {key}"))], &body).await;
    }
    let sent = json!({ "channel": payer.channel, "voucher": "zanzibar-voucher" }).to_string();
    host.refused(&[("hallmark-voucher", STANDARD.encode(sent))], &body).await;
    eventually("a claim", || async { world.earned(HOST.address).await > 0 }).await;
    host.stop().await;
    // The keys that the host holds, in the form in which they are usually written.
    secrets.extend([HOST, LEASE_KEY].map(|account| alloy::primitives::hex::encode(account.key)));
    secrets
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_hold_counts_and_never_texts_or_keys() {
    // For the whole process: blocking work and engines run on threads of their own.
    let log = Log::default();
    tracing::subscriber::set_global_default(log.clone()).unwrap();

    for ending in [Ending::Finish, Ending::Fail] {
        let host = Host::start(byte_model(ScriptedEngine::saying("zanzibar-answer", ending))).await;
        for stream in [false, true] {
            let fields = json!({
                "stream": stream, "stop": "zanzibar-stop", "user": "zanzibar-user", "n": 2,
                "prompt_cache_key": "zanzibar-cache",
            });
            let chat = host.post("/v1/chat/completions", &with(chat_body("zanzibar-prompt"), fields.clone()));
            chat.bearer_auth("zanzibar-key").send().await.unwrap().text().await.unwrap();
            host.send("/v1/completions", &with(completion_body("zanzibar-prompt"), fields)).await.text().await.unwrap();
        }
        let refused = with(chat_body("zanzibar-prompt"), json!({"zanzibar_field": "zanzibar-value"}));
        assert_eq!(host.send("/v1/chat/completions", &refused).await.status(), 400);
        let broken = host.post("/v1/completions", &json!(null)).body("{\"prompt\": \"zanzibar").send();
        assert_eq!(broken.await.unwrap().status(), 400);
    }
    for reply in [
        Reply::Status(418),
        Reply::Stream(vec![text("zanzibar-answer"), event(r#"{"choices": "zanzibar-answer"}"#)]),
        Reply::Stream(vec![text("zanzibar-answer"), ended("stop"), usage(98, 99, 0), done()]),
    ] {
        let server = ScriptedServer::start(reply).await;
        let settings = UpstreamSettings { key: Some("zanzibar-key".into()), ..server.settings() };
        let host = Host::start(server.model_with(&settings).await).await;
        for stream in [false, true] {
            let body = with(completion_body("zanzibar-prompt"), json!({"stream": stream}));
            host.send("/v1/completions", &body).await.text().await.unwrap();
        }
    }
    let secrets = metered().await;
    let log = log.0.lock().unwrap().clone();
    for secret in secrets {
        assert!(!log.contains(&secret), "{secret} is in the log");
    }
    assert!(log.contains("report of epoch"), "settlement is logged");
    assert!(log.contains("30 completion tokens"), "{log}");
    assert!(log.contains("secret words of the engine"), "the failure's cause: {log}");
    assert!(log.contains("the server answered with status 418"), "{log}");
    assert!(log.contains("JSON of another form than OpenAI's, at line 1"), "{log}");
    assert!(log.contains("the engine reports 98 prompt and 99 completion tokens, the host counts 15 and 15"), "{log}");
    assert!(!log.contains("zanzibar"), "{log}");
}
