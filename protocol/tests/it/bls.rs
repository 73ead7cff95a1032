use std::sync::LazyLock;

use alloy_primitives::{U256, keccak256};
use proptest::{prelude::*, sample::Index};
use protocol::{
    Address, B256,
    bls::{
        BlsError, BlsSignature, PointError, PointG1, PointG2, PublicKey, SecretKey, check_quorum, possession_digest,
    },
    ids::ChainId,
    messages::{AuditServiceManager, Domain},
    units::{BasisPoints, StakeWeight},
};

/// Order of the base field.
const FIELD: U256 =
    U256::from_be_bytes(alloy_primitives::hex!("30644e72e131a029b85045b68181585d97816a916871ca8d3c208c16d87cfd47"));
/// Order of the groups.
const ORDER: U256 =
    U256::from_be_bytes(alloy_primitives::hex!("30644e72e131a029b85045b68181585d2833e84879b9709143e1f593f0000001"));

struct Validator {
    secret: SecretKey,
    public: PublicKey,
}

/// Making keys takes longest, so tests share some.
static VALIDATORS: LazyLock<Vec<Validator>> = LazyLock::new(|| {
    let validator = |number: u8| {
        let secret = SecretKey::from_entropy(&[number; 32]).unwrap();
        Validator { public: secret.public_key(), secret }
    };
    (0..8).map(validator).collect()
});

/// Which of the validators sign: at least one.
fn signers() -> impl Strategy<Value = Vec<bool>> {
    prop::collection::vec(any::<bool>(), 8).prop_filter("nobody", |signs| signs.contains(&true))
}

fn chosen(signs: &[bool], which: bool) -> impl Iterator<Item = &'static Validator> {
    VALIDATORS.iter().zip(signs.to_vec()).filter(move |(_, signs)| *signs == which).map(|(validator, _)| validator)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn those_who_signed_verify_together_and_nothing_else_does(signs in signers(), digest: [u8; 32], other: [u8; 32], flipped in any::<Index>()) {
        let digest = B256::new(digest);
        let signatures: Vec<_> = chosen(&signs, true).map(|validator| validator.secret.sign(digest)).collect();
        let aggregate = BlsSignature::aggregate(&signatures).unwrap();
        let keys: Vec<_> = chosen(&signs, true).map(|validator| validator.public).collect();
        let key = PublicKey::aggregate(&keys).unwrap();
        prop_assert_eq!(aggregate.verify(digest, &key), Ok(()));
        prop_assert_eq!(aggregate.verify(B256::new(other), &key), Err(BlsError::Signature));

        // The chain keeps the sum of all keys in G1 and takes those away who did not sign.
        let all: Vec<_> = VALIDATORS.iter().map(|validator| validator.public).collect();
        let missing: Vec<_> = chosen(&signs, false).map(|validator| validator.public.g1).collect();
        prop_assert_eq!(PublicKey::aggregate(&all).unwrap().g1.without(&missing), Ok(key.g1));

        // One more or one less is another key, in either group.
        let mut claimed = signs;
        let place = flipped.index(claimed.len());
        claimed[place] = !claimed[place];
        let claimed: Vec<_> = chosen(&claimed, true).map(|validator| validator.public).collect();
        if let Ok(wrong) = PublicKey::aggregate(&claimed) {
            prop_assert_eq!(aggregate.verify(digest, &wrong), Err(BlsError::Signature));
            prop_assert_eq!(aggregate.verify(digest, &PublicKey { g1: wrong.g1, ..key }), Err(BlsError::Signature));
            prop_assert_eq!(aggregate.verify(digest, &PublicKey { g2: wrong.g2, ..key }), Err(BlsError::Signature));
        } else {
            prop_assert!(claimed.is_empty());
        }
    }

    #[test]
    fn a_possession_is_proven_for_one_operator_contract_and_chain(chain: u64, contract: [u8; 20], operator: [u8; 20], other: [u8; 20]) {
        prop_assume!(other != operator && other != contract);
        let Validator { secret, public } = &VALIDATORS[0];
        let domain = Domain::<AuditServiceManager>::new(ChainId::new(chain), contract.into());
        let operator = Address::from(operator);
        let proof = secret.prove_possession(&domain, operator);
        let verify = |domain: &Domain<AuditServiceManager>, operator| proof.verify(possession_digest(domain, operator), public);
        prop_assert_eq!(verify(&domain, operator), Ok(()));
        prop_assert_eq!(verify(&domain, other.into()), Err(BlsError::Signature));
        prop_assert_eq!(verify(&Domain::new(ChainId::new(chain), other.into()), operator), Err(BlsError::Signature));
        prop_assert_eq!(verify(&Domain::new(ChainId::new(!chain), contract.into()), operator), Err(BlsError::Signature));
        prop_assert!(proof.verify(possession_digest(&domain, operator), &VALIDATORS[1].public).is_err());
    }

    #[test]
    fn points_and_keys_survive_their_words(digest: [u8; 32], entropy in prop::collection::vec(any::<u8>(), 32..80)) {
        let secret = SecretKey::from_entropy(&entropy).unwrap();
        let public = secret.public_key();
        prop_assert_eq!(PointG1::from_words(public.g1.to_words()), Ok(public.g1));
        prop_assert_eq!(PointG2::from_words(public.g2.to_words()), Ok(public.g2));
        let signature = secret.sign(B256::new(digest));
        prop_assert_eq!(PointG1::from_words(signature.0.to_words()), Ok(signature.0));
        let again = SecretKey::from_bytes(&secret.to_bytes()).unwrap();
        prop_assert_eq!(again.sign(B256::new(digest)), signature);
    }

    #[test]
    fn arbitrary_words_are_no_points(words: [[u8; 32]; 4], reduced: bool) {
        let words = words.map(|word| {
            let word = U256::from_be_bytes(word);
            if reduced { word % FIELD } else { word }
        });
        prop_assert!(PointG1::from_words([words[0], words[1]]).is_err());
        prop_assert!(PointG2::from_words(words).is_err());
    }
}

proptest! {
    #[test]
    fn a_quorum_is_a_share_of_the_stake(signed: u128, total: u128, quorum in 0_u16..=10_000) {
        let reached = U256::from(signed) * U256::from(10_000) >= U256::from(total) * U256::from(quorum) && total != 0;
        let (signed, total) = (StakeWeight::new(signed), StakeWeight::new(total));
        prop_assert_eq!(check_quorum(signed, total, BasisPoints::new(quorum).unwrap()).is_ok(), reached);
    }
}

#[test]
fn two_thirds_are_not_rounded_to_anybodys_favour() {
    let quorum = BasisPoints::new(6_667).unwrap();
    let check = |signed, total| check_quorum(StakeWeight::new(signed), StakeWeight::new(total), quorum);
    assert_eq!(check(6_667, 10_000), Ok(()));
    let missed = BlsError::QuorumMissed { signed: StakeWeight::new(6_666), total: StakeWeight::new(10_000), quorum };
    assert_eq!(check(6_666, 10_000), Err(missed));
    assert!(check(2, 3).is_err(), "two of three are less than 66.67 %");
    assert!(check(0, 0).is_err(), "nobody is no quorum");
    assert!(check(u128::MAX, u128::MAX).is_ok());
}

#[test]
fn coordinates_are_accepted_in_their_shortest_form_only() {
    let [x, y] = VALIDATORS[0].public.g1.to_words();
    for words in [[x + FIELD, y], [x, y + FIELD], [FIELD, FIELD], [FIELD, U256::ZERO], [x, U256::MAX]] {
        assert_eq!(PointG1::from_words(words), Err(PointError::NotReduced));
    }
    let [a, b, c, d] = VALIDATORS[0].public.g2.to_words();
    for words in [[a + FIELD, b, c, d], [a, b + FIELD, c, d], [a, b, c + FIELD, d], [a, b, c, d + FIELD]] {
        assert_eq!(PointG2::from_words(words), Err(PointError::NotReduced));
    }
    // The other order of the parts is another point, on no curve.
    assert_eq!(PointG2::from_words([b, a, d, c]), Err(PointError::NotOnCurve));
    assert_eq!(PointG1::from_words([y, x]), Err(PointError::NotOnCurve));
    assert_eq!(PointG1::from_words([x, U256::ZERO]), Err(PointError::NotOnCurve));
}

#[test]
fn infinity_is_neither_a_key_nor_a_signature() {
    assert_eq!(PointG1::from_words([U256::ZERO; 2]), Err(PointError::Infinity));
    assert_eq!(PointG2::from_words([U256::ZERO; 4]), Err(PointError::Infinity));
    assert_eq!(BlsSignature::aggregate(&[]), Err(BlsError::Cancelled { what: "signatures" }));
    assert_eq!(PublicKey::aggregate(&[]), Err(BlsError::Cancelled { what: "keys" }));
    let key = VALIDATORS[0].public.g1;
    assert_eq!(key.without(&[key]), Err(BlsError::Cancelled { what: "keys" }));
    let [x, y] = key.to_words();
    let negated = BlsSignature(PointG1::from_words([x, FIELD - y]).unwrap());
    let both = [BlsSignature(key), negated];
    assert_eq!(BlsSignature::aggregate(&both), Err(BlsError::Cancelled { what: "signatures" }));
}

#[test]
fn a_point_of_the_twist_outside_of_the_group_is_refused() {
    // Found by counting up x until x³ + 3/(9 + i) is a square; nearly every point of the twist has another order.
    let words = [
        "0x0000000000000000000000000000000000000000000000000000000000000001",
        "0x0000000000000000000000000000000000000000000000000000000000000000",
    ];
    let twist = outside_of_g2(words[0].parse().unwrap());
    assert_eq!(PointG2::from_words(twist), Err(PointError::NotInGroup));
}

/// A point of the twist with an x whose imaginary part is at least this, by ark's square root.
fn outside_of_g2(start: U256) -> [U256; 4] {
    use ark_bn254::{Fq, Fq2, G2Affine};
    use ark_ff::PrimeField as _;
    let mut imaginary = start;
    loop {
        let x = Fq2::new(Fq::from(0_u64), Fq::from_bigint(ark_ff::BigInt::new(*imaginary.as_limbs())).unwrap());
        if let Some(point) = G2Affine::get_point_from_x_unchecked(x, true) {
            assert!(point.is_on_curve() && !point.is_in_correct_subgroup_assuming_on_curve());
            let word = |value: Fq| U256::from_limbs(value.into_bigint().0);
            return [word(point.x.c1), word(point.x.c0), word(point.y.c1), word(point.y.c0)];
        }
        imaginary += U256::from(1);
    }
}

#[test]
fn whoever_may_name_any_key_signs_for_all_unless_he_shows_that_he_holds_it() {
    let digest = keccak256("verdict");
    let honest = &VALIDATORS[0].public;
    let own = &VALIDATORS[1];
    // The rogue key is his own less the honest one, so that together they are his own alone.
    let [x, y] = honest.g1.to_words();
    let negated = PointG1::from_words([x, FIELD - y]).unwrap();
    let [a, b, c, d] = honest.g2.to_words();
    let negated_g2 = PointG2::from_words([a, b, FIELD - c, FIELD - d]).unwrap();
    let minus_honest = PublicKey { g1: negated, g2: negated_g2 };
    let rogue = PublicKey::aggregate(&[own.public, minus_honest]).unwrap();
    let together = PublicKey::aggregate(&[*honest, rogue]).unwrap();
    assert_eq!(own.secret.sign(digest).verify(digest, &together), Ok(()), "the attack that possession is asked for");
    let domain = Domain::<AuditServiceManager>::new(ChainId::new(1), Address::repeat_byte(1));
    let operator = Address::repeat_byte(2);
    let proof = own.secret.prove_possession(&domain, operator);
    assert_eq!(proof.verify(possession_digest(&domain, operator), &rogue), Err(BlsError::Signature));
}

#[test]
fn a_secret_key_is_a_number_from_1_to_the_order_less_1() {
    for number in [U256::ZERO, ORDER, ORDER + U256::from(1), U256::MAX] {
        assert_eq!(SecretKey::from_bytes(&number.to_be_bytes()).unwrap_err(), BlsError::SecretKey);
    }
    let largest = SecretKey::from_bytes(&(ORDER - U256::from(1)).to_be_bytes()).unwrap();
    // The negated generator.
    assert_eq!(largest.public_key().g1.to_words(), [U256::from(1), FIELD - U256::from(2)]);
    assert_eq!(*largest.to_bytes(), (ORDER - U256::from(1)).to_be_bytes::<32>());
}

#[test]
fn entropy_is_needed_and_all_of_it_counts() {
    assert_eq!(SecretKey::from_entropy(&[7; 31]).unwrap_err(), BlsError::Entropy { found: 31 });
    let key = |bytes: &[u8]| SecretKey::from_entropy(bytes).unwrap().to_bytes();
    assert_ne!(*key(&[7; 32]), *key(&[7; 33]));
    let mut other = [7; 40];
    other[39] = 8;
    assert_ne!(*key(&[7; 40]), *key(&other));
    assert_eq!(*key(&[7; 32]), *key(&[7; 32]));
}

#[test]
fn secret_keys_do_not_print_themselves() {
    let secret = SecretKey::from_entropy(&[1; 32]).unwrap();
    assert_eq!(format!("{secret:?}"), "SecretKey { .. }");
}
