//! The steps of the demo, one after the other.

use alloy::primitives::B256;
use anyhow::Context as _;
use fingerprint::{
    prove::{EndpointKind, Ledger},
    set::{BeaconSource, FingerprintSet},
};
use model::Model;
use protocol::ids::ManifestDigest;
use rand::RngCore as _;
use url::Url;

use super::{
    asking::{self, Asking, Servers, Verified},
    chain::{Chain, DEPLOYMENT, STATE},
    customer::{Customer, VOUCHERS},
    folder::Folder,
    host::{self, Place},
    journal::Journal,
    licence::{self, Draw, Lease, Licence},
    record::{BundleRecord, DemoRecord, FilesRecord, LicenceRecord, PaymentRecord},
    stamping::{self, Prepared, Stamped, Task},
};
use crate::{
    clock,
    commands::{chain::terms::Rendering, demo::Demo, devnet::core_bytecode},
    context::{Context, Purpose},
    failure::Interrupted,
    format,
};

pub(super) const SET: &str = "set.age";
pub(super) const IDENTITY: &str = "identity.txt";
pub(super) const COMMITMENT: &str = "commitment.json";
pub(super) const STAMPED: &str = "stamped";
pub(super) const BUNDLE: &str = "bundle.json";
const ATTEMPT: &str = "attempt-on-original.json";
/// Where `prove` looks for it beside the set.
const LEDGER: &str = "set.age.ledger.jsonl";

/// A finished demo, its servers, which run until `stop` is cancelled, and its chain.
pub(crate) struct Finished {
    pub(crate) record: DemoRecord,
    pub(crate) servers: Servers,
    pub(crate) chain: Chain,
}

/// Runs the whole demo into `folder`.
pub(crate) async fn run(arguments: &Demo, folder: &Folder, context: &Context) -> anyhow::Result<Finished> {
    let mut journal = Journal::new(context.progress());
    // First, because it needs what a machine may lack.
    let chain = start_chain(arguments, context, &mut journal).await?;
    let mut life = Life { chain, journal, folder, context };

    let task =
        Task { plan: arguments.clone(), folder: folder.clone(), seed: context.seed()?, interrupt: context.interrupt() };
    let (mut salts, shared) = (context.generator(Purpose::Salts)?, task.clone());
    let mut prepared = life.compute(move |journal| stamping::prepare(&shared, &mut salts, journal)).await?;
    let licence = life.register(&prepared).await?;
    let draw = life.commit_and_draw(&licence, &mut prepared).await?;
    let Stamped { base, stamped, set, measured } =
        life.compute(move |journal| stamping::stamp(&task, prepared, journal)).await?;

    let kind = if base.chat.is_some() { EndpointKind::Chat } else { EndpointKind::Completion };
    let manifest = stamped.manifest_digest;
    let place = host::take_place().await?;
    let public = async {
        let lease = life.publish_and_lease(&licence, &set, manifest, &place.url).await?;
        let servers = life.serve(place, (stamped, base), &lease).await?;
        let mut ledger = Ledger::open(&folder.join(LEDGER))?;
        let mut asking = Asking { set: &set, ledger: &mut ledger, kind, seed: context.seed()?, folder };
        let leased = (&servers.stamped, Some(&servers.api_key));
        let proof = asking.prove("prove", leased, BUNDLE, &mut life.journal).await?;
        let attempt = asking.prove("prove original", (&servers.base, None), ATTEMPT, &mut life.journal).await?;
        let verified = life.verify_and_burn().await?;
        let payment = life.pay(&licence, &lease, &servers, kind).await?;
        anyhow::Ok((lease, servers, proof, attempt, verified, payment))
    };
    let interrupt = context.interrupt();
    let (lease, servers, proof, attempt, bundle, payment) = tokio::select! {
        biased;
        done = public => done?,
        () = interrupt.cancelled() => return Err(Interrupted.into()),
    };
    life.chain.save(folder)?;

    let licence = licence_record(&life.chain, &licence, draw, &lease).await?;
    let (steps, total) = life.journal.close();
    let record = DemoRecord {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        finished: clock::date_and_time(clock::now()),
        model: measured.model,
        scheme: measured.scheme,
        embedding: measured.embedding,
        surfaces: measured.surfaces,
        utility: measured.utility,
        stamped: proof,
        base: attempt,
        bundle,
        licence,
        payment,
        steps,
        total_s: total.as_secs_f64(),
        files: files(folder),
    };
    Ok(Finished { record, servers, chain: life.chain })
}

async fn start_chain(arguments: &Demo, context: &Context, journal: &mut Journal) -> anyhow::Result<Chain> {
    let mut seed = B256::ZERO;
    context.generator(Purpose::Draw)?.fill_bytes(seed.as_mut_slice());
    journal
        .step_async("chain", async |_| {
            let core = core_bytecode(arguments.eigenlayer_core.clone(), context).await?;
            let chain = Chain::start(&core, seed).await?;
            let block = chain.client().head().await?.number;
            Ok((chain, format!("EigenLayer's core and all contracts, {block} blocks")))
        })
        .await
}

/// A demo in progress.
struct Life<'a> {
    chain: Chain,
    journal: Journal,
    folder: &'a Folder,
    context: &'a Context,
}

impl Life<'_> {
    /// Does steps that keep a processor busy.
    async fn compute<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Journal) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let mut journal = std::mem::replace(&mut self.journal, Journal::new(self.context.progress()));
        let done = self.context.compute(move || Ok((work(&mut journal)?, journal)));
        let value;
        (value, self.journal) = done.await?;
        Ok(value)
    }

    async fn register(&mut self, prepared: &Prepared) -> anyhow::Result<Licence> {
        let Self { chain, journal, .. } = self;
        journal
            .step_async("register", async |_| {
                let Prepared { base, .. } = prepared;
                let licence = licence::register(chain, base.manifest_digest, Rendering::of(base)).await?;
                let model = format::short_hex(&licence.model.to_string());
                let royalty = format::percent(licence.terms.royalty.fraction());
                Ok((licence, format!("model {model}, royalty {royalty}")))
            })
            .await
    }

    /// Commits to the set here and on the chain, and draws from a block that comes later.
    async fn commit_and_draw(&mut self, licence: &Licence, prepared: &mut Prepared) -> anyhow::Result<Draw> {
        let Self { chain, journal, folder, .. } = self;
        let root = prepared.set.commit()?;
        let committed = journal
            .step_async("commit", async |_| {
                prepared.save(folder)?;
                let fingerprints = prepared.set.parameters().fingerprints;
                let committed = licence::commit(chain, licence.model, root, fingerprints).await?;
                let root = format::short_hex(&root.to_string());
                Ok((committed, format!("root {root} in block {committed}")))
            })
            .await?;
        journal
            .step_async("draw", async |_| {
                let (block, beacon) = licence::draw(chain, root).await?;
                let chain_id = chain.deployment().chain_id;
                let description = format!(
                    "prevrandao of block {block} of chain {chain_id}, a development chain that the claimant ran alone"
                );
                prepared.set.draw(beacon, BeaconSource::Given { description })?;
                prepared.save(folder)?;
                let beacon = format::short_hex(&beacon.to_string());
                Ok((Draw { committed, block }, format!("randomness of block {block}: {beacon}")))
            })
            .await
    }

    /// The stamped weights become the model's newest version, and a host takes a lease to serve them.
    async fn publish_and_lease(
        &mut self,
        licence: &Licence,
        set: &FingerprintSet,
        manifest: ManifestDigest,
        endpoint: &Url,
    ) -> anyhow::Result<Lease> {
        let Self { chain, journal, .. } = self;
        journal
            .step_async("publish", async |_| {
                let (root, drawn) = set.root().zip(set.set_root()).context("the set has no draw")?;
                licence::publish(chain, licence.model, manifest, root, drawn).await?;
                let manifest = format::short_hex(&manifest.to_string());
                Ok(((), format!("stamped weights {manifest} as version 2")))
            })
            .await?;
        journal
            .step_async("lease", async |_| {
                let lease = licence::lease(chain, licence, endpoint.to_string()).await?;
                let (slashable, bond) = (chain.token.show(lease.slashable), chain.token.show(lease.bond));
                Ok((lease, format!("{slashable} slashable, bond {bond}")))
            })
            .await
    }

    /// Puts both models up, each on a port of its own: the stamped one under its lease, the original as anybody would.
    async fn serve(&mut self, place: Place, models: (Model, Model), lease: &Lease) -> anyhow::Result<Servers> {
        let Self { chain, journal, folder, context } = self;
        journal
            .step_async("serve", async |_| {
                let stop = context.interrupt().child_token();
                let (stamped, base) = models;
                let url = place.url.clone();
                let api_key = host::serve(place, stamped, lease, (chain, folder), context, stop.clone()).await?;
                let base = asking::serve_base(base, context, stop.clone()).await?;
                let ports = (url.port().unwrap_or(0), base.port().unwrap_or(0));
                let outcome =
                    format!("port {}, metered under lease {}; the original on {}", ports.0, lease.lease, ports.1);
                Ok((Servers { stamped: url, api_key, base, stop }, outcome))
            })
            .await
    }

    /// Checks the proof offline, and tells the chain which fingerprints it made public.
    async fn verify_and_burn(&mut self) -> anyhow::Result<BundleRecord> {
        let Self { chain, journal, folder, .. } = self;
        let Verified { root, opened, record } = asking::verify(folder, journal)?;
        journal
            .step_async("burn", async |_| {
                licence::burn(chain, root, &opened).await?;
                Ok((record, format!("{} opened fingerprints, on the chain", opened.len())))
            })
            .await
    }

    /// A customer uses the host, and the host collects.
    async fn pay(
        &mut self,
        licence: &Licence,
        lease: &Lease,
        servers: &Servers,
        kind: EndpointKind,
    ) -> anyhow::Result<PaymentRecord> {
        let Self { chain, journal, folder, .. } = self;
        let mut customer = journal
            .step_async("use", async |step| {
                let mut customer = Customer::open(chain, lease).await?;
                customer.ask(&servers.stamped, kind, step).await?;
                let deposit = chain.token.show(customer.deposit);
                let outcome = format!("{} requests by a customer who deposited {deposit}", customer.requests());
                Ok((customer, outcome))
            })
            .await?;
        journal
            .step_async("claim", async |_| {
                let payment = customer.settle(chain, licence, folder).await?;
                let creator =
                    payment.shares.iter().find(|share| share.who == "creator").map_or(0.0, |share| share.part);
                let outcome = format!("{}, {} of it to the creator", payment.paid, format::percent(creator));
                Ok((payment, outcome))
            })
            .await
    }
}

async fn licence_record(chain: &Chain, licence: &Licence, draw: Draw, lease: &Lease) -> anyhow::Result<LicenceRecord> {
    let terms = &licence.terms;
    Ok(LicenceRecord {
        chain_id: chain.deployment().chain_id,
        blocks: chain.client().head().await?.number,
        transactions: chain.transactions,
        gas: chain.gas,
        model: licence.model,
        terms: licence.terms_id,
        royalty: terms.royalty.fraction(),
        validators: terms.validators.fraction(),
        committed_in: draw.committed,
        draw_block: draw.block,
        lease: lease.lease,
        staked: chain.token.show(lease.staked),
        slashable: chain.token.show(lease.slashable),
        bond: chain.token.show(lease.bond),
    })
}

fn files(folder: &Folder) -> FilesRecord {
    FilesRecord {
        folder: folder.path().to_owned(),
        page: folder.join(super::PAGE),
        text: folder.join(super::TEXT),
        stamped_model: folder.join(STAMPED),
        set: folder.join(SET),
        commitment: folder.join(COMMITMENT),
        bundle: folder.join(BUNDLE),
        vouchers: folder.join(VOUCHERS),
        deployment: folder.join(DEPLOYMENT),
        chain: folder.join(STATE),
        set_opens_with: format!("--identity {}", folder.join(IDENTITY).display()),
    }
}
