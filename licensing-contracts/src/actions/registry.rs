//! Models, terms and fingerprint commitments.

use alloy::{
    consensus::Header,
    eips::BlockNumberOrTag,
    primitives::{B256, Bytes, U256, keccak256},
    providers::Provider,
    rpc::types::{Filter, TransactionReceipt},
    sol_types::{SolCall as _, SolEvent as _},
    transports::TransportErrorKind,
};
use protocol::{
    ids::{Beacon, CommitmentRoot, LeafIndex, ManifestDigest, ModelId, SetRoot, TermsId},
    messages::{LicenseTerms, wire},
    splits::{Split, Splits},
    units::BasisPoints,
};

use super::event;
use crate::{
    bindings::{ModelRegistry, registry, same},
    client::{Action, ChainClient, ChainError},
    deployment::Deployment,
};

/// Blocks whose events are asked for at once; nodes have limits.
const EVENT_BLOCKS: u64 = 9_999;

/// Registers a model to the sender.
pub fn register(to: &Deployment, manifest: ManifestDigest, parents: &[ModelId], uri: &str) -> Action {
    let parents = parents.iter().map(|parent| number(*parent)).collect();
    let call = ModelRegistry::registerCall { manifestDigest: manifest.word(), parents, uri: uri.to_owned() };
    Action::call("registration of the model", to.model_registry, &call)
}

/// The model that a receipt of [`register`] made.
pub fn registered(to: &Deployment, receipt: &TransactionReceipt) -> Option<ModelId> {
    event::<ModelRegistry::ModelRegistered>(receipt, to.model_registry).map(|made| B256::from(made.modelId).into())
}

/// Publishes newer weights of the sender's model.
pub fn publish_manifest(to: &Deployment, model: ModelId, manifest: ManifestDigest, uri: &str) -> Action {
    let call = ModelRegistry::publishManifestCall {
        modelId: number(model),
        manifestDigest: manifest.word(),
        uri: uri.to_owned(),
    };
    Action::call("publication of a manifest", to.model_registry, &call)
}

/// Publishes a version of a licence, with the recipients that its `splits` are the root of.
pub fn publish_terms(
    to: &Deployment,
    terms: &LicenseTerms,
    splits: &Splits,
) -> Result<Action, alloy::sol_types::Error> {
    let call = ModelRegistry::publishTermsCall {
        newTerms: same(&wire::LicenseTerms::from(terms))?,
        splits: splits
            .iter()
            .map(|split| registry::ModelRegistry::Split { recipient: split.recipient, bps: split.share.get() })
            .collect(),
    };
    Ok(Action::call("publication of the terms", to.model_registry, &call))
}

/// The terms that a receipt of [`publish_terms`] made.
pub fn published(to: &Deployment, receipt: &TransactionReceipt) -> Option<TermsId> {
    event::<ModelRegistry::TermsPublished>(receipt, to.model_registry).map(|made| made.termsId.into())
}

/// Reads published terms.
pub async fn terms(chain: &ChainClient, to: &Deployment, terms: TermsId) -> Result<LicenseTerms, ChainError> {
    let call = ModelRegistry::termsCall { termsId: terms.word() };
    let found = chain.call(to.model_registry, &call).await?;
    let mirrored: Option<wire::LicenseTerms> = same(&found).ok();
    mirrored
        .and_then(|terms| LicenseTerms::try_from(terms).ok())
        .ok_or(ChainError::Answer { call: ModelRegistry::termsCall::SIGNATURE, contract: to.model_registry })
}

/// Who shares the royalty under published terms, as the event of their publication says. `None` if the node shows no such event:
/// some forget old ones.
pub async fn splits(chain: &ChainClient, to: &Deployment, id: TermsId) -> Result<Option<Splits>, ChainError> {
    let Some(root) = terms(chain, to, id).await?.splits else { return Ok(Some(Splits::default())) };
    let event = Filter::new().address(to.model_registry).event_signature(ModelRegistry::TermsPublished::SIGNATURE_HASH);
    let event = event.topic2(id.word());
    let head = chain.head().await?.number;
    let mut from = to.block;
    while from <= head {
        let until = from.saturating_add(EVENT_BLOCKS).min(head);
        let logs = chain.provider().get_logs(&event.clone().from_block(from).to_block(until)).await;
        let logs = logs.map_err(|source| ChainError::Rpc { attempted: "read the terms' event".to_owned(), source })?;
        let published = logs.iter().filter_map(|log| ModelRegistry::TermsPublished::decode_log_data(log.data()).ok());
        let found = published.filter_map(|published| {
            let splits = published.splits.iter();
            let split = |split: &registry::ModelRegistry::Split| {
                Some(Split { recipient: split.recipient, share: BasisPoints::new(split.bps).ok()? })
            };
            Splits::new(splits.map(split).collect::<Option<_>>()?).ok()
        });
        // What a node says is believed if it has the root that is in the contract.
        if let Some(splits) = found.into_iter().find(|splits| splits.root() == Some(root)) {
            return Ok(Some(splits));
        }
        from = until.saturating_add(1);
    }
    Ok(None)
}

/// Stops new leases under terms.
pub fn close_terms(to: &Deployment, terms: TermsId) -> Action {
    Action::call("closing of the terms", to.model_registry, &ModelRegistry::closeTermsCall { termsId: terms.word() })
}

/// Commits to fingerprints.
pub fn commit_fingerprints(to: &Deployment, model: ModelId, root: CommitmentRoot, fingerprints: u32) -> Action {
    let call = ModelRegistry::commitFingerprintsCall { modelId: number(model), root: root.word(), fingerprints };
    Action::call("commitment to the fingerprints", to.model_registry, &call)
}

/// Records the randomness of the block that draws, whose RLP-encoded header is given.
pub fn record_beacon(to: &Deployment, root: CommitmentRoot, header: Bytes) -> Action {
    let call = ModelRegistry::recordBeaconCall { root: root.word(), header };
    Action::call("recording of the draw block", to.model_registry, &call)
}

/// Publishes the root of the drawn set.
pub fn publish_set(to: &Deployment, root: CommitmentRoot, set: SetRoot) -> Action {
    let call = ModelRegistry::publishSetCall { root: root.word(), setRoot: set.word() };
    Action::call("publication of the drawn set", to.model_registry, &call)
}

/// Marks fingerprints as opened.
pub fn burn_opened(to: &Deployment, root: CommitmentRoot, leaves: &[LeafIndex]) -> Action {
    let leaves = leaves.iter().map(|leaf| leaf.get()).collect();
    let call = ModelRegistry::burnOpenedCall { root: root.word(), leaves };
    Action::call("burning of opened fingerprints", to.model_registry, &call)
}

/// What the chain knows of a commitment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnChainCommitment {
    /// Its model.
    pub model: ModelId,
    /// The block that draws.
    pub draw_block: u64,
    /// Fingerprints.
    pub fingerprints: u32,
    /// The draw block's randomness, once it is recorded.
    pub beacon: Option<Beacon>,
    /// Root of the drawn set, once it is published.
    pub set: Option<SetRoot>,
}

/// Reads a commitment, or `None` if this root was never committed.
pub async fn commitment(
    chain: &ChainClient,
    to: &Deployment,
    root: CommitmentRoot,
) -> Result<Option<OnChainCommitment>, ChainError> {
    let found = chain.call(to.model_registry, &ModelRegistry::commitmentCall { root: root.word() }).await?;
    Ok((found.drawBlock != 0).then(|| OnChainCommitment {
        model: B256::from(found.modelId).into(),
        draw_block: found.drawBlock,
        fingerprints: found.fingerprints,
        beacon: (!found.beacon.is_zero()).then(|| found.beacon.into()),
        set: (!found.setRoot.is_zero()).then(|| found.setRoot.into()),
    }))
}

/// The RLP-encoded header of a block, or `None` if the chain is not that long. A header that does not have the block's hash
/// when it is encoded, as on chains whose headers have other fields, is an error: the registry would refuse it.
pub async fn header(chain: &ChainClient, block: u64) -> Result<Option<Bytes>, ChainError> {
    let found = chain.provider().get_block_by_number(BlockNumberOrTag::Number(block)).await;
    let found = found.map_err(|source| ChainError::Rpc { attempted: format!("read block {block}"), source })?;
    let Some(found) = found else { return Ok(None) };
    let header: &Header = &found.header.inner;
    let encoded = alloy::rlp::encode(header);
    if keccak256(&encoded) != found.header.hash {
        let reason =
            format!("the header of block {block} is not encoded as Ethereum's: this chain cannot draw fingerprints");
        let source = TransportErrorKind::custom_str(&reason);
        return Err(ChainError::Rpc { attempted: format!("encode the header of block {block}"), source });
    }
    Ok(Some(encoded.into()))
}

/// A model's number as Solidity has it.
pub fn number(model: ModelId) -> U256 {
    U256::from_be_bytes(*model.as_bytes())
}
