// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IPaymentEscrow} from "../../contracts/interfaces/IPaymentEscrow.sol";
import {MerkleSum} from "../../contracts/libraries/MerkleSum.sol";
import {Counts, Pricing} from "../../contracts/libraries/Pricing.sol";
import {ChannelId, LeaseId} from "../../contracts/types/Ids.sol";
import {
    Channel,
    EpochCommit,
    Prices,
    SessionGrant,
    Split,
    Statement,
    Voucher
} from "../../contracts/types/Messages.sol";
import {Fixture} from "./Fixture.sol";
import {SumTree} from "./SumTree.sol";

/// @title A host that serves, reports and claims as it should
abstract contract Serving is Fixture {
    /// What host and payer know of a lane: the counts of all statements so far, and the last one's digest.
    struct LaneState {
        Counts counts;
        bytes32 head;
    }

    mapping(ChannelId => mapping(uint64 lane => LaneState)) internal laneStates;
    /// Statements of the running epoch, sorted when it is reported.
    MerkleSum.Leaf[] internal pending;
    /// Statements by report.
    mapping(uint256 report => MerkleSum.Leaf[]) internal reportedLeaves;

    Channel internal channel;
    ChannelId internal channelId;

    function setUp() public virtual override {
        super.setUp();
        channel = defaultChannel();
        channelId = deposit(channel, 100e6);
    }

    /// Serves a request on lane 0 of the default channel.
    function serve(uint48 prompt, uint48 cached, uint48 completion) internal returns (Statement memory statement) {
        statement = serveOn(channelId, 0, prompt, cached, completion);
    }

    function serveOn(ChannelId id, uint64 lane, uint48 prompt, uint48 cached, uint48 completion)
        internal
        returns (Statement memory statement)
    {
        statement = draft(id, lane, prompt, cached, completion);
        take(statement);
    }

    /// A request's statement as an honest host would sign it, without serving it.
    function draft(ChannelId id, uint64 lane, uint48 prompt, uint48 cached, uint48 completion)
        internal
        view
        returns (Statement memory statement)
    {
        LaneState storage state = laneStates[id][lane];
        statement.channelId = id;
        statement.leaseId = leaseId;
        statement.lane = lane;
        statement.seq = state.counts.requests + 1;
        statement.promptTokensBefore = state.counts.promptTokens;
        statement.cachedTokensBefore = state.counts.cachedTokens;
        statement.completionTokensBefore = state.counts.completionTokens;
        statement.promptTokens = prompt;
        statement.cachedTokens = cached;
        statement.completionTokens = completion;
        statement.requestHash = keccak256(abi.encode("request", id, lane, statement.seq));
        statement.responseHash = keccak256(abi.encode("response", id, lane, statement.seq));
        statement.startedMs = uint64(block.timestamp) * 1000;
        statement.endedMs = statement.startedMs + 900;
        statement.finishReason = 1;
        statement.previous = state.head;
        Prices memory prices = leases.lease(leaseId).prices;
        statement.charge = Pricing.costUp(countsAfter(statement), prices) - Pricing.costUp(state.counts, prices);
    }

    /// Makes a statement part of its lane's history and of the epoch's report.
    function take(Statement memory statement) internal {
        bytes32 digest = leases.statementDigest(statement);
        LaneState storage state = laneStates[statement.channelId][statement.lane];
        state.counts = countsAfter(statement);
        state.head = digest;
        pending.push(leafOf(statement));
    }

    function countsAfter(Statement memory statement) internal pure returns (Counts memory) {
        return Counts(
            statement.seq,
            statement.promptTokensBefore + statement.promptTokens,
            statement.cachedTokensBefore + statement.cachedTokens,
            statement.completionTokensBefore + statement.completionTokens
        );
    }

    function leafOf(Statement memory statement) internal view returns (MerkleSum.Leaf memory) {
        return MerkleSum.Leaf(
            leases.statementDigest(statement),
            statement.promptTokens,
            statement.cachedTokens,
            statement.completionTokens,
            statement.charge
        );
    }

    function signed(Statement memory statement) internal returns (bytes memory) {
        return sign(leaseKey, leases.statementDigest(statement));
    }

    /// What the payer signs once it accepts everything on a lane so far.
    function voucherFor(ChannelId id, uint64 lane, uint128 ceiling) internal view returns (Voucher memory) {
        LaneState storage state = laneStates[id][lane];
        return Voucher({
            channelId: id,
            leaseId: leaseId,
            lane: lane,
            requests: state.counts.requests,
            promptTokens: state.counts.promptTokens,
            cachedTokens: state.counts.cachedTokens,
            completionTokens: state.counts.completionTokens,
            ceiling: ceiling,
            statementsHead: state.head,
            expiresAt: uint64(block.timestamp) + 10 days
        });
    }

    function claimOf(Channel memory from, Voucher memory voucher, bytes memory signature)
        internal
        pure
        returns (IPaymentEscrow.Claim memory claim)
    {
        claim.channel = from;
        claim.voucher = voucher;
        claim.signature = signature;
        claim.inFlight = new Statement[](0);
    }

    /// A claim of what a lane's voucher accepts and of the request in flight.
    function inFlightClaim(Voucher memory voucher, bytes memory signature, Statement memory last)
        internal
        returns (IPaymentEscrow.Claim memory claim)
    {
        claim = claimOf(channel, voucher, signature);
        claim.inFlight = new Statement[](1);
        claim.inFlight[0] = last;
        claim.statementSignature = signed(last);
    }

    /// The voucher for lane 0 with the payer's own signature.
    function acceptedClaim() internal returns (IPaymentEscrow.Claim memory) {
        Voucher memory voucher = voucherFor(channelId, 0, 0);
        return claimOf(channel, voucher, sign(payer, escrow.voucherDigest(voucher)));
    }

    function batchOf(IPaymentEscrow.Claim memory claim) internal view returns (IPaymentEscrow.LeaseClaims[] memory) {
        return batchOf(claim, noSplits());
    }

    function batchOf(IPaymentEscrow.Claim memory claim, Split[] memory splits)
        internal
        view
        returns (IPaymentEscrow.LeaseClaims[] memory batch)
    {
        batch = new IPaymentEscrow.LeaseClaims[](1);
        batch[0].leaseId = leaseId;
        batch[0].splits = splits;
        batch[0].claims = new IPaymentEscrow.Claim[](1);
        batch[0].claims[0] = claim;
    }

    function claimAs(address caller, IPaymentEscrow.LeaseClaims[] memory batch) internal returns (uint256) {
        vm.prank(caller);
        return escrow.claimBatch(batch);
    }

    function cost(uint48 requests, uint48 prompt, uint48 cached, uint48 completion) internal view returns (uint128) {
        return Pricing.costUp(Counts(requests, prompt, cached, completion), leases.lease(leaseId).prices);
    }

    // What the payer takes back, and whom it lets sign

    function announce(uint128 amount) internal {
        vm.prank(payer.addr);
        escrow.initiateWithdraw(channel, amount);
    }

    function withdraw() internal returns (uint128) {
        vm.prank(payer.addr);
        return escrow.withdraw(channel);
    }

    /// Ten dollars for the session key, one for each request.
    function defaultGrant() internal view returns (SessionGrant memory) {
        return SessionGrant({
            channelId: channelId,
            key: session.addr,
            cap: 10e6,
            perRequestCap: 1e6,
            expiresAt: uint64(block.timestamp) + 30 days,
            nonce: 1
        });
    }

    // Reports

    function currentEpoch() internal view returns (uint64) {
        return usage.epochOf(uint64(block.timestamp) * 1000);
    }

    /// Lets the running epoch end and reports everything that was served in it.
    function report() internal returns (uint256 index) {
        uint64 epoch = currentEpoch();
        toEndOf(epoch);
        index = reportEpoch(epoch);
    }

    function toEndOf(uint64 epoch) internal {
        uint256 end = (uint256(epoch) + 1) * EPOCH_LENGTH;
        if (block.timestamp < end) later(end - block.timestamp);
    }

    function toChallengeable(uint64 epoch) internal {
        uint256 from = usage.challengeableFrom(epoch);
        if (block.timestamp < from) later(from - block.timestamp);
    }

    /// Reports what is pending as the statements of an epoch that is over.
    function reportEpoch(uint64 epoch) internal returns (uint256 index) {
        MerkleSum.Leaf[] memory leaves = pending;
        SumTree.sort(leaves);
        index = commitLeaves(epoch, leaves);
        for (uint256 i = 0; i < leaves.length; ++i) {
            reportedLeaves[index].push(leaves[i]);
        }
        delete pending;
    }

    function commitLeaves(uint64 epoch, MerkleSum.Leaf[] memory leaves) internal returns (uint256 index) {
        EpochCommit memory newReport = commitOf(epoch, leaves);
        vm.prank(host.addr);
        index = usage.commit(newReport, "");
    }

    function commitOf(uint64 epoch, MerkleSum.Leaf[] memory leaves) internal view returns (EpochCommit memory) {
        (bytes32 root, MerkleSum.Sums memory totals) = SumTree.root(leaves);
        return EpochCommit({
            leaseId: leaseId,
            epoch: epoch,
            root: root,
            requests: totals.requests,
            promptTokens: totals.promptTokens,
            cachedTokens: totals.cachedTokens,
            completionTokens: totals.completionTokens,
            charge: totals.charge,
            previous: usage.lastDigest(leaseId)
        });
    }

    /// Where a statement stands in a report.
    function positionIn(uint256 index, bytes32 digest) internal view returns (uint256) {
        MerkleSum.Leaf[] storage leaves = reportedLeaves[index];
        for (uint256 i = 0; i < leaves.length; ++i) {
            if (leaves[i].digest == digest) return i;
        }
        revert("the statement is not in the report");
    }

    function pathIn(uint256 index, bytes32 digest) internal view returns (MerkleSum.Sibling[] memory) {
        return SumTree.path(reportedLeaves[index], positionIn(index, digest));
    }

    /// The leaves of a report between which a digest that is not in it would stand.
    function neighboursIn(uint256 index, bytes32 digest) internal view returns (MerkleSum.Neighbour[] memory) {
        return neighboursOf(reportedLeaves[index], digest);
    }

    function neighboursOf(MerkleSum.Leaf[] memory leaves, bytes32 digest)
        internal
        pure
        returns (MerkleSum.Neighbour[] memory neighbours)
    {
        uint256 place = 0;
        while (place < leaves.length && leaves[place].digest < digest) ++place;
        bool hasBefore = place > 0;
        bool hasAfter = place < leaves.length;
        neighbours = new MerkleSum.Neighbour[]((hasBefore ? 1 : 0) + (hasAfter ? 1 : 0));
        if (hasBefore) {
            neighbours[0] = MerkleSum.Neighbour(leaves[place - 1], SumTree.path(leaves, place - 1));
        }
        if (hasAfter) {
            neighbours[neighbours.length - 1] = MerkleSum.Neighbour(leaves[place], SumTree.path(leaves, place));
        }
    }
}
