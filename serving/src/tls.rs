//! HTTPS without a proxy.

use std::{
    fmt, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use alloy_primitives::{B256, Keccak256};
use axum::serve::Listener;
use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::task::TaskTracker;

use crate::causes::Causes;

/// Handshakes at the same time; more connections wait in the kernel.
const HANDSHAKES: usize = 256;
/// A client that has not shaken hands by then is hung up on.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no HTTPS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file.
    #[error("failed to read {what} from {path}")]
    File {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// The key does not belong to the certificate, or is of an unknown kind.
    #[error("the certificate and the key cannot be used")]
    Use(#[from] rustls::Error),
}

/// A certificate chain with its key, from PEM files that may be replaced while the host runs. Clones share it.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ServerConfig>,
    certificate: Arc<Certificate>,
    again_every: Duration,
}

impl Tls {
    /// Reads the files. A host that serves with them looks every `again_every` whether they changed.
    pub fn read(certificate: &Path, key: &Path, again_every: Duration) -> Result<Self, TlsError> {
        let builder = ServerConfig::builder();
        let certificate = Certificate::read(certificate, key, builder.crypto_provider().clone())?;
        let certificate = Arc::new(certificate);
        let mut config = builder.with_no_client_auth().with_cert_resolver(certificate.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), certificate, again_every })
    }

    /// Looks now whether the files changed. New connections get what they hold; if that cannot be used, the log says why and
    /// connections get what they got before.
    pub async fn read_again(&self) {
        let certificate = self.certificate.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || certificate.read_again()).await {
            tracing::error!(%error, "failed to look whether the certificate changed");
        }
    }

    /// Looks until the listener is gone.
    async fn follow(self, ready: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>) {
        loop {
            tokio::select! {
                biased;
                () = ready.closed() => return,
                () = time::sleep(self.again_every) => self.read_again().await,
            }
        }
    }
}

/// What handshakes use, and where it comes from.
struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    used: RwLock<Arc<CertifiedKey>>,
    looked: Mutex<Looked>,
}

/// What is known since the files were last looked at.
struct Looked {
    /// Of the files that are used.
    digest: B256,
    /// Why the files cannot be used, as it was logged.
    told: Option<String>,
}

/// Certificate and key as they stand in the files.
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Certificate {
    fn read(certificate: &Path, key: &Path, provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let files = Files::read(certificate, key)?;
        let used = files.parse(certificate, key, &provider)?;
        Ok(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            provider,
            used: RwLock::new(Arc::new(used)),
            looked: Mutex::new(Looked { digest: files.digest(), told: None }),
        })
    }

    fn read_again(&self) {
        // One at a time: the newest look is the last one to be taken over.
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        match self.changed(looked.digest) {
            Ok(None) => looked.told = None,
            Ok(Some((digest, certified))) => {
                *self.used.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certified);
                *looked = Looked { digest, told: None };
                tracing::info!("new connections get the certificate that {} holds now", self.certificate.display());
            }
            // Also while they are being replaced: a new certificate and the old key do not belong together.
            Err(error) => {
                let error = Causes(&error).to_string();
                if looked.told.as_ref() != Some(&error) {
                    tracing::error!(%error, "the new certificate cannot be used, and the old one is kept: {error}");
                    looked.told = Some(error);
                }
            }
        }
    }

    /// What the files hold, if it is something else than what is used.
    fn changed(&self, used: B256) -> Result<Option<(B256, CertifiedKey)>, TlsError> {
        let files = Files::read(&self.certificate, &self.key)?;
        let digest = files.digest();
        if digest == used {
            return Ok(None);
        }
        files.parse(&self.certificate, &self.key, &self.provider).map(|certified| Some((digest, certified)))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.used.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// It holds a key.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Files {
    fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let read = |what, path: &Path| fs::read(path).map_err(|source| failed(what, path)(pem::Error::Io(source)));
        Ok(Self { certificate: read("a certificate", certificate)?, key: read("a private key", key)? })
    }

    fn digest(&self) -> B256 {
        let mut digest = Keccak256::new();
        digest.update(self.certificate.len().to_be_bytes());
        digest.update(&self.certificate);
        digest.update(&self.key);
        digest.finalize()
    }

    fn parse(&self, certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let chain = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed("a certificate", certificate))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(failed("a private key", key))?;
        Ok(CertifiedKey::from_der(chain, key, provider)?)
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(pem::Error) -> TlsError {
    let path = path.display().to_string();
    move |source| TlsError::File { what, path, source }
}

/// A listener whose connections have shaken hands. One that is slow to do so does not keep others waiting.
#[derive(Debug)]
pub(crate) struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: io::Result<SocketAddr>,
}

impl TlsListener {
    /// Accepts on `tasks`, until the listener is dropped.
    pub(crate) fn start(listener: TcpListener, tls: Tls, tasks: &TaskTracker) -> Self {
        let (sender, ready) = mpsc::channel(1);
        let address = listener.local_addr();
        let acceptor = TlsAcceptor::from(tls.config.clone());
        tasks.spawn(tls.follow(sender.clone()));
        tasks.spawn(accept(listener, acceptor, sender, tasks.clone()));
        Self { ready, address }
    }
}

async fn accept(
    mut listener: TcpListener,
    acceptor: TlsAcceptor,
    ready: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
    tasks: TaskTracker,
) {
    let permits = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        // Nobody closes the semaphore.
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let (connection, address) = tokio::select! {
            biased;
            () = ready.closed() => return,
            // As axum does it: a failure to accept is waited out.
            accepted = Listener::accept(&mut listener) => accepted,
        };
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        tasks.spawn(async move {
            if let Err(error) = connection.set_nodelay(true) {
                tracing::debug!(%error, "failed to set TCP_NODELAY");
            }
            match time::timeout(PATIENCE, acceptor.accept(connection)).await {
                // A server that has stopped takes nobody.
                Ok(Ok(stream)) => ready.send((stream, address)).await.unwrap_or_default(),
                Ok(Err(error)) => tracing::debug!(%error, "a client failed to shake hands"),
                Err(_) => tracing::debug!("a client did not shake hands in time"),
            }
            drop(permit);
        });
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // The accepting task ends when this listener does, so it is not waited for in vain.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        match &self.address {
            Ok(address) => Ok(*address),
            Err(error) => Err(error.kind().into()),
        }
    }
}
