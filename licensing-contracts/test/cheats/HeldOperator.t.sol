// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAVSRegistrar} from "../../contracts/interfaces/eigenlayer/IEigenLayer.sol";
import {Auditing} from "../utils/Auditing.sol";

/// A registrar that reverts when an operator wants to leave holds it, and its stake, for ever: EigenLayer asks it in the same call.
/// Whatever happened before, ours lets go.
contract HeldOperatorTest is Auditing {
    /// Why it matters.
    function test_a_registrar_that_reverts_would_hold_its_operators() public {
        vm.mockCallRevert(address(audit), abi.encodePacked(IAVSRegistrar.deregisterOperator.selector), "held");
        address operator = validatorAddresses[0];
        vm.expectRevert();
        this.leave(operator);
        assertEq(allocations.isMemberOfOperatorSet(operator, validatorSet()), true, "held");
        vm.clearMockedCalls();
        leaveSet(operator, validatorSet());
        assertEq(allocations.isMemberOfOperatorSet(operator, validatorSet()), false, "free");
    }

    function leave(address operator) external {
        leaveSet(operator, validatorSet());
    }

    /// Validators that gained, lost or were retired, in any order: all of them can leave.
    /// forge-config: default.fuzz.runs = 64
    function testFuzz_everybody_can_leave_whatever_happened_before(uint256 seed) public {
        for (uint256 i = 0; i < 4; ++i) {
            address operator = validatorAddresses[i];
            uint256 what = (seed >> (8 * i)) % 4;
            if (what == 1) depositStake(operator, 3 ether);
            else if (what == 2) allocate(operator, validatorSet(), strategy, 0);
            else if (what == 3) allocate(operator, validatorSet(), strategy, ALL / 3);
        }
        vm.roll(block.number + DEALLOCATION_DELAY_BLOCKS + 1);
        for (uint256 i = 0; i < 4; ++i) {
            if ((seed >> (64 + i)) & 1 == 1) audit.updateStakes(single(validatorAddresses[i]));
        }
        uint256 first = seed >> 128;
        for (uint256 i = 0; i < 4; ++i) {
            address operator = validatorAddresses[(first + i) % 4];
            leaveSet(operator, validatorSet());
            assertFalse(allocations.isMemberOfOperatorSet(operator, validatorSet()), "free");
        }
        assertEq(audit.validators(), 0, "nobody is left");
        assertEq(audit.totalWeight(), 0, "nor any weight");
        leaveSet(host.addr, hosts());
        assertFalse(audit.isHost(host.addr), "hosts as well");
    }

    /// The callback itself takes anything: operators that never joined, sets that are not ours, the same set twice.
    function testFuzz_the_callback_never_reverts(address operator, uint32[] calldata sets, uint8 which) public {
        if (which < 4) operator = validatorAddresses[which];
        else vm.assume(audit.validator(operator).number == 0);
        vm.startPrank(address(allocations));
        audit.deregisterOperator(operator, address(audit), sets);
        uint32[] memory twice = new uint32[](2);
        audit.deregisterOperator(operator, address(audit), twice);
        audit.deregisterOperator(operator, address(audit), twice);
        vm.stopPrank();
        assertEq(audit.validators(), which < 4 ? 3 : 4, "gone once");
    }
}
