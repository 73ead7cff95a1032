//! BLS signatures over BN254 in EigenLayer's scheme, as `BN254.sol` verifies them: signatures and public keys in G1,
//! the aggregate of those who signed in G2 as well.
//!
//! Keys that are added up must have been shown to be held ([`SecretKey::prove_possession`]): whoever may name any key
//! names the difference between his own and everybody else's, and signs for all.

#![expect(clippy::arithmetic_side_effects, reason = "fields and groups are closed under their operations")]

use std::fmt;

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_sol_types::SolValue as _;
use ark_bn254::{Bn254, Fr, G1Affine, G1Projective, G2Affine, G2Projective};
use ark_ec::{AffineRepr as _, CurveGroup as _, PrimeGroup as _, pairing::Pairing as _};
use ark_ff::{AdditiveGroup as _, BigInteger as _, PrimeField as _, Zero as _};
use zeroize::{Zeroize as _, Zeroizing};

pub use self::curve::{PointError, PointG1, PointG2};
use crate::{
    messages::{AuditServiceManager, Domain},
    units::{BasisPoints, StakeWeight},
};

mod curve;

/// Why a key is refused, or an aggregate says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlsError {
    /// Not a point that may stand here.
    #[error("failed to read a point")]
    Point(#[from] PointError),
    /// Too few bytes to make a key of.
    #[error("a key is made of at least {} bytes of entropy, not {found}", SecretKey::MIN_ENTROPY)]
    Entropy {
        /// Bytes given.
        found: usize,
    },
    /// 0, or not below the group order.
    #[error("the bytes are no secret key")]
    SecretKey,
    /// Another key, or another digest.
    #[error("the signature does not fit the key and the digest")]
    Signature,
    /// Points that cancel each other out: the sum is no key and no signature.
    #[error("the {what} add up to the point at infinity")]
    Cancelled {
        /// What was added up.
        what: &'static str,
    },
    /// Weights are at most 2^128 - 1 together.
    #[error("the weights of the validators do not fit")]
    WeightOverflow,
    /// Not enough stake signed.
    #[error("{signed} of {total} signed, which is less than {quorum}")]
    QuorumMissed {
        /// Weight of those who signed.
        signed: StakeWeight,
        /// Weight of all.
        total: StakeWeight,
        /// The share that is needed.
        quorum: BasisPoints,
    },
}

/// A validator's secret key: a number from 1 to the group order less 1. Wiped when dropped; does not print itself.
pub struct SecretKey(Fr);

impl SecretKey {
    /// Fewest bytes of entropy for a key.
    pub const MIN_ENTROPY: usize = 32;

    /// Makes a key of random bytes, of which the caller must have drawn at least [`Self::MIN_ENTROPY`].
    ///
    /// Two hashes give 512 bits, whose remainder by the 254-bit order is uniform to within 2^-258.
    pub fn from_entropy(entropy: &[u8]) -> Result<Self, BlsError> {
        if entropy.len() < Self::MIN_ENTROPY {
            return Err(BlsError::Entropy { found: entropy.len() });
        }
        let mut wide = Zeroizing::new([0; 64]);
        for (part, half) in (0_u8..).zip(wide.chunks_exact_mut(32)) {
            let mut input = Zeroizing::new(Vec::with_capacity(entropy.len().saturating_add(KEY_KIND.len() + 1)));
            input.extend_from_slice(KEY_KIND);
            input.push(part);
            input.extend_from_slice(entropy);
            let mut hash = keccak256(input.as_slice());
            half.copy_from_slice(hash.as_slice());
            hash.0.zeroize();
        }
        Self::not_zero(Fr::from_be_bytes_mod_order(wide.as_slice()))
    }

    /// Takes the number as 32 bytes, big-endian.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, BlsError> {
        Self::not_zero(curve::scalar(bytes).ok_or(BlsError::SecretKey)?)
    }

    /// The number as 32 bytes, big-endian, for a file that is encrypted.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        let mut integer = self.0.into_bigint();
        let encoded = Zeroizing::new(integer.to_bytes_be());
        integer.zeroize();
        let mut bytes = Zeroizing::new([0; 32]);
        // Four limbs are 32 bytes.
        bytes.copy_from_slice(&encoded);
        bytes
    }

    /// The key in both groups.
    pub fn public_key(&self) -> PublicKey {
        let g1 = (G1Projective::generator() * self.0).into_affine();
        let g2 = (G2Projective::generator() * self.0).into_affine();
        PublicKey { g1: PointG1::of(g1), g2: PointG2::of(g2) }
    }

    /// Signs a digest.
    ///
    /// The multiplication takes a time that depends on the key. A validator signs a few verdicts a day, each once; a service
    /// that signed whatever strangers send, while they watch the clock, would need another one.
    pub fn sign(&self, digest: B256) -> BlsSignature {
        BlsSignature(PointG1::of((curve::hash_to_g1(digest) * self.0).into_affine()))
    }

    /// Signs what shows that the operator holds this key; see [`possession_digest`].
    pub fn prove_possession(&self, domain: &Domain<AuditServiceManager>, operator: Address) -> BlsSignature {
        self.sign(possession_digest(domain, operator))
    }

    fn not_zero(number: Fr) -> Result<Self, BlsError> {
        if number.is_zero() { Err(BlsError::SecretKey) } else { Ok(Self(number)) }
    }
}

/// First bytes of what a key is hashed from.
const KEY_KIND: &[u8] = b"hallmark/v1/bls-key";

impl Drop for SecretKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretKey").finish_non_exhaustive()
    }
}

/// A public key in both groups. That both are one key is checked with every signature ([`BlsSignature::verify`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// In G1, where keys are registered and added up on chain.
    pub g1: PointG1,
    /// In G2, where signatures are checked.
    pub g2: PointG2,
}

impl PublicKey {
    /// The key of all of these together.
    pub fn aggregate(keys: &[Self]) -> Result<Self, BlsError> {
        let g1 = keys.iter().fold(G1Projective::ZERO, |sum, key| sum + key.g1.point());
        let g2 = keys.iter().fold(G2Projective::ZERO, |sum, key| sum + key.g2.point());
        let cancelled = |_| BlsError::Cancelled { what: "keys" };
        Ok(Self {
            g1: PointG1::new(g1.into_affine()).map_err(cancelled)?,
            g2: PointG2::new(g2.into_affine()).map_err(cancelled)?,
        })
    }
}

impl PointG1 {
    /// The key of all of a total but those who did not sign, as the chain works it out from the total that it keeps.
    pub fn without(&self, non_signers: &[Self]) -> Result<Self, BlsError> {
        let missing = non_signers.iter().fold(G1Projective::ZERO, |sum, key| sum + key.point());
        let signers = G1Projective::from(self.point()) - missing;
        Self::new(signers.into_affine()).map_err(|_| BlsError::Cancelled { what: "keys" })
    }
}

/// A signature, of one validator or of many together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlsSignature(pub PointG1);

impl BlsSignature {
    /// The signature of all who made one of these on the same digest.
    pub fn aggregate(signatures: &[Self]) -> Result<Self, BlsError> {
        let sum = signatures.iter().fold(G1Projective::ZERO, |sum, signature| sum + signature.0.point());
        let point = PointG1::new(sum.into_affine()).map_err(|_| BlsError::Cancelled { what: "signatures" })?;
        Ok(Self(point))
    }

    /// Checks that this is the signature of a key on a digest, and that the key is the same in both groups.
    ///
    /// Two equations in one, with H for the hashed digest: e(σ, −G2) · e(H, K2) = 1 says that the signature fits K2, and
    /// e(K1, −G2) · e(G1, K2) = 1 that K1 and K2 are one key. The second is added γ times. γ is a hash of everything, so
    /// nobody can choose points whose errors cancel.
    pub fn verify(&self, digest: B256, key: &PublicKey) -> Result<(), BlsError> {
        let gamma = self.challenge(digest, key);
        let left = self.0.point() + key.g1.point() * gamma;
        let right = G1Projective::from(curve::hash_to_g1(digest)) + G1Affine::generator() * gamma;
        let product =
            Bn254::multi_pairing([left.into_affine(), right.into_affine()], [-G2Affine::generator(), key.g2.point()]);
        if product.is_zero() { Ok(()) } else { Err(BlsError::Signature) }
    }

    /// γ: keccak256 of the digest and of every coordinate, reduced by the group order.
    fn challenge(&self, digest: B256, key: &PublicKey) -> Fr {
        let ([x, y], [x_imaginary, x_real, y_imaginary, y_real]) = (key.g1.to_words(), key.g2.to_words());
        let [signature_x, signature_y] = self.0.to_words();
        let words = [digest.into(), x, y, x_imaginary, x_real, y_imaginary, y_real, signature_x, signature_y];
        Fr::from_be_bytes_mod_order(keccak256(words.abi_encode()).as_slice())
    }
}

/// What an operator signs to show that it holds its key: bound to the chain, the contract and the operator.
///
/// keccak256(abi.encode(keccak256("Hallmark BLS proof of possession"), chain id, contract, operator)).
pub fn possession_digest(domain: &Domain<AuditServiceManager>, operator: Address) -> B256 {
    let chain = U256::from(domain.chain().get());
    keccak256((keccak256(POSSESSION_KIND), chain, domain.verifying_contract(), operator).abi_encode())
}

const POSSESSION_KIND: &str = "Hallmark BLS proof of possession";

/// Checks that those who signed hold the quorum's share of all stake, rounded in nobody's favour:
/// signed · 10000 ≥ total · quorum. No stake at all is no quorum.
pub fn check_quorum(signed: StakeWeight, total: StakeWeight, quorum: BasisPoints) -> Result<(), BlsError> {
    // 128 bits times 14.
    let times =
        |weight: StakeWeight, share: BasisPoints| U256::from(weight.get()).wrapping_mul(U256::from(share.get()));
    if total != StakeWeight::ZERO && times(signed, BasisPoints::WHOLE) >= times(total, quorum) {
        return Ok(());
    }
    Err(BlsError::QuorumMissed { signed, total, quorum })
}
