//! The host as a process: it says where it listens, answers, and ends when it is told to.

#![cfg(unix)]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::support::{folder, hallmark, run};

/// Ended with the test, whatever happens in it.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has usually ended already.
        self.0.kill().unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
    }
}

#[test]
fn an_unmetered_host_answers_within_its_limits_and_ends_on_ctrl_c() {
    let folder = folder();
    let (mut host, address) = start(folder.path(), &["--model", "bundled", "--max-tokens", "5"]);
    let models = ask(&address, "GET", "/v1/models", "");
    assert_eq!(models["data"][0]["id"], "bundled");
    let complete = |tokens: usize| {
        let body = format!(r#"{{"model": "bundled", "prompt": "First Citizen:", "max_tokens": {tokens}}}"#);
        ask(&address, "POST", "/v1/completions", &body)
    };
    assert!(complete(5)["choices"][0]["text"].is_string());
    assert!(complete(6)["error"]["message"].as_str().expect("a refusal").contains("at most 5 tokens"));

    let interrupt = Command::new("kill").args(["-INT", &host.0.id().to_string()]).status().expect("kill runs");
    assert!(interrupt.success());
    let status = host.0.wait().expect("the host ends");
    assert_eq!(status.code(), Some(0));
    assert!(TcpStream::connect(&address).is_err(), "the port is still open");
}

#[test]
#[ignore = "needs shared data: set HALLMARK_SMOLLM2"]
fn a_gguf_is_imported_as_it_is_and_served() {
    let folder = folder();
    let file = std::env::var_os("HALLMARK_SMOLLM2").map(|smollm2| PathBuf::from(smollm2).join("model.gguf"));
    let file = file.expect("HALLMARK_SMOLLM2").display().to_string();
    run(folder.path(), &["model", "import", &file, "--out", "quantized", "--dtype", "stored"]).succeeded();
    let info = run(folder.path(), &["model", "info", "quantized", "--json"]).succeeded().json();
    assert_eq!(info["dtype"], "Q4_1, Q8_0");

    let (_host, address) = start(folder.path(), &["--model", "quantized"]);
    let body = r#"{"model": "quantized", "messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 20, "temperature": 0}"#;
    let answer = ask(&address, "POST", "/v1/chat/completions", body);
    let text = answer["choices"][0]["message"]["content"].as_str().expect("an answer");
    assert!(text.contains("Paris"), "{text}");
}

/// An unmetered host, and where it listens.
fn start(folder: &Path, arguments: &[&str]) -> (Running, String) {
    let mut command = hallmark(folder, &["host", "--unmetered", "--listen", "127.0.0.1:0"]);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut host = Running(command.spawn().expect("the binary runs"));
    let mut line = String::new();
    BufReader::new(host.0.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let address = line.trim().rsplit_once("http://").expect("an address").1.trim_end_matches("/v1").to_owned();
    (host, address)
}

fn ask(address: &str, method: &str, path: &str, body: &str) -> Value {
    ask_as(address, method, path, "", body)
}

/// With one more header line, its end included.
pub(crate) fn ask_as(address: &str, method: &str, path: &str, header: &str, body: &str) -> Value {
    let mut stream = TcpStream::connect(address).expect("the port is open");
    let (close, kind, length) = ("connection: close", "content-type: application/json", body.len());
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: {address}\r\n{close}\r\n{kind}\r\n{header}").expect("a request");
    write!(stream, "content-length: {length}\r\n\r\n{body}").expect("a body");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}
