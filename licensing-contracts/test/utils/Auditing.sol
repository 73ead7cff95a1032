// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAuditServiceManager} from "../../contracts/interfaces/IAuditServiceManager.sol";
import {BN254} from "../../contracts/libraries/BN254.sol";
import {LeaseId, TaskId} from "../../contracts/types/Ids.sol";
import {Statement, Verdict} from "../../contracts/types/Messages.sol";
import {Bls} from "./Bls.sol";
import {Serving} from "./Serving.sol";

/// @title Validators with BLS keys and stake, and what they sign
abstract contract Auditing is Serving {
    uint256 internal constant VALIDATOR_STAKE = 100 ether;

    address[] internal validatorAddresses;
    mapping(address => uint256) internal secrets;

    function setUp() public virtual override {
        super.setUp();
        for (uint256 i = 0; i < 4; ++i) {
            addValidator(i, VALIDATOR_STAKE);
        }
        vm.deal(stranger.addr, 10 ether);
        vm.deal(payer.addr, 10 ether);
    }

    function addValidator(uint256 number, uint256 stake) internal returns (address operator) {
        operator = makeAddr(string.concat("validator ", vm.toString(number)));
        // Short secrets keep the tests quick, and differ in more than a shift.
        secrets[operator] = 1_000_003 * (number + 1) + 17;
        restake(operator, stake);
        joinSet(operator, validatorSet(), strategy, ALL, joining(operator));
        validatorAddresses.push(operator);
    }

    /// What a validator passes to EigenLayer when it joins: its key in both groups and a proof that it holds it.
    function joining(address operator) internal view returns (bytes memory) {
        return joiningWith(secrets[operator], operator);
    }

    function joiningWith(uint256 secret, address operator) internal view returns (bytes memory) {
        return
            abi.encode(
                Bls.publicKey(secret), Bls.publicKeyG2(secret), Bls.sign(secret, audit.possessionDigest(operator))
            );
    }

    /// Validators by their bits: the first signs if bit 0 is set.
    function aggregate(bytes32 digest, uint256 signers)
        internal
        view
        returns (BN254.G1Point memory signature, BN254.G2Point memory keyG2)
    {
        uint256 sum = 0;
        for (uint256 i = 0; i < validatorAddresses.length; ++i) {
            if ((signers >> i) & 1 == 1) sum = addmod(sum, secrets[validatorAddresses[i]], BN254.ORDER);
        }
        if (sum == 0) return (signature, keyG2);
        return (Bls.sign(sum, digest), Bls.publicKeyG2(sum));
    }

    /// The active validators that are not among the signers, ascending by number.
    function nonSigners(uint256 signers) internal view returns (IAuditServiceManager.NonSigner[] memory absent) {
        uint256 count = audit.validators();
        absent = new IAuditServiceManager.NonSigner[](count);
        uint256 found = 0;
        for (uint32 number = 1; number <= count; ++number) {
            address operator = audit.operatorAt(number);
            if (signed(signers, operator)) continue;
            IAuditServiceManager.Validator memory record = audit.validator(operator);
            absent[found++] = IAuditServiceManager.NonSigner(number, operator, record.weight, record.key);
        }
        assembly ("memory-safe") {
            mstore(absent, found)
        }
    }

    function signed(uint256 signers, address operator) internal view returns (bool) {
        for (uint256 i = 0; i < validatorAddresses.length; ++i) {
            if (validatorAddresses[i] == operator) return (signers >> i) & 1 == 1;
        }
        return false;
    }

    function openTask(IAuditServiceManager.TaskKind kind) internal returns (TaskId) {
        vm.prank(stranger.addr);
        return audit.openTask{value: TASK_BOND}(leaseId, kind, keccak256("evidence"));
    }

    /// Accuses the host of a wrong count under a statement of the default channel.
    function accuse(address accuser, Statement memory statement) internal returns (TaskId) {
        bytes memory signature = signed(statement);
        vm.prank(accuser);
        return court.accuse{value: TASK_BOND}(
            IAuditServiceManager.TaskKind.TokenCount, keccak256("bytes"), statement, signature, channel
        );
    }

    function verdictOn(TaskId taskId, uint8 outcome) internal view returns (Verdict memory) {
        IAuditServiceManager.Task memory task = audit.task(taskId);
        return Verdict({
            taskId: taskId,
            leaseId: task.leaseId,
            kind: uint8(task.kind),
            outcome: outcome,
            eValueLog2: 21,
            evidenceRoot: task.evidenceRoot,
            epoch: currentEpoch()
        });
    }

    function guilty() internal pure returns (uint8) {
        return uint8(IAuditServiceManager.Outcome.Guilty);
    }

    function notGuilty() internal pure returns (uint8) {
        return uint8(IAuditServiceManager.Outcome.NotGuilty);
    }

    /// Submits a verdict that the validators of `signers` signed.
    function submit(Verdict memory verdict, uint256 signers) internal {
        (BN254.G1Point memory signature, BN254.G2Point memory keyG2) = aggregate(audit.verdictDigest(verdict), signers);
        audit.submitVerdict(verdict, signature, keyG2, nonSigners(signers));
    }

    /// Decides a task and carries it out.
    function decide(TaskId taskId, uint8 outcome) internal {
        submit(verdictOn(taskId, outcome), 15);
        later(RESOLVE_WINDOW + 1);
        audit.resolve(taskId);
    }

    function balanceOf(address account) internal view returns (uint256) {
        return escrow.balance(address(token), account);
    }

    function noLease() internal pure returns (LeaseId) {
        return LeaseId.wrap(0);
    }
}
