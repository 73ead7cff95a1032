//! Session keys: who but the payer may sign vouchers.

use alloy_primitives::{Address, B256};

use super::{Call, Claim, Escrow, EscrowError, Surroundings, require_payer};
use crate::{
    ids::ChannelId,
    messages::{Channel, Message as _, SessionGrant},
    signature::Signature,
    units::{Amount, UnixSeconds},
};

/// A key's grant on a channel, as it is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Everything that the key may spend.
    pub cap: Amount,
    /// What was claimed under it.
    pub spent: Amount,
    /// The highest ceiling that it may sign for a request in flight.
    pub per_request_cap: Amount,
    /// Until when.
    pub expires_at: UnixSeconds,
    /// Of the last grant; the largest of all once it is revoked.
    pub nonce: u64,
}

impl Escrow {
    /// Lets a key sign vouchers under the payer's signature. A later grant may widen the first and not narrow it.
    pub fn register_grant(
        &mut self,
        call: Call,
        surroundings: &impl Surroundings,
        channel: &Channel,
        grant: &SessionGrant,
        signature: &[u8],
    ) -> Result<(), EscrowError> {
        let id = self.id(channel);
        if grant.channel != id {
            return Err(EscrowError::WrongChannel { expected: id, actual: Some(grant.channel) });
        }
        if grant.key.is_zero() {
            return Err(EscrowError::Zero);
        }
        if call.now >= grant.expires_at {
            return Err(EscrowError::GrantExpired { expired_at: grant.expires_at });
        }
        let current = self.grants.get(&(id, grant.key));
        if let Some(current) = current {
            if grant.nonce <= current.nonce {
                return Err(EscrowError::GrantNonce { current: current.nonce, actual: grant.nonce });
            }
            let widens = grant.cap >= current.cap
                && grant.per_request_cap >= current.per_request_cap
                && grant.expires_at >= current.expires_at;
            if !widens {
                return Err(EscrowError::GrantReduced);
            }
        }
        let spent = current.map_or(Amount::ZERO, |current| current.spent);
        require_account(surroundings, channel.payer, grant.digest(&self.domain).into(), signature)?;
        let SessionGrant { key, cap, per_request_cap, expires_at, nonce, .. } = *grant;
        self.grants.insert((id, key), Grant { cap, spent, per_request_cap, expires_at, nonce });
        Ok(())
    }

    /// Ends a key's grant after two claim intervals, for good; the payer calls.
    pub fn revoke_grant(&mut self, call: Call, channel: &Channel, key: Address) -> Result<(), EscrowError> {
        require_payer(call, channel)?;
        let (id, notice) = (self.id(channel), self.notice());
        let grant = self.grants.get_mut(&(id, key)).ok_or(EscrowError::UnknownGrant { channel: id, key })?;
        let thawed = call.now.checked_add(notice).ok_or(EscrowError::Overflow { what: "times" })?;
        grant.expires_at = grant.expires_at.min(thawed);
        // No grant has a higher one: one that was signed before and is still about cannot lift the revocation.
        grant.nonce = u64::MAX;
        Ok(())
    }

    /// The payer itself, or a key under a grant that lasts and has room for `cost`.
    pub(super) fn spend_as_signer(
        &mut self,
        call: Call,
        surroundings: &impl Surroundings,
        id: ChannelId,
        claim: &Claim,
        cost: Amount,
    ) -> Result<(), EscrowError> {
        let payer = claim.channel.payer;
        let digest: B256 = claim.voucher.digest(&self.domain).into();
        let recovered = Signature::from_slice(&claim.signature).and_then(|signature| signature.recover(digest));
        // A wallet answers for every signature but those of keys that it granted: these it cannot take back at once.
        let granted = recovered.as_ref().is_ok_and(|key| self.grants.contains_key(&(id, *key)));
        let accepted = if granted { None } else { surroundings.wallet_accepts(payer, digest, &claim.signature) };
        if let Some(accepted) = accepted {
            return if accepted { Ok(()) } else { Err(EscrowError::WalletRefused { wallet: payer, digest }) };
        }
        let key = recovered?;
        if key == payer {
            return Ok(());
        }
        let grant = self.grants.get_mut(&(id, key)).ok_or(EscrowError::UnknownGrant { channel: id, key })?;
        if call.now > grant.expires_at {
            return Err(EscrowError::GrantExpired { expired_at: grant.expires_at });
        }
        let spent = match grant.spent.checked_add(cost) {
            Some(spent) if spent <= grant.cap => spent,
            needed => {
                let needed = needed.unwrap_or(Amount::MAX);
                return Err(EscrowError::GrantCapExceeded { cap: grant.cap, needed });
            }
        };
        let (per_request_cap, ceiling) = (grant.per_request_cap, claim.voucher.ceiling);
        if claim.in_flight.is_some() && ceiling > per_request_cap {
            return Err(EscrowError::RequestCapExceeded { per_request_cap, ceiling });
        }
        grant.spent = spent;
        Ok(())
    }
}

/// Requires that an account, a key or a wallet contract, signed.
fn require_account(
    surroundings: &impl Surroundings,
    account: Address,
    digest: B256,
    signature: &[u8],
) -> Result<(), EscrowError> {
    match surroundings.wallet_accepts(account, digest, signature) {
        Some(true) => Ok(()),
        Some(false) => Err(EscrowError::WalletRefused { wallet: account, digest }),
        None => Ok(Signature::from_slice(signature)?.verify(digest, account)?),
    }
}
