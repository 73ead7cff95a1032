//! A whole chain for development: the EVM in this process, EigenLayer's core, Hallmark's contracts, a token, and accounts
//! with coins and tokens.

pub mod market;

use std::{path::Path, time::Duration};

use alloy::{
    primitives::{Address, B256, U256, address, b256},
    providers::ProviderBuilder,
    signers::local::PrivateKeySigner,
};

use crate::{
    bindings::TestToken,
    client::{Action, ChainClient, ChainError, FeePolicy, Sender, SenderSettings, TransactionJournal},
    deploy::{self, DeployError, ProtocolSetup},
    deployment::{Deployment, EigenLayerAddresses},
    devchain::{Config, DevChain, StateError},
    eigenlayer::{
        core::CoreBytecode,
        deploy::{CoreConfig, DeployError as CoreDeployError, Deployer},
    },
};

/// An account whose key everybody knows.
#[derive(Clone, Copy, Debug)]
pub struct DevAccount {
    /// What the examples use it for.
    pub role: &'static str,
    /// The account.
    pub address: Address,
    /// Its key. Public: never send anything of worth to it.
    pub key: B256,
}

/// The first accounts of the mnemonic `test test test test test test test test test test test junk`, which wallets and other
/// development chains know as well.
pub const ACCOUNTS: [DevAccount; 8] = [
    DevAccount {
        role: "deployer",
        address: address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266"),
        key: b256!("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"),
    },
    DevAccount {
        role: "creator",
        address: address!("70997970C51812dc3A010C7d01b50e0d17dc79C8"),
        key: b256!("59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"),
    },
    DevAccount {
        role: "host",
        address: address!("3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"),
        key: b256!("5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a"),
    },
    DevAccount {
        role: "payer",
        address: address!("90F79bf6EB2c4f870365E785982E1f101E93b906"),
        key: b256!("7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6"),
    },
    DevAccount {
        role: "validator",
        address: address!("15d34AAf54267DB7D7c367839AAf71A00a2C6A65"),
        key: b256!("47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a"),
    },
    DevAccount {
        role: "contributor",
        address: address!("9965507D1a55bcC2695C58ba16FB37d819B0A4dc"),
        key: b256!("8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba"),
    },
    DevAccount {
        role: "lease key",
        address: address!("976EA74026E726554dB657fA54763abd0C3a0aa9"),
        key: b256!("92db14e403b83dfe3df233f83dfa3a0d7096f21ca9b0d6d6b8d88b2b4ec1564e"),
    },
    DevAccount {
        role: "session key",
        address: address!("14dC79964da2C08b23698B3D3cc7Ca32193d9955"),
        key: b256!("4bbbf85ce3377467afe5d46f804f221813b2bb87f24d81f60f1fcdbf7cbf4356"),
    },
];

/// Owns the model.
pub const CREATOR: DevAccount = ACCOUNTS[1];
/// Serves it.
pub const HOST: DevAccount = ACCOUNTS[2];
/// Builds an app on it, and pays.
pub const PAYER: DevAccount = ACCOUNTS[3];
/// Gets a part of the royalty.
pub const CONTRIBUTOR: DevAccount = ACCOUNTS[5];
/// The host's key that signs statements.
pub const LEASE_KEY: DevAccount = ACCOUNTS[6];
/// The payer's key that signs vouchers.
pub const SESSION_KEY: DevAccount = ACCOUNTS[7];

/// Coins of each account, in wei: 10,000.
const COINS: u128 = 10_000_000_000_000_000_000_000;
/// Test tokens of each account, in the smallest unit: 1,000,000.
const TOKENS: u64 = 1_000_000_000_000;

/// Why there is no chain.
#[derive(Debug, thiserror::Error)]
pub enum DevnetError {
    /// The state file.
    #[error(transparent)]
    State(#[from] StateError),
    /// EigenLayer's core.
    #[error("failed to deploy EigenLayer's core")]
    Core(#[from] CoreDeployError),
    /// Hallmark's contracts.
    #[error(transparent)]
    Deploy(#[from] DeployError),
    /// A transaction.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A transaction did not do what it is for.
    #[error("the {what} of the development chain is not there")]
    Silent {
        /// What should be there.
        what: &'static str,
    },
    /// A message that cannot be encoded.
    #[error("failed to encode a message")]
    Encode(#[source] alloy::sol_types::Error),
    /// A folder for the deployer's journal.
    #[error("failed to make a temporary folder")]
    Folder(#[source] std::io::Error),
}

/// The chain with everything on it.
#[derive(Debug)]
pub struct Devnet {
    chain: DevChain,
    deployment: Deployment,
}

impl Devnet {
    /// Makes a chain and deploys everything, in well under a second.
    pub async fn start(config: Config, core: &CoreBytecode, setup: &ProtocolSetup) -> Result<Self, DevnetError> {
        let funded = ACCOUNTS.iter().map(|account| (account.address, U256::from(COINS))).collect();
        let chain = DevChain::new(Config { funded, ..config })?;
        let deployment = populate(&chain, core, setup).await?;
        Ok(Self { chain, deployment })
    }

    /// Goes on with the chain in a state file, whose contracts `deployment` names.
    pub fn resume(config: Config, state: &Path, deployment: Deployment) -> Result<Self, DevnetError> {
        Ok(Self { chain: DevChain::open(config, state)?, deployment })
    }

    /// The chain itself.
    pub const fn chain(&self) -> &DevChain {
        &self.chain
    }

    /// Where everything is.
    pub const fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// A client in this process.
    pub fn client(&self) -> ChainClient {
        ChainClient::over(self.chain.client(), self.deployment.chain_id)
    }
}

/// How transactions are sent on a chain that mines them at once.
pub fn sender_settings() -> SenderSettings {
    SenderSettings { poll: Duration::from_millis(2), fees: FeePolicy::default(), ..SenderSettings::default() }
}

async fn populate(chain: &DevChain, core: &CoreBytecode, setup: &ProtocolSetup) -> Result<Deployment, DevnetError> {
    let [deployer, ..] = ACCOUNTS;
    let client = ChainClient::over(chain.client(), chain_id(chain).await?);
    let signer = signer(&deployer);
    let folder = tempfile::tempdir().map_err(DevnetError::Folder)?;
    let journal =
        TransactionJournal::open(folder.path(), client.chain_id(), deployer.address).map_err(ChainError::from)?;
    let mut sender = Sender::new(client, signer.clone(), journal, sender_settings());
    let token = deploy::test_token(&mut sender).await?;

    let provider = ProviderBuilder::new().wallet(signer).connect_client(chain.client());
    let mut core_deployer = Deployer::new(&provider, deployer.address, core);
    let addresses = core_deployer.core(&core_config()).await?;
    let strategy = core_deployer.strategy(&addresses, token).await?;
    let eigenlayer = EigenLayerAddresses {
        delegation_manager: addresses.delegation_manager,
        strategy_manager: addresses.strategy_manager,
        allocation_manager: addresses.allocation_manager,
        rewards_coordinator: addresses.rewards_coordinator,
        strategies: vec![strategy],
    };
    let deployment = deploy::deploy(&mut sender, setup, eigenlayer, Some(token)).await?;
    for account in ACCOUNTS {
        let mint = TestToken::mintCall { to: account.address, amount: U256::from(TOKENS) };
        sender.send(&Action::call("minting of test tokens", token, &mint)).await?;
    }
    Ok(deployment)
}

async fn chain_id(chain: &DevChain) -> Result<u64, ChainError> {
    let id: alloy::primitives::U64 = chain
        .client()
        .request_noparams("eth_chainId")
        .await
        .map_err(|source| ChainError::Rpc { attempted: "ask for the chain's id".to_owned(), source })?;
    Ok(id.to())
}

/// The key of a development account.
#[expect(clippy::expect_used, reason = "the keys are constants, and a test signs with each of them")]
pub fn signer(account: &DevAccount) -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&account.key).expect("a constant is a key")
}

/// Blocks where public chains have days: everything that a person waits for takes a few transactions.
fn core_config() -> CoreConfig {
    CoreConfig {
        // Longer than an audit (`ProtocolSetup::development`) at a block a second.
        deallocation_delay_blocks: 1_000,
        allocation_configuration_delay_blocks: 2,
        withdrawal_delay_blocks: 5,
        ..CoreConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_belong_to_their_accounts() {
        for account in ACCOUNTS {
            assert_eq!(signer(&account).address(), account.address, "{}", account.role);
        }
    }
}
