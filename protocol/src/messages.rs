//! The signed messages of the protocol. They are defined in `licensing-contracts/contracts/types/Messages.sol`; [`wire`]
//! mirrors that file, the types here say the same with units and ids, and a digest follows EIP-712.
//!
//! Each message is signed under the domain of one contract on one chain, and the type of the domain says which: a voucher
//! has no digest under the registry's.

use std::{fmt, marker::PhantomData};

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_sol_types::eip712_domain;
use serde::{Deserialize, Serialize};

pub use self::{
    audit::{Outcome, TaskKind, Verdict},
    licence::{Lease, LicenseTerms, model_id},
    payment::{Channel, SessionGrant, Voucher},
    usage::{EpochCommit, FinishReason, Statement},
};
use crate::{
    counts::CountError,
    ids::ChainId,
    signature::{Signature, SignatureError, SigningKey},
    units::UnitError,
};

mod audit;
mod json;
mod licence;
mod payment;
mod usage;
pub mod wire;

/// Why the members of a message have no meaning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// A share above the whole.
    #[error("failed to read a share")]
    Unit(#[from] UnitError),
    /// Counts that no lane can have.
    #[error("failed to read counts")]
    Count(#[from] CountError),
    /// Requests on a lane are numbered from 1.
    #[error("a statement's sequence number is at least 1")]
    SequenceZero,
    /// A number that stands for nothing.
    #[error("{value} is no {what}")]
    UnknownValue {
        /// What it should be.
        what: &'static str,
        /// What was given.
        value: u8,
    },
}

/// A contract that messages are addressed to. Its type names the contract; there are no values of it.
pub trait Contract {
    /// Name in Solidity.
    const NAME: &'static str;
}

macro_rules! contract {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {}

        impl Contract for $name {
            const NAME: &'static str = stringify!($name);
        }
    )*};
}

contract! {
    /// Models and their terms.
    ModelRegistry;
    /// Leases; statements are checked under its domain.
    LeaseManager;
    /// Deposits, channels and claims.
    PaymentEscrow;
    /// Reports of usage.
    UsageLog;
    /// Verdicts.
    AuditServiceManager;
}

/// EIP-712 domain of one contract on one chain: a signature under it is valid nowhere else.
pub struct Domain<C> {
    chain: ChainId,
    verifying_contract: Address,
    separator: B256,
    contract: PhantomData<fn() -> C>,
}

impl<C: Contract> Domain<C> {
    /// Name that all domains share.
    pub const NAME: &'static str = "Hallmark";
    /// Version that all domains share.
    pub const VERSION: &'static str = "1";

    /// The domain of the contract `C` at this address.
    pub fn new(chain: ChainId, verifying_contract: Address) -> Self {
        let domain = eip712_domain! {
            name: Self::NAME,
            version: Self::VERSION,
            chain_id: chain.get(),
            verifying_contract: verifying_contract,
        };
        Self { chain, verifying_contract, separator: domain.separator(), contract: PhantomData }
    }

    /// The chain.
    pub const fn chain(&self) -> ChainId {
        self.chain
    }

    /// The contract's address.
    pub const fn verifying_contract(&self) -> Address {
        self.verifying_contract
    }

    /// The domain separator.
    pub const fn separator(&self) -> B256 {
        self.separator
    }

    /// What is signed for a struct hash.
    fn digest(&self, struct_hash: B256) -> B256 {
        let mut preimage = [0; 66];
        let (prefix, words) = preimage.split_at_mut(2);
        prefix.copy_from_slice(&[0x19, 0x01]);
        let (separator, hash) = words.split_at_mut(32);
        separator.copy_from_slice(self.separator.as_slice());
        hash.copy_from_slice(struct_hash.as_slice());
        keccak256(preimage)
    }
}

// Not derived, because that would ask the same of `C`, which has no values.
impl<C> Clone for Domain<C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Domain<C> {}

impl<C> PartialEq for Domain<C> {
    fn eq(&self, other: &Self) -> bool {
        self.separator == other.separator
    }
}

impl<C> Eq for Domain<C> {}

impl<C: Contract> fmt::Debug for Domain<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Domain({} {} on chain {})", C::NAME, self.verifying_contract, self.chain)
    }
}

/// What can be signed.
pub trait Message {
    /// The contract under whose domain it is signed.
    type Contract: Contract;
    /// The type of its digest.
    type Digest: From<B256> + Into<B256> + Copy;

    /// EIP-712 `hashStruct`.
    fn struct_hash(&self) -> B256;

    /// EIP-712 digest, which is what is signed.
    fn digest(&self, domain: &Domain<Self::Contract>) -> Self::Digest {
        domain.digest(self.struct_hash()).into()
    }
}

/// A typed message hashes as its mirror does.
macro_rules! typed {
    ($($name:ident, $contract:ident, $digest:ident;)*) => {$(
        impl From<$name> for wire::$name {
            fn from(message: $name) -> Self {
                (&message).into()
            }
        }

        impl $crate::messages::Message for $name {
            type Contract = $contract;
            type Digest = $digest;

            fn struct_hash(&self) -> alloy_primitives::B256 {
                $crate::messages::Message::struct_hash(&wire::$name::from(self))
            }
        }
    )*};
}

use typed;

/// A message with a signature, as it travels. Nothing is checked until [`Self::signer`] or [`Self::verify`] is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signed<M> {
    /// What was signed.
    pub message: M,
    /// Over the message's digest.
    pub signature: Signature,
}

impl<M: Message> Signed<M> {
    /// Signs the message.
    pub fn sign(message: M, domain: &Domain<M::Contract>, key: &SigningKey) -> Self {
        let signature = key.sign(message.digest(domain).into());
        Self { message, signature }
    }

    /// Whose key signed.
    pub fn signer(&self, domain: &Domain<M::Contract>) -> Result<Address, SignatureError> {
        self.signature.recover(self.message.digest(domain).into())
    }

    /// Checks that this account's own key signed.
    pub fn verify(&self, domain: &Domain<M::Contract>, signer: Address) -> Result<(), SignatureError> {
        self.signature.verify(self.message.digest(domain).into(), signer)
    }
}

/// 0 stands for absence in Solidity, `None` here. No digest is 0 in practice: that would be a preimage of it.
fn word_or_zero<D: Into<B256>>(digest: Option<D>) -> B256 {
    digest.map_or(B256::ZERO, Into::into)
}

fn zero_is_none<D: From<B256>>(word: B256) -> Option<D> {
    (!word.is_zero()).then(|| word.into())
}

/// A model's number as Solidity has it.
fn number_of(word: B256) -> U256 {
    U256::from_be_bytes(word.0)
}
