// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAuditServiceManager} from "../../contracts/interfaces/IAuditServiceManager.sol";
import {BN254} from "../../contracts/libraries/BN254.sol";
import {TaskId} from "../../contracts/types/Ids.sol";
import {Verdict} from "../../contracts/types/Messages.sol";
import {Auditing} from "../utils/Auditing.sol";

/// A friend of the accused, with a stake among the validators, changes it in front of every verdict, so that the verdict no
/// longer names the weights that are stored.
contract StaleVerdictTest is Auditing {
    TaskId internal taskId;
    Verdict internal verdict;
    BN254.G1Point internal signature;
    BN254.G2Point internal aggregateKey;
    FreshVerdict internal fresh = new FreshVerdict();
    /// All but the last validator sign.
    uint256 internal constant SIGNERS = 7;

    function setUp() public override {
        super.setUp();
        taskId = openTask(IAuditServiceManager.TaskKind.Substitution);
        verdict = verdictOn(taskId, guilty());
        BN254.G2Point memory key;
        (signature, key) = aggregate(audit.verdictDigest(verdict), SIGNERS);
        aggregateKey = key;
    }

    function friend() internal view returns (address) {
        return validatorAddresses[3];
    }

    function raise() internal {
        depositStake(friend(), 1);
        audit.updateStakes(single(friend()));
    }

    function signers() internal view returns (address[] memory addresses) {
        addresses = new address[](3);
        for (uint256 i = 0; i < 3; ++i) {
            addresses[i] = validatorAddresses[i];
        }
    }

    function test_a_changed_stake_makes_a_verdict_stale() public {
        IAuditServiceManager.NonSigner[] memory absent = nonSigners(SIGNERS);
        raise();
        vm.expectRevert(abi.encodeWithSelector(IAuditServiceManager.NonSignerUnknown.selector, 4));
        audit.submitVerdict(verdict, signature, aggregateKey, absent);
        // The same signatures, with what is stored now.
        audit.submitVerdict(verdict, signature, aggregateKey, nonSigners(SIGNERS));
    }

    /// Whoever reads the absent in the same call cannot be overtaken: not by another weight, another place, or a newcomer.
    function test_a_verdict_that_reads_the_absent_itself_is_never_stale() public {
        raise();
        uint256 before = vm.snapshotState();
        fresh.submit(audit, verdict, signature, aggregateKey, signers());
        assertEq(uint8(audit.task(taskId).outcome), guilty(), "another weight");

        vm.revertToState(before);
        address newcomer = addValidator(4, MIN_WEIGHT);
        fresh.submit(audit, verdict, signature, aggregateKey, signers());
        assertEq(uint8(audit.task(taskId).outcome), guilty(), "a newcomer");

        vm.revertToState(before);
        newcomer = addValidator(4, MIN_WEIGHT);
        leaveSet(friend(), validatorSet());
        assertEq(audit.validator(newcomer).number, 4, "it has the friend's place");
        fresh.submit(audit, verdict, signature, aggregateKey, signers());
        assertEq(uint8(audit.task(taskId).outcome), guilty(), "another place");
    }

    /// The stake of those who signed may change as it likes, as long as it is enough.
    function testFuzz_a_signer_s_stake_does_not_make_a_verdict_stale(uint256 which, uint256 more) public {
        address signer = validatorAddresses[bound(which, 0, 2)];
        IAuditServiceManager.NonSigner[] memory absent = nonSigners(SIGNERS);
        depositStake(signer, bound(more, 1, 1_000 ether));
        audit.updateStakes(single(signer));
        audit.submitVerdict(verdict, signature, aggregateKey, absent);
        assertEq(uint8(audit.task(taskId).outcome), guilty(), "decided");
    }

    /// A friend with so much stake that the others are no quorum is no cheat but a validator that does not agree.
    function test_no_trick_makes_a_quorum_of_too_little_stake() public {
        depositStake(friend(), 100 ether);
        audit.updateStakes(single(friend()));
        vm.expectPartialRevert(IAuditServiceManager.QuorumMissed.selector);
        fresh.submit(audit, verdict, signature, aggregateKey, signers());
    }
}

/// Submits a verdict with the absent validators as they are stored in that moment.
contract FreshVerdict {
    function submit(
        IAuditServiceManager audit,
        Verdict calldata verdict,
        BN254.G1Point calldata signature,
        BN254.G2Point calldata aggregateKey,
        address[] calldata signers
    ) external {
        uint256 count = audit.validators();
        IAuditServiceManager.NonSigner[] memory absent = new IAuditServiceManager.NonSigner[](count);
        uint256 found = 0;
        for (uint32 number = 1; number <= count; ++number) {
            address operator = IOperators(address(audit)).operatorAt(number);
            bool hasSigned = false;
            for (uint256 i = 0; i < signers.length; ++i) {
                if (signers[i] == operator) hasSigned = true;
            }
            if (hasSigned) continue;
            IAuditServiceManager.Validator memory record = audit.validator(operator);
            absent[found++] = IAuditServiceManager.NonSigner(number, operator, record.weight, record.key);
        }
        assembly ("memory-safe") {
            mstore(absent, found)
        }
        audit.submitVerdict(verdict, signature, aggregateKey, absent);
    }
}

interface IOperators {
    function operatorAt(uint32 number) external view returns (address);
}
