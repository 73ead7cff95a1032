//! ECDSA signatures over secp256k1 as the chain has them: 65 bytes, r, s and v. Recovery is as strict as `Signatures.sol`:
//! one message and one key have one signature that passes, in one form.
//!
//! Checking against a known public key would be cheaper than recovering one, but it says nothing about v: a voucher with
//! the wrong v would be accepted here and refused by the escrow.

use std::{fmt, str::FromStr, sync::LazyLock};

use alloy_primitives::{Address, B256, hex, keccak256};
use secp256k1::{
    Message, PublicKey, Secp256k1, SecretKey, SignOnly, VerifyOnly,
    ecdsa::{RecoverableSignature, RecoveryId},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a signature or a key is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Compact signatures of 64 bytes, too, are second forms of others.
    #[error("a signature has 65 bytes, not {found}")]
    Length {
        /// Bytes given.
        found: usize,
    },
    /// Not `0x` followed by hexadecimal digits.
    #[error("a signature is written as 0x followed by 130 hexadecimal digits")]
    NotHex,
    /// The two parities of a point are 27 and 28, and nothing else is accepted for them.
    #[error("the last byte of a signature is 27 or 28, not {found}")]
    RecoveryByte {
        /// Byte given.
        found: u8,
    },
    /// A second form of another signature, or of none.
    #[error("the signature's s lies above half of the group order")]
    HighS,
    /// 0, or not below the group order.
    #[error("the signature's {member} is no number from 1 to the group order less 1")]
    OutOfRange {
        /// `r` or `s`.
        member: &'static str,
    },
    /// No public key signed this digest with it.
    #[error("the signature belongs to no key")]
    Unrecoverable,
    /// Nobody holds its key.
    #[error("the zero address cannot sign")]
    ZeroAddress,
    /// Signed by another key, or over other bytes.
    #[error("signed by {actual} and not by {expected}")]
    WrongSigner {
        /// Who was to sign.
        expected: Address,
        /// Whose key did.
        actual: Address,
    },
    /// 0, or not below the group order.
    #[error("the bytes are no secret key")]
    SecretKey,
}

/// Order of the group, big-endian.
const ORDER: [u8; 32] = hex!("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141");
/// Half of it, rounded down: the largest s (EIP-2).
const HALF_ORDER: [u8; 32] = hex!("7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0");

// Both hold tables and no secret; they are not blinded, for there is no randomness here to blind them with.
static VERIFIER: LazyLock<Secp256k1<VerifyOnly>> = LazyLock::new(Secp256k1::verification_only);
static SIGNER: LazyLock<Secp256k1<SignOnly>> = LazyLock::new(Secp256k1::signing_only);

/// A signature that may be accepted: its r and s are in range, s is low, v is 27 or 28. Whose it is, [`Self::recover`] says.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature([u8; 65]);

impl Signature {
    /// Refuses other lengths, other recovery bytes, high s and numbers out of range.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, SignatureError> {
        let bytes: [u8; 65] = bytes.try_into().map_err(|_| SignatureError::Length { found: bytes.len() })?;
        let signature = Self(bytes);
        let (r, s, v) = signature.parts();
        // In the order in which the contract looks.
        if *s > HALF_ORDER {
            return Err(SignatureError::HighS);
        }
        if v != 27 && v != 28 {
            return Err(SignatureError::RecoveryByte { found: v });
        }
        if *r == [0; 32] || *r >= ORDER {
            return Err(SignatureError::OutOfRange { member: "r" });
        }
        if *s == [0; 32] {
            return Err(SignatureError::OutOfRange { member: "s" });
        }
        Ok(signature)
    }

    /// r, s and v in a row.
    pub const fn as_bytes(&self) -> &[u8; 65] {
        &self.0
    }

    /// The address whose key signed this digest.
    pub fn recover(&self, digest: B256) -> Result<Address, SignatureError> {
        let (_, _, v) = self.parts();
        let parity = RecoveryId::from_u8_masked(v.wrapping_sub(27));
        let (compact, _) = self.0.split_at(64);
        let signature =
            RecoverableSignature::from_compact(compact, parity).map_err(|_| SignatureError::Unrecoverable)?;
        let key = VERIFIER
            .recover_ecdsa(Message::from_digest(digest.0), &signature)
            .map_err(|_| SignatureError::Unrecoverable)?;
        Ok(address_of(&key))
    }

    /// Checks that the key of this address signed this digest.
    pub fn verify(&self, digest: B256, signer: Address) -> Result<(), SignatureError> {
        // Recovery never gives it, but an expected signer that somebody forgot to set deserves a clear answer.
        if signer.is_zero() {
            return Err(SignatureError::ZeroAddress);
        }
        let actual = self.recover(digest)?;
        if actual == signer { Ok(()) } else { Err(SignatureError::WrongSigner { expected: signer, actual }) }
    }

    fn parts(&self) -> (&[u8; 32], &[u8; 32], u8) {
        let [bytes @ .., v] = &self.0;
        // 64 bytes are two times 32; the defaults are never taken and would be refused as zeros.
        let (r, rest) = bytes.split_first_chunk().unwrap_or((&[0; 32], &[]));
        (r, rest.first_chunk().unwrap_or(&[0; 32]), *v)
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode_prefixed(self.0))
    }
}

// A signature moves money; it does not belong into logs.
impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signature").finish_non_exhaustive()
    }
}

impl FromStr for Signature {
    type Err = SignatureError;

    fn from_str(text: &str) -> Result<Self, SignatureError> {
        let digits = text.strip_prefix("0x").ok_or(SignatureError::NotHex)?;
        // The decoder would take a second prefix, and two texts would be one signature.
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(SignatureError::NotHex);
        }
        let bytes = hex::decode(digits).map_err(|_| SignatureError::NotHex)?;
        Self::from_slice(&bytes)
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// A secret key of a payer, a session or a lease. Wiped when dropped; does not print itself.
pub struct SigningKey {
    secret: SecretKey,
    address: Address,
}

impl SigningKey {
    /// Takes the 32 bytes of a secret key, big-endian. Refuses 0 and numbers from the group order on.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, SignatureError> {
        let secret = SecretKey::from_byte_array(*bytes).map_err(|_| SignatureError::SecretKey)?;
        let address = address_of(&PublicKey::from_secret_key(&*SIGNER, &secret));
        Ok(Self { secret, address })
    }

    /// The address that the key signs for.
    pub const fn address(&self) -> Address {
        self.address
    }

    /// Signs a digest with the nonce of RFC 6979: the same key and digest give the same signature, always with a low s.
    pub fn sign(&self, digest: B256) -> Signature {
        let signature = SIGNER.sign_ecdsa_recoverable(Message::from_digest(digest.0), &self.secret);
        let (parity, compact) = signature.serialize_compact();
        let mut bytes = [0; 65];
        let (numbers, v) = bytes.split_at_mut(64);
        numbers.copy_from_slice(&compact);
        // A point whose x passes the group order has parity 2 or 3. Nobody has ever met one: one nonce in 2^127 gives it.
        let odd = matches!(parity, RecoveryId::One | RecoveryId::Three);
        v.copy_from_slice(&[if odd { 28 } else { 27 }]);
        Signature(bytes)
    }
}

impl Drop for SigningKey {
    fn drop(&mut self) {
        self.secret.non_secure_erase();
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The last 20 bytes of the hash of the key's coordinates.
fn address_of(key: &PublicKey) -> Address {
    // The first byte says that both coordinates follow.
    let [_, coordinates @ ..] = key.serialize_uncompressed();
    Address::from_word(keccak256(coordinates))
}
