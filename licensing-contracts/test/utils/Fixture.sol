// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Test, Vm} from "forge-std/Test.sol";

import {AuditServiceManager} from "../../contracts/AuditServiceManager.sol";
import {EvidenceCourt} from "../../contracts/EvidenceCourt.sol";
import {LeaseManager} from "../../contracts/LeaseManager.sol";
import {ModelRegistry} from "../../contracts/ModelRegistry.sol";
import {PaymentEscrow} from "../../contracts/PaymentEscrow.sol";
import {UsageLog} from "../../contracts/UsageLog.sol";
import {TestToken} from "../../contracts/devnet/TestToken.sol";
import {IAuditServiceManager} from "../../contracts/interfaces/IAuditServiceManager.sol";
import {ILeaseManager} from "../../contracts/interfaces/ILeaseManager.sol";
import {IModelRegistry} from "../../contracts/interfaces/IModelRegistry.sol";
import {IPaymentEscrow} from "../../contracts/interfaces/IPaymentEscrow.sol";
import {IUsageLog} from "../../contracts/interfaces/IUsageLog.sol";
import {IRewardsCoordinator, OperatorSet} from "../../contracts/interfaces/eigenlayer/IEigenLayer.sol";
import {MessageHash} from "../../contracts/libraries/MessageHash.sol";
import {ChannelId, LeaseId, ModelId, TermsId} from "../../contracts/types/Ids.sol";
import {Channel, LicenseTerms, Prices, Split} from "../../contracts/types/Messages.sol";
import {EigenLayerCore} from "./EigenLayerCore.sol";

/// @title Everything deployed on the real EigenLayer core, with one model, one licence and one host
abstract contract Fixture is Test, EigenLayerCore {
    uint64 internal constant START = 1_800_000_000;
    uint64 internal constant CHALLENGE_WINDOW = 30 days;
    uint64 internal constant REVOCATION_NOTICE = 3 days;
    uint64 internal constant CLAIM_DELAY = 7 days;
    uint64 internal constant UNBONDING_DELAY = 21 days;
    uint64 internal constant EPOCH_LENGTH = 1 hours;
    uint64 internal constant COMMIT_GRACE = 10 minutes;
    uint64 internal constant CLAIM_INTERVAL = 1 days;
    uint64 internal constant MIN_DISPUTE_WINDOW = 2 days;
    uint64 internal constant VERDICT_WINDOW = 2 days;
    uint64 internal constant RESOLVE_WINDOW = 1 days;
    uint64 internal constant ANSWER_WINDOW = 1 days;
    uint64 internal constant SECONDS_PER_BLOCK = 12;
    uint64 internal constant DRAW_DELAY_BLOCKS = 8;
    uint128 internal constant TASK_BOND = 0.1 ether;
    uint128 internal constant CHALLENGE_BOND = 0.01 ether;
    uint128 internal constant MIN_WEIGHT = 1 ether;
    uint64 internal constant WITHDRAW_DELAY = 3 days;
    uint128 internal constant BOND = 1_000e6;
    uint256 internal constant HOST_STAKE = 500 ether;
    uint64 internal constant ALL = 1e18;

    ModelRegistry internal registry;
    LeaseManager internal leases;
    UsageLog internal usage;
    PaymentEscrow internal escrow;
    AuditServiceManager internal audit;
    EvidenceCourt internal court;
    TestToken internal token;
    TestToken internal stakeToken;
    address internal strategy;

    Vm.Wallet internal creator = vm.createWallet("creator");
    Vm.Wallet internal host = vm.createWallet("host");
    Vm.Wallet internal leaseKey = vm.createWallet("lease key");
    Vm.Wallet internal payer = vm.createWallet("payer");
    Vm.Wallet internal session = vm.createWallet("session key");
    Vm.Wallet internal stranger = vm.createWallet("stranger");

    ModelId internal modelId;
    TermsId internal termsId;
    LeaseId internal leaseId;

    function setUp() public virtual {
        vm.warp(START);
        // The core slashes queued withdrawals back to the block that its delay reaches: there must be one.
        vm.roll(100_000);
        deployCore();
        stakeToken = new TestToken();
        strategy = deployStrategy(address(stakeToken));
        token = new TestToken();
        deployHallmark();
        modelId = registerModel("model");
        termsId = publishTerms(defaultTerms(modelId));
        makeHost(host.addr, HOST_STAKE);
        token.mint(host.addr, 1_000_000e6);
        approve(host.addr, address(leases));
        leaseId = openLease(termsId);
    }

    function deployHallmark() internal {
        uint256 nonce = vm.getNonce(address(this));
        address escrowAt = vm.computeCreateAddress(address(this), nonce + 2);
        address usageAt = vm.computeCreateAddress(address(this), nonce + 3);
        address auditAt = vm.computeCreateAddress(address(this), nonce + 4);
        address courtAt = vm.computeCreateAddress(address(this), nonce + 5);
        registry =
            new ModelRegistry(IAuditServiceManager(auditAt), DRAW_DELAY_BLOCKS, CHALLENGE_WINDOW, MIN_DISPUTE_WINDOW);
        leases = new LeaseManager(
            registry,
            IPaymentEscrow(escrowAt),
            IAuditServiceManager(auditAt),
            REVOCATION_NOTICE,
            CLAIM_DELAY,
            UNBONDING_DELAY
        );
        escrow = new PaymentEscrow(leases, IUsageLog(usageAt), auditAt, CLAIM_INTERVAL);
        usage = new UsageLog(leases, EPOCH_LENGTH, COMMIT_GRACE);
        audit = new AuditServiceManager(defaultSetup(courtAt));
        court = new EvidenceCourt(audit, usage, ANSWER_WINDOW, CHALLENGE_BOND);
    }

    function defaultSetup(address courtAt) internal view returns (AuditServiceManager.Setup memory) {
        return AuditServiceManager.Setup({
            allocations: allocations,
            rewards: IRewardsCoordinator(rewards),
            registry: registry,
            leases: leases,
            escrow: escrow,
            court: courtAt,
            strategies: single(strategy),
            metadataUri: "https://hallmark.example/audit.json",
            verdictWindow: VERDICT_WINDOW,
            resolveWindow: RESOLVE_WINDOW,
            secondsPerBlock: SECONDS_PER_BLOCK,
            taskBond: TASK_BOND,
            minWeight: MIN_WEIGHT
        });
    }

    // The creator

    function registerModel(string memory name) internal returns (ModelId) {
        vm.prank(creator.addr);
        return
            registry.register(keccak256(bytes(name)), new ModelId[](0), string.concat("https://models.example/", name));
    }

    function defaultTerms(ModelId model) internal view returns (LicenseTerms memory) {
        return LicenseTerms({
            modelId: model,
            version: registry.model(model).termsVersion + 1,
            paymentToken: address(token),
            royaltyBps: 1_000,
            floorRequest: 0,
            floorPrompt: 20_000,
            floorCached: 2_000,
            floorCompletion: 60_000,
            validatorBps: 100,
            splitRoot: 0,
            minBond: 500e6,
            minRestake: 100 ether,
            validFrom: START,
            validTo: START + 365 days,
            disputeWindow: 3 days,
            tokenizerDigest: keccak256("tokenizer"),
            templateDigest: keccak256("template"),
            legalTextDigest: keccak256("legal text")
        });
    }

    function publishTerms(LicenseTerms memory terms) internal returns (TermsId) {
        return publishTerms(terms, noSplits());
    }

    function publishTerms(LicenseTerms memory terms, Split[] memory splits) internal returns (TermsId) {
        terms.splitRoot = MessageHash.splitRoot(splits);
        vm.prank(creator.addr);
        return registry.publishTerms(terms, splits);
    }

    function noSplits() internal pure returns (Split[] memory) {
        return new Split[](0);
    }

    function twoSplits() internal returns (Split[] memory splits) {
        splits = new Split[](2);
        splits[0] = Split(makeAddr("parent"), 2_500);
        splits[1] = Split(makeAddr("contributor"), 1_000);
    }

    // The host

    /// Restakes and joins the hosts' set with everything.
    function makeHost(address operator, uint256 stake) internal {
        restake(operator, stake);
        joinSet(operator, hosts(), strategy, ALL, "");
    }

    /// Becomes an operator that delegates its own deposit to itself.
    function restake(address operator, uint256 stake) internal {
        becomeOperator(operator);
        depositStake(operator, stake);
        vm.roll(block.number + ALLOCATION_CONFIGURATION_DELAY_BLOCKS + 1);
    }

    function depositStake(address operator, uint256 stake) internal {
        stakeToken.mint(operator, stake);
        vm.startPrank(operator);
        stakeToken.approve(address(strategies), stake);
        strategies.depositIntoStrategy(strategy, address(stakeToken), stake);
        vm.stopPrank();
    }

    function hosts() internal view returns (OperatorSet memory) {
        return OperatorSet(address(audit), audit.HOSTS());
    }

    function validatorSet() internal view returns (OperatorSet memory) {
        return OperatorSet(address(audit), audit.VALIDATORS());
    }

    /// 0.40 and 1.20 dollars per million tokens, 0.04 for cached ones, 5 dollars per million requests.
    function defaultPrices() internal pure returns (Prices memory) {
        return Prices({request: 5_000_000, prompt: 400_000, cached: 40_000, completion: 1_200_000});
    }

    function defaultOpening(TermsId terms) internal view returns (ILeaseManager.OpenRequest memory) {
        return ILeaseManager.OpenRequest({
            termsId: terms,
            leaseKey: leaseKey.addr,
            variantRoot: keccak256("variant"),
            endpoint: "https://host.example/v1",
            prices: defaultPrices(),
            to: uint64(block.timestamp) + 90 days,
            bond: BOND
        });
    }

    function openLease(TermsId terms) internal returns (LeaseId) {
        return openLease(defaultOpening(terms));
    }

    function openLease(ILeaseManager.OpenRequest memory opening) internal returns (LeaseId) {
        vm.prank(host.addr);
        return leases.open(opening);
    }

    function closeLease() internal {
        vm.prank(host.addr);
        leases.close(leaseId);
    }

    function withdrawBond() internal returns (uint128) {
        vm.prank(host.addr);
        return leases.withdrawBond(leaseId);
    }

    // The payer

    function defaultChannel() internal view returns (Channel memory) {
        return channelOf(payer.addr);
    }

    function channelOf(address account) internal view returns (Channel memory) {
        return Channel({
            payer: account,
            host: host.addr,
            token: address(token),
            withdrawDelay: WITHDRAW_DELAY,
            salt: keccak256("salt")
        });
    }

    function deposit(Channel memory channel, uint128 amount) internal returns (ChannelId) {
        TestToken(channel.token).mint(channel.payer, amount);
        vm.startPrank(channel.payer);
        TestToken(channel.token).approve(address(escrow), amount);
        ChannelId id = escrow.deposit(channel, amount);
        vm.stopPrank();
        return id;
    }

    // Small things

    function approve(address owner, address spender) internal {
        vm.prank(owner);
        token.approve(spender, type(uint256).max);
    }

    function sign(Vm.Wallet storage wallet, bytes32 digest) internal returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(wallet, digest);
        return abi.encodePacked(r, s, v);
    }

    function later(uint256 duration) internal {
        vm.warp(block.timestamp + duration);
        vm.roll(block.number + duration / SECONDS_PER_BLOCK + 1);
    }
}
