// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {MerkleSum} from "../libraries/MerkleSum.sol";
import {ChannelId, LeaseId, TaskId} from "../types/Ids.sol";
import {Channel, Statement} from "../types/Messages.sol";
import {IAuditServiceManager} from "./IAuditServiceManager.sol";
import {ICoinBonds} from "./ICoinBonds.sol";

/// @title Offences that statements prove by themselves
/// @notice Needs no vote: a statement that is missing from its host's report, two that contradict each other, one that charges
/// what its prices do not give. The audit carries the punishment out.
/// @dev Assumptions and warnings:
/// - Everything rests on the lease key. A host whose lease key is stolen is punished for what the thief signs.
/// - Statements belong to the epoch in which they say that they ended. One that says it ended in the future can be demanded
///   only then, so whoever holds it must not wait: that it is there before its time is proof enough.
/// - An omission is proven at once from neighbours in the tree. A host that withholds its tree is asked for the statement,
///   and loses by silence.
/// - A wrong charge or a contradiction refunds nobody: the escrow pays neither. What is taken from the bond makes the creator
///   whole and rewards the reporter, so no host can get its own bond out early by accusing itself.
interface IEvidenceCourt is ICoinBonds {
    struct InclusionChallenge {
        LeaseId leaseId;
        uint64 epoch;
        uint64 openedAt; // seconds since 1970
        address challenger;
        bool open;
        uint128 royalty; // that the creator loses by the omission
        bytes32 leafHash; // that the epoch's tree must hold
    }

    /// Proof that a statement is in none of an epoch's reports: for each of them, from `firstReport` on, the neighbours
    /// between which it would stand.
    struct Absence {
        uint256 firstReport;
        MerkleSum.Neighbour[][] neighbours;
    }

    event InclusionChallenged(
        bytes32 indexed statementDigest, LeaseId indexed leaseId, address indexed challenger, uint64 answerBy
    );
    event InclusionAnswered(bytes32 indexed statementDigest, uint256 reportIndex);
    event InclusionUnanswered(bytes32 indexed statementDigest);

    error Zero();
    error NotThisCourt(address court);
    error Windows(uint256 answer, uint256 deallocation);
    error TooEarly(uint64 from);
    error AlreadyPunished(bytes32 offence);
    error NotChallengeable(uint256 from);
    error AlreadyChallenged(bytes32 statementDigest);
    error NoChallenge(bytes32 statementDigest);
    error WrongEpoch(uint64 expected, uint64 actual);
    error ReportedAfterChallenge(uint64 challengedAt, uint64 committedAt);
    error LeafMismatch(bytes32 expected, bytes32 actual);
    error NoContradiction();
    error ChargeIsRight(uint256 charge);
    error NotPostdated(uint256 endedAt);
    error WrongChannel(ChannelId expected, ChannelId actual);

    /// @notice Demands that a statement be shown in its epoch's report. Costs `CHALLENGE_BOND`: to the host if it answers.
    function challengeInclusion(Statement calldata statement, bytes calldata signature) external payable;

    /// @notice Shows the statement in a report that was there before the challenge. Anybody may answer.
    function answerInclusion(
        bytes32 statementDigest,
        uint256 reportIndex,
        MerkleSum.Leaf calldata leaf,
        MerkleSum.Sibling[] calldata path
    ) external;

    /// @notice Punishes a host that did not answer in `ANSWER_WINDOW`.
    function resolveInclusion(bytes32 statementDigest) external;

    /// @notice Punishes a host for a statement that is in none of its epoch's reports.
    function proveOmission(Statement calldata statement, bytes calldata signature, Absence calldata absence) external;

    /// @notice Punishes a host for a statement that says it ended in the future, by more than clocks differ: it would be missing
    /// from every report that can be demanded.
    function provePostdating(Statement calldata statement, bytes calldata signature) external;

    /// @notice Punishes a host for two statements that cannot both be true: of the same request, or one that does not go on
    /// where the other ended.
    function proveEquivocation(
        Statement calldata first,
        bytes calldata firstSignature,
        Statement calldata second,
        bytes calldata secondSignature
    ) external;

    /// @notice Punishes a host for a statement whose charge its prices do not give.
    function proveMisprice(Statement calldata statement, bytes calldata signature) external;

    /// @notice Opens an audit task for a customer that paid too much under a statement. Costs the audit's task bond. A guilty
    /// verdict refunds the payer of the statement's channel what it charged, and not more than was claimed on its lane.
    /// @dev A request can be accused more than once, so that nobody can use up the accusation with bad evidence, and is
    /// punished and refunded once.
    function accuse(
        IAuditServiceManager.TaskKind kind,
        bytes32 evidenceRoot,
        Statement calldata statement,
        bytes calldata signature,
        Channel calldata channel
    ) external payable returns (TaskId taskId);

    function inclusionChallenge(bytes32 statementDigest) external view returns (InclusionChallenge memory);
    /// @notice Whether an offence, by its name in `Evidence`, was punished.
    function punished(bytes32 offence) external view returns (bool);
}
