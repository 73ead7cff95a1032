//! Points of BN254 with the words that the EVM's precompiles take for them, and the hash to the curve.

use std::fmt;

use alloy_primitives::{B256, U256};
use ark_bn254::{Fq, Fq2, Fr, G1Affine, G2Affine};
use ark_ec::AffineRepr as _;
use ark_ff::{BigInt, Field as _, PrimeField};

/// Why coordinates are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PointError {
    /// A number from the field's order on is a second form of another.
    #[error("a coordinate is not below the order of the field")]
    NotReduced,
    /// No point has these coordinates.
    #[error("the point is not on the curve")]
    NotOnCurve,
    /// On the twist, but of another order than the group.
    #[error("the point is not in the group")]
    NotInGroup,
    /// As a key it would accept the empty signature, as a signature it says nothing.
    #[error("the point at infinity is neither a key nor a signature")]
    Infinity,
}

macro_rules! point {
    ($($(#[$doc:meta])* $name:ident($affine:ident, $words:literal);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub struct $name($affine);

        impl $name {
            /// Refuses the point at infinity; the point comes from the group's own operations.
            pub(super) fn new(point: $affine) -> Result<Self, PointError> {
                if point.is_zero() { Err(PointError::Infinity) } else { Ok(Self(point)) }
            }

            /// A product of a scalar that is not 0 and a point of the group, which has prime order: not infinity.
            pub(super) const fn of(point: $affine) -> Self {
                Self(point)
            }

            pub(super) const fn point(&self) -> $affine {
                self.0
            }

            /// Checks what [`Self::from_words`] checks of coordinates in the field.
            fn checked(point: $affine) -> Result<Self, PointError> {
                if !point.is_on_curve() {
                    return Err(PointError::NotOnCurve);
                }
                if !point.is_in_correct_subgroup_assuming_on_curve() {
                    return Err(PointError::NotInGroup);
                }
                Self::new(point)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.to_words()).finish()
            }
        }
    )*};
}

point! {
    /// A point of G1, not infinity: a public key or a signature.
    PointG1(G1Affine, 2);
    /// A point of G2, not infinity: a public key.
    PointG2(G2Affine, 4);
}

impl PointG1 {
    /// Takes x and y. Refuses coordinates that are not reduced, points off the curve, and infinity, which is (0, 0).
    pub fn from_words([x, y]: [U256; 2]) -> Result<Self, PointError> {
        if x.is_zero() && y.is_zero() {
            return Err(PointError::Infinity);
        }
        Self::checked(G1Affine::new_unchecked(coordinate(x)?, coordinate(y)?))
    }

    /// x and y.
    pub fn to_words(self) -> [U256; 2] {
        [word(self.0.x), word(self.0.y)]
    }
}

impl PointG2 {
    /// Takes x and y, of each the imaginary part first, as the precompile does. Refuses coordinates that are not reduced,
    /// points off the twist or outside of the group, and infinity, which is all zeros.
    pub fn from_words([x_imaginary, x_real, y_imaginary, y_real]: [U256; 4]) -> Result<Self, PointError> {
        let words = [x_imaginary, x_real, y_imaginary, y_real];
        if words.iter().all(U256::is_zero) {
            return Err(PointError::Infinity);
        }
        let x = Fq2::new(coordinate(x_real)?, coordinate(x_imaginary)?);
        let y = Fq2::new(coordinate(y_real)?, coordinate(y_imaginary)?);
        Self::checked(G2Affine::new_unchecked(x, y))
    }

    /// x and y, of each the imaginary part first.
    pub fn to_words(self) -> [U256; 4] {
        let G2Affine { x, y, .. } = self.0;
        [word(x.c1), word(x.c0), word(y.c1), word(y.c0)]
    }
}

/// A point for a digest by try and increment: x = digest mod p, then the next x that has a y. The y is the root that
/// raising to (p + 1) / 4 gives, whichever of the two that is.
///
/// Half of all x have a y, so two rounds are usual. The time depends on the digest, which is public.
pub(super) fn hash_to_g1(digest: B256) -> G1Affine {
    let mut x = Fq::from_be_bytes_mod_order(digest.as_slice());
    loop {
        let square = x.square() * x + Fq::from(3_u64);
        let y = square.pow(ROOT_EXPONENT);
        if y.square() == square {
            // G1 is the whole curve.
            return G1Affine::new_unchecked(x, y);
        }
        x += Fq::ONE;
    }
}

/// (p + 1) / 4, lowest limb first: since p ≡ 3 (mod 4), it takes a square to a root of it.
const ROOT_EXPONENT: [u64; 4] =
    [0x4f08_2305_b61f_3f52, 0x65e0_5aa4_5a1c_72a3, 0x6e14_116d_a060_5617, 0x0c19_139c_b84c_680a];

/// A number below the group order, from 32 bytes, big-endian.
pub(super) fn scalar(bytes: &[u8; 32]) -> Option<Fr> {
    Fr::from_bigint(BigInt::new(*U256::from_be_bytes(*bytes).as_limbs()))
}

fn coordinate(value: U256) -> Result<Fq, PointError> {
    Fq::from_bigint(BigInt::new(*value.as_limbs())).ok_or(PointError::NotReduced)
}

fn word(value: Fq) -> U256 {
    U256::from_limbs(value.into_bigint().0)
}
