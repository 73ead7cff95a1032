// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAuditServiceManager} from "../../contracts/interfaces/IAuditServiceManager.sol";
import {ILeaseManager} from "../../contracts/interfaces/ILeaseManager.sol";
import {LeaseId} from "../../contracts/types/Ids.sol";
import {Fixture} from "../utils/Fixture.sol";

/// How leases end, and what becomes of bonds.
contract EndTest is Fixture {
    uint64 internal constant TO = START + 90 days;

    function asAudit() internal {
        vm.prank(address(audit));
    }

    function noHarm() internal pure returns (ILeaseManager.Compensation memory) {
        return ILeaseManager.Compensation(address(0), 0, 0, address(0));
    }

    function slash(uint128 wanted, ILeaseManager.Compensation memory compensation) internal returns (uint128) {
        asAudit();
        return leases.slashBond(leaseId, wanted, compensation);
    }

    function test_a_creator_revokes_with_notice() public {
        vm.expectEmit(address(leases));
        emit ILeaseManager.LeaseEnds(leaseId, START + REVOCATION_NOTICE);
        vm.prank(creator.addr);
        leases.revoke(leaseId);
        assertTrue(leases.isActive(leaseId), "until then it is active");
        vm.warp(START + REVOCATION_NOTICE);
        assertFalse(leases.isActive(leaseId), "then it is over");
    }

    function test_a_host_cannot_renew_a_lease_that_was_revoked() public {
        vm.prank(creator.addr);
        leases.revoke(leaseId);
        vm.expectRevert(abi.encodeWithSelector(ILeaseManager.LeaseEnding.selector, START + REVOCATION_NOTICE));
        vm.prank(host.addr);
        leases.renew(leaseId, TO + 1);
    }

    function test_a_revocation_never_lengthens_a_lease() public {
        vm.warp(TO - 1 days);
        vm.expectRevert(abi.encodeWithSelector(ILeaseManager.LeaseOver.selector, TO));
        vm.prank(creator.addr);
        leases.revoke(leaseId);
    }

    function test_only_the_creator_revokes_and_only_the_host_closes() public {
        vm.expectRevert(abi.encodeWithSelector(ILeaseManager.NotCreator.selector, creator.addr, host.addr));
        vm.prank(host.addr);
        leases.revoke(leaseId);
        vm.expectRevert(abi.encodeWithSelector(ILeaseManager.NotHost.selector, host.addr, creator.addr));
        vm.prank(creator.addr);
        leases.close(leaseId);
    }

    function test_a_closed_lease_is_over_at_once() public {
        vm.expectEmit(address(leases));
        emit ILeaseManager.LeaseEnds(leaseId, START);
        closeLease();
        assertFalse(leases.isActive(leaseId), "over");
        vm.expectRevert(abi.encodeWithSelector(ILeaseManager.LeaseOver.selector, START));
        closeLease();
    }

    function test_the_bond_comes_back_after_the_unbonding_delay() public {
        closeLease();
        uint64 free = START + UNBONDING_DELAY;
        vm.warp(free - 1);
        vm.expectRevert(abi.encodeWithSelector(ILeaseManager.BondLocked.selector, free));
        withdrawBond();
        vm.warp(free);
        uint256 before = token.balanceOf(host.addr);
        vm.expectEmit(address(leases));
        emit ILeaseManager.BondWithdrawn(leaseId, BOND);
        assertEq(withdrawBond(), BOND, "the bond");
        assertEq(token.balanceOf(host.addr), before + BOND, "to the host");
        assertEq(withdrawBond(), 0, "once");
        vm.expectRevert(abi.encodeWithSelector(ILeaseManager.NotHost.selector, host.addr, creator.addr));
        vm.prank(creator.addr);
        leases.withdrawBond(leaseId);
    }

    function test_the_bond_stays_while_a_case_is_open() public {
        vm.deal(stranger.addr, 1 ether);
        vm.prank(stranger.addr);
        audit.openTask{value: TASK_BOND}(leaseId, IAuditServiceManager.TaskKind.TokenCount, "evidence");
        closeLease();
        vm.warp(START + UNBONDING_DELAY);
        vm.expectRevert(abi.encodeWithSelector(ILeaseManager.CasesOpen.selector, 1));
        withdrawBond();
    }

    function test_anybody_adds_to_a_bond() public {
        token.mint(stranger.addr, 5e6);
        approve(stranger.addr, address(leases));
        vm.expectEmit(address(leases));
        emit ILeaseManager.BondAdded(leaseId, 5e6);
        vm.prank(stranger.addr);
        leases.addBond(leaseId, 5e6);
        assertEq(leases.lease(leaseId).bond, BOND + 5e6, "larger");
        vm.expectRevert(abi.encodeWithSelector(ILeaseManager.UnknownLease.selector, 7));
        leases.addBond(LeaseId.wrap(7), 5e6);
    }

    // Slashing: invariant 7

    function test_only_the_audit_slashes_and_revokes_and_only_the_escrow_collects() public {
        bytes memory refusal = abi.encodeWithSelector(ILeaseManager.NotAuthorized.selector, stranger.addr);
        vm.startPrank(stranger.addr);
        vm.expectRevert(refusal);
        leases.slashBond(leaseId, 1, noHarm());
        vm.expectRevert(refusal);
        leases.revokeByVerdict(leaseId);
        vm.expectRevert(refusal);
        leases.collectFromBond(leaseId, 1);
        vm.stopPrank();
    }

    function testFuzz_invariant_7_a_slashed_bond_is_shared_in_order_and_to_the_unit(
        uint128 wanted,
        uint128 refund,
        uint128 creatorLoss,
        bool hasPayer,
        bool hasReporter
    ) public {
        wanted = uint128(bound(wanted, 0, 2 * uint256(BOND)));
        refund = uint128(bound(refund, 0, 2 * uint256(BOND)));
        creatorLoss = uint128(bound(creatorLoss, 0, 2 * uint256(BOND)));
        ILeaseManager.Compensation memory compensation = ILeaseManager.Compensation(
            hasPayer ? payer.addr : address(0), refund, creatorLoss, hasReporter ? stranger.addr : address(0)
        );
        uint128 slashed = slash(wanted, compensation);
        assertEq(slashed, wanted < BOND ? wanted : BOND, "never more than the bond");
        assertEq(leases.lease(leaseId).bond, BOND - slashed, "what is left of it");

        uint256 toPayer = escrow.balance(address(token), payer.addr);
        uint256 toCreator = escrow.balance(address(token), creator.addr);
        uint256 toReporter = escrow.balance(address(token), stranger.addr);
        assertEq(toPayer + toCreator + toReporter, slashed, "sums exactly");
        uint256 dueToPayer = hasPayer ? (refund < slashed ? refund : slashed) : 0;
        assertEq(toPayer, dueToPayer, "the payer first");
        uint256 left = slashed - dueToPayer;
        uint256 dueToCreator = creatorLoss < left ? creatorLoss : left;
        assertGe(toCreator, dueToCreator, "then the creator");
        left -= dueToCreator;
        assertEq(toReporter, hasReporter ? left * 3_000 / 10_000 : 0, "then the reporter");
        assertEq(token.balanceOf(address(leases)), BOND - slashed, "nothing else moved");
    }

    function test_slashing_says_who_got_what() public {
        vm.expectEmit(address(leases));
        emit ILeaseManager.LeaseStateChanged(leaseId, ILeaseManager.LeaseState.Suspended);
        vm.expectEmit(address(leases));
        emit ILeaseManager.BondSlashed(leaseId, 100e6, 410e6, 90e6, stranger.addr);
        slash(600e6, ILeaseManager.Compensation(payer.addr, 100e6, 200e6, stranger.addr));
    }

    function test_a_lease_whose_bond_falls_short_is_suspended_until_it_is_whole() public {
        slash(500e6, noHarm());
        assertTrue(leases.isActive(leaseId), "500 are enough");
        slash(1, noHarm());
        assertFalse(leases.isActive(leaseId), "less is not");
        vm.startPrank(host.addr);
        vm.expectRevert(
            abi.encodeWithSelector(
                ILeaseManager.WrongState.selector, ILeaseManager.LeaseState.Open, ILeaseManager.LeaseState.Suspended
            )
        );
        leases.renew(leaseId, TO + 1);
        vm.expectRevert(abi.encodeWithSelector(ILeaseManager.BondTooSmall.selector, 500e6, 500e6 - 1));
        leases.reinstate(leaseId);
        leases.addBond(leaseId, 1);
        vm.expectEmit(address(leases));
        emit ILeaseManager.LeaseStateChanged(leaseId, ILeaseManager.LeaseState.Open);
        leases.reinstate(leaseId);
        assertTrue(leases.isActive(leaseId), "open again");
        vm.expectRevert(
            abi.encodeWithSelector(
                ILeaseManager.WrongState.selector, ILeaseManager.LeaseState.Suspended, ILeaseManager.LeaseState.Open
            )
        );
        leases.reinstate(leaseId);
        vm.stopPrank();
    }

    function test_a_suspended_lease_needs_its_restake_too() public {
        slash(501e6, noHarm());
        leaveSet(host.addr, hosts());
        vm.startPrank(host.addr);
        leases.addBond(leaseId, 500e6);
        vm.expectPartialRevert(ILeaseManager.RestakeTooSmall.selector);
        leases.reinstate(leaseId);
        vm.stopPrank();
    }

    /// A host that withdraws its stake keeps its customers only until somebody looks.
    function test_anybody_suspends_a_lease_whose_restake_fell_short() public {
        vm.expectRevert(ILeaseManager.CollateralIsEnough.selector);
        leases.suspend(leaseId);
        leaveSet(host.addr, hosts());
        vm.expectEmit(address(leases));
        emit ILeaseManager.LeaseStateChanged(leaseId, ILeaseManager.LeaseState.Suspended);
        vm.prank(stranger.addr);
        leases.suspend(leaseId);
        assertFalse(leases.isActive(leaseId), "suspended");
        vm.expectRevert(
            abi.encodeWithSelector(
                ILeaseManager.WrongState.selector, ILeaseManager.LeaseState.Open, ILeaseManager.LeaseState.Suspended
            )
        );
        leases.suspend(leaseId);
        vm.expectRevert(abi.encodeWithSelector(ILeaseManager.UnknownLease.selector, 7));
        leases.suspend(LeaseId.wrap(7));
    }

    function test_a_slashed_allocation_is_too_little_until_it_is_filled_up() public {
        // 500 allocated, 100 needed; a magnitude of one tenth leaves 50 once the deallocation is through.
        allocate(host.addr, hosts(), strategy, 0.1e18);
        vm.expectRevert(ILeaseManager.CollateralIsEnough.selector);
        leases.suspend(leaseId);
        vm.roll(block.number + DEALLOCATION_DELAY_BLOCKS + 1);
        assertEq(audit.hostStake(host.addr), HOST_STAKE / 10, "what is left");
        leases.suspend(leaseId);
        vm.expectPartialRevert(ILeaseManager.RestakeTooSmall.selector);
        vm.prank(host.addr);
        leases.reinstate(leaseId);
        depositStake(host.addr, 5 * HOST_STAKE);
        vm.prank(host.addr);
        leases.reinstate(leaseId);
        assertTrue(leases.isActive(leaseId), "open again");
    }

    function test_a_lease_that_is_over_is_not_reinstated() public {
        slash(501e6, noHarm());
        vm.warp(TO);
        vm.expectRevert(abi.encodeWithSelector(ILeaseManager.LeaseOver.selector, TO));
        vm.prank(host.addr);
        leases.reinstate(leaseId);
    }

    function test_a_verdict_revokes_at_once_and_for_good() public {
        vm.expectEmit(address(leases));
        emit ILeaseManager.LeaseEnds(leaseId, START);
        vm.expectEmit(address(leases));
        emit ILeaseManager.LeaseStateChanged(leaseId, ILeaseManager.LeaseState.Revoked);
        asAudit();
        leases.revokeByVerdict(leaseId);
        vm.startPrank(host.addr);
        vm.expectPartialRevert(ILeaseManager.WrongState.selector);
        leases.reinstate(leaseId);
        vm.expectPartialRevert(ILeaseManager.WrongState.selector);
        leases.renew(leaseId, TO + 1);
        vm.stopPrank();
        // The bond is held as long as after any other end.
        vm.warp(START + UNBONDING_DELAY);
        assertEq(withdrawBond(), BOND, "and then it is the host's");
    }
}
