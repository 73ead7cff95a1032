//! The licence on the chain: what the creator publishes, and what the host stakes and leases.

use alloy::primitives::{B256, U256};
use anyhow::Context as _;
use licensing_contracts::{
    actions::{leases, operators, registry},
    bindings::AuditServiceManager,
};
use protocol::{
    ids::{Beacon, CommitmentRoot, LeafIndex, LeaseId, ManifestDigest, ModelId, SetRoot, TermsId, TermsVersion},
    messages::LicenseTerms,
    money::Prices,
    splits::{Split, Splits},
    units::{Amount, BasisPoints, PricePerMillion, Seconds, StakeWeight},
};

use crate::commands::chain::terms::Rendering;

use super::chain::{CONTRIBUTOR, CREATOR, Chain, HOST, LEASE_KEY};

/// Of every claim, to the creator.
const ROYALTY_BP: u16 = 1_000;
/// Of the royalty, to the contributor.
pub(super) const CONTRIBUTOR_BP: u16 = 2_500;
/// Of every claim, to the validators.
const VALIDATORS_BP: u16 = 100;
/// How much of its stake the host makes slashable.
const ALLOCATED_BP: u16 = 5_000;
const DAY_S: u64 = 86_400;

/// A model with its terms.
#[derive(Debug, Clone)]
pub(super) struct Licence {
    pub(super) model: ModelId,
    pub(super) terms_id: TermsId,
    pub(super) terms: LicenseTerms,
    pub(super) splits: Splits,
}

/// The blocks of a draw.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draw {
    /// Holds the promise.
    pub(super) committed: u64,
    /// Its randomness drew.
    pub(super) block: u64,
}

/// A host's right to serve, and what it can lose.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    pub(super) lease: LeaseId,
    pub(super) prices: Prices,
    pub(super) bond: Amount,
    pub(super) staked: Amount,
    /// As EigenLayer says, in the smallest unit of the staked token.
    pub(super) slashable: Amount,
}

/// Registers the model as it is before stamping, and publishes the terms under which it can be leased.
pub(super) async fn register(
    chain: &mut Chain,
    manifest: ManifestDigest,
    rendering: Rendering,
) -> anyhow::Result<Licence> {
    let to = chain.deployment().clone();
    let receipt = chain.send(&CREATOR, &registry::register(&to, manifest, &[], "")).await?;
    let model = registry::registered(&to, &receipt).context("the registry gave the model no number")?;
    let splits = Splits::new(vec![Split { recipient: CONTRIBUTOR.address, share: BasisPoints::new(CONTRIBUTOR_BP)? }])?;
    let now = chain.now().await?;
    let terms = LicenseTerms {
        model,
        version: TermsVersion::new(1),
        payment_token: chain.token.address,
        royalty: BasisPoints::new(ROYALTY_BP)?,
        floors: prices(chain, ["0", "0.02", "0.005", "0.06"])?,
        validators: BasisPoints::new(VALIDATORS_BP)?,
        splits: splits.root(),
        min_bond: chain.token.amount("50")?,
        min_restake: StakeWeight::new(chain.token.amount("500")?.get()),
        valid_from: now,
        valid_to: now.checked_add(Seconds::new(30 * DAY_S)).context("the chain's clock is at its end")?,
        dispute_window: Seconds::new(DAY_S),
        tokenizer: rendering.tokenizer,
        template: rendering.template,
        legal_text: B256::ZERO.into(),
    };
    let receipt = chain.send(&CREATOR, &registry::publish_terms(&to, &terms, &splits)?).await?;
    let terms_id = registry::published(&to, &receipt).context("the registry gave the terms no number")?;
    Ok(Licence { model, terms_id, terms, splits })
}

/// Commits to the fingerprints. Returns the block that holds the promise.
pub(super) async fn commit(
    chain: &mut Chain,
    model: ModelId,
    root: CommitmentRoot,
    fingerprints: u32,
) -> anyhow::Result<u64> {
    let action = registry::commit_fingerprints(chain.deployment(), model, root, fingerprints);
    let receipt = chain.send(&CREATOR, &action).await?;
    receipt.block_number.context("the commitment is in no block")
}

/// Has the chain draw: with the randomness of a block that was not there yet when the root was committed.
pub(super) async fn draw(chain: &mut Chain, root: CommitmentRoot) -> anyhow::Result<(u64, Beacon)> {
    let to = chain.deployment().clone();
    let known =
        registry::commitment(&chain.client(), &to, root).await?.context("the commitment is not on the chain")?;
    // A contract sees the hashes of blocks before its own only.
    chain.mine_beyond(known.draw_block).await?;
    let header = registry::header(&chain.client(), known.draw_block).await?.context("the draw block is not there")?;
    chain.send(&CREATOR, &registry::record_beacon(&to, root, header)).await?;
    let drawn = registry::commitment(&chain.client(), &to, root).await?.and_then(|known| known.beacon);
    Ok((known.draw_block, drawn.context("the chain recorded no randomness")?))
}

/// Publishes the stamped weights as the model's next version, and the root of the drawn set.
pub(super) async fn publish(
    chain: &mut Chain,
    model: ModelId,
    stamped: ManifestDigest,
    root: CommitmentRoot,
    set: SetRoot,
) -> anyhow::Result<()> {
    let to = chain.deployment().clone();
    chain.send(&CREATOR, &registry::publish_manifest(&to, model, stamped, "")).await?;
    chain.send(&CREATOR, &registry::publish_set(&to, root, set)).await?;
    Ok(())
}

/// Marks the fingerprints of a proof as public.
pub(super) async fn burn(chain: &mut Chain, root: CommitmentRoot, leaves: &[LeafIndex]) -> anyhow::Result<()> {
    let action = registry::burn_opened(chain.deployment(), root, leaves);
    chain.send(&CREATOR, &action).await.map(drop)
}

/// The host restakes through EigenLayer, makes half of it slashable, deposits a bond and takes a lease.
pub(super) async fn lease(chain: &mut Chain, licence: &Licence, endpoint: String) -> anyhow::Result<Lease> {
    let to = chain.deployment().clone();
    let staked = chain.token.amount("1000")?;
    chain.send(&HOST, &operators::register_as_operator(&to, "")).await?;
    chain.allow(&HOST, to.eigenlayer.strategy_manager, staked).await?;
    let strategy = to.eigenlayer.strategies.first().copied().context("the deployment has no strategy")?;
    let deposit = operators::deposit_stake(&to, strategy, chain.token.address, U256::from(staked.get()));
    chain.send(&HOST, &deposit).await?;
    // EigenLayer lets a new operator allocate when its allocation delay is settled, some blocks after it registered.
    chain.wait_s(1).await?;
    let share = BasisPoints::new(ALLOCATED_BP)?;
    chain.send(&HOST, &operators::allocate(&to, HOST.address, operators::AuditSet::Hosts, share)).await?;
    chain.send(&HOST, &operators::join_hosts(&to, HOST.address)).await?;
    let stake = AuditServiceManager::hostStakeCall { operator: HOST.address };
    let slashable = chain.client().call(to.audit_service_manager, &stake).await?;

    let bond = chain.token.amount("100")?;
    let prices = prices(chain, ["10000", "0.2", "0.05", "0.6"])?;
    chain.allow(&HOST, to.lease_manager, bond).await?;
    let request = leases::LeaseRequest {
        terms: licence.terms_id,
        lease_key: LEASE_KEY.address,
        variants: None,
        endpoint,
        prices,
        to: chain.now().await?.checked_add(Seconds::new(DAY_S)).context("the chain's clock is at its end")?,
        bond,
    };
    let receipt = chain.send(&HOST, &leases::open(&to, &request)).await?;
    let lease = leases::opened(&to, &receipt).context("the lease got no number")?;
    Ok(Lease { lease, prices, bond, staked, slashable: Amount::new(slashable.saturating_to()) })
}

/// Tokens for a million requests, prompt tokens, cached prompt tokens and completion tokens.
fn prices(chain: &Chain, [request, prompt, cached, completion]: [&str; 4]) -> anyhow::Result<Prices> {
    let price = |text: &str| anyhow::Ok(PricePerMillion::new(chain.token.amount(text)?.get()));
    Ok(Prices {
        request: price(request)?,
        prompt: price(prompt)?,
        cached: price(cached)?,
        completion: price(completion)?,
    })
}
