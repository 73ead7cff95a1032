//! Certificates that are renewed while the host runs.

use std::{fs, path::PathBuf, time::Duration};

use model::chat::UnixSeconds;
use reqwest::{Certificate, Client};
use serving::{AppState, Limits, tls::Tls};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot};
use tokio_util::task::TaskTracker;

use crate::support::{Ending, ScriptedEngine, byte_model, install_tls};

/// A certificate for localhost with its key, both in PEM.
struct Made {
    certificate: String,
    key: String,
}

impl Made {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        Self { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    /// A client that trusts this one alone.
    fn client(&self) -> Client {
        let root = Certificate::from_pem(self.certificate.as_bytes()).unwrap();
        Client::builder().no_proxy().tls_certs_only([root]).build().unwrap()
    }
}

/// An HTTPS host with its files.
struct Host {
    folder: TempDir,
    tls: Tls,
    url: String,
    shutdown: oneshot::Sender<()>,
    tasks: TaskTracker,
}

impl Host {
    async fn start(made: &Made, again_every: Duration) -> Self {
        install_tls();
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("certificate.pem"), &made.certificate).unwrap();
        fs::write(path("key.pem"), &made.key).unwrap();
        let tls = Tls::read(&path("certificate.pem"), &path("key.pem"), again_every).unwrap();
        let model = byte_model(ScriptedEngine::saying("ok", Ending::Finish));
        let state = AppState::new(vec![model], Limits::default(), || UnixSeconds(1_700_000_000), 7);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/healthz", listener.local_addr().unwrap().port());
        let (shutdown, stopped) = oneshot::channel();
        let tasks = TaskTracker::new();
        let serving = serving::serve_tls(listener, tls.clone(), state, async {
            stopped.await.ok();
        });
        tasks.spawn(async { serving.await.unwrap() });
        Self { folder, tls, url, shutdown, tasks }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, made: &Made) {
        fs::write(self.path("certificate.pem"), &made.certificate).unwrap();
        fs::write(self.path("key.pem"), &made.key).unwrap();
    }

    /// Whether a client that makes a new connection trusts the host.
    async fn convinces(&self, made: &Made) -> bool {
        self.answers(&made.client()).await
    }

    async fn answers(&self, client: &Client) -> bool {
        client.get(&self.url).send().await.is_ok_and(|response| response.status() == 200)
    }

    async fn stop(self) {
        self.shutdown.send(()).unwrap();
        self.tasks.close();
        tokio::time::timeout(Duration::from_secs(10), self.tasks.wait()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_taken_over_and_a_broken_one_is_not() {
    let (old, new) = (Made::new(), Made::new());
    let host = Host::start(&old, Duration::from_secs(3_600)).await;
    let connected = old.client();
    assert!(host.answers(&connected).await && !host.convinces(&new).await);

    // Files as they are while they are being replaced, or that somebody spoiled.
    let half = &new.certificate[..new.certificate.len() / 2];
    for (certificate, key) in [
        (new.certificate.as_str(), old.key.as_str()),
        (old.certificate.as_str(), new.key.as_str()),
        (half, &new.key),
        ("", &new.key),
        (&new.certificate, ""),
        (&new.key, &new.certificate),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &new.key),
    ] {
        fs::write(host.path("certificate.pem"), certificate).unwrap();
        fs::write(host.path("key.pem"), key).unwrap();
        host.tls.read_again().await;
        assert!(host.convinces(&old).await, "{certificate} {key}");
    }
    fs::remove_file(host.path("key.pem")).unwrap();
    host.tls.read_again().await;
    assert!(host.convinces(&old).await, "no key at all");

    host.write(&new);
    host.tls.read_again().await;
    assert!(host.convinces(&new).await && !host.convinces(&old).await);
    assert!(host.answers(&connected).await, "what is connected goes on");

    // Back again, as after a mistake.
    host.write(&old);
    host.tls.read_again().await;
    assert!(host.convinces(&old).await && !host.convinces(&new).await);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_looks_for_a_new_certificate_by_itself_and_stops_with_its_server() {
    let (old, new) = (Made::new(), Made::new());
    let host = Host::start(&old, Duration::from_millis(20)).await;
    assert!(host.convinces(&old).await);
    host.write(&new);
    crate::metered::world::eventually("the new certificate", || host.convinces(&new)).await;
    host.stop().await;
}
