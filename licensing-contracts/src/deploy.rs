//! Deploys Hallmark's contracts beside an EigenLayer core.
//!
//! The contracts know one another from their constructors and are immutable, so each is told where the others are going to be:
//! an account's next contracts have addresses that follow from its nonce.

use alloy::{
    primitives::{Address, Bytes},
    providers::Provider,
    sol_types::SolConstructor,
};

use crate::{
    bindings::{AuditServiceManager, EvidenceCourt, LeaseManager, ModelRegistry, PaymentEscrow, TestToken, UsageLog},
    client::{Action, ChainError, Sender},
    deployment::{Deployment, EigenLayerAddresses},
};

/// Seconds that terms may at most give for settling reported usage (`ModelRegistry.MAX_DISPUTE_WINDOW`).
const LONGEST_DISPUTE_WINDOW_S: u64 = 7 * 86_400;

/// What EigenLayer's interfaces show of the service, without a server that must stay up.
const METADATA_URI: &str =
    r#"data:application/json,{"name":"Hallmark","description":"Audits of licensed open-weight inference"}"#;

/// Why the contracts were not deployed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// A transaction failed.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The account sent something else meanwhile: the contracts would not find one another.
    #[error(
        "{contract} was made at {found} and not at {expected}: use an account that sends nothing else, and start again"
    )]
    Address {
        /// The contract.
        contract: &'static str,
        /// Where the others look for it.
        expected: Address,
        /// Where it is, if the chain says so.
        found: Address,
    },
}

/// The delays and bonds of a deployment. They cannot be changed afterwards. Times are in seconds unless said otherwise.
#[derive(Clone, Debug)]
pub struct ProtocolSetup {
    /// Blocks between a fingerprint commitment and the block that draws.
    pub draw_delay_blocks: u64,
    /// After registration, in which ownership can be challenged.
    pub ownership_window_s: u64,
    /// Between a creator's revocation of a lease and its end.
    pub revocation_notice_s: u64,
    /// After a lease's end, in which its use can be reported and its vouchers claimed; at least two claim intervals.
    pub claim_delay_s: u64,
    /// Within which a host is expected to claim; withdrawals take at least twice as long, and so do dispute windows.
    pub claim_interval_s: u64,
    /// Length of an epoch of usage; at most a claim interval.
    pub epoch_s: u64,
    /// After an epoch, in which its host may report it unasked.
    pub commit_grace_s: u64,
    /// For a host to show a statement.
    pub answer_window_s: u64,
    /// For validators to agree on a verdict.
    pub verdict_window_s: u64,
    /// For a verdict to be contradicted.
    pub resolve_window_s: u64,
    /// Least time between blocks.
    pub seconds_per_block: u64,
    /// Bond of an accusation, in wei.
    pub task_bond: u128,
    /// Bond of a demand to show a statement, in wei.
    pub challenge_bond: u128,
    /// Least slashable stake of a validator, in units of the strategies' tokens.
    pub validator_min_weight: u128,
}

impl ProtocolSetup {
    /// For a public chain with blocks of 12 seconds and EigenLayer's delays of 14 days.
    pub const fn public() -> Self {
        Self {
            draw_delay_blocks: 8,
            ownership_window_s: 30 * 86_400,
            revocation_notice_s: 3 * 86_400,
            claim_delay_s: 3 * 86_400,
            claim_interval_s: 86_400,
            epoch_s: 86_400,
            commit_grace_s: 6 * 3_600,
            answer_window_s: 86_400,
            verdict_window_s: 3 * 86_400,
            resolve_window_s: 86_400,
            seconds_per_block: 12,
            task_bond: 50_000_000_000_000_000,
            challenge_bond: 5_000_000_000_000_000,
            validator_min_weight: 1_000_000_000_000_000_000,
        }
    }

    /// For trying things out: minutes instead of days.
    pub const fn development() -> Self {
        Self {
            draw_delay_blocks: 2,
            ownership_window_s: 3_600,
            revocation_notice_s: 60,
            claim_delay_s: 600,
            claim_interval_s: 60,
            epoch_s: 60,
            commit_grace_s: 60,
            answer_window_s: 120,
            verdict_window_s: 300,
            resolve_window_s: 60,
            seconds_per_block: 1,
            // One of the test token, which has six decimals.
            validator_min_weight: 1_000_000,
            ..Self::public()
        }
    }
}

/// Makes all contracts, in six transactions; one more for a test token.
pub async fn deploy(
    sender: &mut Sender,
    setup: &ProtocolSetup,
    eigenlayer: EigenLayerAddresses,
    test_token: Option<Address>,
) -> Result<Deployment, DeployError> {
    let account = sender.account();
    let provider = sender.chain().provider();
    let nonce = provider
        .get_transaction_count(account)
        .await
        .map_err(|source| ChainError::Rpc { attempted: "read the nonce".to_owned(), source })?;
    let block = sender.chain().head().await?.number;
    let at = |offset: u64| account.create(nonce.saturating_add(offset));
    let deployment = Deployment {
        chain_id: sender.chain().chain_id(),
        block,
        model_registry: at(0),
        lease_manager: at(1),
        payment_escrow: at(2),
        usage_log: at(3),
        audit_service_manager: at(4),
        evidence_court: at(5),
        eigenlayer,
        test_token,
    };
    for (contract, expected, code) in creations(&deployment, setup) {
        let found = create(sender, contract, code).await?;
        if found != expected {
            return Err(DeployError::Address { contract, expected, found });
        }
    }
    Ok(deployment)
}

/// Makes a token that anybody can mint.
pub async fn test_token(sender: &mut Sender) -> Result<Address, DeployError> {
    create(sender, "TestToken", TestToken::BYTECODE.clone()).await
}

async fn create(sender: &mut Sender, contract: &'static str, code: Bytes) -> Result<Address, DeployError> {
    let action = Action { what: format!("creation of {contract}"), to: None, data: code, value: Default::default() };
    let receipt = sender.send(&action).await?;
    Ok(receipt.contract_address.unwrap_or_default())
}

/// Creation code with constructor arguments, in the order in which the addresses were foreseen.
fn creations(to: &Deployment, setup: &ProtocolSetup) -> [(&'static str, Address, Bytes); 6] {
    let audit = AuditServiceManager::constructorCall {
        setup: AuditServiceManager::Setup {
            allocations: to.eigenlayer.allocation_manager,
            rewards: to.eigenlayer.rewards_coordinator,
            registry: to.model_registry,
            leases: to.lease_manager,
            escrow: to.payment_escrow,
            court: to.evidence_court,
            strategies: to.eigenlayer.strategies.clone(),
            metadataUri: METADATA_URI.to_owned(),
            verdictWindow: setup.verdict_window_s,
            resolveWindow: setup.resolve_window_s,
            secondsPerBlock: setup.seconds_per_block,
            taskBond: setup.task_bond,
            minWeight: setup.validator_min_weight,
        },
    };
    let registry = ModelRegistry::constructorCall {
        audit: to.audit_service_manager,
        drawDelayBlocks: setup.draw_delay_blocks,
        challengeWindow: setup.ownership_window_s,
        // Whoever claims every interval has claimed before anybody can enforce the royalty.
        minDisputeWindow: setup.claim_interval_s.saturating_mul(2),
    };
    let leases = LeaseManager::constructorCall {
        registry: to.model_registry,
        escrow: to.payment_escrow,
        audit: to.audit_service_manager,
        revocationNotice: setup.revocation_notice_s,
        claimDelay: setup.claim_delay_s,
        unbondingDelay: setup.claim_delay_s.saturating_add(LONGEST_DISPUTE_WINDOW_S),
    };
    let escrow = PaymentEscrow::constructorCall {
        leases: to.lease_manager,
        usage: to.usage_log,
        audit: to.audit_service_manager,
        claimInterval: setup.claim_interval_s,
    };
    let usage = UsageLog::constructorCall {
        leases: to.lease_manager,
        epochLength: setup.epoch_s,
        commitGrace: setup.commit_grace_s,
    };
    let court = EvidenceCourt::constructorCall {
        audit: to.audit_service_manager,
        usage: to.usage_log,
        answerWindow: setup.answer_window_s,
        challengeBond: setup.challenge_bond,
    };
    [
        ("ModelRegistry", to.model_registry, with(&ModelRegistry::BYTECODE, &registry)),
        ("LeaseManager", to.lease_manager, with(&LeaseManager::BYTECODE, &leases)),
        ("PaymentEscrow", to.payment_escrow, with(&PaymentEscrow::BYTECODE, &escrow)),
        ("UsageLog", to.usage_log, with(&UsageLog::BYTECODE, &usage)),
        ("AuditServiceManager", to.audit_service_manager, with(&AuditServiceManager::BYTECODE, &audit)),
        ("EvidenceCourt", to.evidence_court, with(&EvidenceCourt::BYTECODE, &court)),
    ]
}

fn with(code: &Bytes, arguments: &impl SolConstructor) -> Bytes {
    [code.as_ref(), &arguments.abi_encode()].concat().into()
}
