// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {MerkleSum} from "../libraries/MerkleSum.sol";
import {LeaseId} from "../types/Ids.sol";
import {EpochCommit} from "../types/Messages.sol";

/// @title What hosts say they served
/// @notice A host commits, epoch by epoch, to all statements of a lease: the root of a Merkle-sum tree sorted by digest. It is
/// paid for what it reported and for nothing else.
/// @dev Assumptions and warnings:
/// - An epoch is a fixed span of time, the same for all leases: statement `s` belongs to `epochOf(s.endedMs)`.
/// - Within one epoch a host may report more than once, for statements that it found later, until it reports a later epoch.
/// - A report may come late, until the lease's vouchers can no longer be claimed. Until it is there, the host is not paid, and
///   after `challengeableFrom` it can be asked for any statement of the epoch.
/// - Nothing here checks the tree: a root is a promise, which the audit holds against the host.
interface IUsageLog {
    struct Report {
        bytes32 root;
        uint64 epoch;
        uint64 committedAt; // seconds since 1970
        MerkleSum.Sums cumulative; // of the lease, this report included
    }

    event Reported(
        LeaseId indexed leaseId, uint64 indexed epoch, uint256 index, EpochCommit report, bytes32 reportDigest
    );

    error Zero();
    error NotHost(address expected, address actual);
    error EpochTooLong(uint64 longest, uint64 actual);
    error TooLate(uint64 until);
    error EpochNotOver(uint64 until);
    error EpochBeforeLast(uint64 last, uint64 actual);
    error TooManyReports(uint64 epoch);
    error PreviousReport(bytes32 expected, bytes32 actual);
    error CachedExceedsPrompt(uint64 cached, uint64 prompt);
    error EmptyMismatch(bytes32 root, uint64 requests);
    error UnknownReport(LeaseId leaseId, uint256 index);

    /// @notice Commits to the statements of an epoch that is over. The lease's host calls it, or anybody with the signature
    /// of its lease key.
    function commit(EpochCommit calldata report, bytes calldata signature) external returns (uint256 index);

    function reports(LeaseId leaseId) external view returns (uint256);
    function report(LeaseId leaseId, uint256 index) external view returns (Report memory);
    function reported(LeaseId leaseId) external view returns (MerkleSum.Sums memory);
    /// @notice What `EpochCommit.previous` of the next report must be.
    function lastDigest(LeaseId leaseId) external view returns (bytes32);
    /// @notice The epoch of a moment, in milliseconds since 1970.
    function epochOf(uint64 timeMs) external view returns (uint64);
    /// @notice From when statements of an epoch can be demanded, in seconds since 1970.
    function challengeableFrom(uint64 epoch) external view returns (uint256);
    function reportDigest(EpochCommit calldata report) external view returns (bytes32);
}
