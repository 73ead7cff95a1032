// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAuditServiceManager} from "../../contracts/interfaces/IAuditServiceManager.sol";
import {OperatorSet} from "../../contracts/interfaces/eigenlayer/IEigenLayer.sol";
import {BN254} from "../../contracts/libraries/BN254.sol";
import {Auditing} from "../utils/Auditing.sol";
import {Bls} from "../utils/Bls.sol";

/// Joining, leaving and weights, through the real AllocationManager.
contract ValidatorsTest is Auditing {
    address internal newcomer = makeAddr("newcomer");

    function setUp() public override {
        super.setUp();
        restake(newcomer, VALIDATOR_STAKE);
    }

    function expectRefusedJoin(bytes memory data, bytes memory error) internal {
        OperatorSet memory set = validatorSet();
        allocate(newcomer, set, strategy, ALL);
        vm.expectRevert(error);
        register(newcomer, set, data);
    }

    function one(address item) internal pure returns (address[] memory) {
        return single(item);
    }

    function test_a_validator_joins_with_its_key_and_stake() public {
        bytes memory data = joiningWith(77, newcomer);
        OperatorSet memory set = validatorSet();
        allocate(newcomer, set, strategy, ALL);
        vm.expectEmit(address(audit));
        emit IAuditServiceManager.ValidatorJoined(
            newcomer, Bls.publicKey(77), Bls.publicKeyG2(77), 5, uint128(VALIDATOR_STAKE)
        );
        register(newcomer, set, data);
        IAuditServiceManager.Validator memory record = audit.validator(newcomer);
        assertEq(record.number, 5, "the fifth");
        assertEq(record.weight, VALIDATOR_STAKE, "by stake");
        assertEq(record.key.x, Bls.publicKey(77).x, "its key");
        assertEq(audit.validators(), 5, "active");
        assertEq(audit.totalWeight(), 5 * VALIDATOR_STAKE, "in all");
        assertEq(audit.operatorAt(5), newcomer, "by number");
    }

    function test_a_proof_of_possession_counts_for_one_operator_only() public {
        expectRefusedJoin(
            joiningWith(77, stranger.addr), abi.encodeWithSelector(IAuditServiceManager.ProofOfPossession.selector)
        );
    }

    function test_a_key_that_is_made_from_others_keys_cannot_be_proven() public {
        // The rogue key: minus everybody else's keys, so that the aggregate is one that the attacker knows.
        BN254.G1Point memory others;
        uint256 sum = 0;
        for (uint256 i = 0; i < validatorAddresses.length; ++i) {
            others = BN254.add(others, audit.validator(validatorAddresses[i]).key);
            sum += secrets[validatorAddresses[i]];
        }
        BN254.G1Point memory rogue = BN254.add(BN254.neg(others), Bls.publicKey(99));
        // The test knows the secrets and can make the key in G2; the attacker has only his own to sign with.
        BN254.G2Point memory rogueG2 = Bls.publicKeyG2(addmod(BN254.ORDER - sum, 99, BN254.ORDER));
        BN254.G1Point memory proof = Bls.sign(99, audit.possessionDigest(newcomer));
        expectRefusedJoin(
            abi.encode(rogue, rogueG2, proof), abi.encodeWithSelector(IAuditServiceManager.ProofOfPossession.selector)
        );
    }

    function test_the_point_at_infinity_is_no_key() public {
        BN254.G1Point memory infinity;
        BN254.G2Point memory infinityG2;
        expectRefusedJoin(
            abi.encode(infinity, infinityG2, infinity), abi.encodeWithSelector(BN254.KeyAtInfinity.selector)
        );
    }

    function test_a_key_belongs_to_one_validator_for_ever() public {
        address first = validatorAddresses[0];
        bytes32 keyHash = keccak256(abi.encode(Bls.publicKey(secrets[first])));
        bytes memory data = joiningWith(secrets[first], newcomer);
        expectRefusedJoin(data, abi.encodeWithSelector(IAuditServiceManager.KeyTaken.selector, keyHash));
        leaveSet(first, validatorSet());
        OperatorSet memory set = validatorSet();
        vm.expectRevert(abi.encodeWithSelector(IAuditServiceManager.KeyTaken.selector, keyHash));
        register(newcomer, set, data);
        // Its own operator may come back with it, when EigenLayer lets it.
        vm.roll(block.number + DEALLOCATION_DELAY_BLOCKS + 1);
        register(first, set, joining(first));
        assertEq(audit.validator(first).number, 4, "the last number");
    }

    function test_a_place_has_a_price() public {
        address poor = makeAddr("poor");
        restake(poor, MIN_WEIGHT - 1);
        bytes memory data = joiningWith(77, poor);
        allocate(poor, validatorSet(), strategy, ALL);
        OperatorSet memory set = validatorSet();
        vm.expectRevert(
            abi.encodeWithSelector(IAuditServiceManager.WeightTooSmall.selector, MIN_WEIGHT, MIN_WEIGHT - 1)
        );
        register(poor, set, data);
        depositStake(poor, 1);
        register(poor, set, data);
        assertEq(audit.validator(poor).weight, MIN_WEIGHT, "just enough");
    }

    function test_only_eigenlayer_registers_and_deregisters() public {
        bytes memory refusal = abi.encodeWithSelector(IAuditServiceManager.NotAllocationManager.selector, stranger.addr);
        vm.startPrank(stranger.addr);
        vm.expectRevert(refusal);
        audit.registerOperator(stranger.addr, address(audit), new uint32[](1), "");
        vm.expectRevert(refusal);
        audit.deregisterOperator(validatorAddresses[0], address(audit), new uint32[](1));
        vm.stopPrank();
    }

    function test_another_service_s_operators_are_refused() public {
        assertFalse(audit.supportsAVS(stranger.addr), "another service");
        assertTrue(audit.supportsAVS(address(audit)), "this one");
        vm.expectRevert(abi.encodeWithSelector(IAuditServiceManager.NotAllocationManager.selector, stranger.addr));
        vm.prank(address(allocations));
        audit.registerOperator(newcomer, stranger.addr, new uint32[](1), "");
    }

    function test_a_set_that_is_neither_validators_nor_hosts_is_refused() public {
        uint32[] memory ids = new uint32[](1);
        ids[0] = 2;
        vm.expectRevert(abi.encodeWithSelector(IAuditServiceManager.UnknownOperatorSet.selector, 2));
        vm.prank(address(allocations));
        audit.registerOperator(newcomer, address(audit), ids, "");
    }

    function test_a_validator_does_not_join_twice() public {
        bytes memory data = joining(validatorAddresses[0]);
        uint32[] memory ids = new uint32[](1);
        vm.expectRevert(abi.encodeWithSelector(IAuditServiceManager.AlreadyValidator.selector, validatorAddresses[0]));
        vm.prank(address(allocations));
        audit.registerOperator(validatorAddresses[0], address(audit), ids, data);
    }

    function testFuzz_leaving_keeps_the_others_in_order(uint256 index) public {
        index = bound(index, 0, 3);
        address leaver = validatorAddresses[index];
        address last = validatorAddresses[3];
        vm.expectEmit(address(audit));
        emit IAuditServiceManager.ValidatorLeft(leaver, uint32(index) + 1);
        if (index != 3) {
            vm.expectEmit(address(audit));
            emit IAuditServiceManager.ValidatorMoved(last, uint32(index) + 1);
        }
        leaveSet(leaver, validatorSet());
        assertEq(audit.validators(), 3, "one fewer");
        assertEq(audit.totalWeight(), 3 * VALIDATOR_STAKE, "its weight is gone");
        assertEq(audit.validator(leaver).number, 0, "no number");
        assertFalse(BN254.isInfinity(audit.validator(leaver).key), "its key stays known");
        for (uint32 number = 1; number <= 3; ++number) {
            assertEq(audit.validator(audit.operatorAt(number)).number, number, "numbers and operators agree");
        }
        // And the three that are left still make a quorum together, with the key that is left.
        submit(verdictOn(openTask(IAuditServiceManager.TaskKind.TokenCount), guilty()), 15 ^ (1 << index));
    }

    function test_weights_follow_the_stake_when_somebody_asks() public {
        address first = validatorAddresses[0];
        depositStake(first, 50 ether);
        assertEq(audit.validator(first).weight, VALIDATOR_STAKE, "not by itself");
        vm.expectEmit(address(audit));
        emit IAuditServiceManager.WeightChanged(first, uint128(VALIDATOR_STAKE + 50 ether));
        vm.prank(stranger.addr);
        audit.updateStakes(one(first));
        assertEq(audit.validator(first).weight, VALIDATOR_STAKE + 50 ether, "when asked");
        assertEq(audit.totalWeight(), 4 * VALIDATOR_STAKE + 50 ether, "in all");
    }

    function test_a_validator_without_stake_is_retired_and_can_leave_and_come_back() public {
        address first = validatorAddresses[0];
        // Deallocated, it stays slashable for a while and has no weight when that is over.
        allocate(first, validatorSet(), strategy, 0);
        vm.roll(block.number + DEALLOCATION_DELAY_BLOCKS + 1);
        vm.expectEmit(address(audit));
        emit IAuditServiceManager.ValidatorLeft(first, 1);
        audit.updateStakes(one(first));
        assertEq(audit.validators(), 3, "retired");
        vm.expectRevert(abi.encodeWithSelector(IAuditServiceManager.NotValidator.selector, first));
        audit.updateStakes(one(first));
        leaveSet(first, validatorSet());
        vm.roll(block.number + DEALLOCATION_DELAY_BLOCKS + 1);
        joinSet(first, validatorSet(), strategy, ALL, joining(first));
        assertEq(audit.validators(), 4, "back");
    }

    function test_an_operator_that_is_no_validator_has_no_stake_to_update() public {
        vm.expectRevert(abi.encodeWithSelector(IAuditServiceManager.NotValidator.selector, host.addr));
        audit.updateStakes(one(host.addr));
    }

    function test_hosts_need_no_key() public {
        assertTrue(audit.isHost(host.addr), "a host");
        assertEq(audit.hostStake(host.addr), HOST_STAKE, "all of it is slashable");
        assertFalse(audit.isHost(validatorAddresses[0]), "a validator is none");
        leaveSet(host.addr, hosts());
        assertFalse(audit.isHost(host.addr), "left");
    }

    function test_strategies_are_those_of_the_setup() public view {
        assertEq(audit.strategies(), single(strategy), "strategies");
    }
}
