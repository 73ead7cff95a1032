//! BLS signatures as the precompiles of the EVM see them: what `protocol` and noble make must pass there too.

use alloy::{
    network::TransactionBuilder as _,
    primitives::{Address, B256, Bytes, U256, keccak256},
    providers::{DynProvider, Provider as _},
    rpc::types::TransactionRequest,
};
use protocol::bls::{BlsSignature, PointG1, PointG2, PublicKey, SecretKey};
use serde::Deserialize;

use crate::support::{chain, provider};

const MODEXP: u8 = 5;
const ADD: u8 = 6;
const MULTIPLY: u8 = 7;
const PAIRING: u8 = 8;

/// Order of the base field.
const FIELD: U256 =
    U256::from_be_bytes(alloy::primitives::hex!("30644e72e131a029b85045b68181585d97816a916871ca8d3c208c16d87cfd47"));
/// Order of the groups.
const ORDER: U256 =
    U256::from_be_bytes(alloy::primitives::hex!("30644e72e131a029b85045b68181585d2833e84879b9709143e1f593f0000001"));
const GENERATOR: [U256; 2] = [U256::from_limbs([1, 0, 0, 0]), U256::from_limbs([2, 0, 0, 0])];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vectors {
    negated_generator_g2: [U256; 4],
    hashes: Vec<Hash>,
    verifications: Vec<Verification>,
    invalid_points: Vec<InvalidPoint>,
}

#[derive(Deserialize)]
struct Hash {
    digest: B256,
    point: [U256; 2],
}

#[derive(Deserialize)]
struct Verification {
    label: String,
    digest: B256,
    signature: [U256; 2],
    key: [U256; 2],
    #[serde(rename = "keyG2")]
    key_g2: [U256; 4],
    gamma: U256,
    valid: bool,
}

#[derive(Deserialize)]
struct InvalidPoint {
    group: u8,
    why: String,
    words: Vec<U256>,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../vectors/bls.json")).unwrap()
}

/// The precompiles behind an ordinary call.
struct Precompiles(DynProvider);

impl Precompiles {
    fn new() -> Self {
        Self(provider(chain().client()))
    }

    /// `None` when the precompile refuses its input.
    async fn call(&self, number: u8, words: &[U256]) -> Option<Vec<U256>> {
        let input: Vec<u8> = words.iter().flat_map(U256::to_be_bytes::<32>).collect();
        let precompile = Address::with_last_byte(number);
        let request = TransactionRequest::default().with_to(precompile).with_input(Bytes::from(input));
        let output = self.0.call(request).latest().await.ok()?;
        Some(output.chunks_exact(32).map(U256::from_be_slice).collect())
    }

    async fn point(&self, number: u8, words: &[U256]) -> [U256; 2] {
        self.call(number, words).await.unwrap().try_into().unwrap()
    }

    async fn add(&self, [a, b]: [U256; 2], [c, d]: [U256; 2]) -> [U256; 2] {
        self.point(ADD, &[a, b, c, d]).await
    }

    async fn multiply(&self, [x, y]: [U256; 2], scalar: U256) -> [U256; 2] {
        self.point(MULTIPLY, &[x, y, scalar]).await
    }

    /// Whether e(`a`, `a2`) · e(`b`, `b2`) = 1; `None` when a point is refused.
    async fn pairing(&self, a: [U256; 2], a2: [U256; 4], b: [U256; 2], b2: [U256; 4]) -> Option<bool> {
        let words = [a.as_slice(), &a2, &b, &b2].concat();
        self.call(PAIRING, &words).await.map(|answer| answer == [U256::from(1)])
    }

    /// Try and increment with the modular exponentiation of the chain.
    async fn hash_to_g1(&self, digest: B256) -> [U256; 2] {
        let width = U256::from(32);
        let exponent = (FIELD + U256::from(1)) / U256::from(4);
        let mut x = U256::from_be_bytes(digest.0) % FIELD;
        loop {
            let square = x.mul_mod(x, FIELD).mul_mod(x, FIELD).add_mod(U256::from(3), FIELD);
            let root = self.call(MODEXP, &[width, width, width, square, exponent, FIELD]).await.unwrap();
            if root[0].mul_mod(root[0], FIELD) == square {
                return [x, root[0]];
            }
            x = x.add_mod(U256::from(1), FIELD);
        }
    }

    /// As `BN254.verify` asks the precompiles.
    async fn verify(&self, digest: B256, signature: [U256; 2], key: [U256; 2], key_g2: [U256; 4]) -> bool {
        let words = [[digest.into()].as_slice(), &key, &key_g2, &signature].concat();
        let bytes: Vec<u8> = words.iter().flat_map(U256::to_be_bytes::<32>).collect();
        let gamma = U256::from_be_bytes(keccak256(bytes).0) % ORDER;
        let left = self.add(signature, self.multiply(key, gamma).await).await;
        let right = self.add(self.hash_to_g1(digest).await, self.multiply(GENERATOR, gamma).await).await;
        self.pairing(left, vectors().negated_generator_g2, right, key_g2).await.unwrap()
    }
}

#[tokio::test]
async fn digests_hash_to_the_points_that_the_chain_finds() {
    let precompiles = Precompiles::new();
    for Hash { digest, point } in vectors().hashes {
        assert_eq!(precompiles.hash_to_g1(digest).await, point, "{digest}");
    }
}

#[tokio::test]
async fn verifications_end_on_the_precompiles_as_they_do_in_noble_and_in_protocol() {
    let precompiles = Precompiles::new();
    for vector in vectors().verifications {
        let Verification { label, digest, signature, key, key_g2, gamma, valid } = vector;
        let words = [[digest.into()].as_slice(), &key, &key_g2, &signature].concat();
        let bytes: Vec<u8> = words.iter().flat_map(U256::to_be_bytes::<32>).collect();
        assert_eq!(U256::from_be_bytes(keccak256(bytes).0) % ORDER, gamma, "{label}");
        assert_eq!(precompiles.verify(digest, signature, key, key_g2).await, valid, "{label}");
        let point = |words| PointG1::from_words(words).unwrap();
        let public = PublicKey { g1: point(key), g2: PointG2::from_words(key_g2).unwrap() };
        assert_eq!(BlsSignature(point(signature)).verify(digest, &public).is_ok(), valid, "{label}");
    }
}

#[tokio::test]
async fn what_validators_sign_together_passes_on_the_precompiles() {
    let precompiles = Precompiles::new();
    let secrets: Vec<SecretKey> = (0..20_u8).map(|seed| SecretKey::from_entropy(&[seed; 32]).unwrap()).collect();
    let keys: Vec<PublicKey> = secrets.iter().map(SecretKey::public_key).collect();
    for signers in [1, 7, 20] {
        let digest = keccak256(format!("verdict of {signers}"));
        let signatures: Vec<_> = secrets[..signers].iter().map(|secret| secret.sign(digest)).collect();
        let signature = BlsSignature::aggregate(&signatures).unwrap().0.to_words();
        let key = PublicKey::aggregate(&keys[..signers]).unwrap();
        assert!(precompiles.verify(digest, signature, key.g1.to_words(), key.g2.to_words()).await);
        assert!(!precompiles.verify(B256::ZERO, signature, key.g1.to_words(), key.g2.to_words()).await);

        // Sums of keys are the chain's sums.
        let mut sum = [U256::ZERO; 2];
        for key in &keys[..signers] {
            sum = precompiles.add(sum, key.g1.to_words()).await;
        }
        assert_eq!(sum, key.g1.to_words());
    }
}

#[tokio::test]
async fn points_that_are_refused_here_are_refused_there_except_infinity() {
    let precompiles = Precompiles::new();
    let negated = vectors().negated_generator_g2;
    for InvalidPoint { group, why, words } in vectors().invalid_points {
        let accepted = if group == 1 {
            let words: [U256; 2] = words.try_into().unwrap();
            assert!(PointG1::from_words(words).is_err());
            precompiles.call(ADD, &[words[0], words[1], GENERATOR[0], GENERATOR[1]]).await.is_some()
        } else {
            let words: [U256; 4] = words.try_into().unwrap();
            assert!(PointG2::from_words(words).is_err());
            precompiles.pairing(GENERATOR, negated, GENERATOR, words).await.is_some()
        };
        // The precompiles know infinity; that it is no key is the contract's rule, and this package's.
        assert_eq!(accepted, why == "infinity", "group {group}: {why}");
    }
}
