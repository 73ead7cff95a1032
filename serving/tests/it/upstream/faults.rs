//! Servers that fail, lie, or say nothing.

use std::time::Duration;

use serde_json::{Value, json};
use serving::engine::upstream::UpstreamSettings;

use super::scripted::{Piece, Reply, ScriptedServer, done, ended, event, saying, text};
use crate::support::{Host, chat_body, completion_body, events, eventually, with};

/// Asks in one piece and as a stream: the code of the error, and the text that the stream delivered before it.
async fn fails(settings: impl Fn(UpstreamSettings) -> UpstreamSettings, reply: Reply) -> (u16, Value, String) {
    let server = ScriptedServer::start(reply).await;
    let host = Host::start(server.model_with(&settings(server.settings())).await).await;
    let body = with(completion_body("Hi"), json!({"max_tokens": 8}));
    let whole = host.send("/v1/completions", &body).await;
    let status = whole.status().as_u16();
    let error: Value = whole.json().await.unwrap();
    assert!(!error.to_string().contains("zanzibar"), "{error}");

    let streamed = host.send("/v1/completions", &with(body, json!({"stream": true}))).await.text().await.unwrap();
    assert!(!streamed.contains("[DONE]") && !streamed.contains(r#""finish_reason":"stop""#), "{streamed}");
    let mut said = String::new();
    if streamed.starts_with("data:") {
        let events = events(&streamed);
        assert_eq!(events.last().unwrap()["error"]["code"], error["error"]["code"]);
        said = events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    }
    eventually("nothing is left open", || server.open() == 0).await;
    (status, error["error"]["code"].clone(), said)
}

#[tokio::test]
async fn answers_that_are_not_whole_are_errors_after_what_they_said() {
    let choice = |fields: Value| event(json!({"choices": [fields]}).to_string());
    let cases = [
        ("no reason", vec![text("one"), done()]),
        ("no [DONE]", vec![text("one"), ended("stop")]),
        ("no end at all", vec![text("one")]),
        ("an end that is cut off", vec![text("one"), ended("stop"), Piece::Bytes(b"data: [DONE]".to_vec())]),
        ("a broken connection", vec![text("one"), Piece::Break]),
        ("text after the end", vec![text("one"), ended("stop"), text("two"), done()]),
        ("broken JSON", vec![text("one"), event("{\"choices\": [{\"text\": \"zanzibar"), done()]),
        ("JSON of another form", vec![text("one"), event(r#"{"choices": "zanzibar"}"#), done()]),
        ("no UTF-8", vec![text("one"), event(b"{\"choices\": [{\"text\": \"\xff\"}]}"), done()]),
        ("a failure", vec![text("one"), event(r#"{"error": {"message": "zanzibar", "code": 500}}"#), done()]),
        ("an abort", vec![text("one"), ended("abort"), done()]),
        ("another choice", vec![text("one"), choice(json!({"index": 1, "text": "zanzibar"})), done()]),
        ("a page", vec![text("one"), Piece::Bytes(b"<html>zanzibar</html>".to_vec())]),
    ];
    for (what, pieces) in cases {
        let (status, code, said) = fails(|settings| settings, Reply::Stream(pieces)).await;
        assert_eq!((status, code, said.as_str()), (500, json!("engine_error"), "one"), "{what}");
    }
}

#[tokio::test]
async fn what_a_server_sends_is_bounded() {
    let limits = |settings| UpstreamSettings { event_bytes: 1000, ..settings };
    let endless = Piece::Bytes(vec![b'x'; 1001]);
    let (status, code, said) = fails(limits, Reply::Stream(vec![text("one"), endless, Piece::Hang])).await;
    assert_eq!((status, code, said.as_str()), (500, json!("engine_error"), "one"), "one event");

    // The longest of the tokens has eight bytes, and eight tokens were asked for.
    let flood: Vec<Piece> = (0..9).map(|_| text("12345678")).chain([Piece::Hang]).collect();
    let (status, code, said) = fails(limits, Reply::Stream(flood)).await;
    assert_eq!((status, code, said.len()), (500, json!("engine_error"), 64), "all text");
}

#[tokio::test]
async fn silent_servers_are_given_up() {
    let quick = Duration::from_millis(200);
    let limits = |settings| UpstreamSettings { first_text_timeout: quick, stall_timeout: quick, ..settings };
    let ping = [Piece::Bytes(b": ping\n\n".to_vec()), Piece::Wait(quick / 4)];
    let pings = ping.iter().cycle().take(100).cloned().collect();
    for reply in [Reply::Silence, Reply::Stream(vec![Piece::Hang]), Reply::Stream(pings)] {
        let (status, code, _) = fails(limits, reply).await;
        assert_eq!((status, code), (503, json!("engine_unavailable")));
    }
    let (status, code, said) = fails(limits, Reply::Stream(vec![text("one"), Piece::Hang])).await;
    assert_eq!((status, code, said.as_str()), (500, json!("engine_error"), "one"));
    // Slow is not silent.
    let slow = [text("one"), text(" two")].map(|text| vec![Piece::Wait(quick / 2), text]).concat();
    let server = ScriptedServer::start(Reply::Stream([slow, vec![ended("stop"), done()]].concat())).await;
    let host = Host::start(server.model_with(&limits(server.settings())).await).await;
    assert_eq!(host.complete(&completion_body("Hi")).await, "one two");
}

#[tokio::test]
async fn statuses_tell_clients_whether_to_try_again() {
    for (given, expected, code, retry) in [
        (429, 429, "server_busy", None),
        (500, 503, "engine_unavailable", None),
        (503, 503, "engine_unavailable", None),
        (400, 500, "internal_error", Some("false")),
        (401, 500, "internal_error", Some("false")),
        (302, 500, "internal_error", Some("false")),
        (204, 500, "internal_error", Some("false")),
    ] {
        let server = ScriptedServer::start(Reply::Status(given)).await;
        let host = Host::start(server.model().await).await;
        for stream in [false, true] {
            let answer = host.send("/v1/chat/completions", &with(chat_body("Hi"), json!({"stream": stream}))).await;
            assert_eq!(answer.status(), expected, "{given}");
            let headers = answer.headers().clone();
            assert_eq!(headers.contains_key("retry-after"), matches!(expected, 429 | 503), "{given}");
            assert_eq!(headers.get("x-should-retry").map(|retry| retry.to_str().unwrap()), retry, "{given}");
            let error: Value = answer.json().await.unwrap();
            assert_eq!(error["error"]["code"], code);
            assert!(!error.to_string().contains("zanzibar"), "{error}");
        }
    }
}

#[tokio::test]
async fn server_that_went_away_is_unavailable_and_one_that_came_back_is_used() {
    let server = ScriptedServer::start(saying("one")).await;
    let model = server.model().await;
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    let host = Host::start(model).await;
    assert_eq!(host.complete(&completion_body("Hi")).await, "one");
    drop(server);
    eventually("the port is closed", || std::net::TcpStream::connect(&address).is_err()).await;
    let answer = host.send("/v1/completions", &completion_body("Hi")).await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.json::<Value>().await.unwrap()["error"]["code"], "engine_unavailable");
}

#[tokio::test]
async fn reader_that_hangs_up_closes_the_connection_to_the_server() {
    for pieces in [vec![Piece::Hang], vec![text("some text"), Piece::Hang]] {
        let server = ScriptedServer::start(Reply::Stream(pieces.clone())).await;
        let host = Host::start(server.model().await).await;
        let body = with(chat_body("Hi"), json!({"stream": true, "n": 3}));
        let request = host.post("/v1/chat/completions", &body).timeout(Duration::from_millis(300)).send();
        let response = request.await;
        assert_eq!(response.is_ok(), pieces.len() > 1);
        drop(response);
        assert_eq!(server.bodies().len(), 3);
        eventually("the server is left alone", || server.open() == 0).await;
    }
}

#[tokio::test]
async fn stop_string_closes_the_connection_to_the_server() {
    let server = ScriptedServer::start(Reply::Stream(vec![text("one ST"), text("OP two"), Piece::Hang])).await;
    let host = Host::start(server.model().await).await;
    for stream in [false, true] {
        let body = with(completion_body("Hi"), json!({"stop": "STOP", "stream": stream}));
        assert_eq!(host.complete(&body).await, "one ");
    }
    eventually("the server is left alone", || server.open() == 0).await;
}
