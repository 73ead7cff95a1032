//! `hallmark devnet`

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::{Args, builder::FalseyValueParser};
use licensing_contracts::{
    bindings::PaymentEscrow,
    deploy::ProtocolSetup,
    deployment::{Deployment, DeploymentError},
    devchain::Config,
    devnet::{
        ACCOUNTS, Devnet,
        market::{Market, Offered},
    },
    eigenlayer::core::CoreBytecode,
};
use serde_json::json;

use super::chain::terms::Rendering;
use crate::{context::Context, failure::Advise as _, folders, format, models, output, progress};

/// What is leased on a chain that is not bare.
const BUNDLED: &str = "bundled";

/// Run a local chain with everything on it
///
/// An Ethereum chain inside this process, with EigenLayer's released core, Hallmark's contracts, a test token, accounts whose
/// keys everybody knows, and the bundled model, registered and leased. A block is mined for each transaction. Its bytecode of EigenLayer is fetched once, through
/// cargo; from then on everything is offline.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hallmark devnet
  hallmark devnet --port 8546 --deployment local.json --state local.chain")]
pub(crate) struct DevnetArguments {
    /// Port of the JSON-RPC server on this machine; 0 takes a free one
    #[arg(long, env = "HALLMARK_DEVNET_PORT", value_name = "PORT", default_value_t = 8545)]
    port: u16,

    /// Where the addresses of the contracts are written
    #[arg(long, env = "HALLMARK_DEPLOYMENT", value_name = "FILE", default_value = "deployment.json")]
    deployment: PathBuf,

    /// Go on with the chain in this file, if it is there, and write it when the command ends
    #[arg(long, env = "HALLMARK_DEVNET_STATE", value_name = "FILE")]
    state: Option<PathBuf>,

    /// EigenLayer's bytecode, as another machine has it in its cache [default: fetched once, through cargo]
    #[arg(long, env = "HALLMARK_EIGENLAYER_CORE", value_name = "FILE")]
    eigenlayer_core: Option<PathBuf>,

    /// Only the contracts: without a model that is registered and leased, which a host could serve at once
    #[arg(long, env = "HALLMARK_DEVNET_BARE", value_parser = FalseyValueParser::new())]
    bare: bool,

    /// Number of the chain
    #[arg(long, env = "HALLMARK_CHAIN_ID", value_name = "NUMBER", default_value_t = 31_337)]
    chain_id: u64,
}

pub(crate) async fn run(arguments: DevnetArguments, context: &Context) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    // An empty block now and then keeps `latest` beside the clock while nobody sends anything.
    let config =
        Config { chain_id: arguments.chain_id, idle_block_after: Some(Duration::from_secs(2)), ..Config::default() };
    let mut market = None;
    let (devnet, is_new) = match arguments.state.as_deref().filter(|state| state.exists()) {
        Some(state) => (resume(config, state, &arguments.deployment).await?, false),
        None => {
            require_own(&arguments.deployment, arguments.chain_id)?;
            let core = core_bytecode(arguments.eigenlayer_core.clone(), context).await?;
            let devnet = Devnet::start(config, &core, &ProtocolSetup::development()).await?;
            if !arguments.bare {
                market = Some(open_market(&devnet, context).await?);
            }
            (devnet, true)
        }
    };
    let stop = context.interrupt();
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.port));
    let server = devnet
        .chain()
        .serve(listen, &stop)
        .await
        .with_context(|| format!("failed to listen on {listen}"))
        .advise("choose another --port; 0 takes a free one")?;
    // Not before: a chain that already has the port keeps its file, and whoever waits for the file finds the chain.
    if is_new {
        devnet.deployment().write(&arguments.deployment)?;
    }
    let told = Told { url: server.url(), file: &arguments.deployment, took: began.elapsed(), market };
    report(context, &devnet, &told)?;
    progress::say("press Ctrl-C to stop");
    server.stopped().await;
    if let Some(state) = &arguments.state {
        devnet.chain().save(state)?;
        progress::say(&format!("the chain is in {}", state.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// A deployment file of another chain is somebody's only note of where its contracts are.
fn require_own(file: &Path, chain_id: u64) -> anyhow::Result<()> {
    match Deployment::read(file) {
        Ok(other) if other.chain_id != chain_id => {
            Err(anyhow::anyhow!("{} is the deployment of chain {}", file.display(), other.chain_id))
                .advise("write this chain's to another file, with --deployment")
        }
        Err(error @ DeploymentError::Form { .. }) => {
            Err(error).advise("move it away, or write the deployment to another file, with --deployment")
        }
        // Absent, or of a development chain before this one. That it cannot be written is found when it is.
        Ok(_) | Err(DeploymentError::Io { .. }) => Ok(()),
    }
}

async fn resume(config: Config, state: &Path, deployment: &Path) -> anyhow::Result<Devnet> {
    const ADVICE: &str =
        "name the deployment file that was written with this chain, or start a new chain without --state";
    let contracts = Deployment::read(deployment).advise(ADVICE)?;
    let chain_id = config.chain_id;
    let devnet = Devnet::resume(config, state, contracts)?;
    let to = devnet.deployment();
    let is_theirs = to.chain_id == chain_id && {
        let call = PaymentEscrow::USAGECall {};
        devnet.client().call(to.payment_escrow, &call).await.is_ok_and(|usage| usage == to.usage_log)
    };
    if is_theirs {
        return Ok(devnet);
    }
    let wrong = format!("the contracts of {} are not on the chain in {}", deployment.display(), state.display());
    Err(anyhow::anyhow!(wrong)).advise(ADVICE)
}

/// EigenLayer's bytecode: from a file that is named, from the cache, or through cargo.
pub(crate) async fn core_bytecode(file: Option<PathBuf>, context: &Context) -> anyhow::Result<CoreBytecode> {
    let cache = folders::cache()?;
    context
        .compute(move || {
            let core = match file {
                Some(file) => CoreBytecode::read(&file),
                None => CoreBytecode::load(&cache, &folders::cargo()),
            };
            core.advise("a copy is named with --eigenlayer-core")
        })
        .await
}

/// Registers and leases the bundled model, so that a host can serve it.
async fn open_market(devnet: &Devnet, context: &Context) -> anyhow::Result<Market> {
    let model = context.compute(|| models::load(BUNDLED)).await?;
    let Rendering { tokenizer, template } = Rendering::of(&model);
    Ok(devnet.open_market(&Offered { manifest: model.manifest_digest, tokenizer, template }).await?)
}

/// What is told of a chain that runs.
struct Told<'a> {
    url: String,
    file: &'a Path,
    took: Duration,
    market: Option<Market>,
}

fn report(context: &Context, devnet: &Devnet, told: &Told<'_>) -> anyhow::Result<()> {
    let Told { url, file, took, market } = told;
    let deployment = devnet.deployment();
    let mut rows = vec![
        ("RPC", url.clone()),
        ("ready in", format::duration(*took)),
        ("chain", deployment.chain_id.to_string()),
        ("deployment", file.display().to_string()),
        ("ModelRegistry", deployment.model_registry.to_string()),
        ("LeaseManager", deployment.lease_manager.to_string()),
        ("PaymentEscrow", deployment.payment_escrow.to_string()),
        ("UsageLog", deployment.usage_log.to_string()),
        ("AuditServiceManager", deployment.audit_service_manager.to_string()),
        ("EvidenceCourt", deployment.evidence_court.to_string()),
    ];
    if let Some(token) = deployment.test_token {
        rows.push(("test token", token.to_string()));
    }
    if let Some(Market { model, terms, lease, .. }) = market {
        rows.push(("bundled model", model.to_string()));
        rows.push(("its terms", terms.to_string()));
        rows.push(("its lease", format!("{lease}, of the host; `hallmark host --example` prints how to serve it")));
    }
    let mut words = output::rows(&rows);
    words.push_str(
        "\nAccounts, each with 10,000 coins and 1,000,000 test tokens. Their keys are public: for this chain only.\n",
    );
    for account in ACCOUNTS {
        words.push_str(&format!("  {:<11} {}  {}\n", account.role, account.address, account.key));
    }
    let accounts: Vec<_> = ACCOUNTS
        .iter()
        .map(|account| json!({ "role": account.role, "address": account.address, "private_key": account.key }))
        .collect();
    let ready_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let market = market
        .as_ref()
        .map(|market| json!({ "model_id": market.model, "terms_id": market.terms, "lease": market.lease }));
    let object = json!({
        "rpc": url,
        "ready_ms": ready_ms,
        "deployment": deployment,
        "file": file,
        "accounts": accounts,
        "market": market,
    });
    context.output.finish(&words, &object)
}
