// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAuditServiceManager} from "../../contracts/interfaces/IAuditServiceManager.sol";
import {ICoinBonds} from "../../contracts/interfaces/ICoinBonds.sol";
import {ILeaseManager} from "../../contracts/interfaces/ILeaseManager.sol";
import {LeaseId, ModelId, TaskId} from "../../contracts/types/Ids.sol";
import {Auditing} from "../utils/Auditing.sol";

/// Accusations that must be measured, and what becomes of them.
contract TasksTest is Auditing {
    function kind(uint256 number) internal pure returns (IAuditServiceManager.TaskKind) {
        return IAuditServiceManager.TaskKind(number);
    }

    function test_an_accusation_costs_its_bond_and_holds_the_lease_s() public {
        vm.expectEmit(address(audit));
        emit IAuditServiceManager.TaskOpened(
            TaskId.wrap(1), leaseId, IAuditServiceManager.TaskKind.TokenCount, stranger.addr, keccak256("evidence")
        );
        TaskId id = openTask(IAuditServiceManager.TaskKind.TokenCount);
        IAuditServiceManager.Task memory task = audit.task(id);
        assertEq(task.opener, stranger.addr, "opener");
        assertEq(task.accused, host.addr, "accused");
        assertEq(task.bond, TASK_BOND, "bond");
        assertEq(task.deadline, block.timestamp + VERDICT_WINDOW, "deadline");
        assertTrue(task.state == IAuditServiceManager.TaskState.Open, "open");
        assertEq(audit.openCases(leaseId), 1, "a case");
        assertEq(address(audit).balance, TASK_BOND, "held");
    }

    function test_accusations_are_refused_each_by_name() public {
        vm.startPrank(stranger.addr);
        vm.expectRevert(abi.encodeWithSelector(ICoinBonds.WrongBond.selector, TASK_BOND, TASK_BOND - 1));
        audit.openTask{value: TASK_BOND - 1}(leaseId, kind(1), 0);
        vm.expectRevert(abi.encodeWithSelector(ICoinBonds.WrongBond.selector, TASK_BOND, TASK_BOND + 1));
        audit.openTask{value: TASK_BOND + 1}(leaseId, kind(1), 0);
        vm.expectRevert(abi.encodeWithSelector(IAuditServiceManager.WrongKind.selector, kind(0)));
        audit.openTask{value: TASK_BOND}(leaseId, kind(0), 0);
        vm.expectRevert(
            abi.encodeWithSelector(IAuditServiceManager.WrongKind.selector, IAuditServiceManager.TaskKind.Ownership)
        );
        audit.openTask{value: TASK_BOND}(leaseId, IAuditServiceManager.TaskKind.Ownership, 0);
        vm.expectRevert(abi.encodeWithSelector(ILeaseManager.UnknownLease.selector, 9));
        audit.openTask{value: TASK_BOND}(LeaseId.wrap(9), kind(1), 0);
        vm.stopPrank();
    }

    /// Nobody can hold a host's bond for ever with one accusation after another.
    function test_a_lease_that_is_long_over_is_not_accused_any_more() public {
        vm.prank(host.addr);
        leases.close(leaseId);
        uint64 until = uint64(block.timestamp) + CLAIM_DELAY;
        vm.warp(until + 1);
        vm.expectRevert(abi.encodeWithSelector(IAuditServiceManager.TooLate.selector, until));
        vm.prank(stranger.addr);
        audit.openTask{value: TASK_BOND}(leaseId, kind(1), 0);
        vm.warp(until);
        openTask(kind(1));
        // Its verdict and everything after it comes before the bond is free.
        assertLt(until + VERDICT_WINDOW + RESOLVE_WINDOW, until - CLAIM_DELAY + UNBONDING_DELAY, "in time");
    }

    function test_only_the_court_and_the_registry_open_and_punish() public {
        bytes memory refusal = abi.encodeWithSelector(IAuditServiceManager.NotCourt.selector, stranger.addr);
        vm.startPrank(stranger.addr);
        vm.expectRevert(refusal);
        audit.openTaskFor{value: TASK_BOND}(
            stranger.addr, leaseId, kind(1), 0, IAuditServiceManager.Bill(0, stranger.addr, BOND)
        );
        vm.expectRevert(refusal);
        audit.openCase(leaseId);
        vm.expectRevert(refusal);
        audit.closeCase(leaseId);
        vm.expectRevert(refusal);
        audit.punish(
            leaseId,
            IAuditServiceManager.Offence.Omission,
            ILeaseManager.Compensation(stranger.addr, BOND, 0, stranger.addr)
        );
        vm.expectRevert(abi.encodeWithSelector(IAuditServiceManager.NotRegistry.selector, stranger.addr));
        audit.openOwnershipTask{value: TASK_BOND}(modelId, stranger.addr, creator.addr, 0);
        vm.stopPrank();
    }

    function test_an_honest_host_that_is_accused_gets_the_accuser_s_bond() public {
        TaskId id = openTask(IAuditServiceManager.TaskKind.Substitution);
        submit(verdictOn(id, notGuilty()), 15);
        uint64 deadline = audit.task(id).deadline;
        vm.warp(deadline);
        vm.expectRevert(abi.encodeWithSelector(IAuditServiceManager.TooEarly.selector, deadline));
        audit.resolve(id);
        vm.warp(deadline + 1);
        vm.expectEmit(address(audit));
        emit IAuditServiceManager.TaskClosed(id, IAuditServiceManager.Outcome.NotGuilty);
        vm.expectEmit(address(audit));
        emit ICoinBonds.Owed(host.addr, TASK_BOND);
        audit.resolve(id);
        assertEq(audit.owed(host.addr), TASK_BOND, "the bond");
        assertEq(audit.openCases(leaseId), 0, "closed");
        assertTrue(leases.isActive(leaseId), "untouched");
        assertEq(leases.lease(leaseId).bond, BOND, "nothing was taken");
        vm.expectRevert(
            abi.encodeWithSelector(
                IAuditServiceManager.WrongTaskState.selector,
                IAuditServiceManager.TaskState.Decided,
                IAuditServiceManager.TaskState.Closed
            )
        );
        audit.resolve(id);
    }

    function test_without_a_verdict_nobody_wins() public {
        TaskId id = openTask(IAuditServiceManager.TaskKind.Substitution);
        uint64 deadline = audit.task(id).deadline;
        vm.expectRevert(abi.encodeWithSelector(IAuditServiceManager.TooEarly.selector, deadline));
        audit.resolve(id);
        vm.warp(deadline + 1);
        audit.resolve(id);
        assertTrue(audit.task(id).outcome == IAuditServiceManager.Outcome.Void, "void");
        assertEq(audit.owed(stranger.addr), TASK_BOND, "the opener has its bond back");
        assertEq(leases.lease(leaseId).bond, BOND, "nothing was taken");
    }

    function test_what_is_unknown_is_not_resolved() public {
        vm.expectRevert(abi.encodeWithSelector(IAuditServiceManager.UnknownTask.selector, 3));
        audit.resolve(TaskId.wrap(3));
    }

    function expectPunishment(IAuditServiceManager.TaskKind what, uint256 bondBps, uint64 wad, bool revoked) internal {
        TaskId id = openTask(what);
        submit(verdictOn(id, guilty()), 15);
        later(RESOLVE_WINDOW + 1);
        uint128 slashed = uint128(uint256(BOND) * bondBps / 10_000);
        vm.expectEmit(address(audit));
        emit IAuditServiceManager.HostPunished(
            leaseId, host.addr, IAuditServiceManager.Offence(uint8(what)), slashed, wad
        );
        audit.resolve(id);
        assertEq(leases.lease(leaseId).bond, BOND - slashed, "the bond");
        assertEq(audit.hostStake(host.addr), HOST_STAKE - HOST_STAKE * wad / 1e18, "the allocation");
        assertEq(
            strategies.getBurnableShares(strategy), HOST_STAKE * wad / 1e18, "burned, on a core without redistribution"
        );
        assertEq(leases.lease(leaseId).state == ILeaseManager.LeaseState.Revoked, revoked, "revoked for the gravest");
        assertEq(balanceOf(stranger.addr), uint256(slashed) * 3_000 / 10_000, "the reporter");
        assertEq(balanceOf(creator.addr), slashed - uint256(slashed) * 3_000 / 10_000, "the creator");
        assertEq(audit.owed(stranger.addr), TASK_BOND, "and the accuser's own bond");
    }

    function test_a_wrong_count_costs_a_fifth_and_a_tenth() public {
        expectPunishment(IAuditServiceManager.TaskKind.TokenCount, 2_000, 0.1e18, false);
    }

    function test_another_model_costs_half_and_the_lease() public {
        expectPunishment(IAuditServiceManager.TaskKind.Substitution, 5_000, 0.5e18, true);
    }

    function test_serving_outside_costs_everything() public {
        expectPunishment(IAuditServiceManager.TaskKind.OutsideService, 10_000, 1e18, true);
    }

    function test_letting_the_weights_out_costs_everything() public {
        expectPunishment(IAuditServiceManager.TaskKind.VariantLeak, 10_000, 1e18, true);
    }

    function test_a_host_that_cannot_be_slashed_any_more_still_loses_its_bond() public {
        leaveSet(host.addr, hosts());
        later(uint256(DEALLOCATION_DELAY_BLOCKS) * SECONDS_PER_BLOCK + 1);
        TaskId id = openTask(IAuditServiceManager.TaskKind.OutsideService);
        submit(verdictOn(id, guilty()), 15);
        later(RESOLVE_WINDOW + 1);
        vm.expectEmit(address(audit));
        emit IAuditServiceManager.HostPunished(leaseId, host.addr, IAuditServiceManager.Offence.OutsideService, BOND, 0);
        audit.resolve(id);
    }

    function test_a_host_whose_allocation_is_gone_still_loses_its_other_leases_bonds() public {
        LeaseId other = openLease(termsId);
        decide(openTask(IAuditServiceManager.TaskKind.OutsideService), guilty());
        assertEq(audit.hostStake(host.addr), 0, "nothing is left to slash");
        leaseId = other;
        decide(openTask(IAuditServiceManager.TaskKind.OutsideService), guilty());
        assertEq(leases.lease(other).bond, 0, "the second bond");
    }

    /// Invariant 7: two punishments together take no more than there is, in either layer.
    function testFuzz_invariant_7_punishments_never_take_more_than_the_collateral(uint8[5] memory kinds) public {
        for (uint256 i = 0; i < kinds.length; ++i) {
            if (!leases.isActive(leaseId)) break;
            TaskId id = openTask(kind(bound(kinds[i], 1, 4)));
            decide(id, guilty());
            uint256 shared = balanceOf(stranger.addr) + balanceOf(creator.addr);
            assertEq(shared + leases.lease(leaseId).bond, BOND, "the bond is shared out and not multiplied");
            uint256 burned = strategies.getBurnableShares(strategy);
            assertApproxEqAbs(burned + audit.hostStake(host.addr), HOST_STAKE, 10, "and so is the allocation");
            assertLe(burned, HOST_STAKE, "never more than was allocated");
        }
    }

    function test_bonds_are_paid_out_to_whom_they_are_owed_once() public {
        TaskId id = openTask(IAuditServiceManager.TaskKind.Substitution);
        later(VERDICT_WINDOW + 1);
        audit.resolve(id);
        uint256 before = stranger.addr.balance;
        audit.withdrawOwed(payable(stranger.addr));
        assertEq(stranger.addr.balance, before + TASK_BOND, "paid by anybody's call");
        vm.expectRevert(abi.encodeWithSelector(ICoinBonds.NothingOwed.selector, stranger.addr));
        audit.withdrawOwed(payable(stranger.addr));
    }

    function test_an_account_that_takes_no_coins_keeps_no_case_open() public {
        Refuser refuser = new Refuser();
        vm.deal(address(refuser), 1 ether);
        TaskId id = refuser.accuse(audit, leaseId, TASK_BOND);
        later(VERDICT_WINDOW + 1);
        audit.resolve(id);
        assertEq(audit.openCases(leaseId), 0, "closed");
        vm.expectRevert();
        audit.withdrawOwed(payable(address(refuser)));
        assertEq(audit.owed(address(refuser)), TASK_BOND, "still owed");
    }

    function test_a_receiver_that_calls_back_is_paid_once() public {
        Greedy greedy = new Greedy(audit);
        vm.deal(address(greedy), TASK_BOND);
        TaskId id = greedy.accuse(audit, leaseId, TASK_BOND);
        openTask(IAuditServiceManager.TaskKind.TokenCount);
        later(VERDICT_WINDOW + 1);
        audit.resolve(id);
        audit.withdrawOwed(payable(address(greedy)));
        assertEq(address(greedy).balance, TASK_BOND, "its own bond and nobody else's");
    }

    function test_the_verdict_s_model_is_for_the_registry() public {
        assertEq(ModelId.unwrap(audit.task(openTask(kind(1))).modelId), 0, "no model in a host's task");
    }
}

/// Takes no coins.
contract Refuser {
    function accuse(IAuditServiceManager audit, LeaseId leaseId, uint256 bond) external returns (TaskId) {
        return audit.openTask{value: bond}(leaseId, IAuditServiceManager.TaskKind.TokenCount, 0);
    }
}

/// Asks for more whenever it is paid.
contract Greedy is Refuser {
    IAuditServiceManager private immutable AUDIT;

    constructor(IAuditServiceManager audit) {
        AUDIT = audit;
    }

    receive() external payable {
        try AUDIT.withdrawOwed(payable(address(this))) {} catch {}
    }
}
