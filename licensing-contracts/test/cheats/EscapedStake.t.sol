// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAuditServiceManager} from "../../contracts/interfaces/IAuditServiceManager.sol";
import {TaskId} from "../../contracts/types/Ids.sol";
import {Auditing} from "../utils/Auditing.sol";
import {IDelegationManager} from "../utils/EigenLayerCore.sol";

/// A host that sees a verdict coming takes its stake away in front of it. EigenLayer holds it back for longer than an audit lasts.
contract EscapedStakeTest is Auditing {
    /// Queues the withdrawal of everything that the host has staked.
    function queueEverything() internal {
        IDelegationManager.QueuedWithdrawalParams[] memory params = new IDelegationManager.QueuedWithdrawalParams[](1);
        uint256[] memory shares = new uint256[](1);
        shares[0] = HOST_STAKE;
        params[0] = IDelegationManager.QueuedWithdrawalParams(single(strategy), shares, address(0));
        vm.prank(host.addr);
        delegations.queueWithdrawals(params);
    }

    function queued() internal view returns (IDelegationManager.Withdrawal memory, uint256) {
        (IDelegationManager.Withdrawal[] memory all, uint256[][] memory shares) =
            delegations.getQueuedWithdrawals(host.addr);
        return (all[0], shares[0][0]);
    }

    function complete() internal {
        (IDelegationManager.Withdrawal memory withdrawal,) = queued();
        vm.prank(host.addr);
        delegations.completeQueuedWithdrawal(withdrawal, single(address(stakeToken)), true);
    }

    function test_a_host_that_left_is_slashed_within_the_deallocation_delay() public {
        TaskId id = openTask(IAuditServiceManager.TaskKind.OutsideService);
        leaveSet(host.addr, hosts());
        decide(id, guilty());
        assertEq(audit.hostStake(host.addr), 0, "the allocation is gone");
        assertEq(leases.lease(leaseId).bond, 0, "and the bond");
    }

    /// The latest moment at which a verdict can be carried out, and the earliest at which the host can have begun to leave.
    function test_a_withdrawal_that_is_queued_when_a_task_opens_is_slashed_with_the_rest() public {
        TaskId id = openTask(IAuditServiceManager.TaskKind.Substitution);
        queueEverything();
        later(VERDICT_WINDOW);
        submit(verdictOn(id, guilty()), 15);
        later(RESOLVE_WINDOW + 1);
        (IDelegationManager.Withdrawal memory withdrawal,) = queued();
        vm.expectRevert();
        vm.prank(host.addr);
        delegations.completeQueuedWithdrawal(withdrawal, single(address(stakeToken)), true);
        audit.resolve(id);
        (, uint256 left) = queued();
        assertEq(left, HOST_STAKE / 2, "half of it is slashed in the queue");
        vm.roll(withdrawal.startBlock + MIN_WITHDRAWAL_DELAY_BLOCKS + 1);
        complete();
        assertEq(stakeToken.balanceOf(host.addr), HOST_STAKE / 2, "and the other half is what it gets");
    }

    /// An honest host that leaves has all of it back.
    function test_an_honest_host_that_leaves_has_its_stake_back() public {
        TaskId id = openTask(IAuditServiceManager.TaskKind.Substitution);
        leaveSet(host.addr, hosts());
        queueEverything();
        decide(id, notGuilty());
        vm.roll(block.number + MIN_WITHDRAWAL_DELAY_BLOCKS + 1);
        complete();
        assertEq(stakeToken.balanceOf(host.addr), HOST_STAKE, "all of it");
    }
}
