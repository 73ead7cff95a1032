//! What a creator publishes and what a host leases.

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_sol_types::SolValue as _;
use serde::{Deserialize, Serialize};

use super::{Domain, LeaseManager, MessageError, ModelRegistry, number_of, wire, word_or_zero, zero_is_none};
use crate::{
    ids::{
        LeaseDigest, LeaseId, LegalTextDigest, ManifestDigest, ModelId, SplitRoot, TemplateDigest, TermsId,
        TermsVersion, TokenizerDigest,
    },
    money::{MoneyError, Prices, Shares},
    units::{Amount, BasisPoints, PricePerMillion, Seconds, StakeWeight, UnixSeconds},
};

/// One version of a model's licence. Its digest is the [`TermsId`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "wire::LicenseTerms", into = "wire::LicenseTerms")]
pub struct LicenseTerms {
    /// The model.
    pub model: ModelId,
    /// The version, from 1.
    pub version: TermsVersion,
    /// What is paid in.
    pub payment_token: Address,
    /// Royalty, as a share of what a claim pays.
    pub royalty: BasisPoints,
    /// The least royalty, per million.
    pub floors: Prices,
    /// Validators' share of what a claim pays.
    pub validators: BasisPoints,
    /// Who shares the royalty with the creator.
    pub splits: Option<SplitRoot>,
    /// The least bond of a lease.
    pub min_bond: Amount,
    /// The least restaked allocation of a host.
    pub min_restake: StakeWeight,
    /// From when leases can be opened.
    pub valid_from: UnixSeconds,
    /// When the last lease ends.
    pub valid_to: UnixSeconds,
    /// How long reported usage may stay unpaid.
    pub dispute_window: Seconds,
    /// What counts tokens.
    pub tokenizer: TokenizerDigest,
    /// What makes a prompt of messages.
    pub template: TemplateDigest,
    /// The text for lawyers.
    pub legal_text: LegalTextDigest,
}

impl LicenseTerms {
    /// Who is paid how much of a claim; checks the rules that `ModelRegistry` checks of it.
    pub fn shares(&self) -> Result<Shares, MoneyError> {
        Shares::new(self.royalty, self.validators, self.floors)
    }
}

/// A host's lease as it was opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "wire::Lease", into = "wire::Lease")]
pub struct Lease {
    /// The lease.
    pub lease: LeaseId,
    /// The version of the terms.
    pub terms: TermsId,
    /// Who serves.
    pub host: Address,
    /// Whose key signs statements.
    pub lease_key: Address,
    /// Commitment to the host's own copies of the weights; none: the shared copy.
    pub variants: Option<B256>,
    /// Where it serves.
    pub endpoint: String,
    /// What it charges, per million.
    pub prices: Prices,
    /// From when.
    pub from: UnixSeconds,
    /// Until when.
    pub to: UnixSeconds,
}

/// The number that `ModelRegistry` gives a model when `creator` registers the manifest.
pub fn model_id(registry: &Domain<ModelRegistry>, creator: Address, manifest: ManifestDigest) -> ModelId {
    let chain = U256::from(registry.chain().get());
    keccak256((chain, registry.verifying_contract(), creator, manifest.word()).abi_encode()).into()
}

impl From<&LicenseTerms> for wire::LicenseTerms {
    fn from(terms: &LicenseTerms) -> Self {
        Self {
            modelId: number_of(terms.model.word()),
            version: terms.version.get(),
            paymentToken: terms.payment_token,
            royaltyBps: terms.royalty.get(),
            floorRequest: terms.floors.request.get(),
            floorPrompt: terms.floors.prompt.get(),
            floorCached: terms.floors.cached.get(),
            floorCompletion: terms.floors.completion.get(),
            validatorBps: terms.validators.get(),
            splitRoot: word_or_zero(terms.splits),
            minBond: terms.min_bond.get(),
            minRestake: terms.min_restake.get(),
            validFrom: terms.valid_from.get(),
            validTo: terms.valid_to.get(),
            disputeWindow: terms.dispute_window.get(),
            tokenizerDigest: terms.tokenizer.word(),
            templateDigest: terms.template.word(),
            legalTextDigest: terms.legal_text.word(),
        }
    }
}

impl TryFrom<wire::LicenseTerms> for LicenseTerms {
    type Error = MessageError;

    fn try_from(terms: wire::LicenseTerms) -> Result<Self, MessageError> {
        Ok(Self {
            model: B256::from(terms.modelId).into(),
            version: TermsVersion::new(terms.version),
            payment_token: terms.paymentToken,
            royalty: BasisPoints::new(terms.royaltyBps)?,
            floors: Prices {
                request: PricePerMillion::new(terms.floorRequest),
                prompt: PricePerMillion::new(terms.floorPrompt),
                cached: PricePerMillion::new(terms.floorCached),
                completion: PricePerMillion::new(terms.floorCompletion),
            },
            validators: BasisPoints::new(terms.validatorBps)?,
            splits: zero_is_none(terms.splitRoot),
            min_bond: Amount::new(terms.minBond),
            min_restake: StakeWeight::new(terms.minRestake),
            valid_from: UnixSeconds::new(terms.validFrom),
            valid_to: UnixSeconds::new(terms.validTo),
            dispute_window: Seconds::new(terms.disputeWindow),
            tokenizer: terms.tokenizerDigest.into(),
            template: terms.templateDigest.into(),
            legal_text: terms.legalTextDigest.into(),
        })
    }
}

impl From<&Lease> for wire::Lease {
    fn from(lease: &Lease) -> Self {
        Self {
            leaseId: lease.lease.get(),
            termsId: lease.terms.word(),
            host: lease.host,
            leaseKey: lease.lease_key,
            variantRoot: word_or_zero(lease.variants),
            endpoint: lease.endpoint.clone(),
            priceRequest: lease.prices.request.get(),
            pricePrompt: lease.prices.prompt.get(),
            priceCached: lease.prices.cached.get(),
            priceCompletion: lease.prices.completion.get(),
            from: lease.from.get(),
            to: lease.to.get(),
        }
    }
}

impl TryFrom<wire::Lease> for Lease {
    type Error = MessageError;

    fn try_from(lease: wire::Lease) -> Result<Self, MessageError> {
        Ok(Self {
            lease: LeaseId::new(lease.leaseId),
            terms: lease.termsId.into(),
            host: lease.host,
            lease_key: lease.leaseKey,
            variants: zero_is_none(lease.variantRoot),
            endpoint: lease.endpoint,
            prices: Prices {
                request: PricePerMillion::new(lease.priceRequest),
                prompt: PricePerMillion::new(lease.pricePrompt),
                cached: PricePerMillion::new(lease.priceCached),
                completion: PricePerMillion::new(lease.priceCompletion),
            },
            from: UnixSeconds::new(lease.from),
            to: UnixSeconds::new(lease.to),
        })
    }
}

super::typed! {
    LicenseTerms, ModelRegistry, TermsId;
    Lease, LeaseManager, LeaseDigest;
}
