// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {CoinBonds} from "./CoinBonds.sol";
import {ValidatorSet} from "./ValidatorSet.sol";
import {IAuditServiceManager} from "./interfaces/IAuditServiceManager.sol";
import {ILeaseManager} from "./interfaces/ILeaseManager.sol";
import {IModelRegistry} from "./interfaces/IModelRegistry.sol";
import {IPaymentEscrow} from "./interfaces/IPaymentEscrow.sol";
import {IAllocationManager, IRewardsCoordinator, OperatorSet} from "./interfaces/eigenlayer/IEigenLayer.sol";
import {BN254} from "./libraries/BN254.sol";
import {Pricing} from "./libraries/Pricing.sol";
import {LeaseId, ModelId, TaskId} from "./types/Ids.sol";
import {Verdict} from "./types/Messages.sol";

/// @title AuditServiceManager
/// @dev Described in `IAuditServiceManager`.
contract AuditServiceManager is ValidatorSet, CoinBonds {
    using SafeCast for uint256;
    using SafeERC20 for IERC20;

    /// Where the audit stands, and how long things take; all in seconds but the bonds.
    struct Setup {
        IAllocationManager allocations;
        IRewardsCoordinator rewards;
        IModelRegistry registry;
        ILeaseManager leases;
        IPaymentEscrow escrow;
        address court;
        address[] strategies; // ascending
        string metadataUri;
        uint64 verdictWindow; // for validators to agree
        uint64 resolveWindow; // for a verdict to be contradicted
        uint64 secondsPerBlock; // at least, of this chain
        uint128 taskBond; // in the chain's coin
        uint128 minWeight; // of an active validator
    }

    /// What an offence costs: a share of the bond, and of the allocation.
    struct Penalty {
        uint16 bondBps;
        uint64 wad;
        bool revokes;
    }

    IRewardsCoordinator public immutable REWARDS;
    IModelRegistry public immutable REGISTRY;
    /// @inheritdoc IAuditServiceManager
    ILeaseManager public immutable LEASES;
    /// @inheritdoc IAuditServiceManager
    IPaymentEscrow public immutable ESCROW;
    /// @inheritdoc IAuditServiceManager
    address public immutable COURT;
    /// @inheritdoc IAuditServiceManager
    uint256 public immutable DEALLOCATION_SECONDS;
    uint64 public immutable VERDICT_WINDOW;
    uint64 public immutable RESOLVE_WINDOW;
    uint128 public immutable TASK_BOND;

    uint64 public tasks;
    /// @inheritdoc IAuditServiceManager
    mapping(LeaseId => uint256) public openCases;
    mapping(address operator => mapping(TaskId => bool)) private _conflicted;
    mapping(bytes32 request => bool) private _convicted;
    mapping(TaskId => Task) private _tasks;

    constructor(Setup memory setup)
        ValidatorSet(setup.allocations, setup.strategies, setup.metadataUri, setup.minWeight)
    {
        require(
            address(setup.registry) != address(0) && address(setup.leases) != address(0)
                && address(setup.escrow) != address(0) && setup.court != address(0)
                && address(setup.rewards) != address(0) && setup.verdictWindow != 0 && setup.resolveWindow != 0,
            Zero()
        );
        // Invariant 5: whoever leaves when a task is opened can still be slashed when it ends.
        uint256 audit = uint256(setup.verdictWindow) + setup.resolveWindow;
        uint256 deallocation = uint256(setup.allocations.DEALLOCATION_DELAY()) * setup.secondsPerBlock;
        require(audit < deallocation, Windows(audit, deallocation));
        REWARDS = setup.rewards;
        REGISTRY = setup.registry;
        LEASES = setup.leases;
        ESCROW = setup.escrow;
        COURT = setup.court;
        DEALLOCATION_SECONDS = deallocation;
        VERDICT_WINDOW = setup.verdictWindow;
        RESOLVE_WINDOW = setup.resolveWindow;
        TASK_BOND = setup.taskBond;
    }

    modifier onlyCourt() {
        require(msg.sender == COURT, NotCourt(msg.sender));
        _;
    }

    // Tasks and verdicts

    /// @inheritdoc IAuditServiceManager
    function openTask(LeaseId leaseId, TaskKind kind, bytes32 evidenceRoot) external payable returns (TaskId taskId) {
        return _openTask(msg.sender, leaseId, kind, evidenceRoot, Bill(0, address(0), 0));
    }

    /// @inheritdoc IAuditServiceManager
    function openTaskFor(address opener, LeaseId leaseId, TaskKind kind, bytes32 evidenceRoot, Bill calldata bill)
        external
        payable
        onlyCourt
        returns (TaskId taskId)
    {
        return _openTask(opener, leaseId, kind, evidenceRoot, bill);
    }

    /// @inheritdoc IAuditServiceManager
    function openOwnershipTask(ModelId modelId, address challenger, address creator, bytes32 evidenceRoot)
        external
        payable
        returns (TaskId taskId)
    {
        require(msg.sender == address(REGISTRY), NotRegistry(msg.sender));
        Task storage record;
        (taskId, record) = _newTask(TaskKind.Ownership, challenger, creator, evidenceRoot);
        record.modelId = modelId;
        emit TaskOpened(taskId, LeaseId.wrap(0), TaskKind.Ownership, challenger, evidenceRoot);
    }

    /// @inheritdoc IAuditServiceManager
    function submitVerdict(
        Verdict calldata verdict,
        BN254.G1Point calldata signature,
        BN254.G2Point calldata aggregateKey,
        NonSigner[] calldata nonSigners
    ) external {
        Task storage record = _knownTask(verdict.taskId);
        require(
            verdict.leaseId == record.leaseId && verdict.kind == uint8(record.kind)
                && (verdict.outcome == uint8(Outcome.Guilty) || verdict.outcome == uint8(Outcome.NotGuilty)),
            VerdictMismatch()
        );
        require(record.state != TaskState.Closed, WrongTaskState(TaskState.Open, record.state));
        require(block.timestamp <= record.deadline, TooLate(record.deadline));
        (uint256 signed, uint256 total) = _requireQuorum(verdictDigest(verdict), signature, aggregateKey, nonSigners);
        emit VerdictSubmitted(verdict.taskId, verdict, signed, total);

        Outcome outcome = Outcome(verdict.outcome);
        if (record.state == TaskState.Open) {
            record.state = TaskState.Decided;
            record.outcome = outcome;
            record.deadline = uint64(block.timestamp) + RESOLVE_WINDOW;
        } else {
            require(record.outcome != outcome, VerdictMismatch());
            emit VerdictContradicted(verdict.taskId);
            _close(verdict.taskId, record, Outcome.Void);
        }
    }

    /// @inheritdoc IAuditServiceManager
    function resolve(TaskId taskId) external nonReentrant {
        Task storage record = _knownTask(taskId);
        require(record.state != TaskState.Closed, WrongTaskState(TaskState.Decided, record.state));
        require(block.timestamp > record.deadline, TooEarly(record.deadline));
        _close(taskId, record, record.state == TaskState.Decided ? record.outcome : Outcome.Void);
    }

    /// @inheritdoc IAuditServiceManager
    function proveVerdictConflict(
        address operator,
        BN254.G2Point calldata keyG2,
        Verdict calldata first,
        BN254.G1Point calldata firstSignature,
        Verdict calldata second,
        BN254.G1Point calldata secondSignature
    ) external nonReentrant {
        BN254.G1Point memory key = _validators[operator].key;
        require(!BN254.isInfinity(key), NotValidator(operator));
        (bytes32 a, bytes32 b) = (verdictDigest(first), verdictDigest(second));
        require(a != b && TaskId.unwrap(first.taskId) == TaskId.unwrap(second.taskId), NoContradiction());
        require(
            BN254.verify(a, firstSignature, key, keyG2) && BN254.verify(b, secondSignature, key, keyG2),
            AggregateSignature()
        );
        require(!_conflicted[operator][first.taskId], ConflictPunished(operator, first.taskId));
        _conflicted[operator][first.taskId] = true;
        // Or a validator could use up the evidence against itself while it cannot be slashed.
        require(_slash(operator, VALIDATORS, 1e18), NotSlashable(operator));
        emit ValidatorPunished(operator, first.taskId, 1e18);
    }

    /// @inheritdoc IAuditServiceManager
    function submitRewards(address token, address[] calldata operators) external nonReentrant {
        if (ESCROW.balance(token, address(this)) != 0) ESCROW.payOut(token, address(this));
        // All that is here: anybody may have paid it out before. Nothing else of this contract is in tokens.
        uint256 amount = IERC20(token).balanceOf(address(this));
        // The window is not the caller's to choose: rewards for a time without stakers would be lost.
        uint32 interval = REWARDS.CALCULATION_INTERVAL_SECONDS();
        uint32 start = uint32(((block.timestamp - 1) / interval - 1) * interval);
        IRewardsCoordinator.OperatorDirectedRewardsSubmission[] memory submissions =
            new IRewardsCoordinator.OperatorDirectedRewardsSubmission[](1);
        submissions[0].operatorRewards = _rewards(operators, amount);
        submissions[0].strategiesAndMultipliers = new IRewardsCoordinator.StrategyAndMultiplier[](_strategies.length);
        for (uint256 i = 0; i < _strategies.length; ++i) {
            submissions[0].strategiesAndMultipliers[i] = IRewardsCoordinator.StrategyAndMultiplier(_strategies[i], 1e18);
        }
        submissions[0].token = token;
        submissions[0].startTimestamp = start;
        submissions[0].duration = interval;
        submissions[0].description = "Hallmark audit share";
        emit RewardsSubmitted(token, amount, start, interval);
        IERC20(token).forceApprove(address(REWARDS), amount);
        REWARDS.createOperatorDirectedOperatorSetRewardsSubmission(OperatorSet(address(this), VALIDATORS), submissions);
    }

    /// @inheritdoc IAuditServiceManager
    function openCase(LeaseId leaseId) external onlyCourt {
        ++openCases[leaseId];
    }

    /// @inheritdoc IAuditServiceManager
    function closeCase(LeaseId leaseId) external onlyCourt {
        --openCases[leaseId];
    }

    /// @inheritdoc IAuditServiceManager
    function punish(LeaseId leaseId, Offence offence, ILeaseManager.Compensation calldata compensation)
        external
        onlyCourt
        nonReentrant
    {
        _punish(leaseId, offence, compensation);
    }

    /// @inheritdoc IAuditServiceManager
    function task(TaskId taskId) external view returns (Task memory) {
        return _knownTask(taskId);
    }

    // Inside

    function _knownTask(TaskId taskId) private view returns (Task storage record) {
        record = _tasks[taskId];
        require(record.state != TaskState.None, UnknownTask(taskId));
    }

    function _openTask(address opener, LeaseId leaseId, TaskKind kind, bytes32 evidenceRoot, Bill memory bill)
        private
        returns (TaskId taskId)
    {
        require(kind != TaskKind.None && kind != TaskKind.Ownership, WrongKind(kind));
        ILeaseManager.LeaseAccount memory lease = LEASES.account(leaseId);
        // Later, the bond is free; accusations without end would hold it for ever.
        require(block.timestamp <= lease.claimableUntil, TooLate(lease.claimableUntil));
        Task storage record;
        (taskId, record) = _newTask(kind, opener, lease.host, evidenceRoot);
        (record.leaseId, record.bill) = (leaseId, bill);
        ++openCases[leaseId];
        emit TaskOpened(taskId, leaseId, kind, opener, evidenceRoot);
    }

    function _newTask(TaskKind kind, address opener, address accused, bytes32 evidenceRoot)
        private
        returns (TaskId taskId, Task storage record)
    {
        _requireBond(TASK_BOND);
        taskId = TaskId.wrap(++tasks);
        record = _tasks[taskId];
        record.kind = kind;
        record.state = TaskState.Open;
        record.deadline = uint64(block.timestamp) + VERDICT_WINDOW;
        record.opener = opener;
        record.accused = accused;
        record.bond = TASK_BOND;
        record.evidenceRoot = evidenceRoot;
    }

    function _close(TaskId taskId, Task storage record, Outcome outcome) private {
        record.state = TaskState.Closed;
        record.outcome = outcome;
        emit TaskClosed(taskId, outcome);
        _owe(outcome == Outcome.NotGuilty ? record.accused : record.opener, record.bond);
        if (record.kind == TaskKind.Ownership) {
            REGISTRY.resolveChallenge(record.modelId, taskId, record.opener, outcome == Outcome.Guilty);
            return;
        }
        --openCases[record.leaseId];
        if (outcome != Outcome.Guilty) return;
        Bill memory bill = record.bill;
        if (bill.request != 0) {
            if (_convicted[bill.request]) return;
            _convicted[bill.request] = true;
        }
        _punish(
            record.leaseId,
            Offence(uint8(record.kind)),
            ILeaseManager.Compensation(bill.payer, bill.refund, 0, record.opener)
        );
    }

    function _penaltyOf(Offence offence) private pure returns (Penalty memory) {
        if (offence == Offence.Substitution) return Penalty(5_000, 0.5e18, true);
        if (offence == Offence.Equivocation) return Penalty(5_000, 0.5e18, false);
        // Served elsewhere, or let out: the licence itself is broken.
        if (offence == Offence.OutsideService || offence == Offence.VariantLeak) return Penalty(10_000, 1e18, true);
        return Penalty(2_000, 0.1e18, false);
    }

    /// @dev The bond pays, the allocation punishes. The bond's part is at least what those who were harmed are due.
    function _punish(LeaseId leaseId, Offence offence, ILeaseManager.Compensation memory compensation) private {
        Penalty memory penalty = _penaltyOf(offence);
        ILeaseManager.LeaseRecord memory lease = LEASES.lease(leaseId);
        uint256 wanted = Pricing.shareDown(lease.bond, penalty.bondBps);
        uint256 harm = uint256(compensation.refund) + compensation.creatorLoss;
        if (harm > wanted) wanted = harm > type(uint128).max ? type(uint128).max : harm;
        uint128 slashed = LEASES.slashBond(leaseId, uint128(wanted), compensation);
        bool wasSlashed = _slash(lease.host, HOSTS, penalty.wad);
        emit HostPunished(leaseId, lease.host, offence, slashed, wasSlashed ? penalty.wad : 0);
        if (penalty.revokes) LEASES.revokeByVerdict(leaseId);
    }

    /// @dev Shares by weight, rounded down; what is left goes to the last one, so that nothing stays here.
    function _rewards(address[] calldata operators, uint256 amount)
        private
        view
        returns (IRewardsCoordinator.OperatorReward[] memory rewards)
    {
        require(operators.length == _active.length, WrongOperatorCount(_active.length, operators.length));
        rewards = new IRewardsCoordinator.OperatorReward[](operators.length);
        uint256 left = amount;
        address previous = address(0);
        for (uint256 i = 0; i < operators.length; ++i) {
            address operator = operators[i];
            require(operator > previous, OperatorsNotAscending(previous, operator));
            previous = operator;
            Validator storage record = _validators[operator];
            require(record.number != 0, NotValidator(operator));
            uint256 share = i + 1 == operators.length ? left : amount * record.weight / totalWeight;
            left -= share;
            rewards[i] = IRewardsCoordinator.OperatorReward(operator, share);
        }
    }
}
