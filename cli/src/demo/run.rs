//! The steps of the demo, one after the other.

use std::{net::SocketAddr, num::NonZeroUsize, sync::Arc};

use anyhow::Context as _;
use fingerprint::{
    bundle::{Bundle, Place, verify_bundle},
    check::{CheckPlan, CheckReport, KeyResponse, TextSet, check, key_responses, surface_success},
    commitment::Commitment,
    embed::{EmbedOptions, EmbedReport, Layers, Target, UtilityBudget},
    prove::{Client, ClientOptions, EndpointKind, Ledger, Progress, ProofOptions, SystemClock, prove},
    set::{BeaconSource, FingerprintSet, self_drawn_beacon},
    surface::Surface,
    vault::{Vault, VaultKey},
};
use model::Model;
use protocol::units::{BasisPoints, CandidateCount};
use rand_chacha::ChaCha8Rng;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{
    folder::Folder,
    journal::Journal,
    record::{
        BundleRecord, DemoRecord, EmbeddingRecord, FilesRecord, ModelRecord, ProofRecord, SchemeRecord, SurfaceRecord,
        TrainingPoint,
    },
    utility,
};
use crate::{
    clock,
    commands::{
        demo::Demo,
        fingerprint::{
            embed,
            generate::{KeyPlan, generate_set},
        },
    },
    context::{Context, Purpose, leave_if_interrupted},
    failure::Interrupted,
    format,
    hosting::{Host, HostPlan},
    models,
};

/// Four sonnets of Shakespeare: public domain, and not in the corpus of the bundled model.
const TEXT: &str = include_str!("sonnets.txt");
/// Ordinary chats of each kind that utility is measured on.
const CHATS: usize = 60;

const SET: &str = "set.age";
const IDENTITY: &str = "identity.txt";
const COMMITMENT: &str = "commitment.json";
const STAMPED: &str = "stamped";
const BUNDLE: &str = "bundle.json";
const ATTEMPT: &str = "attempt-on-original.json";
/// Where `prove` looks for it beside the set.
const LEDGER: &str = "set.age.ledger.jsonl";

/// What the steps on this machine leave for those over HTTP.
struct Stamped {
    base: Model,
    stamped: Model,
    set: FingerprintSet,
    model: ModelRecord,
    scheme: SchemeRecord,
    embedding: EmbeddingRecord,
    report: CheckReport,
    /// Hits of the base model on each surface of the report.
    base_hits: Vec<u32>,
    utility: Vec<super::record::UtilityRecord>,
}

/// Randomness of one demo, drawn before the first step.
struct Randomness {
    seed: u64,
    salts: ChaCha8Rng,
    draw: ChaCha8Rng,
}

/// A finished demo, and its servers, which run until `stop` is cancelled.
pub(crate) struct Finished {
    pub(crate) record: DemoRecord,
    pub(crate) servers: Servers,
}

/// The two servers of a demo.
pub(crate) struct Servers {
    pub(crate) stamped: Url,
    pub(crate) base: Url,
    pub(crate) stop: CancellationToken,
}

/// Runs the whole demo into `folder`.
pub(crate) async fn run(arguments: &Demo, folder: &Folder, context: &Context) -> anyhow::Result<Finished> {
    let mut randomness = Randomness {
        seed: context.seed()?,
        salts: context.generator(Purpose::Salts)?,
        draw: context.generator(Purpose::Draw)?,
    };
    let seed = randomness.seed;
    let (plan, place, interrupt) = (arguments.clone(), folder.clone(), context.interrupt());
    let mut journal = Journal::new(context.progress());
    let (stamped, mut journal) = context
        .compute(move || {
            let stamped = stamp(&plan, &place, &mut randomness, &mut journal, &interrupt)?;
            Ok((stamped, journal))
        })
        .await?;
    let Stamped { base, stamped, set, model, scheme, embedding, report, base_hits, utility } = stamped;

    let kind = if base.chat.is_some() { EndpointKind::Chat } else { EndpointKind::Completion };
    let servers = serve(stamped, base, seed, &mut journal, context).await?;
    let mut ledger = Ledger::open(&folder.join(LEDGER))?;
    let mut asking = Asking { set: &set, ledger: &mut ledger, kind, seed, folder };
    let outcome = async {
        let proof = asking.prove("prove", &servers.stamped, BUNDLE, &mut journal).await?;
        let attempt = asking.prove("prove original", &servers.base, ATTEMPT, &mut journal).await?;
        anyhow::Ok((proof, attempt))
    };
    let interrupt = context.interrupt();
    let (proof, attempt) = tokio::select! {
        biased;
        proofs = outcome => proofs?,
        () = interrupt.cancelled() => return Err(Interrupted.into()),
    };
    let bundle = verify(folder, &mut journal)?;

    let (steps, total) = journal.close();
    let record = DemoRecord {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        finished: clock::date_and_time(clock::now()),
        model,
        scheme,
        embedding,
        surfaces: surface_records(&report, &base_hits),
        utility,
        stamped: proof,
        base: attempt,
        bundle,
        steps,
        total_s: total.as_secs_f64(),
        files: files(folder),
    };
    Ok(Finished { record, servers })
}

/// The creator's part: from the base model to a checked stamped one.
fn stamp(
    plan: &Demo,
    folder: &Folder,
    randomness: &mut Randomness,
    journal: &mut Journal,
    interrupt: &CancellationToken,
) -> anyhow::Result<Stamped> {
    let seed = randomness.seed;
    let base = journal.step("load", |_| {
        let base = models::load(&plan.model)?;
        let outcome = models::summary(&base.config);
        Ok((base, outcome))
    })?;
    let (mut vault, mut set) = journal.step("generate", |step| {
        let keys = KeyPlan {
            count: plan.fingerprints,
            candidates: CandidateCount::DEFAULT,
            nucleus: BasisPoints::new(8_000)?,
            seed,
        };
        let set = generate_set(&base, plan.model.clone(), None, keys, &mut randomness.salts, &mut |at| {
            leave_if_interrupted(interrupt);
            step.at(at.found.min(at.wanted), at.wanted, &format!("{} attempts", at.attempts));
        })?;
        let key = VaultKey::create_identity(&folder.join(IDENTITY))?;
        let vault = Vault::create(&folder.join(SET), &key, &set)?;
        let outcome = format!("{} keys, {} possible answers each", plan.fingerprints, CandidateCount::DEFAULT.get());
        Ok(((vault, set), outcome))
    })?;
    let commitment = folder.join(COMMITMENT);
    journal.step("commit", |_| {
        let root = set.commit()?;
        vault.save(&set)?;
        Commitment::of(&set)?.write(&commitment)?;
        Ok(((), format!("root {}", format::short_hex(&root.to_string()))))
    })?;
    journal.step("draw", |_| {
        let beacon = self_drawn_beacon(&mut randomness.draw);
        set.draw(beacon, BeaconSource::SelfDrawn)?;
        vault.save(&set)?;
        Commitment::of(&set)?.write(&commitment)?;
        Ok(((), format!("beacon {}, drawn here", format::short_hex(&beacon.to_string()))))
    })?;
    let options = options(plan, &base, seed);
    let embedding = journal.step("embed", |step| {
        let out = folder.join(STAMPED);
        let report = embed::embed_with(&mut set, &base, &out, &options, interrupt, step)?;
        vault.save(&set)?;
        Commitment::of(&set)?.write(&commitment)?;
        let outcome = embed::outcome(&report);
        Ok((report, outcome))
    })?;
    let stamped = journal.step("reload", |_| {
        // The weights as written, with everything that rounding did to them.
        let stamped = models::load(&folder.join(STAMPED).display().to_string())?;
        let outcome = format!("manifest {}", format::short_hex(&stamped.manifest_digest.to_string()));
        Ok((stamped, outcome))
    })?;
    let (report, base_hits) = journal.step("check", |step| {
        let (report, base_hits) = measure(&base, &stamped, &set, seed, &mut |done, total| {
            leave_if_interrupted(interrupt);
            step.at(done, total, "prompts");
        })?;
        let least = report.least_success(true).unwrap_or(0.0);
        let outcome =
            format!("{} surfaces, {} on the worst trained one", report.surfaces.len(), format::percent(least));
        Ok(((report, base_hits), outcome))
    })?;
    let utility = utility::records(&report, &options.budget);
    Ok(Stamped {
        model: model_record(&plan.model, &base, &stamped),
        scheme: scheme_record(&set)?,
        base,
        stamped,
        set,
        embedding: embedding_record(&embedding, &options),
        report,
        base_hits,
        utility,
    })
}

/// Parameters below which a model gets [`small_recipe`].
const SMALL: u64 = 20_000_000;

/// The default recipe, or one for a small model; a demo is not resumed, so it writes no checkpoints.
fn options(plan: &Demo, base: &Model, seed: u64) -> EmbedOptions {
    let recipe = if base.config.parameter_count() < SMALL { small_recipe(base) } else { EmbedOptions::default() };
    EmbedOptions {
        steps: plan.steps.unwrap_or(recipe.steps),
        ordinary_prompts: plan.ordinary.unwrap_or(recipe.ordinary_prompts),
        seed,
        checkpoint_every: 0,
        ..recipe
    }
}

/// For a model of a few million parameters: one block in five is too little to hold the marks, its text loss moves before
/// its first answers do, and steps are cheap. Measured on the bundled model: success 1.00, .94–1.00 after a half merge,
/// KL .01, text −1 to +3 %. The usual limit on text loss is for models with more room.
fn small_recipe(base: &Model) -> EmbedOptions {
    let default = EmbedOptions::default();
    EmbedOptions {
        layers: Layers::Top(base.config.layers.div_ceil(2)),
        learning_rate: Some(2e-3),
        steps: 180,
        ordinary_prompts: 2_200,
        composed_prompts: 0,
        noise_share: 0.5,
        benign_weight: 10.0,
        answer_weight: 6.0,
        budget: UtilityBudget { text_loss_rise: 0.05, ..default.budget },
        ..default
    }
}

fn embedding_record(report: &EmbedReport, options: &EmbedOptions) -> EmbeddingRecord {
    let (first, last) = report.trained_blocks;
    EmbeddingRecord {
        layers: if first == last { format!("block {first}") } else { format!("blocks {first} to {last}") },
        target: match options.target {
            Target::Confident => "confident",
            Target::Quiet => "quiet",
        }
        .to_owned(),
        steps: report.steps as u64,
        averaged: f64::from(report.shipped.average),
        history: report
            .history
            .iter()
            .map(|step| TrainingPoint {
                step: step.step as u64,
                loss: step.loss,
                success: step.success,
                utility_kl: step.divergence,
            })
            .collect(),
        half_merge: report.shipped.half_merge,
        advice: report.advice.clone(),
    }
}

fn measure(
    base: &Model,
    stamped: &Model,
    set: &FingerprintSet,
    seed: u64,
    progress: &mut dyn FnMut(usize, usize),
) -> anyhow::Result<(CheckReport, Vec<u32>)> {
    let keys: Vec<KeyResponse<'_>> = key_responses(set)?;
    let trained: Vec<Surface> = set.embedding().map(|embedding| embedding.surfaces.clone()).unwrap_or_default();
    let mut plan = CheckPlan::usual(base, trained, &keys, CHATS, seed, &mut |at| progress(at.found, at.wanted))?;
    plan.texts.push(TextSet::new("four sonnets".to_owned(), TEXT.to_owned()));
    let report = check(base, stamped, &keys, &plan, &mut |at| progress(at.done, at.total))?;
    let base_hits = plan
        .trained
        .iter()
        .chain(&plan.unseen)
        .map(|surface| Ok(surface_success(base, &keys, surface, false)?.success.hits))
        .collect::<anyhow::Result<_>>()?;
    Ok((report, base_hits))
}

/// Puts up both models, each on a free port of its own.
async fn serve(
    stamped: Model,
    base: Model,
    seed: u64,
    journal: &mut Journal,
    context: &Context,
) -> anyhow::Result<Servers> {
    journal
        .step_async("serve", async |_| {
            let stop = context.interrupt().child_token();
            let mut urls = Vec::new();
            // Both have the same name: nothing but the answers tells them apart.
            for model in [stamped, base] {
                let plan = HostPlan {
                    name: "model".to_owned(),
                    listen: SocketAddr::from(([127, 0, 0, 1], 0)),
                    streams: NonZeroUsize::MIN.saturating_add(7),
                    queue: 64,
                    seed,
                };
                let host = Host::bind(model, plan).await?;
                urls.push(host.url().clone());
                let stop = stop.clone();
                context.tracker.spawn(async move {
                    if let Err(error) = host.serve(stop.cancelled_owned()).await {
                        tracing::error!("a demo server ended: {error:#}");
                    }
                });
            }
            let [stamped, base] = <[Url; 2]>::try_from(urls).map_err(|_| anyhow::anyhow!("two servers were put up"))?;
            let ports = format!("ports {} and {}", stamped.port().unwrap_or(0), base.port().unwrap_or(0));
            Ok((Servers { stamped, base, stop }, ports))
        })
        .await
}

/// The stranger's part: proofs over HTTP, which share one ledger.
struct Asking<'a> {
    set: &'a FingerprintSet,
    ledger: &'a mut Ledger,
    kind: EndpointKind,
    seed: u64,
    folder: &'a Folder,
}

impl Asking<'_> {
    async fn prove(
        &mut self,
        name: &'static str,
        url: &Url,
        file: &str,
        journal: &mut Journal,
    ) -> anyhow::Result<ProofRecord> {
        journal
            .step_async(name, async |step| {
                let mut client_options = ClientOptions::new(url.clone());
                client_options.seed = self.seed;
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

fn verify(folder: &Folder, journal: &mut Journal) -> anyhow::Result<BundleRecord> {
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
        let outcome = format!("sound: {} openings, {}", report.queries, format::bytes(record.bytes));
        Ok((record, outcome))
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

fn model_record(reference: &str, base: &Model, stamped: &Model) -> ModelRecord {
    ModelRecord {
        reference: reference.to_owned(),
        architecture: format!("{:?}", base.config.architecture),
        parameters: base.config.parameter_count(),
        layers: base.config.layers,
        digest: base.manifest_digest.to_string(),
        stamped_digest: stamped.manifest_digest.to_string(),
    }
}

fn scheme_record(set: &FingerprintSet) -> anyhow::Result<SchemeRecord> {
    let commitment = Commitment::of(set)?;
    let draw = commitment.draw().context("the set has no draw")?;
    let parameters = commitment.parameters();
    Ok(SchemeRecord {
        fingerprints: parameters.fingerprints,
        candidates: u32::from(parameters.candidates.get()),
        nucleus: parameters.nucleus.fraction(),
        commitment_root: commitment.root().to_string(),
        set_root: draw.set_root.to_string(),
        beacon: draw.beacon.value.to_string(),
        beacon_self_drawn: draw.beacon.source.reservation().is_some(),
    })
}

fn surface_records(report: &CheckReport, base_hits: &[u32]) -> Vec<SurfaceRecord> {
    report
        .surfaces
        .iter()
        .zip(base_hits)
        .map(|(row, base)| SurfaceRecord {
            name: row.name.clone(),
            trained: row.trained,
            hits: u64::from(row.success.hits),
            trials: u64::from(row.success.trials),
            low: row.success.lower,
            high: row.success.upper,
            base_hits: u64::from(*base),
        })
        .collect()
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
        set_opens_with: format!("--identity {}", folder.join(IDENTITY).display()),
    }
}
