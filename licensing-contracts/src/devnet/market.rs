//! A model that is registered and leased, so that a host can begin to serve.

use alloy::primitives::{B256, U256};
use protocol::{
    ids::{LeaseId, ManifestDigest, ModelId, TemplateDigest, TermsId, TermsVersion, TokenizerDigest},
    messages::LicenseTerms,
    money::Prices,
    splits::{Split, Splits},
    units::{Amount, BasisPoints, PricePerMillion, Seconds, StakeWeight, UnixSeconds},
};

use super::{CONTRIBUTOR, CREATOR, DevAccount, Devnet, DevnetError, HOST, LEASE_KEY, sender_settings, signer};
use crate::{
    actions::{
        self,
        leases::{self, LeaseRequest},
        operators::{self, AuditSet},
        registry,
    },
    bindings::TestToken,
    client::{Action, ChainError, Sender, TransactionJournal},
};

const DAY_S: u64 = 86_400;
/// Units of the test token, which has six decimals.
const TOKEN: u128 = 1_000_000;

/// What is offered.
#[derive(Clone, Copy, Debug)]
pub struct Offered {
    /// The model.
    pub manifest: ManifestDigest,
    /// Decides its token ids.
    pub tokenizer: TokenizerDigest,
    /// Renders its chats.
    pub template: TemplateDigest,
}

/// A model with terms and a lease.
#[derive(Clone, Debug)]
pub struct Market {
    /// The model; the creator's.
    pub model: ModelId,
    /// Its terms: 10 % of what is claimed to the creator, a quarter of that to the contributor, 1 % to the validators.
    pub terms: TermsId,
    /// The host's lease; its statements are signed by the lease key.
    pub lease: LeaseId,
    /// What the host charges.
    pub prices: Prices,
}

impl Devnet {
    /// Registers a model as the creator, and restakes and leases as the host.
    pub async fn open_market(&self, offered: &Offered) -> Result<Market, DevnetError> {
        let folder = tempfile::tempdir().map_err(DevnetError::Folder)?;
        let sender = |account: &DevAccount| {
            let client = self.client();
            let journal = TransactionJournal::open(folder.path(), client.chain_id(), account.address);
            let journal = journal.map_err(ChainError::from)?;
            Ok::<_, DevnetError>(Sender::new(client, signer(account), journal, sender_settings()))
        };
        let (mut creator, mut host) = (sender(&CREATOR)?, sender(&HOST)?);
        let (model, terms) = self.offer(&mut creator, offered).await?;
        self.restake(&mut host).await?;
        let prices = prices([10_000, 2, 1, 6]);
        let lease = self.lease(&mut host, terms, prices).await?;
        Ok(Market { model, terms, lease, prices })
    }

    async fn offer(&self, creator: &mut Sender, offered: &Offered) -> Result<(ModelId, TermsId), DevnetError> {
        let to = self.deployment();
        let receipt = creator.send(&registry::register(to, offered.manifest, &[], "")).await?;
        let model = registry::registered(to, &receipt).ok_or(DevnetError::Silent { what: "registration" })?;
        let share = |bp| BasisPoints::new(bp).unwrap_or(BasisPoints::NOTHING);
        let splits = Splits::new(vec![Split { recipient: CONTRIBUTOR.address, share: share(2_500) }]);
        let splits = splits.unwrap_or_default();
        let now = self.client().head().await?.timestamp_s;
        let terms = LicenseTerms {
            model,
            version: TermsVersion::new(1),
            payment_token: to.test_token.ok_or(DevnetError::Silent { what: "test token" })?,
            royalty: share(1_000),
            floors: prices([0, 0, 0, 0]),
            validators: share(100),
            splits: splits.root(),
            min_bond: Amount::new(50 * TOKEN),
            min_restake: StakeWeight::new(500 * TOKEN),
            valid_from: UnixSeconds::new(now),
            valid_to: UnixSeconds::new(now.saturating_add(365 * DAY_S)),
            dispute_window: Seconds::new(DAY_S),
            tokenizer: offered.tokenizer,
            template: offered.template,
            legal_text: B256::ZERO.into(),
        };
        let receipt = creator.send(&registry::publish_terms(to, &terms, &splits).map_err(DevnetError::Encode)?).await?;
        let terms = registry::published(to, &receipt).ok_or(DevnetError::Silent { what: "publication" })?;
        Ok((model, terms))
    }

    async fn restake(&self, host: &mut Sender) -> Result<(), DevnetError> {
        let to = self.deployment();
        let stake = Amount::new(1_000 * TOKEN);
        let token = to.test_token.ok_or(DevnetError::Silent { what: "test token" })?;
        let strategy = to.eigenlayer.strategies.first().ok_or(DevnetError::Silent { what: "strategy" })?;
        host.send(&operators::register_as_operator(to, "")).await?;
        self.allow(host, to.eigenlayer.strategy_manager, stake).await?;
        host.send(&operators::deposit_stake(to, *strategy, token, U256::from(stake.get()))).await?;
        // EigenLayer lets a new operator allocate some blocks after it registered.
        let filler = TestToken::mintCall { to: HOST.address, amount: U256::ZERO };
        host.send(&Action::call("an empty block", token, &filler)).await?;
        let all = BasisPoints::WHOLE;
        host.send(&operators::allocate(to, HOST.address, AuditSet::Hosts, all)).await?;
        host.send(&operators::join_hosts(to, HOST.address)).await?;
        Ok(())
    }

    async fn lease(&self, host: &mut Sender, terms: TermsId, prices: Prices) -> Result<LeaseId, DevnetError> {
        let to = self.deployment();
        let now = self.client().head().await?.timestamp_s;
        let request = LeaseRequest {
            terms,
            lease_key: LEASE_KEY.address,
            variants: None,
            endpoint: "http://127.0.0.1:8080/v1".to_owned(),
            prices,
            to: UnixSeconds::new(now.saturating_add(300 * DAY_S)),
            bond: Amount::new(100 * TOKEN),
        };
        self.allow(host, to.lease_manager, request.bond).await?;
        let receipt = host.send(&leases::open(to, &request)).await?;
        leases::opened(to, &receipt).ok_or(DevnetError::Silent { what: "lease" })
    }

    async fn allow(
        &self,
        sender: &mut Sender,
        spender: alloy::primitives::Address,
        amount: Amount,
    ) -> Result<(), DevnetError> {
        let token = self.deployment().test_token.ok_or(DevnetError::Silent { what: "test token" })?;
        for step in actions::allow(&self.client(), token, sender.account(), spender, amount).await? {
            sender.send(&step).await?;
        }
        Ok(())
    }
}

/// Whole tokens for a million requests, prompt tokens, cached prompt tokens and completion tokens.
fn prices([request, prompt, cached, completion]: [u128; 4]) -> Prices {
    let price = |tokens: u128| PricePerMillion::new(tokens.saturating_mul(TOKEN));
    Prices { request: price(request), prompt: price(prompt), cached: price(cached), completion: price(completion) }
}
