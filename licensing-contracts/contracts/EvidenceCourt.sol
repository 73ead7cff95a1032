// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {CoinBonds} from "./CoinBonds.sol";
import {IAuditServiceManager} from "./interfaces/IAuditServiceManager.sol";
import {IEvidenceCourt} from "./interfaces/IEvidenceCourt.sol";
import {ILeaseManager} from "./interfaces/ILeaseManager.sol";
import {IPaymentEscrow} from "./interfaces/IPaymentEscrow.sol";
import {IUsageLog} from "./interfaces/IUsageLog.sol";
import {Evidence} from "./libraries/Evidence.sol";
import {MerkleSum} from "./libraries/MerkleSum.sol";
import {Counts, Pricing} from "./libraries/Pricing.sol";
import {Signatures} from "./libraries/Signatures.sol";
import {ChannelId, LeaseId, TaskId} from "./types/Ids.sol";
import {Channel, Statement} from "./types/Messages.sol";

/// @title EvidenceCourt
/// @dev Described in `IEvidenceCourt`. Apart from the audit because the two together pass the limit on a contract's size.
contract EvidenceCourt is IEvidenceCourt, CoinBonds {
    /// Seconds by which an honest host's clock may be ahead of the chain's.
    uint64 public constant CLOCK_TOLERANCE = 15 minutes;

    IAuditServiceManager public immutable AUDIT;
    ILeaseManager public immutable LEASES;
    IPaymentEscrow public immutable ESCROW;
    IUsageLog public immutable USAGE;
    /// Seconds in which a host has to show a statement.
    uint64 public immutable ANSWER_WINDOW;
    /// What a challenge costs, in the chain's coin.
    uint128 public immutable CHALLENGE_BOND;

    /// @inheritdoc IEvidenceCourt
    mapping(bytes32 offence => bool) public punished;
    mapping(bytes32 statementDigest => InclusionChallenge) private _inclusions;

    constructor(IAuditServiceManager audit, IUsageLog usage, uint64 answerWindow, uint128 challengeBond) {
        require(address(usage) != address(0) && answerWindow != 0, Zero());
        require(audit.COURT() == address(this), NotThisCourt(audit.COURT()));
        // Invariant 5: whoever leaves when it is asked can still be slashed when it has not answered.
        uint256 deallocation = audit.DEALLOCATION_SECONDS();
        require(answerWindow < deallocation, Windows(answerWindow, deallocation));
        AUDIT = audit;
        LEASES = audit.LEASES();
        ESCROW = audit.ESCROW();
        USAGE = usage;
        ANSWER_WINDOW = answerWindow;
        CHALLENGE_BOND = challengeBond;
    }

    /// @inheritdoc IEvidenceCourt
    function challengeInclusion(Statement calldata statement, bytes calldata signature) external payable {
        _requireBond(CHALLENGE_BOND);
        ILeaseManager.LeaseAccount memory lease = LEASES.account(statement.leaseId);
        bytes32 digest = _requireSigned(statement, signature, lease);
        uint64 epoch = _requireChallengeable(statement);
        require(_inclusions[digest].challenger == address(0), AlreadyChallenged(digest));
        _inclusions[digest] = InclusionChallenge({
            leaseId: statement.leaseId,
            epoch: epoch,
            openedAt: uint64(block.timestamp),
            challenger: msg.sender,
            open: true,
            royalty: Evidence.royaltyOn(statement, lease),
            leafHash: Evidence.leafHash(statement, digest)
        });
        emit InclusionChallenged(digest, statement.leaseId, msg.sender, uint64(block.timestamp) + ANSWER_WINDOW);
        AUDIT.openCase(statement.leaseId);
    }

    /// @inheritdoc IEvidenceCourt
    function answerInclusion(
        bytes32 statementDigest,
        uint256 reportIndex,
        MerkleSum.Leaf calldata leaf,
        MerkleSum.Sibling[] calldata path
    ) external {
        InclusionChallenge storage inclusion = _openInclusion(statementDigest);
        bytes32 leafHash = MerkleSum.leafHash(leaf);
        require(leafHash == inclusion.leafHash, LeafMismatch(inclusion.leafHash, leafHash));
        IUsageLog.Report memory report = USAGE.report(inclusion.leaseId, reportIndex);
        require(report.epoch == inclusion.epoch, WrongEpoch(inclusion.epoch, report.epoch));
        // A report made when it was asked for would turn an omission into a delay. One in the same block counts as such: its
        // host can have seen the question on its way.
        require(report.committedAt < inclusion.openedAt, ReportedAfterChallenge(inclusion.openedAt, report.committedAt));
        MerkleSum.verify(report.root, _totals(inclusion.leaseId, reportIndex, report), leaf, path);
        inclusion.open = false;
        emit InclusionAnswered(statementDigest, reportIndex);
        _owe(LEASES.lease(inclusion.leaseId).host, CHALLENGE_BOND);
        AUDIT.closeCase(inclusion.leaseId);
    }

    /// @inheritdoc IEvidenceCourt
    function resolveInclusion(bytes32 statementDigest) external nonReentrant {
        InclusionChallenge storage inclusion = _openInclusion(statementDigest);
        uint64 until = inclusion.openedAt + ANSWER_WINDOW;
        require(block.timestamp > until, TooEarly(until));
        inclusion.open = false;
        emit InclusionUnanswered(statementDigest);
        _owe(inclusion.challenger, CHALLENGE_BOND);
        AUDIT.closeCase(inclusion.leaseId);
        // Proven by its absence in the meantime: punished once.
        bytes32 offence = Evidence.omission(statementDigest);
        if (punished[offence]) return;
        punished[offence] = true;
        AUDIT.punish(
            inclusion.leaseId,
            IAuditServiceManager.Offence.Silence,
            ILeaseManager.Compensation(address(0), 0, inclusion.royalty, inclusion.challenger)
        );
    }

    /// @inheritdoc IEvidenceCourt
    function proveOmission(Statement calldata statement, bytes calldata signature, Absence calldata absence)
        external
        nonReentrant
    {
        ILeaseManager.LeaseAccount memory lease = LEASES.account(statement.leaseId);
        bytes32 digest = _requireSigned(statement, signature, lease);
        _requireAbsent(statement.leaseId, _requireChallengeable(statement), digest, absence);
        _punishOnce(
            Evidence.omission(digest),
            statement.leaseId,
            IAuditServiceManager.Offence.Omission,
            Evidence.royaltyOn(statement, lease)
        );
    }

    /// @inheritdoc IEvidenceCourt
    function provePostdating(Statement calldata statement, bytes calldata signature) external nonReentrant {
        ILeaseManager.LeaseAccount memory lease = LEASES.account(statement.leaseId);
        bytes32 digest = _requireSigned(statement, signature, lease);
        uint256 until = statement.endedMs / 1000;
        require(until > block.timestamp + CLOCK_TOLERANCE, NotPostdated(until));
        // The same offence as an omission: it is kept out of the report that is due.
        _punishOnce(
            Evidence.omission(digest),
            statement.leaseId,
            IAuditServiceManager.Offence.Omission,
            Evidence.royaltyOn(statement, lease)
        );
    }

    /// @inheritdoc IEvidenceCourt
    function proveEquivocation(
        Statement calldata first,
        bytes calldata firstSignature,
        Statement calldata second,
        bytes calldata secondSignature
    ) external nonReentrant {
        ILeaseManager.LeaseAccount memory lease = LEASES.account(first.leaseId);
        bytes32 firstDigest = _requireSigned(first, firstSignature, lease);
        bytes32 secondDigest = _requireSigned(second, secondSignature, lease);
        require(Evidence.contradict(first, firstDigest, second, secondDigest), NoContradiction());
        _punishOnce(Evidence.equivocation(second), first.leaseId, IAuditServiceManager.Offence.Equivocation, 0);
    }

    /// @inheritdoc IEvidenceCourt
    function proveMisprice(Statement calldata statement, bytes calldata signature) external nonReentrant {
        ILeaseManager.LeaseAccount memory lease = LEASES.account(statement.leaseId);
        bytes32 digest = _requireSigned(statement, signature, lease);
        uint256 right = Evidence.chargeOf(statement, lease.prices);
        require(statement.charge != right, ChargeIsRight(right));
        _punishOnce(Evidence.misprice(digest), statement.leaseId, IAuditServiceManager.Offence.Misprice, 0);
    }

    /// @inheritdoc IEvidenceCourt
    function accuse(
        IAuditServiceManager.TaskKind kind,
        bytes32 evidenceRoot,
        Statement calldata statement,
        bytes calldata signature,
        Channel calldata channel
    ) external payable returns (TaskId taskId) {
        ILeaseManager.LeaseAccount memory lease = LEASES.account(statement.leaseId);
        _requireSigned(statement, signature, lease);
        IAuditServiceManager.Bill memory bill = _billOf(statement, channel, lease);
        return AUDIT.openTaskFor{value: msg.value}(msg.sender, statement.leaseId, kind, evidenceRoot, bill);
    }

    /// @inheritdoc IEvidenceCourt
    function inclusionChallenge(bytes32 statementDigest) external view returns (InclusionChallenge memory) {
        return _inclusions[statementDigest];
    }

    function _punishOnce(bytes32 offence, LeaseId leaseId, IAuditServiceManager.Offence kind, uint128 creatorLoss)
        private
    {
        require(!punished[offence], AlreadyPunished(offence));
        punished[offence] = true;
        AUDIT.punish(leaseId, kind, ILeaseManager.Compensation(address(0), 0, creatorLoss, msg.sender));
    }

    function _requireSigned(
        Statement calldata statement,
        bytes calldata signature,
        ILeaseManager.LeaseAccount memory lease
    ) private view returns (bytes32 digest) {
        digest = LEASES.statementDigest(statement);
        Signatures.requireKey(lease.leaseKey, digest, signature);
    }

    function _requireChallengeable(Statement calldata statement) private view returns (uint64 epoch) {
        epoch = USAGE.epochOf(statement.endedMs);
        uint256 from = USAGE.challengeableFrom(epoch);
        require(block.timestamp >= from, NotChallengeable(from));
    }

    function _billOf(Statement calldata statement, Channel calldata channel, ILeaseManager.LeaseAccount memory lease)
        private
        view
        returns (IAuditServiceManager.Bill memory)
    {
        ChannelId channelId = ESCROW.channelId(channel);
        require(channelId == statement.channelId, WrongChannel(statement.channelId, channelId));
        return IAuditServiceManager.Bill(Evidence.request(statement), channel.payer, _paidUnder(statement, lease));
    }

    /// @dev What a payer can have paid under a statement: what it charged, and not more than was claimed on its lane. Without
    /// that limit, a host could have its own bond refunded to itself for a statement that nobody paid.
    function _paidUnder(Statement calldata statement, ILeaseManager.LeaseAccount memory lease)
        private
        view
        returns (uint128)
    {
        IPaymentEscrow.Lane memory lane = ESCROW.lane(statement.channelId, statement.lane);
        if (!(lane.leaseId == statement.leaseId) || lane.requests < statement.seq) return 0;
        uint128 paid = Pricing.costUp(
            Counts(lane.requests, lane.promptTokens, lane.cachedTokens, lane.completionTokens), lease.prices
        );
        return statement.charge < paid ? statement.charge : paid;
    }

    /// @dev Walks over all reports of an epoch, which stand one behind the other, and requires that none holds `digest`.
    function _requireAbsent(LeaseId leaseId, uint64 epoch, bytes32 digest, Absence calldata absence) private view {
        uint256 index = absence.firstReport;
        if (index != 0) {
            uint64 before = USAGE.report(leaseId, index - 1).epoch;
            require(before < epoch, WrongEpoch(epoch, before));
        }
        for (uint256 i = 0; i < absence.neighbours.length; ++i) {
            IUsageLog.Report memory report = USAGE.report(leaseId, index);
            require(report.epoch == epoch, WrongEpoch(epoch, report.epoch));
            MerkleSum.proveAbsence(report.root, _totals(leaseId, index, report), digest, absence.neighbours[i]);
            ++index;
        }
        if (index < USAGE.reports(leaseId)) {
            uint64 next = USAGE.report(leaseId, index).epoch;
            require(next > epoch, WrongEpoch(epoch, next));
        }
    }

    /// @dev What one report adds to its lease's sums.
    function _totals(LeaseId leaseId, uint256 index, IUsageLog.Report memory report)
        private
        view
        returns (MerkleSum.Sums memory totals)
    {
        totals = report.cumulative;
        if (index == 0) return totals;
        MerkleSum.Sums memory before = USAGE.report(leaseId, index - 1).cumulative;
        totals.requests -= before.requests;
        totals.promptTokens -= before.promptTokens;
        totals.cachedTokens -= before.cachedTokens;
        totals.completionTokens -= before.completionTokens;
        totals.charge -= before.charge;
    }

    function _openInclusion(bytes32 statementDigest) private view returns (InclusionChallenge storage inclusion) {
        inclusion = _inclusions[statementDigest];
        require(inclusion.open, NoChallenge(statementDigest));
    }
}
