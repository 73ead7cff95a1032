//! The client against servers that misbehave.

use std::{
    error::Error,
    io::Write,
    net::TcpStream,
    time::{Duration, Instant},
};

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use fingerprint::prove::{
    Client, ClientError, ClientOptions, Confidentiality, EndpointKind, Exchange, ReplyError, RequestShape, RetryPolicy,
};
use secrecy::SecretString;
use serde_json::json;

use super::server::{Server, client, clock, json_response, options, raw};

const KEY_TEXT: &str = "a prompt nobody else would send";
const API_KEY: &str = "sk-test-0123456789abcdef";

fn shape(kind: EndpointKind) -> RequestShape {
    RequestShape { kind, model: "tiny".to_owned(), system: None, max_tokens: 4 }
}

async fn ask(client: &mut Client) -> Result<Exchange, ClientError> {
    match client.ask(&shape(EndpointKind::Chat), KEY_TEXT, Confidentiality::Secret).await {
        Exchange { reply: Err(error), .. } => Err(error),
        exchange => Ok(exchange),
    }
}

async fn error_of(answer: impl Fn() -> Response + Send + Sync + 'static) -> (ClientError, usize) {
    let server = Server::start(move |_, _| answer()).await;
    let error = ask(&mut server.client()).await.unwrap_err();
    (error, server.seen().len())
}

/// The error as a command prints it.
fn line(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        line = format!("{line}: {cause}");
        below = cause.source();
    }
    line
}

#[tokio::test(flavor = "multi_thread")]
async fn each_misbehaviour_is_told_apart_and_only_passing_ones_are_repeated() {
    let status = |status: StatusCode| move || status.into_response();
    let body = |text: &'static str| move || text.into_response();
    let once = 1;
    let thrice = 3;

    macro_rules! case {
        ($answer:expr, $attempts:expr, $pattern:pat) => {
            let (error, attempts) = error_of($answer).await;
            assert!(matches!(error, $pattern), "{error:?} is not {}", stringify!($pattern));
            assert_eq!(attempts, $attempts, "{error}");
            let line = line(&error);
            assert!(!line.contains('\n') && line.len() < 400, "{line}");
        };
    }
    case!(status(StatusCode::UNAUTHORIZED), once, ClientError::Unauthorised { with_key: false, .. });
    case!(status(StatusCode::FORBIDDEN), once, ClientError::Forbidden { .. });
    case!(status(StatusCode::NOT_FOUND), once, ClientError::NotFound { status: 404, .. });
    case!(status(StatusCode::METHOD_NOT_ALLOWED), once, ClientError::NotFound { status: 405, .. });
    case!(status(StatusCode::BAD_REQUEST), once, ClientError::Refused { status: 400, .. });
    case!(status(StatusCode::TOO_MANY_REQUESTS), thrice, ClientError::TooManyRequests { attempts: 3, .. });
    case!(status(StatusCode::REQUEST_TIMEOUT), thrice, ClientError::ServerFailed { status: 408, attempts: 3, .. });
    case!(status(StatusCode::BAD_GATEWAY), thrice, ClientError::ServerFailed { status: 502, attempts: 3, .. });
    case!(status(StatusCode::OK), thrice, ClientError::Reply { source: ReplyError::Empty, .. });
    case!(body("<html>Welcome</html>"), once, ClientError::Reply { source: ReplyError::Html, .. });
    case!(body("data: {\"choices\""), once, ClientError::Reply { source: ReplyError::EventStream, .. });
    case!(body("{\"choices\":[{\"mes"), thrice, ClientError::Reply { source: ReplyError::Truncated, .. });
    case!(body("hello"), once, ClientError::Reply { source: ReplyError::NotJson, .. });
    case!(body("{\"choices\":[]}"), once, ClientError::Reply { source: ReplyError::NoChoices, .. });
    case!(body("{\"choices\":[{}]}"), once, ClientError::Reply { source: ReplyError::NoText, .. });
    case!(|| (StatusCode::OK, vec![0xff_u8, 0xfe, b'{']).into_response(), once, ClientError::NotUtf8 { .. });
    case!(|| "x".repeat(2 << 20).into_response(), once, ClientError::TooLarge { limit_bytes: 1_048_576, .. });
    case!(
        || (StatusCode::TEMPORARY_REDIRECT, [("location", "https://elsewhere.example/v1?token=1")]).into_response(),
        once,
        ClientError::Redirected { .. }
    );
    case!(
        || (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "9999")]).into_response(),
        once,
        ClientError::TooManyRequests { retry_after: Some(_), .. }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_connections_are_told_apart() {
    let half = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{\"choices\":[";
    let half_chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\ndata:\r\n";
    for text in [half, half_chunked, ""] {
        let url = raw(move |stream: &mut TcpStream| stream.write_all(text.as_bytes()).unwrap()).await;
        let error = ask(&mut client(options(url))).await.unwrap_err();
        assert!(matches!(error, ClientError::BrokenOff { .. }), "{text:?}: {error:?}");
    }
    let url = raw(|stream: &mut TcpStream| stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\n").unwrap()).await;
    let error = ask(&mut client(options(url.clone()))).await.unwrap_err();
    assert!(matches!(error, ClientError::NotHttp { .. }), "{error:?}");

    let mut secure = url;
    secure.set_scheme("https").unwrap();
    let error = ask(&mut client(options(secure))).await.unwrap_err();
    assert!(matches!(error, ClientError::Tls { .. }), "{error:?}");

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for address in [format!("http://{closed}"), "http://no-such-host.invalid".to_owned()] {
        let error = ask(&mut client(options(address.parse().unwrap()))).await.unwrap_err();
        assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_server_times_out() {
    let url = raw(|_| std::thread::sleep(Duration::from_secs(5))).await;
    let limits = ClientOptions {
        request_timeout: Duration::from_millis(200),
        retry: RetryPolicy { retries: 1, first_delay: Duration::from_millis(1), ..RetryPolicy::default() },
        ..options(url)
    };
    let started = Instant::now();
    let error = ask(&mut client(limits)).await.unwrap_err();
    assert!(matches!(error, ClientError::TimedOut { .. }), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(5), "one attempt and one repetition of 200 ms each");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_of_an_unknown_issuer_is_a_tls_error() {
    let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![include_bytes!("untrusted-certificate.der").to_vec().into()],
            rustls::pki_types::PrivatePkcs8KeyDer::from(include_bytes!("untrusted-key.der").to_vec()).into(),
        )
        .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port()).parse().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut connection = rustls::ServerConnection::new(config.clone().into()).unwrap();
            // The client breaks the handshake off, which is what is tested.
            connection.complete_io(&mut stream.unwrap()).ok();
        }
    });
    let error = ask(&mut client(options(url))).await.unwrap_err();
    assert!(matches!(error, ClientError::Tls { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn passing_failures_are_repeated_as_late_as_the_server_asks() {
    let server = Server::start(|number, seen| match number {
        0 => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")]).into_response(),
        1 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        _ => super::server::completion(seen, &[(KEY_TEXT.to_owned(), " amber".to_owned())].into()),
    })
    .await;
    let started = Instant::now();
    let exchange = ask(&mut server.client()).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1), "Retry-After is honoured");
    assert_eq!((exchange.attempts.get(), exchange.status), (3, Some(200)));
    assert_eq!(exchange.reply.unwrap(), " amber");
    assert_eq!(exchange.request, shape(EndpointKind::Chat).body(KEY_TEXT));
    assert!(server.seen().iter().all(|seen| seen.body == exchange.request && seen.path == "/v1/chat/completions"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_limit_spaces_requests() {
    let server = Server::model([].into()).await;
    let mut client = client(ClientOptions { requests_per_second: Some(20.0), ..options(server.url.clone()) });
    let started = Instant::now();
    for _ in 0..6 {
        ask(&mut client).await.unwrap();
    }
    assert!(started.elapsed() >= Duration::from_millis(250), "six requests have five gaps of 50 ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn api_key_travels_in_the_header_and_nowhere_else() {
    let server = Server::model([].into()).await;
    let options = ClientOptions { api_key: Some(SecretString::from(API_KEY)), ..options(server.url.clone()) };
    let mut client = client(options.clone());
    let exchange = ask(&mut client).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen[0].headers["authorization"], format!("Bearer {API_KEY}"));
    assert!(!format!("{seen:?}").to_lowercase().contains("hallmark"), "a host must not know a prover by its headers");
    assert!(seen[0].headers["user-agent"].to_str().unwrap().starts_with("OpenAI/Python "), "{seen:?}");
    assert!(!seen[0].body.contains(API_KEY) && !seen[0].path.contains(API_KEY));
    for shown in [format!("{options:?}"), format!("{client:?}"), format!("{exchange:?}")] {
        assert!(!shown.contains(API_KEY) && !shown.contains(KEY_TEXT), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_a_server_quotes_stay_out_of_errors() {
    for status in [400_u16, 401, 404, 422, 429, 500, 200] {
        let server = Server::start(move |_, seen| {
            let words =
                format!("{} {} \u{1b}[31m\nend", seen.headers["authorization"].to_str().unwrap(), seen.prompt());
            let mut response = json_response(&json!({ "error": { "message": words } }));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response
        })
        .await;
        let mut client =
            client(ClientOptions { api_key: Some(SecretString::from(API_KEY)), ..options(server.url.clone()) });
        let secret = ask(&mut client).await.unwrap_err();
        let public = client.ask(&shape(EndpointKind::Chat), "Hello", Confidentiality::Public).await.reply.unwrap_err();
        for (error, prompt) in [(secret, KEY_TEXT), (public, "no such prompt")] {
            let shown = format!("{} {error:?}", line(&error));
            assert!(!shown.contains(API_KEY) && !shown.contains(prompt), "{status}: {shown}");
            assert!(!line(&error).contains(['\n', '\u{1b}']), "{status}: {shown}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answer_that_repeats_the_api_key_is_not_recorded() {
    for first in ["s", "\\u0073"] {
        let server = Server::start(move |_, seen| {
            let key = seen.headers["authorization"].to_str().unwrap().replacen("s", first, 1);
            format!(r#"{{"choices":[{{"message":{{"content":"a"}}}}],"debug":["{key}"]}}"#).into_response()
        })
        .await;
        let mut client =
            client(ClientOptions { api_key: Some(SecretString::from(API_KEY)), ..options(server.url.clone()) });
        let error = ask(&mut client).await.unwrap_err();
        assert!(matches!(error, ClientError::EchoesApiKey { .. }), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_named_by_its_host_alone() {
    let server = Server::start(|_, seen| {
        let quoted = format!("https://elsewhere.example:8443/{}?q={KEY_TEXT}", seen.prompt()).replace(' ', "%20");
        (StatusCode::FOUND, [("location", quoted)]).into_response()
    })
    .await;
    let error = ask(&mut server.client()).await.unwrap_err();
    let shown = format!("{} {error:?}", line(&error));
    assert!(shown.contains("https://elsewhere.example:8443;") && !shown.contains("nobody"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn public_errors_say_what_the_server_says() {
    let server = Server::start(|_, _| {
        let mut response = json_response(&json!({ "error": { "message": "model `tiny` does not exist" } }));
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    })
    .await;
    let shape = shape(EndpointKind::Completion);
    let error = server.client().ask(&shape, "Hello", Confidentiality::Public).await.reply.unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("404 at /v1/completions); check the base URL and the model's name: model `tiny` does not exist"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_listed_under_every_form_of_the_base_url() {
    let server = Server::model([].into()).await;
    for path in ["", "v1", "v1/", "v1/completions"] {
        let mut client = client(options(server.url.join(path).unwrap()));
        assert_eq!(client.models().await.unwrap(), ["tiny", "other"], "{path}");
    }
}

#[test]
fn options_that_cannot_work_are_refused_before_anything_is_sent() {
    let new = |options: ClientOptions| Client::new(options, clock()).unwrap_err();
    let address = |text: &str| options(text.parse().unwrap());
    assert!(matches!(new(address("ftp://localhost")), ClientError::Address { .. }));
    assert!(matches!(new(address("http://me:secret@localhost")), ClientError::Address { .. }));
    for rate in [0.0, -1.0, f64::NAN, 1e-300] {
        let slow = ClientOptions { requests_per_second: Some(rate), ..address("http://localhost") };
        assert!(matches!(new(slow), ClientError::RateLimit), "{rate}");
    }
    let name = ClientOptions { user_agent: "line\nbreak".to_owned(), ..address("http://localhost") };
    assert!(matches!(new(name), ClientError::UserAgent));
    let key = ClientOptions { api_key: Some(SecretString::from("line\nbreak")), ..address("http://localhost") };
    let error = new(key);
    assert!(matches!(error, ClientError::ApiKey) && !format!("{error:?}").contains("break"));
}
