//! Vectors made by another implementation in another language, which the contracts' tests read as well:
//! licensing-contracts/vectors/make.mjs.

use std::{collections::BTreeMap, fs, path::Path};

use alloy_primitives::{Bytes, U256, hex, keccak256};
use alloy_sol_types::{SolStruct, SolValue};
use protocol::{
    Address, B256,
    bls::{BlsError, BlsSignature, PointError, PointG1, PointG2, PublicKey, SecretKey, possession_digest},
    counts::{UsageCounts, UsageTotals},
    ids::{ChainId, StatementDigest},
    merkle_sum::{self, AbsenceProof, Commitment, InclusionProof, Leaf, MerkleSumTree},
    messages::{
        Channel, Contract, Domain, EpochCommit, Lease, LicenseTerms, Message, SessionGrant, Signed, Statement, Verdict,
        Voucher, wire,
    },
    money::{MoneyError, Prices, Shares},
    signature::{Signature, SigningKey},
    splits::Splits,
    units::{Amount, BasisPoints},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

fn read<T: DeserializeOwned>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../licensing-contracts/vectors").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Messages {
    private_key: B256,
    signer: Address,
    vectors: Vec<MessageVector>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MessageVector {
    label: String,
    r#type: String,
    type_string: String,
    chain_id: String,
    verifying_contract: Address,
    message: serde_json::Value,
    abi: Bytes,
    struct_hash: B256,
    domain_separator: B256,
    digest: B256,
    signature: Signature,
}

/// Checks a vector against the mirror of its type; gives whether the typed message exists.
fn check<W, T>(vector: &MessageVector, key: &SigningKey) -> bool
where
    W: Message<Contract: Contract>
        + SolStruct
        + SolValue
        + Clone
        + PartialEq
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned,
    W: From<<<W as SolValue>::SolType as alloy_sol_types::SolType>::RustType>,
    T: Message<Contract = <W as Message>::Contract> + TryFrom<W> + Into<W>,
{
    let label = &vector.label;
    let message: W = serde_json::from_value(vector.message.clone()).unwrap_or_else(|error| panic!("{label}: {error}"));
    assert_eq!(serde_json::to_value(&message).unwrap(), vector.message, "{label}");
    assert_eq!(W::eip712_encode_type(), vector.type_string, "{label}");
    assert_eq!(message.abi_encode(), vector.abi, "{label}");
    assert_eq!(<W as SolValue>::abi_decode(&vector.abi).unwrap(), message, "{label}");
    assert_eq!(message.struct_hash(), vector.struct_hash, "{label}");

    let domain: Domain<<W as Message>::Contract> =
        Domain::new(ChainId::new(vector.chain_id.parse().unwrap()), vector.verifying_contract);
    assert_eq!(domain.separator(), vector.domain_separator, "{label}");
    let digest: B256 = message.digest(&domain).into();
    assert_eq!(digest, vector.digest, "{label}");

    let signed = Signed { message: message.clone(), signature: vector.signature };
    assert_eq!(signed.verify(&domain, key.address()), Ok(()), "{label}");
    assert_eq!(Signed::sign(message.clone(), &domain, key).signature, vector.signature, "{label}: RFC 6979");

    let Ok(typed) = T::try_from(message.clone()) else { return false };
    let typed_digest: B256 = typed.digest(&domain).into();
    assert_eq!(typed_digest, vector.digest, "{label}");
    assert_eq!(typed.into(), message, "{label}");
    true
}

#[test]
fn messages_hash_and_sign_as_viem_does() {
    let Messages { private_key, signer, vectors } = read("eip712.json");
    let key = SigningKey::from_bytes(&private_key.0).unwrap();
    assert_eq!(key.address(), signer);
    let mut seen = BTreeMap::<String, (u32, u32)>::new();
    for vector in &vectors {
        let typed = match vector.r#type.as_str() {
            "LicenseTerms" => check::<wire::LicenseTerms, LicenseTerms>(vector, &key),
            "Lease" => check::<wire::Lease, Lease>(vector, &key),
            "Channel" => check::<wire::Channel, Channel>(vector, &key),
            "SessionGrant" => check::<wire::SessionGrant, SessionGrant>(vector, &key),
            "Voucher" => check::<wire::Voucher, Voucher>(vector, &key),
            "Statement" => check::<wire::Statement, Statement>(vector, &key),
            "EpochCommit" => check::<wire::EpochCommit, EpochCommit>(vector, &key),
            "Verdict" => check::<wire::Verdict, Verdict>(vector, &key),
            other => panic!("{other} has no mirror"),
        };
        let (all, sensible) = seen.entry(vector.r#type.clone()).or_default();
        *all += 1;
        *sensible += u32::from(typed);
    }
    assert_eq!(seen.len(), 8);
    for (name, (all, sensible)) in seen {
        assert!(all >= 7 && sensible >= 1, "{name}: {sensible} of {all}");
    }
}

#[derive(Deserialize)]
struct Money {
    costs: Vec<Cost>,
    claims: Vec<Claim>,
    prices: Vec<PriceList>,
    splits: Vec<Split>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Counts {
    requests: u64,
    prompt_tokens: u64,
    cached_tokens: u64,
    completion_tokens: u64,
}

impl From<Counts> for UsageCounts {
    fn from(counts: Counts) -> Self {
        let Counts { requests, prompt_tokens, cached_tokens, completion_tokens } = counts;
        Self::new(requests, prompt_tokens, cached_tokens, completion_tokens).unwrap()
    }
}

#[derive(Deserialize)]
struct Cost {
    counts: Counts,
    prices: Prices,
    cost: Option<Amount>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claim {
    before: Counts,
    after: Counts,
    prices: Prices,
    floors: Prices,
    royalty_bps: BasisPoints,
    validator_bps: BasisPoints,
    charge: Amount,
    floor: Amount,
    royalty: Amount,
    validator_share: Amount,
    host: Amount,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PriceList {
    prices: Prices,
    floors: Prices,
    validator_bps: BasisPoints,
    accepted: bool,
}

#[derive(Deserialize)]
struct Split {
    splits: Splits,
    root: B256,
    royalty: Amount,
    parts: Vec<Amount>,
    creator: Amount,
}

#[test]
fn costs_are_the_same_in_big_integers() {
    let costs = read::<Money>("money.json").costs;
    assert!(costs.iter().any(|vector| vector.cost.is_none()), "the bound is among the vectors");
    for Cost { counts, prices, cost } in costs {
        let counts = counts.into();
        assert_eq!(prices.cost_up(counts), cost.ok_or(MoneyError::CostTooLarge { counts }));
        if let Some(cost) = cost {
            assert_eq!(prices.charge(UsageCounts::ZERO, counts), Ok(cost));
        }
    }
}

#[test]
fn claims_are_split_the_same_in_big_integers() {
    for claim in read::<Money>("money.json").claims {
        let (before, after) = (UsageCounts::from(claim.before), UsageCounts::from(claim.after));
        let used = after.since(before).unwrap();
        assert_eq!(claim.prices.charge(before, after), Ok(claim.charge));
        assert_eq!(claim.floors.floor_down(used), Ok(claim.floor));
        let shares = Shares::new(claim.royalty_bps, claim.validator_bps, claim.floors).unwrap();
        shares.check_prices(&claim.prices).unwrap();
        let parts = shares.split(claim.charge, used).unwrap();
        assert_eq!((parts.royalty, parts.validators, parts.host), (claim.royalty, claim.validator_share, claim.host));
    }
}

#[test]
fn price_lists_pass_or_fail_the_same_in_big_integers() {
    let lists = read::<Money>("money.json").prices;
    assert!(lists.iter().any(|list| list.accepted) && lists.iter().any(|list| !list.accepted));
    for PriceList { prices, floors, validator_bps, accepted } in lists {
        let shares = Shares::new(BasisPoints::NOTHING, validator_bps, floors).unwrap();
        assert_eq!(shares.check_prices(&prices).is_ok(), accepted, "{prices:?} {floors:?} {validator_bps}");
    }
}

#[test]
fn royalties_are_split_and_committed_to_the_same_in_big_integers() {
    for Split { splits, root, royalty, parts, creator } in read::<Money>("money.json").splits {
        assert_eq!(splits.root().map_or(B256::ZERO, |root| root.word()), root);
        let (found, rest) = splits.divide_down(royalty);
        assert_eq!(found.iter().map(|(_, part)| *part).collect::<Vec<_>>(), parts);
        assert!(found.iter().map(|(recipient, _)| *recipient).eq(splits.iter().map(|split| split.recipient)));
        assert_eq!(rest, creator);
    }
}

#[derive(Deserialize)]
struct Trees {
    trees: Vec<TreeVector>,
}

#[derive(Deserialize)]
struct TreeVector {
    label: String,
    leaves: Vec<Leaf>,
    root: B256,
    totals: UsageTotals,
    inclusions: Vec<Inclusion>,
    absences: Vec<Absence>,
}

#[derive(Deserialize)]
struct Inclusion {
    digest: StatementDigest,
    index: u64,
    abi: Bytes,
}

#[derive(Deserialize)]
struct Absence {
    digest: StatementDigest,
    abi: Bytes,
}

#[test]
fn trees_and_proofs_follow_the_recursive_definition() {
    let trees = read::<Trees>("merkle_sum.json").trees;
    assert!(trees.len() >= 10);
    for TreeVector { label, leaves, root, totals, inclusions, absences } in trees {
        let size = leaves.len();
        let tree = MerkleSumTree::new(leaves).unwrap();
        let commitment = Commitment { root: (!root.is_zero()).then_some(root), totals };
        assert_eq!(tree.commitment(), commitment, "{label}");
        assert_eq!(inclusions.len(), size, "{label}");
        for Inclusion { digest, index, abi } in inclusions {
            let proof = tree.prove_inclusion(digest).unwrap();
            assert_eq!(proof.verify(&commitment), Ok(index), "{label}");
            let merkle_sum::wire::Neighbour { leaf, path } = proof.clone().into();
            assert_eq!((leaf, path).abi_encode_params(), abi, "{label}");
            let (leaf, path) =
                <(merkle_sum::wire::SumLeaf, Vec<merkle_sum::wire::SumSibling>)>::abi_decode_params(&abi).unwrap();
            assert_eq!(InclusionProof::from(merkle_sum::wire::Neighbour { leaf, path }), proof, "{label}");
        }
        assert!(!absences.is_empty() || label.contains("largest") || label.contains("zeros"), "{label}");
        for Absence { digest, abi } in absences {
            let proof = tree.prove_absence(digest).unwrap();
            assert_eq!(proof.verify(&commitment, digest), Ok(()), "{label}");
            let neighbours: Vec<merkle_sum::wire::Neighbour> = proof.clone().into();
            assert_eq!(neighbours.abi_encode(), abi, "{label}");
            let neighbours = Vec::<merkle_sum::wire::Neighbour>::abi_decode(&abi).unwrap();
            assert_eq!(AbsenceProof::from(neighbours), proof, "{label}");
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bls {
    negated_generator_g2: [U256; 4],
    entropies: Vec<Entropy>,
    keys: Vec<Key>,
    hashes: Vec<Hash>,
    possessions: Vec<Possession>,
    verifications: Vec<Verification>,
    invalid_points: Vec<InvalidPoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entropy {
    entropy: Bytes,
    secret_key: B256,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Key {
    secret_key: B256,
    g1: [U256; 2],
    g2: [U256; 4],
}

#[derive(Deserialize)]
struct Hash {
    digest: B256,
    point: [U256; 2],
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Possession {
    chain_id: String,
    verifying_contract: Address,
    operator: Address,
    key: usize,
    digest: B256,
    signature: [U256; 2],
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Verification {
    label: String,
    digest: B256,
    signature: [U256; 2],
    key: [U256; 2],
    #[serde(rename = "keyG2")]
    key_g2: [U256; 4],
    valid: bool,
    signers: Option<Vec<usize>>,
    non_signers: Option<Vec<usize>>,
}

#[derive(Deserialize)]
struct InvalidPoint {
    group: u8,
    why: String,
    words: Vec<U256>,
}

fn secret(key: &Key) -> SecretKey {
    SecretKey::from_bytes(&key.secret_key.0).unwrap()
}

#[test]
fn keys_and_hashes_to_the_curve_are_nobles() {
    let vectors = read::<Bls>("bls.json");
    for Entropy { entropy, secret_key } in &vectors.entropies {
        assert_eq!(*SecretKey::from_entropy(entropy).unwrap().to_bytes(), secret_key.0, "{}", hex::encode(entropy));
    }
    for key in &vectors.keys {
        let public = secret(key).public_key();
        assert_eq!((public.g1.to_words(), public.g2.to_words()), (key.g1, key.g2));
    }
    // The key 1 signs a digest with the point that the digest is hashed to.
    let one = SecretKey::from_bytes(&U256::from(1).to_be_bytes()).unwrap();
    for Hash { digest, point } in vectors.hashes {
        assert_eq!(one.sign(digest).0.to_words(), point, "{digest}");
    }
    let largest = vectors.keys.last().unwrap();
    assert_eq!(largest.g2, vectors.negated_generator_g2, "the order less 1");
}

#[test]
fn possessions_are_proven_as_noble_does() {
    let vectors = read::<Bls>("bls.json");
    for possession in vectors.possessions {
        let chain = ChainId::new(possession.chain_id.parse().unwrap());
        let domain = Domain::new(chain, possession.verifying_contract);
        assert_eq!(possession_digest(&domain, possession.operator), possession.digest);
        let secret = secret(&vectors.keys[possession.key]);
        let proof = secret.prove_possession(&domain, possession.operator);
        assert_eq!(proof.0.to_words(), possession.signature);
        assert_eq!(proof.verify(possession.digest, &secret.public_key()), Ok(()));
    }
}

#[test]
fn aggregates_verify_where_nobles_pairing_says_so() {
    let vectors = read::<Bls>("bls.json");
    let keys: Vec<PublicKey> = vectors.keys.iter().map(|key| secret(key).public_key()).collect();
    let total = keys.iter().map(|key| key.g1).collect::<Vec<_>>();
    assert!(vectors.verifications.iter().any(|vector| !vector.valid));
    for vector in vectors.verifications {
        let label = &vector.label;
        let signature = BlsSignature(PointG1::from_words(vector.signature).unwrap());
        let key =
            PublicKey { g1: PointG1::from_words(vector.key).unwrap(), g2: PointG2::from_words(vector.key_g2).unwrap() };
        let expected = if vector.valid { Ok(()) } else { Err(BlsError::Signature) };
        assert_eq!(signature.verify(vector.digest, &key), expected, "{label}");

        let (Some(signers), Some(non_signers)) = (vector.signers, vector.non_signers) else { continue };
        let signatures: Vec<_> =
            signers.iter().map(|&index| secret(&vectors.keys[index]).sign(vector.digest)).collect();
        assert_eq!(BlsSignature::aggregate(&signatures), Ok(signature), "{label}");
        let signing: Vec<_> = signers.iter().map(|&index| keys[index]).collect();
        assert_eq!(PublicKey::aggregate(&signing), Ok(key), "{label}");
        let missing: Vec<_> = non_signers.iter().map(|&index| total[index]).collect();
        assert_eq!(PublicKey::aggregate(&keys).unwrap().g1.without(&missing), Ok(key.g1), "{label}");
    }
}

#[test]
fn points_that_noble_knows_to_be_wrong_are_refused() {
    let points = read::<Bls>("bls.json").invalid_points;
    for InvalidPoint { group, why, words } in points {
        let refused = match group {
            1 => PointG1::from_words(words.try_into().unwrap()).map(drop),
            _ => PointG2::from_words(words.try_into().unwrap()).map(drop),
        };
        let expected = match why.as_str() {
            "infinity" => PointError::Infinity,
            "not reduced" => PointError::NotReduced,
            "not on the curve" => PointError::NotOnCurve,
            _ => PointError::NotInGroup,
        };
        assert_eq!(refused, Err(expected), "group {group}: {why}");
    }
}

#[test]
fn the_names_that_are_hashed_are_those_of_the_contracts() {
    let kind = keccak256("Hallmark BLS proof of possession");
    let domain = Domain::new(ChainId::new(31_337), Address::repeat_byte(1));
    let encoded = (kind, U256::from(31_337), Address::repeat_byte(1), Address::repeat_byte(2)).abi_encode();
    assert_eq!(possession_digest(&domain, Address::repeat_byte(2)), keccak256(encoded));
}
