//! A chain with a lease and deposits, and customers who pay from them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use licensing_contracts::{
    actions::{self, payments},
    client::{Sender, TransactionJournal},
    deploy::ProtocolSetup,
    devchain::Config,
    devnet::{
        DevAccount, Devnet, HOST, PAYER,
        market::{Market, Offered},
        sender_settings, signer,
    },
    eigenlayer::core::{Cargo, CoreBytecode},
};
use protocol::{
    B256,
    counts::UsageCounts,
    ids::{ChainId, ChannelId, Lane, LeaseId, StatementDigest},
    messages::{Channel, Domain, LeaseManager, Message as _, PaymentEscrow, Signed, Statement, Voucher},
    signature::SigningKey,
    units::{Amount, Seconds, UnixMilliseconds, UnixSeconds},
};
use serde_json::{Value, json};

/// Lanes that a host opens in one channel.
const LANES: u64 = 256;
/// In all channels together, in units of the test token: nearly all that the payer has.
const DEPOSITS: u128 = 900_000_000_000;

/// The system's clock.
pub fn now() -> UnixMilliseconds {
    #[expect(clippy::disallowed_methods, reason = "blocks have the system's time")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMilliseconds::new(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

/// A development chain on which a model is leased, and a payer has deposits with its host.
#[derive(Debug)]
pub struct World {
    devnet: Devnet,
    market: Market,
    channels: Vec<Channel>,
    folder: tempfile::TempDir,
}

impl World {
    /// For customers on so many lanes.
    ///
    /// # Errors
    /// When the bytecode of EigenLayer's core cannot be fetched, or a transaction fails.
    pub async fn new(offered: &Offered, lanes: u64) -> anyhow::Result<Self> {
        let home = std::env::home_dir().context("a home folder")?;
        let cargo = Cargo { program: "cargo".into(), home: Some(home.join(".cargo")) };
        let core = CoreBytecode::load(&home.join(".cache/hallmark"), &cargo)?;
        let config = Config { idle_block_after: Some(Duration::from_secs(1)), ..Config::default() };
        let devnet = Devnet::start(config, &core, &ProtocolSetup::development()).await?;
        let market = devnet.open_market(offered).await?;
        let token = devnet.deployment().test_token.context("a test token")?;
        let channel = |salt: u64| Channel {
            payer: PAYER.address,
            host: HOST.address,
            token,
            withdraw_delay: Seconds::new(120),
            salt: B256::left_padding_from(&salt.to_be_bytes()),
        };
        let channels = (0..lanes.div_ceil(LANES)).map(channel).collect();
        let world = Self { devnet, market, channels, folder: tempfile::tempdir()? };
        world.deposit().await?;
        Ok(world)
    }

    async fn deposit(&self) -> anyhow::Result<()> {
        let (to, client) = (self.devnet.deployment(), self.devnet.client());
        let token = to.test_token.context("a test token")?;
        let each = Amount::new(DEPOSITS.checked_div(u128::try_from(self.channels.len())?).context("a channel")?);
        let mut payer = self.sender(&PAYER)?;
        for step in actions::allow(&client, token, PAYER.address, to.payment_escrow, Amount::new(DEPOSITS)).await? {
            payer.send(&step).await?;
        }
        for channel in &self.channels {
            payer.send(&payments::deposit(to, channel, each)?).await?;
        }
        Ok(())
    }

    /// The chain.
    pub fn devnet(&self) -> &Devnet {
        &self.devnet
    }

    /// The lease, which is the host's.
    pub fn lease(&self) -> LeaseId {
        self.market.lease
    }

    /// A folder that goes with the world.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Sends transactions of an account.
    ///
    /// # Errors
    /// When its journal cannot be opened.
    pub fn sender(&self, account: &DevAccount) -> anyhow::Result<Sender> {
        let client = self.devnet.client();
        let journal = TransactionJournal::open(self.folder.path(), client.chain_id(), account.address)?;
        Ok(Sender::new(client, signer(account), journal, sender_settings()))
    }

    /// A customer on a lane of its own.
    ///
    /// # Errors
    /// When the world was made for fewer lanes.
    pub fn payer(&self, lane: u64) -> anyhow::Result<Payer> {
        let to = self.devnet.deployment();
        let escrow = Domain::new(ChainId::new(to.chain_id), to.payment_escrow);
        let channel = self.channels.get(usize::try_from(lane / LANES)?).context("a channel for this lane")?;
        Ok(Payer {
            id: channel.digest(&escrow),
            channel: serde_json::to_value(channel)?,
            lease: self.market.lease,
            lane: Lane::new(lane % LANES),
            counts: UsageCounts::ZERO,
            head: None,
            key: SigningKey::from_bytes(&PAYER.key.0)?,
            escrow,
            manager: Domain::new(ChainId::new(to.chain_id), to.lease_manager),
        })
    }
}

/// One lane's customer.
#[derive(Debug)]
pub struct Payer {
    id: ChannelId,
    channel: Value,
    lease: LeaseId,
    lane: Lane,
    counts: UsageCounts,
    head: Option<StatementDigest>,
    key: SigningKey,
    escrow: Domain<PaymentEscrow>,
    manager: Domain<LeaseManager>,
}

impl Payer {
    /// The value of `Hallmark-Voucher` for the next request.
    pub fn header(&self) -> String {
        let voucher = Voucher {
            channel: self.id,
            lease: self.lease,
            lane: self.lane,
            counts: self.counts,
            ceiling: Amount::new(1_000_000),
            statements_head: self.head,
            expires_at: UnixSeconds::new(now().second_down().get() + 86_400),
        };
        let voucher = Signed::sign(voucher, &self.escrow, &self.key);
        STANDARD.encode(json!({ "channel": self.channel, "voucher": voucher }).to_string())
    }

    /// Accepts the statement of an answer, whose member `hallmark` this is.
    ///
    /// # Errors
    /// When there is none.
    pub fn accept(&mut self, hallmark: &Value) -> anyhow::Result<()> {
        let signed: Signed<Statement> = serde_json::from_value(hallmark["statement"].clone())?;
        self.counts = signed.message.step.after();
        self.head = Some(signed.message.digest(&self.manager));
        Ok(())
    }
}
