// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {IAuditServiceManager} from "../../contracts/interfaces/IAuditServiceManager.sol";
import {IEvidenceCourt} from "../../contracts/interfaces/IEvidenceCourt.sol";
import {ILeaseManager} from "../../contracts/interfaces/ILeaseManager.sol";
import {IPaymentEscrow} from "../../contracts/interfaces/IPaymentEscrow.sol";
import {BN254} from "../../contracts/libraries/BN254.sol";
import {MerkleSum} from "../../contracts/libraries/MerkleSum.sol";
import {ChannelId, TaskId} from "../../contracts/types/Ids.sol";
import {LicenseTerms, Statement} from "../../contracts/types/Messages.sol";
import {Auditing} from "../utils/Auditing.sol";
import {CallbackToken} from "../utils/Tokens.sol";

/// A payment token calls back in the middle of every transfer, for whoever wrote it: it finds every door locked.
contract ReenteringTokenTest is Auditing {
    CallbackToken internal hostile = new CallbackToken();
    Statement internal mispriced;

    function setUp() public override {
        super.setUp();
        LicenseTerms memory terms = defaultTerms(modelId);
        terms.paymentToken = address(hostile);
        hostile.mint(host.addr, 1_000_000e6);
        vm.startPrank(host.addr);
        hostile.approve(address(leases), type(uint256).max);
        hostile.approve(address(escrow), type(uint256).max);
        vm.stopPrank();
        leaseId = openLease(publishTerms(terms));
        channel.token = address(hostile);
        channelId = deposit(channel, 100e6);
        hostile.mint(payer.addr, 100e6);
        vm.prank(payer.addr);
        hostile.approve(address(escrow), type(uint256).max);
        mispriced = draft(channelId, 5, 10, 0, 10);
        ++mispriced.charge;
    }

    /// Makes `outer`, in the middle of which the token makes `inner`: the lock must turn that away, and nothing else.
    function expectLocked(address caller, address outerAt, bytes memory outer, address innerAt, bytes memory inner)
        internal
    {
        uint256 before = vm.snapshotState();
        hostile.arm(innerAt, inner);
        vm.prank(caller);
        (bool made,) = outerAt.call(outer);
        assertTrue(made, "the outer call goes on");
        assertTrue(hostile.called(), "the token called back");
        assertFalse(hostile.succeeded(), "the inner call succeeded");
        assertEq(
            bytes4(hostile.answer()),
            ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector,
            "it was the lock that turned it away"
        );
        vm.revertToState(before);
    }

    function escrowCalls() internal view returns (bytes[] memory calls) {
        MerkleSum.Sums memory none;
        calls = new bytes[](11);
        calls[0] = abi.encodeCall(escrow.deposit, (channel, 1));
        calls[1] = abi.encodeCall(escrow.depositWithPermit, (channel, 1, 0, 0, 0, 0));
        calls[2] = abi.encodeCall(escrow.depositWithAuthorization, (channel, 1, 0, 0, 0, ""));
        calls[3] = abi.encodeCall(escrow.collectDeposit, (channel));
        calls[4] = abi.encodeCall(escrow.withdraw, (channel));
        calls[5] = abi.encodeCall(escrow.release, (channel, 1));
        calls[6] = abi.encodeCall(escrow.claimBatch, (new IPaymentEscrow.LeaseClaims[](0)));
        calls[7] = abi.encodeCall(escrow.settleRoyalty, (leaseId, none, noSplits()));
        calls[8] = abi.encodeCall(escrow.enforceRoyalty, (leaseId, 0, noSplits()));
        calls[9] = abi.encodeCall(escrow.credit, (address(hostile), payer.addr, 1));
        calls[10] = abi.encodeCall(escrow.payOut, (address(hostile), payer.addr));
    }

    function test_the_escrow_is_locked_while_it_takes_in_tokens() public {
        bytes[] memory calls = escrowCalls();
        for (uint256 i = 0; i < calls.length; ++i) {
            expectLocked(payer.addr, address(escrow), calls[0], address(escrow), calls[i]);
        }
    }

    function test_the_escrow_is_locked_in_every_call_that_moves_tokens() public {
        bytes[] memory calls = escrowCalls();
        // Something to withdraw, to release, to settle, to enforce, to pay out and at the deposit address.
        announce(1);
        serveOn(ChannelId.wrap(0), 1, 0, 0, 1_000_000);
        uint256 index = report();
        hostile.mint(escrow.depositAddress(channelId), 5);
        vm.prank(payer.addr);
        escrow.credit(address(hostile), payer.addr, 7);
        later(WITHDRAW_DELAY + 1 days);
        calls[8] = abi.encodeCall(escrow.enforceRoyalty, (leaseId, index, noSplits()));
        calls[7] = abi.encodeCall(escrow.settleRoyalty, (leaseId, usage.reported(leaseId), noSplits()));
        uint256[7] memory moving = [uint256(3), 4, 5, 7, 8, 9, 10];
        for (uint256 i = 0; i < moving.length; ++i) {
            address caller = moving[i] == 5 || moving[i] == 7 ? host.addr : payer.addr;
            expectLocked(caller, address(escrow), calls[moving[i]], address(escrow), calls[6]);
        }
        // The bond's royalty comes out of the lease manager, which is locked as well.
        bytes memory more = abi.encodeCall(leases.addBond, (leaseId, 1));
        expectLocked(stranger.addr, address(escrow), calls[8], address(leases), more);
    }

    function test_the_lease_manager_is_locked_while_it_moves_tokens() public {
        ILeaseManager.Compensation memory harm = ILeaseManager.Compensation(payer.addr, 1, 0, address(0));
        bytes[5] memory calls = [
            abi.encodeCall(leases.addBond, (leaseId, 1)),
            abi.encodeCall(leases.open, (defaultOpening(termsId))),
            abi.encodeCall(leases.withdrawBond, (leaseId)),
            abi.encodeCall(leases.slashBond, (leaseId, 1, harm)),
            abi.encodeCall(leases.collectFromBond, (leaseId, 1))
        ];
        bytes memory opening = abi.encodeCall(leases.open, (defaultOpening(leases.lease(leaseId).termsId)));
        for (uint256 i = 0; i < calls.length; ++i) {
            expectLocked(host.addr, address(leases), calls[0], address(leases), calls[i]);
            expectLocked(host.addr, address(leases), opening, address(leases), calls[i]);
            expectLocked(address(audit), address(leases), calls[3], address(leases), calls[i]);
            expectLocked(address(escrow), address(leases), calls[4], address(leases), calls[i]);
        }
        closeLease();
        later(UNBONDING_DELAY);
        expectLocked(host.addr, address(leases), calls[2], address(leases), calls[0]);
    }

    /// A verdict is carried out: the token that the bond is in cannot carry out another, nor have the court punish meanwhile.
    function test_the_audit_is_locked_while_it_punishes() public {
        TaskId first = openTask(IAuditServiceManager.TaskKind.TokenCount);
        TaskId second = openTask(IAuditServiceManager.TaskKind.TokenCount);
        submit(verdictOn(first, guilty()), 15);
        submit(verdictOn(second, guilty()), 15);
        later(RESOLVE_WINDOW + 1);
        bytes memory outer = abi.encodeCall(audit.resolve, (first));
        expectLocked(stranger.addr, address(audit), outer, address(audit), abi.encodeCall(audit.resolve, (second)));
        bytes memory rewarding = abi.encodeCall(audit.submitRewards, (address(hostile), new address[](0)));
        expectLocked(stranger.addr, address(audit), outer, address(audit), rewarding);
        bytes memory paying = abi.encodeCall(audit.withdrawOwed, (payable(stranger.addr)));
        expectLocked(stranger.addr, address(audit), outer, address(audit), paying);
        BN254.G1Point memory point;
        BN254.G2Point memory pointG2;
        bytes memory accusing = abi.encodeCall(
            audit.proveVerdictConflict, (host.addr, pointG2, verdictOn(first, 1), point, verdictOn(first, 2), point)
        );
        expectLocked(stranger.addr, address(audit), outer, address(audit), accusing);
        bytes memory proving = abi.encodeCall(court.proveMisprice, (mispriced, signed(mispriced)));
        expectLocked(stranger.addr, address(audit), outer, address(court), proving);
    }

    function test_the_court_is_locked_while_it_has_a_host_punished() public {
        bytes memory signature = signed(mispriced);
        bytes memory outer = abi.encodeCall(court.proveMisprice, (mispriced, signature));
        IEvidenceCourt.Absence memory absence;
        bytes[6] memory calls = [
            outer,
            abi.encodeCall(court.proveOmission, (mispriced, signature, absence)),
            abi.encodeCall(court.provePostdating, (mispriced, signature)),
            abi.encodeCall(court.proveEquivocation, (mispriced, signature, mispriced, signature)),
            abi.encodeCall(court.resolveInclusion, (bytes32(0))),
            abi.encodeCall(court.withdrawOwed, (payable(stranger.addr)))
        ];
        for (uint256 i = 0; i < calls.length; ++i) {
            expectLocked(stranger.addr, address(court), outer, address(court), calls[i]);
        }
    }
}
