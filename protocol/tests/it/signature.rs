use proptest::prelude::*;
use protocol::{
    Address, B256,
    signature::{Signature, SignatureError, SigningKey},
};

/// A key that everybody knows: that of the first account of every development chain.
const KEY: &str = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
const ADDRESS: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
/// Order of the group of secp256k1.
const ORDER: [u8; 32] = alloy_primitives::hex!("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141");

fn key() -> SigningKey {
    SigningKey::from_bytes(&alloy_primitives::hex::decode_to_array(KEY).unwrap()).unwrap()
}

fn digest() -> B256 {
    alloy_primitives::keccak256("a message")
}

/// The number less one, or more one.
fn neighbour(mut number: [u8; 32], up: bool) -> [u8; 32] {
    for byte in number.iter_mut().rev() {
        let (next, carries) = if up { byte.overflowing_add(1) } else { byte.overflowing_sub(1) };
        *byte = next;
        if !carries {
            break;
        }
    }
    number
}

/// The second form of a signature: s negated, the other parity.
fn mirrored(signature: &Signature) -> [u8; 65] {
    let mut bytes = *signature.as_bytes();
    let order = alloy_primitives::U256::from_be_bytes(ORDER);
    let s = alloy_primitives::U256::from_be_slice(&bytes[32..64]);
    bytes[32..64].copy_from_slice(&(order - s).to_be_bytes::<32>());
    bytes[64] = 55 - bytes[64];
    bytes
}

proptest! {
    #[test]
    fn what_a_key_signs_is_recovered_to_its_address(secret: [u8; 32], digest: [u8; 32], other: [u8; 32]) {
        let key = SigningKey::from_bytes(&secret).unwrap();
        let digest = B256::new(digest);
        let signature = key.sign(digest);
        prop_assert_eq!(signature.verify(digest, key.address()), Ok(()));
        prop_assert_eq!(key.sign(digest), signature, "the nonce follows from key and digest");
        prop_assert_eq!(Signature::from_slice(signature.as_bytes()), Ok(signature), "strict reading takes its own");
        prop_assert_eq!(signature.to_string().parse(), Ok(signature));
        prop_assert_ne!(signature.recover(B256::new(other)), Ok(key.address()));
    }

    #[test]
    fn the_second_form_of_a_signature_is_refused(secret: [u8; 32], digest: [u8; 32]) {
        let signature = SigningKey::from_bytes(&secret).unwrap().sign(B256::new(digest));
        prop_assert_eq!(Signature::from_slice(&mirrored(&signature)), Err(SignatureError::HighS));
    }

    #[test]
    fn a_changed_signature_is_nobodys_or_another_keys(byte in 0_usize..65, bit in 0_u32..8) {
        let (key, digest) = (key(), digest());
        let mut bytes = *key.sign(digest).as_bytes();
        bytes[byte] ^= 1 << bit;
        let verified = Signature::from_slice(&bytes).and_then(|signature| signature.verify(digest, key.address()));
        prop_assert!(verified.is_err());
    }

    #[test]
    fn arbitrary_bytes_neither_panic_nor_verify(bytes in prop::collection::vec(any::<u8>(), 0..70), low_s: [u8; 65], digest: [u8; 32]) {
        let mut plausible = low_s;
        plausible[32] &= 0x7f;
        plausible[64] = 27 + (plausible[64] & 1);
        for bytes in [bytes.as_slice(), &plausible] {
            let verified = Signature::from_slice(bytes).and_then(|signature| signature.verify(B256::new(digest), key().address()));
            prop_assert!(verified.is_err());
        }
    }

    #[test]
    fn only_65_bytes_are_a_signature(length in 0_usize..200) {
        let bytes = vec![1; length];
        prop_assert_eq!(Signature::from_slice(&bytes) == Err(SignatureError::Length { found: length }), length != 65);
    }

    #[test]
    fn only_27_and_28_are_recovery_bytes(found: u8) {
        let mut bytes = *key().sign(digest()).as_bytes();
        bytes[64] = found;
        let refused = Err(SignatureError::RecoveryByte { found });
        prop_assert_eq!(Signature::from_slice(&bytes) == refused, found != 27 && found != 28);
    }
}

#[test]
fn the_address_of_a_known_key() {
    assert_eq!(key().address(), ADDRESS.parse::<Address>().unwrap());
}

#[test]
fn numbers_out_of_range_are_refused_one_by_one() {
    let good = *key().sign(digest()).as_bytes();
    let half =
        neighbour(alloy_primitives::hex!("7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a1"), false);
    let with = |range: std::ops::Range<usize>, number: [u8; 32]| {
        let mut bytes = good;
        bytes[range].copy_from_slice(&number);
        Signature::from_slice(&bytes)
    };
    for number in [[0; 32], ORDER, neighbour(ORDER, true), [0xff; 32]] {
        assert_eq!(with(0..32, number), Err(SignatureError::OutOfRange { member: "r" }));
    }
    assert_eq!(with(32..64, [0; 32]), Err(SignatureError::OutOfRange { member: "s" }));
    for number in [ORDER, neighbour(ORDER, true), [0xff; 32]] {
        assert_eq!(with(32..64, number), Err(SignatureError::HighS));
    }
    assert!(with(0..32, neighbour(ORDER, false)).is_ok());
    assert!(with(32..64, half).is_ok(), "the largest s that is low");
    assert_eq!(with(32..64, neighbour(half, true)), Err(SignatureError::HighS));
    assert_eq!(with(32..64, neighbour(ORDER, false)), Err(SignatureError::HighS));
}

#[test]
fn an_r_that_no_point_has_belongs_to_no_key() {
    // x = 5 has no y on the curve: 5³ + 7 is no square.
    let mut bytes = *key().sign(digest()).as_bytes();
    bytes[..32].fill(0);
    bytes[31] = 5;
    let signature = Signature::from_slice(&bytes).unwrap();
    assert_eq!(signature.recover(digest()), Err(SignatureError::Unrecoverable));
    assert_eq!(signature.verify(digest(), key().address()), Err(SignatureError::Unrecoverable));
}

#[test]
fn another_signer_and_the_zero_address_are_told_apart() {
    let (key, digest) = (key(), digest());
    let signature = key.sign(digest);
    let expected = Address::repeat_byte(0x11);
    assert_eq!(
        signature.verify(digest, expected),
        Err(SignatureError::WrongSigner { expected, actual: key.address() })
    );
    assert_eq!(signature.verify(digest, Address::ZERO), Err(SignatureError::ZeroAddress));
}

#[test]
fn a_secret_key_is_a_number_from_1_to_the_order_less_1() {
    for bytes in [[0; 32], ORDER, [0xff; 32]] {
        assert_eq!(SigningKey::from_bytes(&bytes).unwrap_err(), SignatureError::SecretKey);
    }
    assert!(SigningKey::from_bytes(&neighbour(ORDER, false)).is_ok());
    let one = SigningKey::from_bytes(&neighbour([0; 32], true)).unwrap();
    assert_eq!(one.address(), "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf".parse::<Address>().unwrap());
}

#[test]
fn neither_keys_nor_signatures_print_themselves() {
    let key = key();
    let printed = format!("{key:?} {:?}", key.sign(digest())).to_lowercase();
    for secret in [&KEY[..16], &KEY[48..], &key.sign(digest()).to_string()[2..18]] {
        assert!(!printed.contains(secret), "{printed}");
    }
    // Nor as a list of numbers.
    assert!(!printed.contains("172, 9, 116"), "{printed}");
}

#[test]
fn texts_of_signatures_are_read_in_one_form() {
    let signature = key().sign(digest());
    let text = signature.to_string();
    assert_eq!(text.len(), 132);
    let short = Err(SignatureError::Length { found: 64 });
    assert_eq!(text[..130].parse::<Signature>(), short);
    for wrong in [&text[2..], &format!("0x{text}"), &text.replace("0x", "0X"), &format!("{text}0"), &format!(" {text}")]
    {
        assert_eq!(wrong.parse::<Signature>(), Err(SignatureError::NotHex), "{wrong}");
    }
    let json = serde_json::to_string(&signature).unwrap();
    assert_eq!(json, format!("\"{text}\""));
    assert_eq!(serde_json::from_str::<Signature>(&json).unwrap(), signature);
}
