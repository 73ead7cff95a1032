// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {BN254} from "../libraries/BN254.sol";
import {LeaseId, ModelId, TaskId} from "../types/Ids.sol";
import {Verdict} from "../types/Messages.sol";
import {ICoinBonds} from "./ICoinBonds.sol";
import {ILeaseManager} from "./ILeaseManager.sol";
import {IPaymentEscrow} from "./IPaymentEscrow.sol";

/// @title The audit: an EigenLayer service that punishes hosts that cheat
/// @notice Two operator sets: validators, who sign verdicts with BLS keys, and hosts, who can be slashed. What must be measured
/// is decided by a quorum of stake; what a statement proves by itself is `EvidenceCourt`'s, and punished here as well.
/// @dev Assumptions and warnings:
/// - A verdict is as honest as two thirds of the validators' stake. Objective evidence does not depend on them.
/// - Weights are those of the last `updateStakes`. Anybody can call it; a validator that left the set has none, and one that
///   fell below `MIN_WEIGHT` is no longer active until it leaves the set and joins again, which EigenLayer allows after its
///   deallocation delay.
/// - A verdict names the weights of those that did not sign it. A stake that changes in the block before makes it stale, and it
///   must be submitted again; whoever is held up on purpose submits through a contract that reads `validator` in the same call.
/// - Stake whose withdrawal is queued stays slashable for the core's withdrawal delay, which is not asked for here: on public
///   chains it is as long as the deallocation delay.
/// - Slashed allocations are burned by this version of EigenLayer's core. Those that were harmed are paid from the bond.
interface IAuditServiceManager is ICoinBonds {
    /// What validators decide about.
    enum TaskKind {
        None,
        Substitution, // another model answers under the lease
        TokenCount, // a bill does not follow from the delivered bytes
        OutsideService, // the model is served outside of the protocol
        VariantLeak, // the host's own copy is served by somebody else
        Ownership // somebody else made the model
    }

    enum TaskState {
        None,
        Open,
        Decided, // by a verdict that can still be contradicted
        Closed
    }

    enum Outcome {
        None,
        Guilty,
        NotGuilty,
        Void // a quorum contradicted itself, or none was found in time
    }

    struct Task {
        LeaseId leaseId; // 0 for ownership
        TaskKind kind;
        TaskState state;
        Outcome outcome;
        uint64 deadline; // seconds since 1970: for the verdict, then for a contradiction
        address opener;
        ModelId modelId; // for ownership
        address accused; // receives the bond of an accusation that fails
        uint128 bond; // in the chain's coin
        bytes32 evidenceRoot;
        Bill bill;
    }

    /// What a customer paid under the statement that it accuses.
    struct Bill {
        bytes32 request; // the request's name in `Evidence`, or 0 without a statement
        address payer; // harmed customer, or 0
        uint128 refund;
    }

    /// What a host is punished for.
    enum Offence {
        None,
        Substitution, // verdicts, numbered as the tasks are
        TokenCount,
        OutsideService,
        VariantLeak,
        Silence, // objective evidence
        Omission,
        Equivocation,
        Misprice
    }

    struct Validator {
        BN254.G1Point key;
        uint128 weight;
        uint32 number; // position among the active ones, from 1; 0: left
    }

    /// A validator that did not sign, as its stored hash has it.
    struct NonSigner {
        uint32 number;
        address operator;
        uint128 weight;
        BN254.G1Point key;
    }

    event ValidatorJoined(
        address indexed operator, BN254.G1Point key, BN254.G2Point keyG2, uint32 number, uint128 weight
    );
    event ValidatorLeft(address indexed operator, uint32 number);
    event ValidatorMoved(address indexed operator, uint32 number);
    event WeightChanged(address indexed operator, uint128 weight);
    event TaskOpened(
        TaskId indexed taskId, LeaseId indexed leaseId, TaskKind kind, address indexed opener, bytes32 evidenceRoot
    );
    event VerdictSubmitted(TaskId indexed taskId, Verdict verdict, uint256 signedWeight, uint256 totalWeight);
    event VerdictContradicted(TaskId indexed taskId);
    event TaskClosed(TaskId indexed taskId, Outcome outcome);
    event HostPunished(
        LeaseId indexed leaseId, address indexed host, Offence offence, uint128 bondSlashed, uint256 wad
    );
    event ValidatorPunished(address indexed operator, TaskId indexed taskId, uint256 wad);
    event RewardsSubmitted(address indexed token, uint256 amount, uint32 startTimestamp, uint32 duration);

    error Zero();
    error Windows(uint256 audit, uint256 deallocation);
    error NotAllocationManager(address caller);
    error NotRegistry(address caller);
    error NotCourt(address caller);
    error UnknownOperatorSet(uint32 id);
    error KeyTaken(bytes32 keyHash);
    error ProofOfPossession();
    error AlreadyValidator(address operator);
    error NotValidator(address operator);
    error OtherKey(bytes32 expected, bytes32 actual);
    error NotSlashable(address operator);
    error WeightTooSmall(uint128 least, uint128 actual);
    error WrongKind(TaskKind kind);
    error UnknownTask(TaskId taskId);
    error WrongTaskState(TaskState expected, TaskState actual);
    error VerdictMismatch();
    error TooLate(uint64 deadline);
    error TooEarly(uint64 from);
    error NonSignerOrder(uint32 previous, uint32 current);
    error NonSignerUnknown(uint32 number);
    error QuorumMissed(uint256 signed, uint256 total);
    error AggregateSignature();
    error NoContradiction();
    error ConflictPunished(address operator, TaskId taskId);
    error OperatorsNotAscending(address previous, address current);
    error WrongOperatorCount(uint256 expected, uint256 actual);

    // Tasks and verdicts

    /// @notice Accuses a host of what must be measured. Costs `TASK_BOND`, which comes back unless the accusation fails.
    /// A customer that paid too much goes to the court instead, which takes the bill along.
    function openTask(LeaseId leaseId, TaskKind kind, bytes32 evidenceRoot) external payable returns (TaskId taskId);

    /// @notice Opens a task whose guilty verdict refunds a payer; only the court calls it. A request is punished once, however
    /// many tasks find it guilty.
    function openTaskFor(address opener, LeaseId leaseId, TaskKind kind, bytes32 evidenceRoot, Bill calldata bill)
        external
        payable
        returns (TaskId taskId);

    /// @notice Opens the task of an ownership challenge; only the registry calls it.
    function openOwnershipTask(ModelId modelId, address challenger, address creator, bytes32 evidenceRoot)
        external
        payable
        returns (TaskId taskId);

    /// @notice Decides a task with the aggregated signature of a quorum. A second one that says otherwise, within
    /// `RESOLVE_WINDOW`, voids the task.
    /// @param nonSigners Active validators that did not sign, in ascending order of their numbers.
    function submitVerdict(
        Verdict calldata verdict,
        BN254.G1Point calldata signature,
        BN254.G2Point calldata aggregateKey,
        NonSigner[] calldata nonSigners
    ) external;

    /// @notice Carries a verdict out, once it can no longer be contradicted, or closes a task that found none in time.
    function resolve(TaskId taskId) external;

    /// @notice Punishes a validator that signed two verdicts on one task. A validator keeps its key for ever, so what it signed
    /// before it left can be held against it when it comes back.
    function proveVerdictConflict(
        address operator,
        BN254.G2Point calldata keyG2,
        Verdict calldata first,
        BN254.G1Point calldata firstSignature,
        Verdict calldata second,
        BN254.G1Point calldata secondSignature
    ) external;

    // Validators

    /// @notice Takes over the present slashable stake of validators. Anybody may call it.
    function updateStakes(address[] calldata operators) external;

    /// @notice Hands the validators' share of claims to EigenLayer's rewards, by weight, for the last whole interval of its
    /// rewards. Anybody may call it.
    /// @param operators All active validators, ascending by address.
    function submitRewards(address token, address[] calldata operators) external;

    // The court of objective evidence

    /// @notice Holds a lease's bond while the court has a case open; only the court calls it.
    function openCase(LeaseId leaseId) external;
    function closeCase(LeaseId leaseId) external;

    /// @notice Slashes a host's bond and allocation for an offence that is proven; only the court calls it.
    function punish(LeaseId leaseId, Offence offence, ILeaseManager.Compensation calldata compensation) external;

    // Views

    function COURT() external view returns (address);
    function LEASES() external view returns (ILeaseManager);
    function ESCROW() external view returns (IPaymentEscrow);
    /// @notice For how long at least an operator that leaves can still be slashed, in seconds.
    function DEALLOCATION_SECONDS() external view returns (uint256);
    function task(TaskId taskId) external view returns (Task memory);
    function validator(address operator) external view returns (Validator memory);
    function validators() external view returns (uint256);
    /// @notice Tasks and challenges that are open against a lease; its bond stays until there are none.
    function openCases(LeaseId leaseId) external view returns (uint256);
    function isHost(address operator) external view returns (bool);
    /// @notice What of an operator's stake the audit could slash now, summed over the strategies.
    function hostStake(address operator) external view returns (uint256);
    function verdictDigest(Verdict calldata verdict) external view returns (bytes32);
    /// @notice What a validator's BLS key signs to prove that it is held.
    function possessionDigest(address operator) external view returns (bytes32);
}
