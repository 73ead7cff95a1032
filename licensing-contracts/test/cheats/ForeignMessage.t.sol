// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAuditServiceManager} from "../../contracts/interfaces/IAuditServiceManager.sol";
import {IPaymentEscrow} from "../../contracts/interfaces/IPaymentEscrow.sol";
import {IUsageLog} from "../../contracts/interfaces/IUsageLog.sol";
import {OperatorSet} from "../../contracts/interfaces/eigenlayer/IEigenLayer.sol";
import {BN254} from "../../contracts/libraries/BN254.sol";
import {Signatures} from "../../contracts/libraries/Signatures.sol";
import {ChannelId, LeaseId, TaskId} from "../../contracts/types/Ids.sol";
import {Channel, EpochCommit, SessionGrant, Statement, Verdict, Voucher} from "../../contracts/types/Messages.sol";
import {Auditing} from "../utils/Auditing.sol";
import {Bls} from "../utils/Bls.sol";

/// Somebody turns a signature to a purpose for which it was not made. Invariant 8: no message counts on another chain, contract,
/// lane or lease; and of a signature there is one form only.
contract ForeignMessageTest is Auditing {
    uint256 internal constant CURVE_ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;

    /// Where a signature comes from: the same contracts and numbers on a fork of the chain, or a second deployment on this one.
    enum Origin {
        Fork,
        Twin
    }

    Voucher internal voucher;
    Statement internal last;
    SessionGrant internal grant;
    EpochCommit internal nextReport;
    TaskId internal taskId;

    function setUp() public override {
        super.setUp();
        voucher = voucherFor(channelId, 0, 900_000);
        last = serve(1_000, 0, 500);
        report();
        grant = SessionGrant(channelId, session.addr, 10e6, 1e6, uint64(block.timestamp) + 30 days, 1);
        nextReport = commitOf(currentEpoch(), pending);
        taskId = openTask(IAuditServiceManager.TaskKind.Substitution);
        toEndOf(nextReport.epoch);
    }

    // Digests, as the contract at `home` has them on another chain or as its twin has them here

    function foreign(address home, bytes memory call, Origin origin) internal returns (bytes32 digest) {
        address at = home;
        if (origin == Origin.Fork) {
            vm.chainId(block.chainid + 1);
        } else {
            at = makeAddr("twin");
            vm.etch(at, home.code);
        }
        (bool success, bytes memory answer) = at.staticcall(call);
        require(success, "no digest");
        if (origin == Origin.Fork) vm.chainId(block.chainid - 1);
        digest = abi.decode(answer, (bytes32));
        (, answer) = home.staticcall(call);
        assertNotEq(digest, abi.decode(answer, (bytes32)), "two digests");
    }

    function claimLast(bytes memory signature, bytes memory statementSignature)
        internal
        returns (IPaymentEscrow.LeaseClaims[] memory)
    {
        IPaymentEscrow.Claim memory claim = inFlightClaim(voucher, signature, last);
        claim.statementSignature = statementSignature;
        return batchOf(claim);
    }

    function own(Voucher memory message) internal returns (bytes memory) {
        return sign(payer, escrow.voucherDigest(message));
    }

    /// forge-config: default.fuzz.runs = 4
    function testFuzz_invariant_8_a_voucher_counts_on_its_chain_and_contract_only(uint8 from) public {
        bytes32 digest = foreign(address(escrow), abi.encodeCall(escrow.voucherDigest, (voucher)), Origin(from % 2));
        IPaymentEscrow.LeaseClaims[] memory batch = claimLast(sign(payer, digest), signed(last));
        vm.expectPartialRevert(IPaymentEscrow.UnknownGrant.selector);
        claimAs(host.addr, batch);
    }

    /// forge-config: default.fuzz.runs = 4
    function testFuzz_invariant_8_a_grant_counts_on_its_chain_and_contract_only(uint8 from) public {
        bytes32 digest = foreign(address(escrow), abi.encodeCall(escrow.grantDigest, (grant)), Origin(from % 2));
        bytes memory signature = sign(payer, digest);
        vm.expectPartialRevert(Signatures.WrongSigner.selector);
        escrow.registerGrant(channel, grant, signature);
    }

    /// forge-config: default.fuzz.runs = 4
    function testFuzz_invariant_8_a_statement_counts_on_its_chain_and_contract_only(uint8 from) public {
        bytes32 digest = foreign(address(leases), abi.encodeCall(leases.statementDigest, (last)), Origin(from % 2));
        bytes memory signature = sign(leaseKey, digest);
        IPaymentEscrow.LeaseClaims[] memory batch = claimLast(own(voucher), signature);
        vm.expectPartialRevert(Signatures.WrongSigner.selector);
        claimAs(host.addr, batch);
        // Nor is the host accused with it.
        vm.expectPartialRevert(Signatures.WrongSigner.selector);
        court.proveMisprice(last, signature);
    }

    /// forge-config: default.fuzz.runs = 4
    function testFuzz_invariant_8_a_report_counts_on_its_chain_and_contract_only(uint8 from) public {
        bytes32 digest = foreign(address(usage), abi.encodeCall(usage.reportDigest, (nextReport)), Origin(from % 2));
        bytes memory signature = sign(leaseKey, digest);
        vm.expectPartialRevert(Signatures.WrongSigner.selector);
        vm.prank(stranger.addr);
        usage.commit(nextReport, signature);
    }

    /// forge-config: default.fuzz.runs = 4
    function testFuzz_invariant_8_a_verdict_counts_on_its_chain_and_contract_only(uint8 from) public {
        Verdict memory verdict = verdictOn(taskId, guilty());
        bytes32 digest = foreign(address(audit), abi.encodeCall(audit.verdictDigest, (verdict)), Origin(from % 2));
        (BN254.G1Point memory signature, BN254.G2Point memory keyG2) = aggregate(digest, 15);
        IAuditServiceManager.NonSigner[] memory nobody = new IAuditServiceManager.NonSigner[](0);
        vm.expectRevert(IAuditServiceManager.AggregateSignature.selector);
        audit.submitVerdict(verdict, signature, keyG2, nobody);
    }

    /// forge-config: default.fuzz.runs = 4
    function testFuzz_invariant_8_a_proof_of_possession_counts_on_its_chain_and_contract_only(uint8 from) public {
        address newcomer = makeAddr("newcomer");
        restake(newcomer, VALIDATOR_STAKE);
        bytes32 digest = foreign(address(audit), abi.encodeCall(audit.possessionDigest, (newcomer)), Origin(from % 2));
        bytes memory data = abi.encode(Bls.publicKey(77), Bls.publicKeyG2(77), Bls.sign(77, digest));
        OperatorSet memory set = validatorSet();
        allocate(newcomer, set, strategy, ALL);
        vm.expectRevert(IAuditServiceManager.ProofOfPossession.selector);
        register(newcomer, set, data);
    }

    /// A channel's name, and with it every message that carries it, is that of one escrow on one chain.
    function test_invariant_8_a_channel_is_of_one_chain_and_contract() public {
        foreign(address(escrow), abi.encodeCall(escrow.channelId, (channel)), Origin.Fork);
        foreign(address(escrow), abi.encodeCall(escrow.channelId, (channel)), Origin.Twin);
    }

    /// What one message says about where it belongs cannot be changed without its signature.
    function testFuzz_invariant_8_a_voucher_counts_on_its_lane_lease_and_channel_only(uint64 other, uint8 what) public {
        bytes memory signature = own(voucher);
        IPaymentEscrow.LeaseClaims[] memory batch = claimLast(signature, signed(last));
        IPaymentEscrow.Claim memory claim = batch[0].claims[0];
        what %= 3;
        if (what == 0) {
            vm.assume(other != 0);
            claim.voucher.lane = other;
            claim.inFlight[0].lane = other;
            vm.expectPartialRevert(Signatures.WrongSigner.selector);
        } else if (what == 1) {
            batch[0].leaseId = openLease(termsId);
            vm.expectRevert(
                abi.encodeWithSelector(IPaymentEscrow.WrongLease.selector, batch[0].leaseId, claim.voucher.leaseId)
            );
        } else {
            claim.channel.salt = keccak256(abi.encode(other));
            vm.expectPartialRevert(IPaymentEscrow.WrongChannel.selector);
        }
        claimAs(host.addr, batch);
    }

    // One form only

    /// Three forms of a genuine signature that are not the one, and what they are refused with.
    function malformed(bytes memory signature) internal pure returns (bytes[3] memory forms, bytes[3] memory errors) {
        (bytes32 r, bytes32 s, uint8 v) = split(signature);
        forms[0] = abi.encodePacked(r, s);
        errors[0] = abi.encodeWithSelector(Signatures.SignatureLength.selector, 64);
        bytes32 high = bytes32(CURVE_ORDER - uint256(s));
        forms[1] = abi.encodePacked(r, high, v == 27 ? uint8(28) : uint8(27));
        errors[1] = abi.encodeWithSelector(Signatures.SignatureHighS.selector, high);
        forms[2] = abi.encodePacked(r, s, uint8(0));
        errors[2] = abi.encodeWithSelector(Signatures.SignatureMalformed.selector);
    }

    function split(bytes memory signature) internal pure returns (bytes32 r, bytes32 s, uint8 v) {
        bytes memory tail = new bytes(32);
        for (uint256 i = 0; i < 32; ++i) {
            tail[i] = signature[i + 32];
        }
        (r, s, v) = (bytes32(signature), bytes32(tail), uint8(signature[64]));
    }

    function test_invariant_8_signatures_of_another_form_are_refused_each_by_name() public {
        (bytes[3] memory forms, bytes[3] memory errors) = malformed(own(voucher));
        bytes memory genuine = signed(last);
        for (uint256 i = 0; i < 3; ++i) {
            IPaymentEscrow.LeaseClaims[] memory batch = claimLast(forms[i], genuine);
            vm.expectRevert(errors[i]);
            claimAs(host.addr, batch);
        }
        (forms, errors) = malformed(sign(payer, escrow.grantDigest(grant)));
        for (uint256 i = 0; i < 3; ++i) {
            vm.expectRevert(errors[i]);
            escrow.registerGrant(channel, grant, forms[i]);
        }
        (forms, errors) = malformed(genuine);
        for (uint256 i = 0; i < 3; ++i) {
            IPaymentEscrow.LeaseClaims[] memory batch = claimLast(own(voucher), forms[i]);
            vm.expectRevert(errors[i]);
            claimAs(host.addr, batch);
            vm.expectRevert(errors[i]);
            court.proveMisprice(last, forms[i]);
        }
        (forms, errors) = malformed(sign(leaseKey, usage.reportDigest(nextReport)));
        for (uint256 i = 0; i < 3; ++i) {
            vm.expectRevert(errors[i]);
            vm.prank(stranger.addr);
            usage.commit(nextReport, forms[i]);
        }
    }

    function test_invariant_8_a_verdict_s_signature_is_a_point_of_the_curve_in_its_shortest_form() public {
        Verdict memory verdict = verdictOn(taskId, guilty());
        (BN254.G1Point memory signature, BN254.G2Point memory keyG2) = aggregate(audit.verdictDigest(verdict), 15);
        IAuditServiceManager.NonSigner[] memory nobody = new IAuditServiceManager.NonSigner[](0);
        BN254.G1Point memory longer = BN254.G1Point(signature.x, signature.y);
        if (longer.x < type(uint256).max - BN254.FIELD) longer.x += BN254.FIELD;
        vm.expectRevert(abi.encodeWithSelector(BN254.NotOnCurve.selector, longer.x, longer.y));
        audit.submitVerdict(verdict, longer, keyG2, nobody);
        // The other root is another signature.
        vm.expectRevert(IAuditServiceManager.AggregateSignature.selector);
        audit.submitVerdict(verdict, BN254.neg(signature), keyG2, nobody);
    }

    // Once, in time, and by somebody

    function test_replays_are_refused_each_by_name() public {
        IPaymentEscrow.LeaseClaims[] memory batch = claimLast(own(voucher), signed(last));
        claimAs(host.addr, batch);
        vm.expectRevert(abi.encodeWithSelector(IPaymentEscrow.NotNewer.selector, 1, 1));
        claimAs(host.addr, batch);

        bytes memory signature = sign(payer, escrow.grantDigest(grant));
        escrow.registerGrant(channel, grant, signature);
        vm.expectRevert(abi.encodeWithSelector(IPaymentEscrow.GrantNonce.selector, 1, 1));
        escrow.registerGrant(channel, grant, signature);

        signature = sign(leaseKey, usage.reportDigest(nextReport));
        usage.commit(nextReport, signature);
        bytes32 newest = usage.lastDigest(leaseId);
        vm.expectRevert(abi.encodeWithSelector(IUsageLog.PreviousReport.selector, newest, nextReport.previous));
        usage.commit(nextReport, signature);

        Verdict memory verdict = verdictOn(taskId, guilty());
        submit(verdict, 15);
        (BN254.G1Point memory point, BN254.G2Point memory keyG2) = aggregate(audit.verdictDigest(verdict), 15);
        IAuditServiceManager.NonSigner[] memory nobody = new IAuditServiceManager.NonSigner[](0);
        vm.expectRevert(IAuditServiceManager.VerdictMismatch.selector);
        audit.submitVerdict(verdict, point, keyG2, nobody);
        // Nor on another task, which validators were not asked about.
        verdict.taskId = openTask(IAuditServiceManager.TaskKind.Substitution);
        vm.expectRevert(IAuditServiceManager.AggregateSignature.selector);
        audit.submitVerdict(verdict, point, keyG2, nobody);
    }

    function test_what_has_expired_is_refused_each_by_name() public {
        IPaymentEscrow.LeaseClaims[] memory batch = claimLast(own(voucher), signed(last));
        bytes memory signature = sign(payer, escrow.grantDigest(grant));
        Verdict memory verdict = verdictOn(taskId, guilty());
        (BN254.G1Point memory point, BN254.G2Point memory keyG2) = aggregate(audit.verdictDigest(verdict), 15);
        IAuditServiceManager.NonSigner[] memory nobody = new IAuditServiceManager.NonSigner[](0);
        uint64 deadline = audit.task(taskId).deadline;
        vm.warp(START + 40 days);
        vm.expectRevert(abi.encodeWithSelector(IPaymentEscrow.VoucherExpired.selector, voucher.expiresAt));
        claimAs(host.addr, batch);
        vm.expectRevert(abi.encodeWithSelector(IPaymentEscrow.GrantExpired.selector, grant.expiresAt));
        escrow.registerGrant(channel, grant, signature);
        vm.expectRevert(abi.encodeWithSelector(IAuditServiceManager.TooLate.selector, deadline));
        audit.submitVerdict(verdict, point, keyG2, nobody);
    }

    /// A signature that recovers to nobody is nobody's: an account of zero cannot be paid for, granted or leased to.
    function test_the_zero_address_signs_nothing() public {
        Channel memory nobodys = channelOf(address(0));
        vm.expectRevert(IPaymentEscrow.Zero.selector);
        escrow.deposit(nobodys, 1);
        grant.key = address(0);
        bytes memory signature = sign(payer, escrow.grantDigest(grant));
        vm.expectRevert(IPaymentEscrow.Zero.selector);
        escrow.registerGrant(channel, grant, signature);
        (channel, channelId) = (nobodys, escrow.channelId(nobodys));
        voucher.channelId = channelId;
        last.channelId = channelId;
        bytes memory genuine = signed(last);
        IPaymentEscrow.LeaseClaims[] memory batch = claimLast(new bytes(65), genuine);
        vm.expectRevert(Signatures.SignatureMalformed.selector);
        claimAs(host.addr, batch);
    }
}
