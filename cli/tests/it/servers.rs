//! `prove` against servers that misbehave: one clear line, exit code 1, no bundle, and secrets stay here.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
};

use crate::support::{Ran, drawn_copy, names, run_with};

/// A server that answers every request with the same bytes.
fn server(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 65_536];
            // A request of a test fits one read, or the rest of it does not matter.
            let _read = stream.read(&mut request);
            let _written = stream.write_all(answer.as_bytes());
        }
    });
    url
}

/// Proves against `url` without patience and checks that nothing of the secrets is told.
fn prove(url: &str, more: &[&str]) -> Ran {
    let folder = drawn_copy();
    let arguments = ["prove", "--set", "set.age", "--url", url, "--retries", "0", "--timeout", "5"];
    let ran = run_with(folder.path(), &[("HALLMARK_API_KEY", "key-4413")], &[&arguments[..], more].concat());
    assert!(!ran.err.contains("key-4413") && !ran.err.contains("correct horse"), "{}", ran.err);
    assert!(!names(folder.path()).contains(&"bundle.json".to_owned()), "a bundle was left");
    ran
}

macro_rules! answer {
    ($status:literal, $type:literal, $body:literal) => {
        concat!("HTTP/1.1 ", $status, "\r\ncontent-type: ", $type, "\r\nconnection: close\r\n\r\n", $body)
    };
}

#[test]
fn nobody_listens() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    prove(&format!("http://{free}/v1"), &[]).refused(&["127.0.0.1"]);
}

#[test]
fn a_url_that_is_none() {
    prove("ftp://127.0.0.1/", &[]).refused(&["http"]);
    let ran = prove("not a url", &[]);
    assert_eq!(ran.code, 1);
}

#[test]
fn a_web_page() {
    prove(&server(answer!("200 OK", "text/html", "<!doctype html><p>Welcome")), &[]).refused(&["web page"]);
}

#[test]
fn no_permission() {
    let url = server(answer!("401 Unauthorized", "application/json", r#"{"error":{"message":"bad key"}}"#));
    prove(&url, &[]).refused(&["401"]);
}

#[test]
fn too_many_requests() {
    let url = server(answer!("429 Too Many Requests", "application/json", r#"{"error":{"message":"slow down"}}"#));
    prove(&url, &[]).refused(&["429"]);
}

#[test]
fn half_a_stream() {
    let url = server(concat!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n\r\n",
        r#"{"choices":[{"mess"#
    ));
    prove(&url, &["--model-name", "m"]).refused(&["127.0.0.1"]);
}

#[test]
fn an_empty_choice() {
    let url = server(answer!("200 OK", "application/json", r#"{"object":"list","data":[{"id":"m"}],"choices":[]}"#));
    prove(&url, &[]).refused(&["choice"]);
}

#[test]
fn a_bundle_that_cannot_be_written_is_found_before_a_key_is_spent() {
    let folder = drawn_copy();
    let arguments = ["prove", "--set", "set.age", "--url", "http://127.0.0.1:9/v1", "--bundle", "absent/bundle.json"];
    let ran = run_with(folder.path(), &[], &arguments);
    ran.refused(&["absent/bundle.json", "folder that is there"]);
    assert!(!names(folder.path()).iter().any(|name| name.contains("ledger") || name.contains("absent")));
}

#[test]
fn a_set_given_as_the_ledger_survives() {
    let folder = drawn_copy();
    let before = std::fs::read(folder.path().join("set.age")).unwrap();
    let arguments = ["prove", "--set", "set.age", "--url", "http://127.0.0.1:9/v1", "--ledger", "set.age"];
    run_with(folder.path(), &[], &arguments).refused(&["set.age", "not an entry of a ledger"]);
    assert_eq!(std::fs::read(folder.path().join("set.age")).unwrap(), before);
}

#[test]
fn a_bundle_that_exists_is_found_before_a_key_is_spent() {
    let folder = drawn_copy();
    std::fs::write(folder.path().join("bundle.json"), "mine").unwrap();
    let ran = run_with(folder.path(), &[], &["prove", "--set", "set.age", "--url", "http://127.0.0.1:9/v1"]);
    ran.refused(&["bundle.json", "exists already"]);
    assert_eq!(std::fs::read(folder.path().join("bundle.json")).unwrap(), b"mine");
    assert!(!names(folder.path()).iter().any(|name| name.contains("ledger")));
}
