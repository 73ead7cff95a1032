//! JSON-RPC 2.0 envelopes: bytes in, bytes out.

use std::borrow::Cow;

use alloy::rpc::json_rpc::ErrorPayload;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::DevChain;

/// Most requests in one batch.
pub(super) const MOST_IN_BATCH: usize = 1_000;

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    jsonrpc: Cow<'a, str>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    /// Absent in a notification, which gets no answer. `null` is an id.
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
}

fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[derive(Serialize)]
struct Response<'a> {
    jsonrpc: &'static str,
    id: &'a RawValue,
    #[serde(flatten)]
    payload: Payload,
}

#[derive(Serialize)]
enum Payload {
    #[serde(rename = "result")]
    Result(Box<RawValue>),
    #[serde(rename = "error")]
    Error(Failure),
}

/// As alloy's payload, without a `data` that is none.
#[derive(Serialize)]
struct Failure {
    code: i64,
    message: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
}

impl From<ErrorPayload> for Payload {
    fn from(ErrorPayload { code, message, data }: ErrorPayload) -> Self {
        Self::Error(Failure { code, message, data })
    }
}

/// Answers a body; nothing when it holds notifications only.
pub(super) fn answer(chain: &DevChain, body: &[u8]) -> Option<Vec<u8>> {
    let parsed: Result<&RawValue, _> = serde_json::from_slice(body);
    let Ok(whole) = parsed else {
        return Some(failure(-32700, "parse error: the body is not JSON"));
    };
    if !whole.get().starts_with('[') {
        return one(chain, whole);
    }
    let requests: Vec<&RawValue> = match serde_json::from_str(whole.get()) {
        Ok(requests) => requests,
        Err(_) => return Some(failure(-32700, "parse error: the body is not JSON")),
    };
    if requests.is_empty() {
        return Some(failure(-32600, "invalid request: the batch is empty"));
    }
    if requests.len() > MOST_IN_BATCH {
        let message = format!("invalid request: a batch may have {MOST_IN_BATCH} requests at most");
        return Some(failure(-32600, message));
    }
    let answers: Vec<Vec<u8>> = requests.into_iter().filter_map(|request| one(chain, request)).collect();
    if answers.is_empty() {
        return None;
    }
    let mut batch = vec![b'['];
    batch.append(&mut answers.join(&b','));
    batch.push(b']');
    Some(batch)
}

fn one(chain: &DevChain, request: &RawValue) -> Option<Vec<u8>> {
    let request: Request<'_> = match serde_json::from_str(request.get()) {
        Ok(request) => request,
        Err(error) => return Some(failure(-32600, format!("invalid request: {error}"))),
    };
    if request.jsonrpc != "2.0" {
        return Some(failure(-32600, "invalid request: jsonrpc is not \"2.0\""));
    }
    if request.id.is_some_and(|id| id.get().starts_with(['[', '{', 't', 'f'])) {
        return Some(failure(-32600, "invalid request: id is no string and no number"));
    }
    let result = chain.request(&request.method, request.params);
    // A notification is carried out and not answered.
    let id = request.id?;
    Some(encode(id, result.map_or_else(Payload::from, Payload::Result)))
}

/// An answer to a request whose id cannot be told.
pub(super) fn failure(code: i64, message: impl Into<Cow<'static, str>>) -> Vec<u8> {
    encode(RawValue::NULL, Payload::Error(Failure { code, message: message.into(), data: None }))
}

#[expect(clippy::expect_used, reason = "maps with string keys, numbers and JSON that was parsed before always encode")]
fn encode(id: &RawValue, payload: Payload) -> Vec<u8> {
    serde_json::to_vec(&Response { jsonrpc: "2.0", id, payload }).expect("an envelope is JSON")
}
