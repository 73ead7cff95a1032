// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAuditServiceManager} from "../../contracts/interfaces/IAuditServiceManager.sol";
import {ICoinBonds} from "../../contracts/interfaces/ICoinBonds.sol";
import {IEvidenceCourt} from "../../contracts/interfaces/IEvidenceCourt.sol";
import {Evidence} from "../../contracts/libraries/Evidence.sol";
import {Signatures} from "../../contracts/libraries/Signatures.sol";
import {ChannelId, LeaseId, TaskId} from "../../contracts/types/Ids.sol";
import {Channel, Statement} from "../../contracts/types/Messages.sol";
import {Auditing} from "../utils/Auditing.sol";

/// Statements that cannot both be true, that charge what the prices do not give, or that somebody paid too much under.
contract EquivocationTest is Auditing {
    Statement internal first;
    Statement internal second;

    function setUp() public override {
        super.setUp();
        first = serve(1_000, 100, 500);
        second = serve(2_000, 0, 700);
    }

    function prove() internal {
        bytes memory firstSignature = signed(first);
        bytes memory secondSignature = signed(second);
        vm.prank(payer.addr);
        court.proveEquivocation(first, firstSignature, second, secondSignature);
    }

    function expectNoProof(bytes memory error) internal {
        bytes memory firstSignature = signed(first);
        bytes memory secondSignature = signed(second);
        vm.expectRevert(error);
        court.proveEquivocation(first, firstSignature, second, secondSignature);
    }

    function expectHonest() internal {
        expectNoProof(abi.encodeWithSelector(IEvidenceCourt.NoContradiction.selector));
    }

    function test_two_accounts_of_one_request_cost_half() public {
        second = first;
        ++second.completionTokens;
        vm.expectEmit(address(audit));
        emit IAuditServiceManager.HostPunished(
            leaseId, host.addr, IAuditServiceManager.Offence.Equivocation, BOND / 2, 0.5e18
        );
        prove();
        assertEq(balanceOf(payer.addr), uint256(BOND) / 2 * 3_000 / 10_000, "the reporter");
        // A third account of the same request is the same offence.
        ++second.completionTokens;
        bytes32 offence = keccak256(abi.encode("equivocation", leaseId, channelId, uint64(0), uint48(1)));
        expectNoProof(abi.encodeWithSelector(IEvidenceCourt.AlreadyPunished.selector, offence));
    }

    function testFuzz_an_account_that_does_not_go_on_where_the_last_one_ended_is_a_contradiction(uint256 what) public {
        what = bound(what, 0, 3);
        if (what == 0) second.previous = keccak256("elsewhere");
        else if (what == 1) ++second.promptTokensBefore;
        else if (what == 2) ++second.cachedTokensBefore;
        else ++second.completionTokensBefore;
        prove();
        assertEq(leases.lease(leaseId).bond, BOND / 2, "punished");
    }

    /// An honest host's statements, in whatever pair, contradict nothing.
    function testFuzz_an_honest_host_never_contradicts_itself(uint256 a, uint256 b) public {
        Statement[] memory all = new Statement[](8);
        (all[0], all[1]) = (first, second);
        all[2] = serve(0, 0, 0);
        all[3] = serve(5, 5, 5);
        all[4] = serveOn(channelId, 1, 1_000, 100, 500);
        all[5] = serveOn(channelId, 1, 7, 0, 0);
        all[6] = serveOn(ChannelId.wrap(0), 0, 1_000, 100, 500);
        all[7] = serveOn(ChannelId.wrap(0), 0, 9, 0, 9);
        first = all[bound(a, 0, 7)];
        second = all[bound(b, 0, 7)];
        expectHonest();
    }

    function test_accounts_of_two_leases_are_not_compared() public {
        LeaseId other = openLease(termsId);
        second = first;
        second.leaseId = other;
        ++second.completionTokens;
        expectHonest();
    }

    function test_a_forged_account_accuses_nobody() public {
        second = first;
        ++second.completionTokens;
        bytes memory genuine = signed(first);
        bytes memory forged = sign(stranger, leases.statementDigest(second));
        vm.expectRevert(abi.encodeWithSelector(Signatures.WrongSigner.selector, leaseKey.addr, stranger.addr));
        court.proveEquivocation(first, genuine, second, forged);
        vm.expectRevert(abi.encodeWithSelector(Signatures.WrongSigner.selector, leaseKey.addr, stranger.addr));
        court.proveEquivocation(second, forged, first, genuine);
    }

    // A wrong charge

    function proveMisprice(Statement memory statement) internal {
        bytes memory signature = signed(statement);
        vm.prank(payer.addr);
        court.proveMisprice(statement, signature);
    }

    function test_a_charge_that_the_prices_do_not_give_costs_a_fifth() public {
        ++first.charge;
        vm.expectEmit(address(audit));
        emit IAuditServiceManager.HostPunished(
            leaseId, host.addr, IAuditServiceManager.Offence.Misprice, BOND / 5, 0.1e18
        );
        proveMisprice(first);
        bytes32 offence = Evidence.misprice(leases.statementDigest(first));
        bytes memory signature = signed(first);
        vm.expectRevert(abi.encodeWithSelector(IEvidenceCourt.AlreadyPunished.selector, offence));
        court.proveMisprice(first, signature);
    }

    function test_a_charge_below_the_price_is_wrong_as_well() public {
        // It would cost the creator his share.
        --first.charge;
        proveMisprice(first);
        assertEq(leases.lease(leaseId).bond, BOND - BOND / 5, "punished");
    }

    /// A host that accuses itself of a huge charge gets no more than a reporter's share.
    function test_a_host_cannot_get_its_bond_out_by_accusing_itself() public {
        first.charge = type(uint128).max;
        bytes memory signature = signed(first);
        vm.prank(host.addr);
        court.proveMisprice(first, signature);
        assertEq(balanceOf(host.addr), uint256(BOND) / 5 * 3_000 / 10_000, "a reporter's share of a fifth");
        assertEq(balanceOf(payer.addr), 0, "no refund of what nobody paid");
        assertEq(leases.lease(leaseId).bond, BOND - BOND / 5, "the rest stays");
    }

    function test_statements_that_are_no_account_of_a_request_have_no_right_charge() public {
        Statement memory bad = draft(channelId, 5, 10, 0, 10);
        bad.seq = 0;
        proveMisprice(bad);
        bad = draft(channelId, 5, 10, 0, 10);
        bad.cachedTokens = 11;
        proveMisprice(bad);
        bad = draft(channelId, 5, 10, 0, 10);
        bad.cachedTokensBefore = 1;
        proveMisprice(bad);
    }

    /// forge-config: default.fuzz.runs = 64
    function testFuzz_an_honest_charge_is_right(uint48[3] memory tokens, uint8 requests) public {
        requests = uint8(bound(requests, 1, 5));
        for (uint256 i = 0; i < requests; ++i) {
            uint48 prompt = uint48(bound(tokens[0] >> i, 0, 1e9));
            Statement memory statement =
                serve(prompt, uint48(bound(tokens[1], 0, prompt)), uint48(bound(tokens[2] >> i, 0, 1e9)));
            bytes memory signature = signed(statement);
            vm.expectRevert(abi.encodeWithSelector(IEvidenceCourt.ChargeIsRight.selector, uint256(statement.charge)));
            court.proveMisprice(statement, signature);
        }
    }

    function test_an_honest_charge_at_the_end_of_the_counts_is_right() public {
        Statement memory statement = draft(channelId, 7, type(uint48).max, type(uint48).max, type(uint48).max);
        bytes memory signature = signed(statement);
        vm.expectPartialRevert(IEvidenceCourt.ChargeIsRight.selector);
        court.proveMisprice(statement, signature);
    }

    // A customer that paid too much

    function accuse(Statement memory statement, Channel memory from) internal returns (TaskId) {
        bytes memory signature = signed(statement);
        vm.prank(payer.addr);
        return court.accuse{value: TASK_BOND}(
            IAuditServiceManager.TaskKind.TokenCount, keccak256("bytes"), statement, signature, from
        );
    }

    function test_a_customer_that_paid_for_a_wrong_count_is_refunded_first() public {
        report();
        claimAs(host.addr, batchOf(acceptedClaim()));
        TaskId taskId = accuse(second, channel);
        IAuditServiceManager.Task memory task = audit.task(taskId);
        assertEq(task.opener, payer.addr, "the customer accuses");
        assertEq(task.bill.payer, payer.addr, "and is refunded");
        assertEq(task.bill.refund, second.charge, "what it was charged");
        uint256 credited = balanceOf(creator.addr);
        decide(taskId, guilty());
        uint256 reward = (BOND / 5 - uint256(second.charge)) * 3_000 / 10_000;
        assertEq(balanceOf(payer.addr), second.charge + reward, "refund and reward");
        assertEq(balanceOf(creator.addr) - credited, BOND / 5 - second.charge - reward, "the rest");
        assertEq(audit.owed(payer.addr), TASK_BOND, "and the bond");
    }

    function test_what_was_not_claimed_is_not_refunded() public {
        TaskId taskId = accuse(second, channel);
        assertEq(audit.task(taskId).bill.refund, 0, "nobody paid yet");
    }

    function test_a_refund_is_no_more_than_what_the_lane_paid() public {
        report();
        claimAs(host.addr, batchOf(acceptedClaim()));
        // A second account of the same request, made up to get the bond out.
        second.charge = type(uint128).max;
        TaskId taskId = accuse(second, channel);
        assertEq(audit.task(taskId).bill.refund, cost(2, 3_000, 100, 1_200), "what was claimed on the lane");
    }

    function test_the_refund_goes_to_the_channel_s_payer_only() public {
        Channel memory foreign = channelOf(stranger.addr);
        ChannelId id = escrow.channelId(foreign);
        bytes memory signature = signed(second);
        vm.expectRevert(abi.encodeWithSelector(IEvidenceCourt.WrongChannel.selector, channelId, id));
        court.accuse{value: TASK_BOND}(IAuditServiceManager.TaskKind.TokenCount, 0, second, signature, foreign);
    }

    function test_an_accusation_at_the_court_costs_the_audit_s_bond() public {
        bytes memory signature = signed(second);
        vm.expectRevert(abi.encodeWithSelector(ICoinBonds.WrongBond.selector, TASK_BOND, 1));
        court.accuse{value: 1}(IAuditServiceManager.TaskKind.TokenCount, 0, second, signature, channel);
        signature = sign(stranger, leases.statementDigest(second));
        vm.expectRevert(abi.encodeWithSelector(Signatures.WrongSigner.selector, leaseKey.addr, stranger.addr));
        court.accuse{value: TASK_BOND}(IAuditServiceManager.TaskKind.TokenCount, 0, second, signature, channel);
    }
}
