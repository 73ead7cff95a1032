use std::{collections::BTreeMap, fs, path::Path};

use alloy_primitives::{U256, aliases::U48};
use alloy_sol_types::{SolStruct, SolValue as _};
use proptest::prelude::*;
use protocol::{
    Address, B256,
    counts::{CountError, UsageCounts},
    ids::ChainId,
    messages::{
        AuditServiceManager, Channel, Contract, Domain, EpochCommit, FinishReason, Lease, LeaseManager, LicenseTerms,
        Message, MessageError, ModelRegistry, Outcome, PaymentEscrow, SessionGrant, Signed, Statement, TaskKind,
        UsageLog, Verdict, Voucher, model_id, wire,
    },
    signature::SigningKey,
    units::UnitError,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::random::Random;

/// A member with a random value, more often one that says something: 0, small, the largest.
trait Member: Sized + PartialEq {
    fn random(random: &mut Random) -> Self;
}

macro_rules! integers {
    ($($type:ty)*) => {$(
        impl Member for $type {
            fn random(random: &mut Random) -> Self {
                match random.word() % 5 {
                    0 => 0,
                    1 => <$type>::MAX,
                    2 => (random.word() % 6) as $type,
                    // Basis points end here.
                    3 => (random.word() % 10_002).min(<$type>::MAX as u64) as $type,
                    _ => ((u128::from(random.word()) << 64) | u128::from(random.word())) as $type,
                }
            }
        }
    )*};
}

integers! { u8 u16 u32 u64 u128 }

impl Member for U48 {
    fn random(random: &mut Random) -> Self {
        Self::from(u64::random(random) & UsageCounts::MAX)
    }
}

impl Member for B256 {
    fn random(random: &mut Random) -> Self {
        if random.word().is_multiple_of(4) { Self::ZERO } else { Self::new(random.bytes()) }
    }
}

impl Member for U256 {
    fn random(random: &mut Random) -> Self {
        B256::random(random).into()
    }
}

impl Member for Address {
    fn random(random: &mut Random) -> Self {
        Self::from_word(B256::random(random))
    }
}

impl Member for String {
    fn random(random: &mut Random) -> Self {
        ["", "https://host.example/v1", "ünïcode \"quoted\"\n", "x"][(random.word() % 4) as usize]
            .repeat(random.word() as usize % 40)
    }
}

/// What is tested of every message in the same way.
trait Mirror: Message + SolStruct + Clone + PartialEq + std::fmt::Debug + Serialize + DeserializeOwned {
    type Typed: Message<Contract = <Self as Message>::Contract, Digest = <Self as Message>::Digest>
        + TryFrom<Self, Error = MessageError>
        + Into<Self>
        + Clone
        + PartialEq
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned;

    fn random(random: &mut Random) -> Self;

    /// The message with one member changed, for each of them.
    fn changed(&self, random: &mut Random) -> Vec<(&'static str, Self)>;
}

macro_rules! mirror {
    ($($name:ident { $($member:ident),* $(,)? })*) => {$(
        impl Mirror for wire::$name {
            type Typed = $name;

            fn random(random: &mut Random) -> Self {
                Self { $($member: Member::random(random),)* }
            }

            fn changed(&self, random: &mut Random) -> Vec<(&'static str, Self)> {
                vec![$({
                    let mut other = self.clone();
                    while other.$member == self.$member {
                        other.$member = Member::random(random);
                    }
                    (stringify!($member), other)
                },)*]
            }
        }
    )*};
}

mirror! {
    LicenseTerms {
        modelId, version, paymentToken, royaltyBps, floorRequest, floorPrompt, floorCached, floorCompletion,
        validatorBps, splitRoot, minBond, minRestake, validFrom, validTo, disputeWindow, tokenizerDigest,
        templateDigest, legalTextDigest,
    }
    Lease {
        leaseId, termsId, host, leaseKey, variantRoot, endpoint, priceRequest, pricePrompt, priceCached,
        priceCompletion, from, to,
    }
    Channel { payer, host, token, withdrawDelay, salt }
    SessionGrant { channelId, key, cap, perRequestCap, expiresAt, nonce }
    Voucher {
        channelId, leaseId, lane, requests, promptTokens, cachedTokens, completionTokens, ceiling, statementsHead,
        expiresAt,
    }
    Statement {
        channelId, leaseId, lane, seq, promptTokensBefore, cachedTokensBefore, completionTokensBefore, promptTokens,
        cachedTokens, completionTokens, charge, requestHash, responseHash, startedMs, endedMs, finishReason, execRoot,
        previous,
    }
    EpochCommit {
        leaseId, epoch, root, requests, promptTokens, cachedTokens, completionTokens, charge, previous,
    }
    Verdict { taskId, leaseId, kind, outcome, eValueLog2, evidenceRoot, epoch }
}

fn domain<C: Contract>(random: &mut Random) -> Domain<C> {
    Domain::new(ChainId::new(random.word()), Address::random(random))
}

fn check<M: Mirror>(seed: u64) -> Result<(), TestCaseError>
where
    B256: PartialEq<B256>,
{
    let random = &mut Random::new(seed);
    let message = M::random(random);
    let domain = domain::<<M as Message>::Contract>(random);
    let digest: B256 = message.digest(&domain).into();

    // alloy's own way to the digest.
    let theirs = alloy_sol_types::eip712_domain! {
        name: "Hallmark",
        version: "1",
        chain_id: domain.chain().get(),
        verifying_contract: domain.verifying_contract(),
    };
    prop_assert_eq!(digest, message.eip712_signing_hash(&theirs));
    prop_assert_eq!(domain.separator(), theirs.separator());

    for (member, other) in message.changed(random) {
        prop_assert_ne!(digest, other.digest(&domain).into(), "{}", member);
    }
    let elsewhere = Domain::new(ChainId::new(domain.chain().get() ^ 1), domain.verifying_contract());
    prop_assert_ne!(digest, message.digest(&elsewhere).into());
    let elsewhere = Domain::new(domain.chain(), Address::repeat_byte(0x42));
    prop_assert_ne!(digest, message.digest(&elsewhere).into());

    let json = serde_json::to_string(&message).unwrap();
    prop_assert_eq!(&serde_json::from_str::<M>(&json).unwrap(), &message);
    match M::Typed::try_from(message.clone()) {
        Ok(typed) => {
            prop_assert_eq!(&typed.clone().into(), &message);
            prop_assert_eq!(typed.digest(&domain).into(), digest);
            prop_assert_eq!(serde_json::to_string(&typed).unwrap(), json.clone());
            prop_assert_eq!(serde_json::from_str::<M::Typed>(&json).unwrap(), typed);
        }
        Err(error) => {
            let refused = serde_json::from_str::<M::Typed>(&json).unwrap_err().to_string();
            prop_assert!(refused.contains(&error.to_string()), "{refused}");
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn every_message_binds_every_member_its_chain_and_its_contract(seed: u64) {
        check::<wire::LicenseTerms>(seed)?;
        check::<wire::Lease>(seed)?;
        check::<wire::Channel>(seed)?;
        check::<wire::SessionGrant>(seed)?;
        check::<wire::Voucher>(seed)?;
        check::<wire::Statement>(seed)?;
        check::<wire::EpochCommit>(seed)?;
        check::<wire::Verdict>(seed)?;
    }

    #[test]
    fn typed_messages_exist_exactly_where_the_members_make_sense(seed: u64) {
        let random = &mut Random::new(seed);
        let voucher = wire::Voucher::random(random);
        prop_assert_eq!(Voucher::try_from(voucher.clone()).is_ok(), voucher.cachedTokens <= voucher.promptTokens);

        let terms = wire::LicenseTerms::random(random);
        let shares = terms.royaltyBps <= 10_000 && terms.validatorBps <= 10_000;
        prop_assert_eq!(LicenseTerms::try_from(terms).is_ok(), shares);

        let verdict = wire::Verdict::random(random);
        let known = (1..=5).contains(&verdict.kind) && (1..=2).contains(&verdict.outcome);
        prop_assert_eq!(Verdict::try_from(verdict).is_ok(), known);

        let statement = wire::Statement::random(random);
        let fits = |before: U48, used: U48| before.checked_add(used).is_some();
        let sensible = !statement.seq.is_zero()
            && statement.cachedTokensBefore <= statement.promptTokensBefore
            && statement.cachedTokens <= statement.promptTokens
            && fits(statement.promptTokensBefore, statement.promptTokens)
            && fits(statement.completionTokensBefore, statement.completionTokens)
            && (1..=4).contains(&statement.finishReason);
        prop_assert_eq!(Statement::try_from(statement).is_ok(), sensible);
    }

    #[test]
    fn a_signed_message_is_its_signers_and_valid_nowhere_else(seed: u64) {
        let random = &mut Random::new(seed);
        let key = SigningKey::from_bytes(&random.bytes()).unwrap();
        let domain = domain::<PaymentEscrow>(random);
        let signed = Signed::sign(wire::Voucher::random(random), &domain, &key);
        prop_assert_eq!(signed.signer(&domain), Ok(key.address()));
        prop_assert_eq!(signed.verify(&domain, key.address()), Ok(()));
        let json = serde_json::to_string(&signed).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Signed<wire::Voucher>>(&json).unwrap(), &signed);

        let elsewhere = Domain::new(domain.chain(), Address::repeat_byte(0x42));
        prop_assert!(signed.verify(&elsewhere, key.address()).is_err());
        for (member, message) in signed.message.changed(random) {
            let forged = Signed { message, signature: signed.signature };
            prop_assert!(forged.verify(&domain, key.address()).is_err(), "{}", member);
        }
    }
}

/// Structs of a Solidity file: name and members as (type, name), comments removed, named types resolved.
fn structs(source: &str, aliases: &BTreeMap<String, String>) -> Vec<(String, Vec<(String, String)>)> {
    let code: String = source.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join(" ");
    let mut found = Vec::new();
    for part in code.split("struct ").skip(1) {
        let (name, rest) = part.split_once('{').unwrap();
        let (body, _) = rest.split_once('}').unwrap();
        let members = body.split(';').filter(|member| !member.trim().is_empty()).map(|member| {
            let [kind, name] = member.split_whitespace().collect::<Vec<_>>().try_into().unwrap();
            (aliases.get(kind).cloned().unwrap_or_else(|| kind.to_owned()), name.to_owned())
        });
        found.push((name.trim().to_owned(), members.collect()));
    }
    found
}

fn contract_source(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../licensing-contracts/contracts").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_mirror_has_solidity_s_members_types_and_order() {
    let ids = contract_source("types/Ids.sol");
    let aliases = ids.lines().filter_map(|line| line.strip_prefix("type ")).map(|line| {
        let (name, underlying) = line.trim_end_matches(';').split_once(" is ").unwrap();
        (name.to_owned(), underlying.to_owned())
    });
    let aliases: BTreeMap<_, _> = aliases.collect();
    assert_eq!(aliases.len(), 5, "{aliases:?}");

    let defined = structs(&contract_source("types/Messages.sol"), &aliases);
    let defined: BTreeMap<String, String> = defined
        .into_iter()
        .map(|(name, members)| {
            let members: Vec<String> = members.iter().map(|(kind, name)| format!("{kind} {name}")).collect();
            (name.clone(), format!("{name}({})", members.join(",")))
        })
        .collect();
    let mirrored: BTreeMap<String, String> = [
        wire::LicenseTerms::eip712_encode_type(),
        wire::Split::eip712_encode_type(),
        wire::Prices::eip712_encode_type(),
        wire::Lease::eip712_encode_type(),
        wire::Channel::eip712_encode_type(),
        wire::SessionGrant::eip712_encode_type(),
        wire::Voucher::eip712_encode_type(),
        wire::Statement::eip712_encode_type(),
        wire::EpochCommit::eip712_encode_type(),
        wire::Verdict::eip712_encode_type(),
    ]
    .into_iter()
    .map(|text| (text.split_once('(').unwrap().0.to_owned(), text.into_owned()))
    .collect();
    assert_eq!(mirrored, defined);

    // Solidity's type hashes are of these texts.
    let hashed = contract_source("libraries/MessageHash.sol");
    for (name, text) in mirrored.iter().filter(|(name, _)| !["Split", "Prices"].contains(&name.as_str())) {
        assert!(hashed.contains(&format!("\"{text}\"")), "{name}");
    }
}

#[test]
fn each_message_that_makes_no_sense_has_its_own_error() {
    let voucher = wire::Voucher { cachedTokens: U48::from(3_u64), ..Default::default() };
    let cached = CountError::CachedExceedsPrompt { cached: 3, prompt: 0 };
    assert_eq!(Voucher::try_from(voucher), Err(MessageError::Count(cached)));

    let terms = wire::LicenseTerms { validatorBps: 10_001, ..Default::default() };
    assert_eq!(LicenseTerms::try_from(terms), Err(MessageError::Unit(UnitError::BasisPoints { value: 10_001 })));

    assert_eq!(Statement::try_from(wire::Statement::default()), Err(MessageError::SequenceZero));
    let first = wire::Statement { seq: U48::from(1_u64), ..Default::default() };
    let unknown = MessageError::UnknownValue { what: "finish reason", value: 0 };
    assert_eq!(Statement::try_from(first), Err(unknown));

    let verdict = wire::Verdict { kind: 6, outcome: 1, ..Default::default() };
    assert_eq!(Verdict::try_from(verdict), Err(MessageError::UnknownValue { what: "kind of task", value: 6 }));
    let verdict = wire::Verdict { kind: 1, outcome: 3, ..Default::default() };
    assert_eq!(Verdict::try_from(verdict), Err(MessageError::UnknownValue { what: "outcome", value: 3 }));
}

#[test]
fn numbers_stand_for_what_they_stand_for_in_solidity() {
    for code in 0..=u8::MAX {
        assert_eq!(FinishReason::try_from(code).map(FinishReason::code).ok(), (1..=4).contains(&code).then_some(code));
        assert_eq!(Outcome::try_from(code).map(Outcome::code).ok(), (1..=2).contains(&code).then_some(code));
        assert_eq!(TaskKind::try_from(code).map(TaskKind::code).ok(), (1..=5).contains(&code).then_some(code));
    }
    // The order of Solidity's enum, whose first value stands for none.
    let audit = contract_source("interfaces/IAuditServiceManager.sol");
    let (_, kinds) = audit.split_once("enum TaskKind {").unwrap();
    let (kinds, _) = kinds.split_once('}').unwrap();
    let kinds: Vec<&str> = kinds
        .lines()
        .filter_map(|line| line.split("//").next().unwrap().trim().split(',').next())
        .filter(|name| !name.is_empty())
        .collect();
    let ours = [
        TaskKind::Substitution,
        TaskKind::TokenCount,
        TaskKind::OutsideService,
        TaskKind::VariantLeak,
        TaskKind::Ownership,
    ];
    let ours: Vec<String> = ours.iter().map(|kind| format!("{kind:?}")).collect();
    assert_eq!(kinds[0], "None");
    assert_eq!(kinds[1..], ours);
}

#[test]
fn unknown_missing_and_oversized_members_are_refused_in_json() {
    let message = wire::SessionGrant { cap: u128::MAX, ..Default::default() };
    let json = serde_json::to_value(&message).unwrap();
    assert_eq!(json["cap"], "340282366920938463463374607431768211455");
    let refuses = |change: &dyn Fn(&mut serde_json::Map<String, serde_json::Value>)| {
        let mut json = json.clone();
        change(json.as_object_mut().unwrap());
        serde_json::from_value::<wire::SessionGrant>(json).unwrap_err().to_string()
    };
    assert!(refuses(&|object| drop(object.remove("nonce"))).contains("missing field `nonce`"));
    assert!(refuses(&|object| drop(object.insert("extra".into(), 1.into()))).contains("unknown field `extra`"));
    assert!(refuses(&|object| drop(object.insert("cap".into(), 5.into()))).contains("invalid type"));
    assert!(refuses(&|object| drop(object.insert("key".into(), "0x00".into()))).contains("invalid"));
    assert!(
        refuses(&|object| drop(object.insert("channelId".into(), "0x00".into()))).contains("64 hexadecimal digits")
    );

    let voucher = serde_json::to_value(wire::Voucher::default()).unwrap();
    let mut large = voucher.clone();
    large["requests"] = (UsageCounts::MAX + 1).into();
    let error = serde_json::from_value::<wire::Voucher>(large).unwrap_err().to_string();
    assert!(error.contains("requests does not fit"), "{error}");
    let twice = serde_json::to_string(&voucher).unwrap().replace("{", "{\"lane\":0,");
    assert!(serde_json::from_str::<wire::Voucher>(&twice).unwrap_err().to_string().contains("duplicate field"));
}

#[test]
fn messages_of_one_contract_have_no_digest_under_anothers_domain() {
    // What the types refuse to express: the separators differ even at one address, if the contracts could share one.
    let address = Address::repeat_byte(1);
    let one = Domain::<ModelRegistry>::new(ChainId::new(1), address);
    let other = Domain::<LeaseManager>::new(ChainId::new(1), address);
    assert_eq!(one.separator(), other.separator(), "EIP-712 tells contracts apart by their addresses only");
    assert_eq!(format!("{one:?}"), format!("Domain(ModelRegistry {address} on chain 1)"));
    assert_eq!(<UsageLog as Contract>::NAME, "UsageLog");
    assert_eq!(<AuditServiceManager as Contract>::NAME, "AuditServiceManager");
}

#[test]
fn a_models_number_is_bound_to_chain_registry_creator_and_manifest() {
    let registry = Domain::<ModelRegistry>::new(ChainId::new(31_337), Address::repeat_byte(1));
    let creator = Address::repeat_byte(2);
    let manifest = protocol::ids::ManifestDigest::from_bytes([3; 32]);
    let encoded = (U256::from(31_337), Address::repeat_byte(1), creator, manifest.word()).abi_encode();
    let id = model_id(&registry, creator, manifest);
    assert_eq!(id.word(), alloy_primitives::keccak256(encoded));
    assert_ne!(id, model_id(&registry, Address::repeat_byte(4), manifest));
    let elsewhere = Domain::<ModelRegistry>::new(ChainId::new(1), Address::repeat_byte(1));
    assert_ne!(id, model_id(&elsewhere, creator, manifest));
}
