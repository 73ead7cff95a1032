// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {MessageDomain} from "./MessageDomain.sol";
import {ILeaseManager} from "./interfaces/ILeaseManager.sol";
import {IUsageLog} from "./interfaces/IUsageLog.sol";
import {MerkleSum} from "./libraries/MerkleSum.sol";
import {MessageHash} from "./libraries/MessageHash.sol";
import {Signatures} from "./libraries/Signatures.sol";
import {UsageSums} from "./libraries/UsageSums.sol";
import {LeaseId} from "./types/Ids.sol";
import {EpochCommit} from "./types/Messages.sol";

/// @title UsageLog
/// @dev Described in `IUsageLog`.
contract UsageLog is IUsageLog, MessageDomain {
    /// Most reports of one epoch: whoever proves that a statement is missing shows that it is in none of them.
    uint256 public constant MAX_REPORTS_PER_EPOCH = 4;

    ILeaseManager public immutable LEASES;
    /// Length of an epoch in seconds.
    uint64 public immutable EPOCH_LENGTH;
    /// Seconds after an epoch's end in which its host may still report it unasked.
    uint64 public immutable COMMIT_GRACE;

    /// @inheritdoc IUsageLog
    mapping(LeaseId => bytes32) public lastDigest;
    mapping(LeaseId => Report[]) private _reports;

    constructor(ILeaseManager leases, uint64 epochLength, uint64 commitGrace) {
        require(address(leases) != address(0) && epochLength != 0, Zero());
        // Invariant 4: use must be reported before it is claimed, so an epoch may take one of the two intervals that a voucher
        // has before an announced withdrawal.
        uint64 claimInterval = leases.ESCROW().CLAIM_INTERVAL();
        require(epochLength <= claimInterval, EpochTooLong(claimInterval, epochLength));
        LEASES = leases;
        EPOCH_LENGTH = epochLength;
        COMMIT_GRACE = commitGrace;
    }

    /// @inheritdoc IUsageLog
    function commit(EpochCommit calldata newReport, bytes calldata signature) external returns (uint256 index) {
        bytes32 digest = reportDigest(newReport);
        _requireHost(newReport.leaseId, digest, signature);
        require(
            newReport.cachedTokens <= newReport.promptTokens,
            CachedExceedsPrompt(newReport.cachedTokens, newReport.promptTokens)
        );
        // Tokens of an epoch without requests would be reported by no statement.
        bool nothing = newReport.requests == 0;
        require(
            (newReport.root == 0) == nothing
                && (!nothing || (newReport.promptTokens | newReport.completionTokens | newReport.charge) == 0),
            EmptyMismatch(newReport.root, newReport.requests)
        );
        bytes32 previous = lastDigest[newReport.leaseId];
        require(newReport.previous == previous, PreviousReport(previous, newReport.previous));
        _requireEpoch(newReport.leaseId, newReport.epoch);

        MerkleSum.Sums memory used = MerkleSum.Sums(
            newReport.requests,
            newReport.promptTokens,
            newReport.cachedTokens,
            newReport.completionTokens,
            newReport.charge
        );
        index = _reports[newReport.leaseId].length;
        _reports[newReport.leaseId].push(
            Report(
                newReport.root,
                newReport.epoch,
                uint64(block.timestamp),
                UsageSums.plus(reported(newReport.leaseId), used)
            )
        );
        lastDigest[newReport.leaseId] = digest;
        emit Reported(newReport.leaseId, newReport.epoch, index, newReport, digest);
    }

    /// @inheritdoc IUsageLog
    function reports(LeaseId leaseId) external view returns (uint256) {
        return _reports[leaseId].length;
    }

    /// @inheritdoc IUsageLog
    function report(LeaseId leaseId, uint256 index) external view returns (Report memory) {
        require(index < _reports[leaseId].length, UnknownReport(leaseId, index));
        return _reports[leaseId][index];
    }

    /// @inheritdoc IUsageLog
    function reported(LeaseId leaseId) public view returns (MerkleSum.Sums memory sums) {
        uint256 count = _reports[leaseId].length;
        if (count != 0) sums = _reports[leaseId][count - 1].cumulative;
    }

    /// @inheritdoc IUsageLog
    function epochOf(uint64 timeMs) external view returns (uint64) {
        return timeMs / 1000 / EPOCH_LENGTH;
    }

    /// @inheritdoc IUsageLog
    function challengeableFrom(uint64 epoch) external view returns (uint256) {
        return _endOf(epoch) + COMMIT_GRACE;
    }

    /// @inheritdoc IUsageLog
    function reportDigest(EpochCommit calldata newReport) public view returns (bytes32) {
        return _hashTypedData(MessageHash.hash(newReport));
    }

    function _requireHost(LeaseId leaseId, bytes32 digest, bytes calldata signature) private view {
        ILeaseManager.LeaseRecord memory lease = LEASES.lease(leaseId);
        // Or a host could keep everything back until its bond is free, and report it then, so that nothing is left to punish.
        uint64 until = lease.to + LEASES.CLAIM_DELAY();
        require(block.timestamp <= until, TooLate(until));
        if (msg.sender == lease.host) return;
        require(signature.length != 0, NotHost(lease.host, msg.sender));
        Signatures.requireKey(lease.leaseKey, digest, signature);
    }

    /// @dev Over, not before the last one that was reported, and reported fewer than four times.
    function _requireEpoch(LeaseId leaseId, uint64 epoch) private view {
        uint256 end = _endOf(epoch);
        require(block.timestamp >= end, EpochNotOver(uint64(end)));
        Report[] storage known = _reports[leaseId];
        uint256 count = known.length;
        if (count == 0) return;
        uint64 last = known[count - 1].epoch;
        require(epoch >= last, EpochBeforeLast(last, epoch));
        require(
            count < MAX_REPORTS_PER_EPOCH || known[count - MAX_REPORTS_PER_EPOCH].epoch != epoch, TooManyReports(epoch)
        );
    }

    function _endOf(uint64 epoch) private view returns (uint256) {
        return (uint256(epoch) + 1) * EPOCH_LENGTH;
    }
}
