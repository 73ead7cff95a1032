//! The built-in engine with the decoder for GPUs, on candle's CPU backend.

use std::sync::Arc;

use model::{ComputeDevice, DeviceDecoder, Model, chat::UnixSeconds};
use protocol::{
    B256,
    counts::{LaneStep, RequestUsage, UsageCounts},
    ids::{Lane, LeaseId},
    messages::{FinishReason, Statement},
    transcript,
    units::{Amount, UnixMilliseconds},
};
use serde_json::{Value, json};
use serving::{
    AppState, Limits, ServedModel,
    engine::builtin::BuiltinSettings,
    replay::{ReplayError, replay},
};

use crate::{
    determinism::same_bytes,
    support::{Host, MODEL, real_model},
};

const CREATED: UnixSeconds = UnixSeconds(1_600_000_000);

fn load() -> Arc<Model<DeviceDecoder>> {
    Arc::new(Model::load_on("bundled", ComputeDevice::Cpu).unwrap())
}

fn served(settings: &BuiltinSettings) -> ServedModel {
    ServedModel::on_device(MODEL, load(), CREATED, settings).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_have_the_same_bytes_alone_and_together() {
    let model = load();
    same_bytes(|settings| ServedModel::on_device(MODEL, model.clone(), CREATED, settings).unwrap(), 60).await;
}

#[tokio::test]
async fn a_greedy_answer_is_that_of_the_cpu() {
    let body = json!({"model": MODEL, "prompt": "First Citizen:", "max_tokens": 12, "temperature": 0});
    let mut answers = Vec::new();
    for model in [real_model("bundled", &BuiltinSettings::default()), served(&BuiltinSettings::default())] {
        answers.push(Host::start(model).await.complete(&body).await);
    }
    assert_eq!(answers[0], answers[1]);
    assert!(!answers[0].is_empty());
}

/// What a host of `model` writes beside its statement about `body`.
fn record(model: &ServedModel, body: &Value) -> String {
    let ids = model.tokenizer.encode_template(body["prompt"].as_str().unwrap()).unwrap();
    json!({
        "manifest": model.manifest.unwrap().to_string(), "engine": model.engine_name,
        "prompt": transcript::prompt_digest(&ids), "choices": 1, "max_tokens": body["max_tokens"], "stop": [],
        "temperature": body["temperature"], "top_p": 1.0, "top_k": 0, "seed": "5",
        "frequency_penalty": 0.0, "presence_penalty": 0.0, "logit_bias": {},
    })
    .to_string()
}

fn statement(record: &str, response_hash: B256) -> Statement {
    Statement {
        channel: None,
        lease: LeaseId::new(1),
        lane: Lane::new(0),
        step: LaneStep::new(UsageCounts::default(), RequestUsage::new(1, 0, 1).unwrap()).unwrap(),
        charge: Amount::new(1),
        request_hash: transcript::request_hash(record),
        response_hash,
        started: UnixMilliseconds::new(1),
        ended: UnixMilliseconds::new(2),
        finish_reason: FinishReason::Length,
        execution: None,
        previous: None,
    }
}

#[tokio::test]
async fn an_answer_is_replayed_on_the_same_kind_of_device_alone() {
    let state = |model: &ServedModel| AppState::new(vec![model.clone()], Limits::default(), || CREATED, 7);
    let models = [real_model("bundled", &BuiltinSettings::default()), served(&BuiltinSettings::default())];
    let [cpu, device] = &models;
    assert!(cpu.engine_name.ends_with(" cpu f32"), "{}", cpu.engine_name);
    assert!(device.engine_name.contains(" candle-cpu "), "{}", device.engine_name);

    let body = json!({"model": MODEL, "prompt": "First Citizen:", "max_tokens": 8, "temperature": 1.0, "seed": 5});
    for (here, elsewhere) in [(cpu, device), (device, cpu)] {
        let record = record(here, &body);
        let first = replay(&state(here), &body.to_string(), &statement(&record, B256::ZERO), &record).await.unwrap();
        assert!(!first.is_same);
        let stated = statement(&record, first.response_hash);
        let again = replay(&state(here), &body.to_string(), &stated, &record).await.unwrap();
        assert!(again.is_same, "{:?}", again.texts);
        let refused = replay(&state(elsewhere), &body.to_string(), &stated, &record).await.unwrap_err();
        assert!(matches!(refused, ReplayError::OtherRequest { member: "engine" }), "{refused}");
    }
}
