//! Addresses and servers that a host must not start with.

use model::{Tokenizer, chat::UnixSeconds};
use serde_json::json;
use serving::{
    ServedModel,
    engine::{
        Engine,
        upstream::{UpstreamEngine, UpstreamError, UpstreamSettings, UpstreamStartError},
    },
};

use super::scripted::{ScriptedServer, saying};
use crate::support::{MODEL, byte_folder, count, install_tls};

async fn connect(settings: &UpstreamSettings) -> Result<UpstreamEngine, UpstreamStartError> {
    install_tls();
    UpstreamEngine::connect(settings, Tokenizer::load(byte_folder().path()).unwrap()).await
}

async fn listing(models: &str, status: u16) -> ScriptedServer {
    ScriptedServer::listing(models.to_owned(), status, saying("one")).await
}

async fn failure(settings: &UpstreamSettings) -> UpstreamStartError {
    connect(settings).await.unwrap_err()
}

#[tokio::test]
async fn addresses_that_cannot_be_asked_are_refused_without_their_password() {
    for address in ["ftp://127.0.0.1/v1", "data:text", "http://user:zanzibar@127.0.0.1/v1", "https://:zanzibar@host/v1"]
    {
        let error = failure(&UpstreamSettings::new(address.parse().unwrap())).await;
        assert!(matches!(error, UpstreamStartError::Address { .. }), "{error}");
        assert!(!format!("{error} {error:?}").contains("zanzibar"), "{error}");
    }
    let settings = UpstreamSettings {
        key: Some("zanzibar\n\u{0}".into()),
        ..UpstreamSettings::new("http://h/v1".parse().unwrap())
    };
    let error = failure(&settings).await;
    assert!(matches!(error, UpstreamStartError::Key { .. }), "{error}");
    assert!(!format!("{error:?} {settings:?}").contains("zanzibar"));
}

#[tokio::test]
async fn servers_that_are_none_are_refused() {
    let gone = listing("", 200).await;
    let settings = gone.settings();
    drop(gone);
    for (settings, _server) in [
        (settings, None),
        {
            let server = listing("{}", 401).await;
            (server.settings(), Some(server))
        },
        {
            let server = listing("{}", 302).await;
            (server.settings(), Some(server))
        },
        {
            let server = listing("<html>", 200).await;
            (server.settings(), Some(server))
        },
        {
            let server = listing("{}", 200).await;
            (server.settings(), Some(server))
        },
        {
            let server = listing(&" ".repeat(5 << 20), 200).await;
            (server.settings(), Some(server))
        },
    ] {
        let error = failure(&settings).await;
        assert!(matches!(error, UpstreamStartError::Models { .. }), "{error}");
    }
    // The address is right but for its end.
    let server = listing("{}", 200).await;
    let error = failure(&UpstreamSettings::new(server.url.parse().unwrap())).await;
    let UpstreamStartError::Models { source: UpstreamError::Status { status }, .. } = error else { panic!("{error}") };
    assert_eq!(status.as_u16(), 404);
}

#[tokio::test]
async fn model_is_found_by_its_name_or_because_it_is_the_only_one() {
    let both =
        json!({"data": [{"id": "a", "max_model_len": 10}, {"id": "b", "meta": {"n_ctx": 20, "n_ctx_train": 99}}]});
    let server = listing(&both.to_string(), 200).await;
    let error = failure(&server.settings()).await;
    assert!(error.to_string().contains("serves a, b, and not one model alone"), "{error}");
    let named = |name: &str| UpstreamSettings { model: Some(name.to_owned()), ..server.settings() };
    assert!(failure(&named("c")).await.to_string().ends_with("serves a, b, and not c"));
    assert_eq!(connect(&named("a")).await.unwrap().context_length(), 10);
    let engine = connect(&named("b")).await.unwrap();
    assert_eq!(engine.context_length(), 20);
    assert_eq!(engine.check().await.unwrap().name, "b");
    drop(server);
    assert!(engine.check().await.is_err());
}

#[tokio::test]
async fn context_length_is_told_or_given_and_the_shorter_one_counts() {
    let silent = listing(r#"{"data": [{"id": "a", "meta": {"n_ctx_train": 99}}]}"#, 200).await;
    let telling = listing(r#"{"data": [{"id": "a", "max_model_len": 50}]}"#, 200).await;
    assert!(matches!(failure(&silent.settings()).await, UpstreamStartError::ContextLength { .. }));
    for (server, given, length) in [(&silent, 70, 70), (&telling, 70, 50), (&telling, 20, 20)] {
        let settings = UpstreamSettings { context_length: Some(count(given)), ..server.settings() };
        assert_eq!(connect(&settings).await.unwrap().context_length(), length);
    }
}

#[tokio::test]
async fn model_is_put_up_from_a_folder_without_weights() {
    let server = ScriptedServer::start(saying("one")).await;
    let model = server.model().await;
    assert!(model.engine_name.ends_with("upstream vllm"), "{}", model.engine_name);
    assert!(model.manifest.is_none() && model.chat_template.is_some() && !model.engine.yields_tokens());
    let empty = tempfile::tempdir().unwrap();
    let refused = ServedModel::upstream(MODEL, empty.path(), UnixSeconds(0), &server.settings()).await.unwrap_err();
    assert!(matches!(refused, UpstreamStartError::Tokenizer { .. }), "{refused}");
}
