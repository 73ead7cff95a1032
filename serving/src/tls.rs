//! HTTPS without a proxy.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::serve::Listener;
use rustls::{
    ServerConfig,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::task::TaskTracker;

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

/// Reads a certificate chain and its key from PEM files.
pub fn read(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let failed = |what: &'static str, path: &Path| {
        let path = path.display().to_string();
        move |source| TlsError::File { what, path, source }
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(failed("a certificate", certificate))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(failed("a private key", key))?;
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A listener whose connections have shaken hands. One that is slow to do so does not keep others waiting.
#[derive(Debug)]
pub(crate) struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: io::Result<SocketAddr>,
}

impl TlsListener {
    /// Accepts on `tasks`, until the listener is dropped.
    pub(crate) fn start(listener: TcpListener, config: Arc<ServerConfig>, tasks: &TaskTracker) -> Self {
        let (sender, ready) = mpsc::channel(1);
        let address = listener.local_addr();
        tasks.spawn(accept(listener, TlsAcceptor::from(config), sender, tasks.clone()));
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
