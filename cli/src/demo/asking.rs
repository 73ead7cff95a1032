//! The stranger's part: two servers, and proofs over HTTP.

use std::{net::SocketAddr, num::NonZeroUsize, sync::Arc};

use anyhow::Context as _;
use fingerprint::{
    bundle::{Bundle, Place, verify_bundle},
    commitment::Commitment,
    prove::{Client, ClientOptions, EndpointKind, Ledger, Progress, ProofOptions, SystemClock, prove},
    set::FingerprintSet,
};
use model::Model;
use protocol::{
    draw::query_order,
    ids::{CommitmentRoot, LeafIndex},
};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{
    folder::Folder,
    host::MODEL,
    journal::Journal,
    record::{BundleRecord, ProofRecord},
    run::{BUNDLE, COMMITMENT},
};
use crate::{
    context::Context,
    format,
    hosting::{Host, HostPlan, Loaded},
};

/// The two servers of a demo.
pub(crate) struct Servers {
    /// Metered, under a lease.
    pub(crate) stamped: Url,
    /// What opens it.
    pub(crate) api_key: SecretString,
    /// Somebody else's: nobody is asked for anything.
    pub(crate) base: Url,
    pub(crate) stop: CancellationToken,
}

/// Serves the original on a free port, without licence and bills.
pub(super) async fn serve_base(base: Model, context: &Context, stop: CancellationToken) -> anyhow::Result<Url> {
    let plan = HostPlan {
        // Both have the same name: nothing but the answers tells them apart.
        name: MODEL.to_owned(),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        streams: NonZeroUsize::MIN.saturating_add(7),
        queue: 64,
        seed: context.seed()?,
    };
    let host = Host::bind(Loaded::Cpu(base), plan).await?;
    let url = host.url().clone();
    context.tracker.spawn(async move {
        if let Err(error) = host.serve(stop.cancelled_owned()).await {
            tracing::error!("a demo server ended: {error:#}");
        }
    });
    Ok(url)
}

/// Proofs that share one ledger.
pub(super) struct Asking<'a> {
    pub(super) set: &'a FingerprintSet,
    pub(super) ledger: &'a mut Ledger,
    pub(super) kind: EndpointKind,
    pub(super) seed: u64,
    pub(super) folder: &'a Folder,
}

impl Asking<'_> {
    pub(super) async fn prove(
        &mut self,
        name: &'static str,
        (url, api_key): (&Url, Option<&SecretString>),
        file: &str,
        journal: &mut Journal,
    ) -> anyhow::Result<ProofRecord> {
        journal
            .step_async(name, async |step| {
                let mut client_options = ClientOptions::new(url.clone());
                client_options.seed = self.seed;
                client_options.api_key = api_key.cloned();
                let mut client = Client::new(client_options, Arc::new(SystemClock))?;
                // A model may well say nothing to the everyday question, and the server is known to be sound.
                let options = ProofOptions { kind: self.kind, preflight: false, ..ProofOptions::default() };
                let started = std::time::Instant::now();
                let path = self.folder.join(file);
                let failed = || format!("failed to write {}", path.display());
                let place = Place::reserve(&path).with_context(failed)?;
                let mut show = |at: &Progress| {
                    let words =
                        format!("{} hits, evidence 10^{:.1} of 10^{:.1}", at.hits, at.log10_e, at.log10_threshold);
                    step.at_u64(at.queries.into(), at.max_queries.into(), &words);
                };
                // Ctrl-C ends the whole demo, and nobody needs half a proof of it.
                let never = std::future::pending();
                let proof = prove(self.set, &mut client, self.ledger, &options, never, &mut show).await?;
                if let Some(cause) = proof.cut_short {
                    return Err(cause).context("a server of the demo failed");
                }
                proof.bundle.write(place).with_context(failed)?;
                let record = proof_record(&proof.bundle, started.elapsed().as_secs_f64());
                let outcome = format!("{} after {} questions", record.verdict, record.queries);
                Ok((record, outcome))
            })
            .await
    }
}

/// A proof that was checked, and the fingerprints that everybody knows from now on.
pub(super) struct Verified {
    pub(super) root: CommitmentRoot,
    pub(super) opened: Vec<LeafIndex>,
    pub(super) record: BundleRecord,
}

pub(super) fn verify(folder: &Folder, journal: &mut Journal) -> anyhow::Result<Verified> {
    journal.step("verify", |_| {
        // From the disk, as anybody else would.
        let commitment = Commitment::read(&folder.join(COMMITMENT))?;
        let bytes = std::fs::read(folder.join(BUNDLE)).context("failed to read the bundle")?;
        let report = verify_bundle(&bytes, &commitment)?;
        let record = BundleRecord {
            digest: report.digest.to_string(),
            bytes: bytes.len() as u64,
            openings: u64::from(report.queries),
        };
        let order = query_order(&report.beacon, &report.root, report.leaves);
        let from = usize::try_from(report.start)?;
        let opened = order.into_iter().skip(from).take(usize::try_from(report.queries)?).collect();
        let outcome = format!("sound: {} openings, {}", report.queries, format::bytes(record.bytes));
        Ok((Verified { root: report.root, opened, record }, outcome))
    })
}

fn proof_record(bundle: &Bundle, seconds: f64) -> ProofRecord {
    let report = bundle.report();
    ProofRecord {
        url: report.url.clone(),
        verdict: report.outcome,
        queries: u64::from(report.queries),
        hits: u64::from(report.drawn),
        log10_e: report.log10_e_by_query.clone(),
        alpha: report.alpha,
        log10_threshold: report.log10_threshold,
        log10_error_bound: report.log10_error_bound,
        seconds,
    }
}
