//! What the operator sees, and HTTPS.

use std::{fs, sync::Arc, time::Duration};

use serde_json::Value;
use serving::tls::Tls;

use super::world::{Options, World};
use crate::support::{Ending, ScriptedEngine, byte_model, chat_body};

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_sees_what_happens_and_customers_do_not() {
    let world = World::new().await;
    let host = world.host(byte_model(ScriptedEngine::saying("hello there", Ending::Finish))).await;
    let mut payer = world.payer(20_000_000).await;
    for _ in 0..3 {
        host.chat(&mut payer, 1_000_000, &chat_body("hi")).await;
    }
    host.refused(&[], &chat_body("hi")).await;
    let get = async |base: &str, path: &str| {
        let response = host.client.get(format!("{base}{path}")).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let operator = host.operator_url.as_str();
    let (status, metrics) = get(operator, "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "hallmark_requests_total{model=\"bytes\",outcome=\"finished\"} 3",
        "hallmark_tokens_total{model=\"bytes\",kind=\"completion\"} 33",
        "hallmark_responses_total{status=\"402\",code=\"payment_required\"} 1",
        "hallmark_first_text_seconds_count{model=\"bytes\"} 3",
        "hallmark_lease_active{lease=\"1\"} 1.0",
        "hallmark_lease_requests{lease=\"1\"} 3.0",
        &format!("hallmark_lease_charged{{lease=\"1\"}} {}.0", payer.charged),
        "hallmark_journal_pending 0.0",
        "# EOF",
    ] {
        assert!(metrics.contains(line), "{line} is not in:\n{metrics}");
    }
    let (status, page) = get(operator, "/").await;
    assert_eq!(status, 200);
    for word in ["Taking requests.", "lease 1, active", "3 statements in", "charged to channels"] {
        assert!(page.contains(word), "{word:?} is not in: {page}");
    }
    for base in [operator, &host.url] {
        assert_eq!(get(base, "/healthz").await, (200, "ok\n".to_owned()));
        let (status, ready) = get(base, "/readyz").await;
        assert_eq!((status, serde_json::from_str::<Value>(&ready).unwrap()["ready"].as_bool()), (200, Some(true)));
    }
    for path in ["/metrics", "/"] {
        assert_eq!(get(&host.url, path).await.0, 404, "money is the operator's");
    }
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_a_certificate_speaks_https() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("certificate.pem"), folder.path().join("key.pem"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let read = |certificate, key| Tls::read(certificate, key, Duration::from_secs(60));
    let tls = read(&certificate, &key).unwrap();
    let error = read(&key, &certificate).unwrap_err().to_string();
    assert!(error.contains("key.pem") || error.contains("certificate.pem"), "{error}");

    let options = Options { tls: Some(tls), ..Options::default() };
    let model = byte_model(ScriptedEngine::saying("hello there", Ending::Finish));
    let host = world.host_with(model, options).await;
    let address = host.url.strip_prefix("http://127.0.0.1").unwrap().to_owned();
    let root = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([root]).build().unwrap();
    // Connections that never shake hands keep nobody out.
    let silent: Vec<_> =
        (0..50).map(|_| std::net::TcpStream::connect(format!("127.0.0.1{address}")).unwrap()).collect();
    let payer = Arc::new(world.payer(20_000_000).await);
    let (name, value) = payer.header(1_000_000);
    let request = client.post(format!("https://localhost{address}/v1/chat/completions")).header(name, value);
    let answer: Value = request.json(&chat_body("hi")).send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "hello there", "{answer}");
    assert!(host.client.get(&host.url).send().await.is_err(), "no plain HTTP there");
    drop(silent);
    host.stop().await;
}
