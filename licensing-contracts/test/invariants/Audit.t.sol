// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Test} from "forge-std/Test.sol";

import {AuditHandler} from "./AuditHandler.sol";

/// Invariants 6, 7 and 9 of the design, after any sequence of what `AuditHandler` can do. That nothing honest is convicted and
/// nothing hidden acquitted is required in the handler itself, at every step.
contract AuditInvariants is Test {
    AuditHandler internal handler;

    function setUp() public {
        handler = new AuditHandler();
        bytes4[] memory calls = new bytes4[](13);
        calls[0] = handler.doServe.selector;
        calls[1] = handler.doPass.selector;
        calls[2] = handler.doAnswer.selector;
        calls[3] = handler.doAsk.selector;
        calls[4] = handler.doResolveSilence.selector;
        calls[5] = handler.doProveOmission.selector;
        calls[6] = handler.doProveEquivocation.selector;
        calls[7] = handler.doOpenTask.selector;
        calls[8] = handler.doVerdict.selector;
        calls[9] = handler.doResolve.selector;
        calls[10] = handler.doWithdrawOwed.selector;
        calls[11] = handler.doProvePostdating.selector;
        calls[12] = handler.doAccuse.selector;
        targetSelector(FuzzSelector(address(handler), calls));
        targetContract(address(handler));
    }

    function test_the_handler_convicts_acquits_and_is_refused() public {
        for (uint256 i = 0; i < 800; ++i) {
            uint256 noise = uint256(keccak256(abi.encode("walk", i)));
            uint256 choice = noise % 16;
            noise >>= 8;
            if (choice < 2) handler.doServe(noise, uint48(noise >> 8), noise % 3 == 0);
            else if (choice == 2) handler.doPass(noise);
            else if (choice == 3) handler.doAnswer(noise);
            else if (choice == 4) handler.doAsk(noise);
            else if (choice == 5) handler.doResolveSilence(noise);
            else if (choice == 6) handler.doProveOmission(noise);
            else if (choice == 7) handler.doProveEquivocation(noise, noise >> 64);
            else if (choice == 8) handler.doOpenTask();
            else if (choice == 9 || choice > 13) handler.doVerdict(noise, noise >> 64, noise % 2 == 0);
            else if (choice == 10) handler.doResolve(noise);
            else if (choice == 11) handler.doProvePostdating(noise);
            else if (choice == 12) handler.doAccuse(noise >> 8);
            else handler.doWithdrawOwed(noise);
        }
        assertGt(handler.convictions(), 5, "convictions");
        assertGt(handler.acquittals(), 2, "acquittals");
        assertGt(handler.refusedAccusations(), 20, "refused accusations");
        assertGt(handler.verdictsSubmitted(), 2, "verdicts");
        assertGt(handler.verdictsRefused(), 5, "refused verdicts");
    }

    function invariant_6_7_an_honest_host_loses_nothing() public view {
        if (handler.convictions() != 0) return;
        (uint256 collateral, uint256 stake,,) = handler.bonds();
        assertEq(handler.bondLeft(), collateral, "the bond");
        assertEq(handler.allocationLeft(), stake, "the allocation");
    }

    function invariant_7_a_slashed_bond_is_shared_out_to_the_unit() public view {
        (uint256 collateral,,,) = handler.bonds();
        assertEq(handler.bondLeft() + handler.bondShared(), collateral, "left and shared");
    }

    function invariant_7_no_more_is_slashed_than_was_allocated() public view {
        (, uint256 stake,,) = handler.bonds();
        assertLe(handler.allocationBurned() + handler.allocationLeft(), stake, "burned and left");
        // Each slashing rounds by a few units.
        assertApproxEqAbs(handler.allocationBurned() + handler.allocationLeft(), stake, 1_000, "and not much less");
    }

    function invariant_cases_that_are_open_hold_the_bond_and_no_others() public view {
        assertEq(handler.casesOpen(), handler.openChallenges() + handler.openTasks(), "open cases");
    }

    function invariant_bonds_of_accusers_are_held_or_owed_to_the_coin() public view {
        (,, uint256 taskBond, uint256 challengeBond) = handler.bonds();
        (uint256 atAudit, uint256 owedByAudit, uint256 atCourt, uint256 owedByCourt) = handler.coins();
        assertEq(atAudit, owedByAudit + handler.openTasks() * taskBond, "the audit's coins");
        assertEq(atCourt, owedByCourt + handler.openChallenges() * challengeBond, "the court's coins");
    }
}
