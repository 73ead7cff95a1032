// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAuditServiceManager} from "../../contracts/interfaces/IAuditServiceManager.sol";
import {ICoinBonds} from "../../contracts/interfaces/ICoinBonds.sol";
import {IEvidenceCourt} from "../../contracts/interfaces/IEvidenceCourt.sol";
import {Signatures} from "../../contracts/libraries/Signatures.sol";
import {ChannelId, TaskId} from "../../contracts/types/Ids.sol";
import {Channel, Statement} from "../../contracts/types/Messages.sol";
import {Auditing} from "../utils/Auditing.sol";

/// A customer that paid too much under a statement.
contract AccuseTest is Auditing {
    Statement internal second;

    function setUp() public override {
        super.setUp();
        serve(1_000, 100, 500);
        second = serve(2_000, 0, 700);
    }

    function test_a_customer_that_paid_for_a_wrong_count_is_refunded_first() public {
        report();
        claimAs(host.addr, batchOf(acceptedClaim()));
        TaskId taskId = accuse(payer.addr, second);
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
        TaskId taskId = accuse(payer.addr, second);
        assertEq(audit.task(taskId).bill.refund, 0, "nobody paid yet");
    }

    function test_a_refund_is_no_more_than_what_the_lane_paid() public {
        report();
        claimAs(host.addr, batchOf(acceptedClaim()));
        // A second account of the same request, made up to get the bond out.
        second.charge = type(uint128).max;
        TaskId taskId = accuse(payer.addr, second);
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
