//! The life of a licence on the development chain, through the typed actions: register, commit, draw, restake, lease,
//! deposit, serve, report, claim. What the chain pays is what the money rules say.

use alloy::{
    primitives::{Address, B256, U256},
    rpc::types::TransactionReceipt,
};
use licensing_contracts::{
    actions::{self, Erc20, leases, operators, payments, registry, usage},
    bindings::{AuditServiceManager, LeaseManager, PaymentEscrow},
    client::{Action, ChainError, Sender, TransactionJournal},
    deploy::ProtocolSetup,
    devchain::Config,
    devnet::{ACCOUNTS, DevAccount, Devnet, sender_settings, signer},
};
use protocol::{
    bls::SecretKey,
    counts::{LaneStep, RequestUsage, UsageCounts},
    ids::{CommitmentRoot, Epoch, Lane, LeaseId, ManifestDigest, TermsId, TermsVersion},
    merkle_sum::{Leaf, MerkleSumTree},
    messages::{
        Channel, Domain, EpochCommit, FinishReason, LicenseTerms, Message as _, SessionGrant, Signed, Statement,
        Voucher,
    },
    money::Prices,
    signature::SigningKey,
    splits::{Split, Splits},
    units::{Amount, BasisPoints, PricePerMillion, Seconds, StakeWeight, UnixMilliseconds, UnixSeconds},
};

use crate::{eigenlayer::core, support::rpc};

const CREATOR: DevAccount = ACCOUNTS[1];
const HOST: DevAccount = ACCOUNTS[2];
const PAYER: DevAccount = ACCOUNTS[3];
const PARENT: DevAccount = ACCOUNTS[5];
const LEASE_KEY: DevAccount = ACCOUNTS[6];
const SESSION: DevAccount = ACCOUNTS[7];

/// A development chain, and a sender for each account.
struct World {
    devnet: Devnet,
    journals: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let devnet = Devnet::start(Config::default(), core(), &ProtocolSetup::development()).await.unwrap();
        Self { devnet, journals: tempfile::tempdir().unwrap() }
    }

    fn sender(&self, account: &DevAccount) -> Sender {
        let client = self.devnet.client();
        let journal = TransactionJournal::open(self.journals.path(), client.chain_id(), account.address).unwrap();
        Sender::new(client, signer(account), journal, sender_settings())
    }

    async fn send(&self, account: &DevAccount, action: &Action) -> TransactionReceipt {
        self.try_send(account, action).await.unwrap_or_else(|error| panic!("{}: {error}", action.what))
    }

    async fn try_send(&self, account: &DevAccount, action: &Action) -> Result<TransactionReceipt, ChainError> {
        self.sender(account).send(action).await
    }

    async fn allow(&self, account: &DevAccount, token: Address, spender: Address, amount: Amount) {
        let client = self.devnet.client();
        for action in actions::allow(&client, token, account.address, spender, amount).await.unwrap() {
            self.send(account, &action).await;
        }
    }

    fn token(&self) -> Address {
        self.devnet.deployment().test_token.unwrap()
    }

    async fn now(&self) -> UnixSeconds {
        UnixSeconds::new(self.devnet.client().head().await.unwrap().timestamp_s)
    }

    async fn wait(&self, seconds: u64) {
        let client = self.devnet.client();
        let _: serde_json::Value = rpc(client.provider(), "evm_increaseTime", (U256::from(seconds),)).await;
        let _: serde_json::Value = rpc(client.provider(), "evm_mine", ()).await;
    }

    async fn earned(&self, account: Address) -> u128 {
        let call = PaymentEscrow::balanceCall { token: self.token(), account };
        self.devnet.client().call(self.devnet.deployment().payment_escrow, &call).await.unwrap().to()
    }
}

fn per_million(amount: u128) -> PricePerMillion {
    PricePerMillion::new(amount)
}

fn prices(scale: u128) -> Prices {
    Prices {
        request: per_million(1_000 * scale),
        prompt: per_million(200_000 * scale),
        cached: per_million(50_000 * scale),
        completion: per_million(600_000 * scale),
    }
}

fn splits() -> Splits {
    Splits::new(vec![Split { recipient: PARENT.address, share: BasisPoints::new(2_500).unwrap() }]).unwrap()
}

/// Registers a model with terms; the floors are a tenth of [`prices`].
async fn publish(world: &World, to: &licensing_contracts::deployment::Deployment) -> TermsId {
    let manifest = ManifestDigest::from_bytes([7; 32]);
    let receipt = world.send(&CREATOR, &registry::register(to, manifest, &[], "file:model")).await;
    let model = registry::registered(to, &receipt).unwrap();
    let now = world.now().await.get();
    let terms = LicenseTerms {
        model,
        version: TermsVersion::new(1),
        payment_token: world.token(),
        royalty: BasisPoints::new(1_000).unwrap(),
        floors: prices(1),
        validators: BasisPoints::new(100).unwrap(),
        splits: splits().root(),
        min_bond: Amount::new(50_000_000),
        min_restake: StakeWeight::new(1_000_000),
        valid_from: UnixSeconds::new(now),
        valid_to: UnixSeconds::new(now + 30 * 86_400),
        dispute_window: Seconds::new(120),
        tokenizer: B256::repeat_byte(1).into(),
        template: B256::repeat_byte(2).into(),
        legal_text: B256::repeat_byte(3).into(),
    };
    let receipt = world.send(&CREATOR, &registry::publish_terms(to, &terms, &splits()).unwrap()).await;
    let published = registry::published(to, &receipt).unwrap();
    let domain = Domain::new(protocol::ids::ChainId::new(to.chain_id), to.model_registry);
    assert_eq!(published, terms.digest(&domain), "both sides hash the terms alike");

    // The draw uses the randomness of a block that nobody knew when the root was committed.
    let root = CommitmentRoot::from_bytes([9; 32]);
    world.send(&CREATOR, &registry::commit_fingerprints(to, model, root, 32)).await;
    let client = world.devnet.client();
    let committed = registry::commitment(&client, to, root).await.unwrap().unwrap();
    assert_eq!((committed.fingerprints, committed.beacon), (32, None));
    assert_eq!(registry::header(&client, committed.draw_block).await.unwrap(), None);
    // The draw block, and the one after it: a contract sees the hashes of blocks before its own.
    for _ in 0..3 {
        world.wait(1).await;
    }
    let header = registry::header(&client, committed.draw_block).await.unwrap().unwrap();
    world.send(&CREATOR, &registry::record_beacon(to, root, header)).await;
    assert!(registry::commitment(&client, to, root).await.unwrap().unwrap().beacon.is_some());
    assert_eq!(registry::commitment(&client, to, CommitmentRoot::from_bytes([8; 32])).await.unwrap(), None);
    published
}

/// Makes the host a restaked operator and opens a lease at ten times the floors.
async fn lease(world: &World, to: &licensing_contracts::deployment::Deployment, terms: TermsId) -> LeaseId {
    let stake = Amount::new(10_000_000);
    let request = leases::LeaseRequest {
        terms,
        lease_key: LEASE_KEY.address,
        variants: None,
        endpoint: "http://127.0.0.1:8080/v1".to_owned(),
        prices: prices(10),
        to: UnixSeconds::new(world.now().await.get() + 86_400),
        bond: Amount::new(100_000_000),
    };
    world.allow(&HOST, world.token(), to.lease_manager, request.bond).await;
    let error = world.try_send(&HOST, &leases::open(to, &request)).await.unwrap_err();
    assert!(matches!(&error, ChainError::Reverted { revert, .. } if revert.name == "RestakeTooSmall"), "{error}");
    assert!(error.to_string().contains("operator register"), "it says what to do: {error}");

    world.send(&HOST, &operators::register_as_operator(to, "")).await;
    world.allow(&HOST, world.token(), to.eigenlayer.strategy_manager, stake).await;
    let [strategy] = to.eigenlayer.strategies[..] else { panic!("one strategy") };
    let deposit = operators::deposit_stake(to, strategy, world.token(), U256::from(stake.get()));
    world.send(&HOST, &deposit).await;
    world.wait(1).await;
    let half = BasisPoints::new(5_000).unwrap();
    world.send(&HOST, &operators::allocate(to, HOST.address, operators::AuditSet::Hosts, half)).await;
    world.send(&HOST, &operators::join_hosts(to, HOST.address)).await;
    let client = world.devnet.client();
    let stake = AuditServiceManager::hostStakeCall { operator: HOST.address };
    assert_eq!(client.call(to.audit_service_manager, &stake).await.unwrap(), U256::from(5_000_000));

    let receipt = world.send(&HOST, &leases::open(to, &request)).await;
    let lease = leases::opened(to, &receipt).unwrap();
    assert!(client.call(to.lease_manager, &LeaseManager::isActiveCall { leaseId: lease.get() }).await.unwrap());
    lease
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creator_is_paid_when_a_host_claims_and_not_otherwise() {
    let world = World::new().await;
    let to = world.devnet.deployment();
    let terms = publish(&world, to).await;
    let lease = lease(&world, to, terms).await;
    let chain = protocol::ids::ChainId::new(to.chain_id);
    let (escrow, manager) = (Domain::new(chain, to.payment_escrow), Domain::new(chain, to.lease_manager));

    let channel = Channel {
        payer: PAYER.address,
        host: HOST.address,
        token: world.token(),
        withdraw_delay: Seconds::new(120),
        salt: B256::ZERO,
    };
    let deposit = Amount::new(20_000_000);
    world.allow(&PAYER, world.token(), to.payment_escrow, deposit).await;
    world.send(&PAYER, &payments::deposit(to, &channel, deposit).unwrap()).await;
    let channel_id = channel.digest(&escrow);

    // The payer's key stays at home: a session key signs the vouchers.
    let payer_key = SigningKey::from_bytes(&PAYER.key.0).unwrap();
    let session_key = SigningKey::from_bytes(&SESSION.key.0).unwrap();
    let now = world.now().await.get();
    let grant = SessionGrant {
        channel: channel_id,
        key: SESSION.address,
        cap: Amount::new(10_000_000),
        per_request_cap: Amount::new(5_000_000),
        expires_at: UnixSeconds::new(now + 86_400),
        nonce: 1,
    };
    let granted = Signed::sign(grant.clone(), &escrow, &payer_key);
    world.send(&PAYER, &payments::grant(to, &channel, &grant, &granted.signature).unwrap()).await;

    // One request is accepted, the next one is in flight when the payer goes away.
    let first = UsageCounts::new(1, 900, 100, 300).unwrap();
    let voucher = |counts, head| Voucher {
        channel: channel_id,
        lease,
        lane: Lane::new(3),
        counts,
        ceiling: Amount::new(5_000_000),
        statements_head: head,
        expires_at: UnixSeconds::new(now + 86_400),
    };
    let statement = |before: UsageCounts, used: RequestUsage, previous| {
        let step = LaneStep::new(before, used).unwrap();
        Statement {
            channel: Some(channel_id),
            lease,
            lane: Lane::new(3),
            step,
            charge: prices(10).charge(before, step.after()).unwrap(),
            request_hash: B256::repeat_byte(4),
            response_hash: B256::repeat_byte(5),
            started: UnixMilliseconds::new(now * 1_000),
            ended: UnixMilliseconds::new(now * 1_000 + 700),
            finish_reason: FinishReason::Stop,
            execution: None,
            previous,
        }
    };
    let one = statement(UsageCounts::ZERO, RequestUsage::new(900, 100, 300).unwrap(), None);
    let head = one.digest(&manager);
    let two = statement(first, RequestUsage::new(1_500, 0, 800).unwrap(), Some(head));
    let lease_key = SigningKey::from_bytes(&LEASE_KEY.key.0).unwrap();
    let claim = payments::Claim {
        channel: channel.clone(),
        voucher: Signed::sign(voucher(first, Some(head)), &escrow, &session_key),
        in_flight: Some(Signed::sign(two.clone(), &manager, &lease_key)),
    };
    let action = payments::claim(to, lease, &splits(), std::slice::from_ref(&claim)).unwrap();

    // Nothing is paid before it is reported.
    let error = world.try_send(&HOST, &action).await.unwrap_err();
    assert!(matches!(&error, ChainError::Reverted { revert, .. } if revert.name == "MoreThanReported"), "{error}");
    world.wait(120).await;
    let leaves = [&one, &two].map(|made| Leaf::new(made.digest(&manager), made.step.usage(), made.charge));
    let tree = MerkleSumTree::new(leaves.to_vec()).unwrap();
    let report = EpochCommit {
        lease,
        epoch: Epoch::new((now * 1_000 + 700) / 60_000),
        root: tree.commitment().root,
        totals: tree.commitment().totals,
        previous: None,
    };
    world.send(&HOST, &usage::report(to, &report).unwrap()).await;

    let receipt = world.send(&HOST, &action).await;
    eprintln!("claim of one voucher with a request in flight: {} gas", receipt.gas_used);
    let paid = prices(10).cost_up(two.step.after()).unwrap();
    let validators = BasisPoints::new(100).unwrap().share_down(paid).get();
    // Prices are ten times the floors, so share and floor of the royalty agree but for rounding.
    let royalty = (paid.get() / 10).max(prices(1).floor_down(two.step.after()).unwrap().get());
    let parent = BasisPoints::new(2_500).unwrap().share_down(Amount::new(royalty)).get();
    let earned = [
        world.earned(HOST.address).await,
        world.earned(CREATOR.address).await,
        world.earned(PARENT.address).await,
        world.earned(to.audit_service_manager).await,
    ];
    assert_eq!(earned, [paid.get() - royalty - validators, royalty - parent, parent, validators]);
    assert_eq!(earned.iter().sum::<u128>(), paid.get());

    // The same claim again: refused by name, and nothing moves.
    let error = world.try_send(&HOST, &action).await.unwrap_err();
    assert!(matches!(&error, ChainError::Reverted { revert, .. } if revert.name == "NotNewer"), "{error}");

    world.send(&CREATOR, &payments::pay_out(to, world.token(), CREATOR.address)).await;
    let holds = world.devnet.client().call(world.token(), &Erc20::balanceOfCall { account: CREATOR.address }).await;
    assert_eq!(holds.unwrap(), U256::from(1_000_000_000_000_u64 + u64::try_from(royalty - parent).unwrap()));
}

/// Stakes ten tokens as an operator, half of them allocated to the validators.
async fn restake(world: &World, to: &licensing_contracts::deployment::Deployment, account: &DevAccount) {
    let stake = Amount::new(10_000_000);
    world.send(account, &operators::register_as_operator(to, "")).await;
    world.allow(account, world.token(), to.eigenlayer.strategy_manager, stake).await;
    let deposit = operators::deposit_stake(to, to.eigenlayer.strategies[0], world.token(), U256::from(stake.get()));
    world.send(account, &deposit).await;
    world.wait(1).await;
    let half = BasisPoints::new(5_000).unwrap();
    let allocation = operators::allocate(to, account.address, operators::AuditSet::Validators, half);
    world.send(account, &allocation).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validator_joins_with_a_key_that_it_holds_and_with_no_other() {
    let world = World::new().await;
    let to = world.devnet.deployment();
    let (validator, other) = (ACCOUNTS[4], ACCOUNTS[5]);
    let domain = Domain::new(protocol::ids::ChainId::new(to.chain_id), to.audit_service_manager);
    let [key, stranger] = [[3; 32], [4; 32]].map(|bytes| SecretKey::from_bytes(&bytes).unwrap());
    let join = |account: &DevAccount, key: &SecretKey, possession| {
        operators::join_validators(to, account.address, &key.public_key(), &possession)
    };
    let refusal = async |account: &DevAccount, action: &Action| match world.try_send(account, action).await {
        Err(ChainError::Reverted { revert, .. }) => revert.name,
        other => panic!("not refused: {other:?}"),
    };

    let honest = join(&validator, &key, key.prove_possession(&domain, validator.address));
    world.send(&validator, &operators::register_as_operator(to, "")).await;
    assert_eq!(refusal(&validator, &honest).await, "WeightTooSmall");

    restake(&world, to, &other).await;
    for (key, possession) in [
        (&key, stranger.prove_possession(&domain, other.address)),
        (&key, key.prove_possession(&domain, validator.address)),
        (&stranger, key.prove_possession(&domain, other.address)),
    ] {
        assert_eq!(refusal(&other, &join(&other, key, possession)).await, "ProofOfPossession");
    }
    world.send(&other, &join(&other, &stranger, stranger.prove_possession(&domain, other.address))).await;
    let client = world.devnet.client();
    let total = client.call(to.audit_service_manager, &AuditServiceManager::totalWeightCall {}).await.unwrap();
    assert_eq!(total, 5_000_000);
}
