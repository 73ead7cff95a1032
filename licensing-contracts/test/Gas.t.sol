// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAuditServiceManager} from "../contracts/interfaces/IAuditServiceManager.sol";
import {IPaymentEscrow} from "../contracts/interfaces/IPaymentEscrow.sol";
import {OperatorSet} from "../contracts/interfaces/eigenlayer/IEigenLayer.sol";
import {BN254} from "../contracts/libraries/BN254.sol";
import {ChannelId, TaskId} from "../contracts/types/Ids.sol";
import {Channel, EpochCommit, SessionGrant, Statement, Verdict, Voucher} from "../contracts/types/Messages.sol";
import {Auditing} from "./utils/Auditing.sol";
import {Serving} from "./utils/Serving.sol";

/// What claims cost. Every call is a transaction of its own: its 21,000 and its calldata count.
/// forge-config: default.isolate = true
contract ClaimGasTest is Serving {
    uint256 internal constant CHANNELS = 50;
    uint48 internal constant INFERENCES = 10_000;

    /// A claim of 10,000 more inferences on one lane of a payer of its own.
    function claimFrom(uint256 index, uint48 round) internal returns (IPaymentEscrow.Claim memory) {
        (address account, uint256 secret) = makeAddrAndKey(string.concat("payer ", vm.toString(index)));
        Channel memory from = channelOf(account);
        ChannelId id = round == 1 ? deposit(from, 1_000e6) : escrow.channelId(from);
        Voucher memory voucher = Voucher({
            channelId: id,
            leaseId: leaseId,
            lane: 0,
            requests: INFERENCES * round,
            promptTokens: 8_123_456 * round,
            cachedTokens: 1_234_567 * round,
            completionTokens: 5_432_101 * round,
            ceiling: 20_000,
            statementsHead: keccak256(abi.encode("statement", index, round)),
            expiresAt: START + 30 days
        });
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(secret, escrow.voucherDigest(voucher));
        return claimOf(from, voucher, abi.encodePacked(r, s, v));
    }

    function batchOf(uint256 channels, uint48 round) internal returns (IPaymentEscrow.LeaseClaims[] memory batch) {
        batch = new IPaymentEscrow.LeaseClaims[](1);
        batch[0].leaseId = leaseId;
        batch[0].splits = noSplits();
        batch[0].claims = new IPaymentEscrow.Claim[](channels);
        for (uint256 i = 0; i < channels; ++i) {
            batch[0].claims[i] = claimFrom(i, round);
        }
    }

    /// Reports more than all claims together.
    function reportPlenty() internal {
        uint64 epoch = currentEpoch();
        toEndOf(epoch);
        EpochCommit memory plenty = EpochCommit(leaseId, epoch, "plenty", 1e9, 1e12, 1e12, 1e12, 1e18, 0);
        vm.prank(host.addr);
        usage.commit(plenty, "");
        vm.snapshotGasLastCall("gas", "UsageLog.commit, first of a lease");
    }

    function test_a_batch_of_fifty_channels_meets_target_c1() public {
        reportPlenty();
        IPaymentEscrow.LeaseClaims[] memory first = batchOf(CHANNELS, 1);
        vm.prank(host.addr);
        escrow.claimBatch(first);
        vm.snapshotGasLastCall("gas", "PaymentEscrow.claimBatch, 50 new channels");
        IPaymentEscrow.LeaseClaims[] memory second = batchOf(CHANNELS, 2);
        vm.prank(host.addr);
        escrow.claimBatch(second);
        uint256 gas = vm.snapshotGasLastCall("gas", "PaymentEscrow.claimBatch, 50 channels");
        assertLe(gas / CHANNELS, 60_000, "gas for each channel");
        assertLe(gas / CHANNELS / INFERENCES, 10, "gas for each inference");
    }

    function test_a_claim_of_one_channel() public {
        reportPlenty();
        IPaymentEscrow.LeaseClaims[] memory first = batchOf(1, 1);
        vm.prank(host.addr);
        escrow.claimBatch(first);
        IPaymentEscrow.LeaseClaims[] memory second = batchOf(1, 2);
        vm.prank(host.addr);
        escrow.claimBatch(second);
        vm.snapshotGasLastCall("gas", "PaymentEscrow.claimBatch, 1 channel");
    }

    function test_a_claim_with_a_request_in_flight() public {
        serve(1_000, 0, 500);
        claimAndReport();
        Voucher memory voucher = voucherFor(channelId, 0, 1e6);
        Statement memory last = serve(1_000, 0, 500);
        report();
        IPaymentEscrow.Claim memory claim = claimOf(channel, voucher, sign(payer, escrow.voucherDigest(voucher)));
        claim.inFlight = new Statement[](1);
        claim.inFlight[0] = last;
        claim.statementSignature = signed(last);
        IPaymentEscrow.LeaseClaims[] memory batch = batchOf(claim);
        vm.prank(host.addr);
        escrow.claimBatch(batch);
        vm.snapshotGasLastCall("gas", "PaymentEscrow.claimBatch, 1 channel with a request in flight");
    }

    function claimAndReport() internal {
        report();
        claimAs(host.addr, batchOf(acceptedClaim()));
    }

    function test_what_a_payer_pays() public {
        Channel memory other = defaultChannel();
        other.salt = "another";
        token.mint(payer.addr, 10e6);
        approve(payer.addr, address(escrow));
        vm.prank(payer.addr);
        escrow.deposit(other, 5e6);
        vm.snapshotGasLastCall("gas", "PaymentEscrow.deposit, new channel");
        vm.prank(payer.addr);
        escrow.deposit(other, 5e6);
        vm.snapshotGasLastCall("gas", "PaymentEscrow.deposit");
        SessionGrant memory grant =
            SessionGrant(channelId, session.addr, 10e6, 1e6, uint64(block.timestamp) + 30 days, 1);
        bytes memory signature = sign(payer, escrow.grantDigest(grant));
        escrow.registerGrant(channel, grant, signature);
        vm.snapshotGasLastCall("gas", "PaymentEscrow.registerGrant");
        vm.prank(payer.addr);
        escrow.initiateWithdraw(channel, 10e6);
        vm.snapshotGasLastCall("gas", "PaymentEscrow.initiateWithdraw");
        later(WITHDRAW_DELAY);
        vm.prank(payer.addr);
        escrow.withdraw(channel);
        vm.snapshotGasLastCall("gas", "PaymentEscrow.withdraw");
    }
}

/// What an audit costs, with 200 validators.
/// forge-config: default.isolate = true
contract AuditGasTest is Auditing {
    uint256 internal constant COUNT = 200;
    uint256 internal constant EVERYBODY = (1 << COUNT) - 1;

    function setUp() public override {
        super.setUp();
        for (uint256 i = validatorAddresses.length; i < COUNT; ++i) {
            // In a call of its own, whose memory is free afterwards.
            this.addOne(i);
        }
    }

    function addOne(uint256 number) external {
        addValidator(number, VALIDATOR_STAKE);
    }

    /// Gas of a verdict that all but the given number of validators signed, in a whole transaction.
    function verdict(uint256 absentCount, string memory name) internal returns (uint256) {
        TaskId taskId = openTask(IAuditServiceManager.TaskKind.Substitution);
        Verdict memory found = verdictOn(taskId, guilty());
        // Every third one is absent, so that their storage does not lie side by side.
        uint256 signers = EVERYBODY;
        for (uint256 i = 0; i < absentCount; ++i) {
            signers ^= 1 << (3 * i);
        }
        (BN254.G1Point memory signature, BN254.G2Point memory keyG2) = aggregate(audit.verdictDigest(found), signers);
        IAuditServiceManager.NonSigner[] memory absent = nonSigners(signers);
        assertEq(absent.length, absentCount, "as many as said");
        audit.submitVerdict(found, signature, keyG2, absent);
        return vm.snapshotGasLastCall("gas", name);
    }

    /// Target C2, beside EigenLayer's BN254CertificateVerifier: 198,520 and, with stored keys, 350,227.
    function test_verdicts_of_two_hundred_validators_meet_target_c2() public {
        assertEq(audit.validators(), COUNT, "the workload");
        assertLe(verdict(0, "submitVerdict, 200 validators, 0 absent"), 198_520, "0 absent");
        assertLe(verdict(20, "submitVerdict, 200 validators, 20 absent"), 350_227, "20 absent");
        assertLe(verdict(66, "submitVerdict, 200 validators, 66 absent"), 700_554, "66 absent");
    }

    function test_what_validators_and_accusers_pay() public {
        address newcomer = makeAddr("newcomer");
        restake(newcomer, VALIDATOR_STAKE);
        bytes memory data = joiningWith(77, newcomer);
        OperatorSet memory set = validatorSet();
        allocate(newcomer, set, strategy, ALL);
        register(newcomer, set, data);
        vm.snapshotGasLastCall("gas", "registerForOperatorSets, a validator with proof of possession");
        audit.updateStakes(single(newcomer));
        vm.snapshotGasLastCall("gas", "AuditServiceManager.updateStakes, 1 validator");
        openTask(IAuditServiceManager.TaskKind.TokenCount);
        vm.snapshotGasLastCall("gas", "AuditServiceManager.openTask");
    }

    function test_what_evidence_costs() public {
        Statement memory first = serve(1_000, 0, 500);
        uint64 epoch = currentEpoch();
        for (uint64 lane = 1; lane < 33; ++lane) {
            serveOn(channelId, lane, 1_000, 0, 500);
        }
        uint256 index = report();
        toChallengeable(epoch);
        bytes memory signature = signed(first);
        vm.prank(payer.addr);
        court.challengeInclusion{value: CHALLENGE_BOND}(first, signature);
        vm.snapshotGasLastCall("gas", "EvidenceCourt.challengeInclusion");
        bytes32 digest = leases.statementDigest(first);
        court.answerInclusion(digest, index, leafOf(first), pathIn(index, digest));
        vm.snapshotGasLastCall("gas", "EvidenceCourt.answerInclusion, 33 statements");
        Statement memory second = draft(channelId, 0, 1_000, 0, 500);
        second.previous = "elsewhere";
        bytes memory secondSignature = signed(second);
        court.proveEquivocation(first, signature, second, secondSignature);
        vm.snapshotGasLastCall("gas", "EvidenceCourt.proveEquivocation, with slashing");
    }
}
