// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAuditServiceManager} from "../../contracts/interfaces/IAuditServiceManager.sol";
import {IPaymentEscrow} from "../../contracts/interfaces/IPaymentEscrow.sol";
import {Auditing} from "../utils/Auditing.sol";

/// The validators' share of claims, on the real RewardsCoordinator.
contract RewardsTest is Auditing {
    function setUp() public override {
        super.setUp();
        serve(0, 0, 50_000_000);
        report();
        claimAs(host.addr, batchOf(acceptedClaim()));
    }

    function sorted() internal view returns (address[] memory operators) {
        operators = validatorAddresses;
        for (uint256 i = 1; i < operators.length; ++i) {
            for (uint256 j = i; j > 0 && operators[j - 1] > operators[j]; --j) {
                (operators[j - 1], operators[j]) = (operators[j], operators[j - 1]);
            }
        }
    }

    function share() internal view returns (uint256) {
        return escrow.balance(address(token), address(audit));
    }

    function test_the_validators_share_reaches_the_rewards_coordinator() public {
        uint256 amount = share();
        assertEq(amount, uint256(cost(1, 0, 0, 50_000_000)) / 100, "a hundredth of the claim");
        uint32 start = uint32((block.timestamp - 1) / REWARDS_INTERVAL - 1) * REWARDS_INTERVAL;
        vm.expectEmit(address(audit));
        emit IAuditServiceManager.RewardsSubmitted(address(token), amount, start, REWARDS_INTERVAL);
        vm.prank(stranger.addr);
        audit.submitRewards(address(token), sorted());
        assertEq(token.balanceOf(rewards), amount, "all of it");
        assertEq(share(), 0, "nothing waits");
        assertEq(token.balanceOf(address(audit)), 0, "nothing stays");
        assertEq(token.allowance(address(audit), rewards), 0, "no allowance stays");
    }

    function test_a_share_that_somebody_paid_out_before_is_not_lost() public {
        uint256 amount = share();
        vm.prank(stranger.addr);
        escrow.payOut(address(token), address(audit));
        audit.submitRewards(address(token), sorted());
        assertEq(token.balanceOf(rewards), amount, "all of it");
    }

    function test_shares_follow_the_weights_and_nothing_stays() public {
        addValidator(4, 333 ether);
        token.mint(address(audit), 7);
        uint256 amount = share() + 7;
        audit.submitRewards(address(token), sorted());
        assertEq(token.balanceOf(rewards), amount, "to the last unit");
    }

    function test_all_validators_are_named_once_and_in_order() public {
        address[] memory operators = sorted();
        (operators[0], operators[1]) = (operators[1], operators[0]);
        vm.expectRevert(
            abi.encodeWithSelector(IAuditServiceManager.OperatorsNotAscending.selector, operators[0], operators[1])
        );
        audit.submitRewards(address(token), operators);
        operators[1] = operators[0];
        vm.expectRevert(
            abi.encodeWithSelector(IAuditServiceManager.OperatorsNotAscending.selector, operators[0], operators[0])
        );
        audit.submitRewards(address(token), operators);
        vm.expectRevert(abi.encodeWithSelector(IAuditServiceManager.WrongOperatorCount.selector, 4, 1));
        audit.submitRewards(address(token), single(operators[0]));
    }

    function test_strangers_get_no_share() public {
        address[] memory operators = sorted();
        operators[3] = address(type(uint160).max);
        vm.expectRevert(abi.encodeWithSelector(IAuditServiceManager.NotValidator.selector, operators[3]));
        audit.submitRewards(address(token), operators);
    }

    function test_without_a_share_there_is_nothing_to_submit() public {
        audit.submitRewards(address(token), sorted());
        address[] memory operators = sorted();
        vm.expectRevert();
        audit.submitRewards(address(token), operators);
        vm.expectPartialRevert(IPaymentEscrow.NothingToPay.selector);
        escrow.payOut(address(token), address(audit));
    }
}
