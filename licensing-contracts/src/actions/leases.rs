//! Leases and their bonds.

use alloy::{
    primitives::{Address, B256},
    rpc::types::TransactionReceipt,
};
use protocol::{
    ids::{LeaseId, ModelId, TermsId},
    messages::wire,
    money::Prices,
    units::{Amount, PricePerMillion, UnixSeconds},
};

use super::{event, registry::number};
use crate::{
    bindings::{LeaseManager, leases::ILeaseManager},
    client::{Action, ChainClient, ChainError},
    deployment::Deployment,
};

/// A lease that a host asks for.
#[derive(Clone, Debug)]
pub struct LeaseRequest {
    /// The terms.
    pub terms: TermsId,
    /// Whose key signs statements.
    pub lease_key: Address,
    /// Commitment to copies of the weights that are the host's own.
    pub variants: Option<B256>,
    /// Where it is going to serve.
    pub endpoint: String,
    /// What it charges.
    pub prices: Prices,
    /// When the lease ends.
    pub to: UnixSeconds,
    /// What it deposits.
    pub bond: Amount,
}

/// Opens a lease for the sender. The lease manager takes the bond: allow it first.
pub fn open(to: &Deployment, request: &LeaseRequest) -> Action {
    let call = LeaseManager::openCall {
        request: ILeaseManager::OpenRequest {
            termsId: request.terms.word(),
            leaseKey: request.lease_key,
            variantRoot: request.variants.unwrap_or_default(),
            endpoint: request.endpoint.clone(),
            prices: wire::Prices {
                request: request.prices.request.get(),
                prompt: request.prices.prompt.get(),
                cached: request.prices.cached.get(),
                completion: request.prices.completion.get(),
            },
            to: request.to.get(),
            bond: request.bond.get(),
        },
    };
    Action::call("opening of the lease", to.lease_manager, &call)
}

/// The lease that a receipt of [`open`] made.
pub fn opened(to: &Deployment, receipt: &TransactionReceipt) -> Option<LeaseId> {
    event::<LeaseManager::LeaseOpened>(receipt, to.lease_manager).map(|made| LeaseId::new(made.leaseId))
}

/// A lease with everything that serving under it depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseDetails {
    /// Who serves and is paid.
    pub host: Address,
    /// Whose key signs statements.
    pub lease_key: Address,
    /// Under which terms.
    pub terms: TermsId,
    /// What is paid in.
    pub token: Address,
    /// What is charged.
    pub prices: Prices,
    /// Until when.
    pub to: UnixSeconds,
    /// Until when vouchers can be claimed.
    pub claimable_until: UnixSeconds,
}

/// Reads a lease; `None` if it was never opened.
pub async fn details(chain: &ChainClient, to: &Deployment, id: LeaseId) -> Result<Option<LeaseDetails>, ChainError> {
    let lease = chain.call(to.lease_manager, &LeaseManager::leaseCall { leaseId: id.get() }).await?;
    if lease.host.is_zero() {
        return Ok(None);
    }
    let account = chain.call(to.lease_manager, &LeaseManager::accountCall { leaseId: id.get() }).await?;
    let price = PricePerMillion::new;
    Ok(Some(LeaseDetails {
        host: lease.host,
        lease_key: lease.leaseKey,
        terms: lease.termsId.into(),
        token: account.token,
        prices: Prices {
            request: price(lease.prices.request),
            prompt: price(lease.prices.prompt),
            cached: price(lease.prices.cached),
            completion: price(lease.prices.completion),
        },
        to: UnixSeconds::new(lease.to),
        claimable_until: UnixSeconds::new(account.claimableUntil),
    }))
}

/// Extends a lease.
pub fn renew(to: &Deployment, lease: LeaseId, until: UnixSeconds) -> Action {
    let call = LeaseManager::renewCall { leaseId: lease.get(), to: until.get() };
    Action::call("renewal of the lease", to.lease_manager, &call)
}

/// Ends a lease of the sender's model, with notice.
pub fn revoke(to: &Deployment, lease: LeaseId) -> Action {
    Action::call("revocation of the lease", to.lease_manager, &LeaseManager::revokeCall { leaseId: lease.get() })
}

/// Ends the sender's lease.
pub fn close(to: &Deployment, lease: LeaseId) -> Action {
    Action::call("closing of the lease", to.lease_manager, &LeaseManager::closeCall { leaseId: lease.get() })
}

/// Takes the bond of an ended lease back.
pub fn withdraw_bond(to: &Deployment, lease: LeaseId) -> Action {
    Action::call("withdrawal of the bond", to.lease_manager, &LeaseManager::withdrawBondCall { leaseId: lease.get() })
}

/// Keeps a host from leasing the sender's model, or lets it again.
pub fn exclude(to: &Deployment, model: ModelId, host: Address, excluded: bool) -> Action {
    let call = LeaseManager::setExcludedCall { modelId: number(model), host, isExcluded: excluded };
    Action::call("exclusion of the host", to.lease_manager, &call)
}
