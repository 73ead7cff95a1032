// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ILeaseManager} from "../../contracts/interfaces/ILeaseManager.sol";
import {IPaymentEscrow} from "../../contracts/interfaces/IPaymentEscrow.sol";
import {MerkleSum} from "../../contracts/libraries/MerkleSum.sol";
import {Counts} from "../../contracts/libraries/Pricing.sol";
import {ChannelId, LeaseId} from "../../contracts/types/Ids.sol";
import {Channel, LicenseTerms, Prices, Split, Statement, Voucher} from "../../contracts/types/Messages.sol";
import {Serving} from "../utils/Serving.sol";

/// @title Three payers, one honest host, and whatever they do in whatever order
/// @dev Keeps books of its own, with the design's rules written out again. No call of it reverts: what could be refused is
/// either left out, or tried and must be refused.
contract EscrowHandler is Serving {
    uint256 internal constant CHANNELS = 3;
    uint64 internal constant LANES = 2;
    uint64 internal constant OUTSIDE_LANE = 7;
    /// The host claims what it holds at the latest after this and one step of time: within two claim intervals.
    uint256 internal constant CLAIM_AFTER = 12 hours;

    struct Party {
        address account;
        uint256 secret;
        Channel channel;
        ChannelId id;
        uint256 accepted; // cost of all lanes, as the payer accepted it
        uint256 spent; // as the host claimed it
    }

    Party[CHANNELS] internal parties;
    Split[] internal splits;
    uint256 internal unclaimedSince;
    uint64 internal pendingEpoch; // of all statements that are not reported: every step of time reports first
    MerkleSum.Sums internal outside; // served to customers that pay in money, and not settled yet

    // The books
    uint256 public tokensIn;
    uint256 public tokensOut;
    mapping(address account => uint256) public earned;
    mapping(address account => uint256) public takenOut;
    uint256 public slashed;
    uint256 public bonded;
    mapping(uint256 party => mapping(uint64 lane => Counts)) public claimedCounts;
    uint256 public claimsMade;
    uint256 public withdrawalsMade;
    uint256 public settlementsMade;
    uint256 public replaysRefused;

    constructor() {
        setUp();
    }

    function setUp() public override {
        super.setUp();
        splits.push(Split(makeAddr("parent"), 2_500));
        splits.push(Split(makeAddr("contributor"), 1_111));
        LicenseTerms memory terms = defaultTerms(modelId);
        // Odd shares, so that rounding has something to do.
        (terms.royaltyBps, terms.validatorBps) = (777, 133);
        ILeaseManager.OpenRequest memory opening = defaultOpening(publishTerms(terms, splits));
        (opening.to, opening.bond) = (START + 365 days, 10_000e6);
        opening.prices = Prices({request: 333_333, prompt: 377_777, cached: 41_111, completion: 1_199_999});
        leaseId = openLease(opening);
        bonded = opening.bond;
        approve(host.addr, address(escrow));
        tokensIn = 100e6; // the fixture's own deposit
        for (uint256 i = 0; i < CHANNELS; ++i) {
            Party storage party = parties[i];
            (party.account, party.secret) = makeAddrAndKey(string.concat("payer ", vm.toString(i)));
            party.channel = channelOf(party.account);
            party.id = deposit(party.channel, 50e6);
            tokensIn += 50e6;
        }
    }

    // What payers do

    function doDeposit(uint256 which, uint128 amount) external {
        Party storage party = parties[which % CHANNELS];
        amount = uint128(bound(amount, 1, 100e6));
        deposit(party.channel, amount);
        tokensIn += amount;
    }

    function doAnnounce(uint256 which, uint128 amount) external {
        Party storage party = parties[which % CHANNELS];
        // A second announcement starts anew, so that few withdrawals would ever come about.
        if (escrow.channelState(party.id).withdrawableAt != 0 && amount % 4 != 0) return;
        amount = uint128(bound(amount, 1, 200e6));
        vm.prank(party.account);
        escrow.initiateWithdraw(party.channel, amount);
    }

    function doCancel(uint256 which) external {
        Party storage party = parties[which % CHANNELS];
        if (escrow.channelState(party.id).withdrawableAt == 0) return;
        vm.prank(party.account);
        escrow.cancelWithdraw(party.channel);
    }

    function doWithdraw(uint256 which) external {
        Party storage party = parties[which % CHANNELS];
        uint64 at = escrow.channelState(party.id).withdrawableAt;
        if (at == 0) return;
        if (block.timestamp < at) {
            vm.prank(party.account);
            try escrow.withdraw(party.channel) {
                revert("a withdrawal came before its time");
            } catch {}
            return;
        }
        vm.prank(party.account);
        tokensOut += escrow.withdraw(party.channel);
        ++withdrawalsMade;
    }

    // What the host does

    /// Serves a request, if the deposit covers it beside everything that is accepted and everything that is announced.
    function doServe(uint256 which, uint64 lane, uint48 prompt, uint48 cached, uint48 completion) external {
        Party storage party = parties[which % CHANNELS];
        prompt = uint48(bound(prompt, 0, 2_000_000));
        Statement memory statement = draft(
            party.id, lane % LANES, prompt, uint48(bound(cached, 0, prompt)), uint48(bound(completion, 0, 2_000_000))
        );
        IPaymentEscrow.ChannelState memory state = escrow.channelState(party.id);
        uint256 needed = party.accepted - party.spent + statement.charge;
        if (needed + state.withdrawal > state.deposited - state.spent) return;
        take(statement);
        pendingEpoch = currentEpoch();
        party.accepted += statement.charge;
        if (unclaimedSince == 0) unclaimedSince = block.timestamp;
    }

    function doServeOutside(uint48 prompt, uint48 completion) external {
        Statement memory statement = draft(
            ChannelId.wrap(0),
            OUTSIDE_LANE,
            uint48(bound(prompt, 0, 2_000_000)),
            0,
            uint48(bound(completion, 0, 2_000_000))
        );
        take(statement);
        pendingEpoch = currentEpoch();
        outside.requests += 1;
        outside.promptTokens += statement.promptTokens;
        outside.completionTokens += statement.completionTokens;
        outside.charge += statement.charge;
    }

    /// Lets time pass, reports, and claims what has waited long enough.
    function doPass(uint256 duration) external {
        flush();
        later(bound(duration, 1 hours, 30 hours));
        if (unclaimedSince != 0 && block.timestamp > unclaimedSince + CLAIM_AFTER) claimEverything();
    }

    function doClaim(uint256 which, uint64 lane) external {
        flush();
        claimLane(which % CHANNELS, lane % LANES);
    }

    /// Claims what was claimed already: must be refused, and change nothing.
    function doClaimAgain(uint256 which, uint64 lane) external {
        Party storage party = parties[which % CHANNELS];
        lane %= LANES;
        IPaymentEscrow.Lane memory before = escrow.lane(party.id, lane);
        if (before.requests == 0) return;
        Voucher memory voucher = voucherFor(party.id, lane, 0);
        (voucher.requests, voucher.promptTokens) = (before.requests, before.promptTokens);
        (voucher.cachedTokens, voucher.completionTokens) = (before.cachedTokens, before.completionTokens);
        IPaymentEscrow.LeaseClaims[] memory batch = signedBatch(party, voucher);
        vm.prank(host.addr);
        try escrow.claimBatch(batch) {
            revert("a claim was paid twice");
        } catch {
            ++replaysRefused;
        }
    }

    function doRelease(uint256 which, uint128 amount) external {
        Party storage party = parties[which % CHANNELS];
        IPaymentEscrow.ChannelState memory state = escrow.channelState(party.id);
        // An honest host releases nothing that it is owed.
        uint256 free = state.deposited - state.spent - (party.accepted - party.spent);
        amount = uint128(bound(amount, 0, free));
        vm.prank(host.addr);
        escrow.release(party.channel, amount);
        tokensOut += amount;
    }

    function doSettle() external {
        if (outside.requests == 0) return;
        flush();
        MerkleSum.Sums memory used = outside;
        delete outside;
        vm.prank(host.addr);
        uint256 royalty = escrow.settleRoyalty(leaseId, used, splits);
        require(royalty == royaltyOn(used.charge, used), "another royalty than the terms give");
        tokensIn += royalty;
        bookRoyalty(royalty);
        ++settlementsMade;
    }

    // What others do

    function doPayOut(uint256 which) external {
        address account = accounts(which % 6);
        if (escrow.balance(address(token), account) == 0) return;
        uint256 amount = escrow.payOut(address(token), account);
        takenOut[account] += amount;
        tokensOut += amount;
    }

    function doSlash(uint128 wanted, uint128 refund, uint128 loss, uint256 which) external {
        wanted = uint128(bound(wanted, 0, 500e6));
        address reporter = which % 2 == 0 ? accounts(5) : address(0);
        refund = uint128(bound(refund, 0, 500e6));
        loss = uint128(bound(loss, 0, 500e6));
        address harmed = parties[which % CHANNELS].account;
        vm.prank(address(audit));
        uint256 taken = leases.slashBond(leaseId, wanted, ILeaseManager.Compensation(harmed, refund, loss, reporter));
        slashed += taken;
        tokensIn += taken;
        uint256 toPayer = refund < taken ? refund : taken;
        uint256 left = taken - toPayer;
        uint256 toCreator = loss < left ? loss : left;
        left -= toCreator;
        uint256 toReporter = reporter == address(0) ? 0 : left * 3_000 / 10_000;
        earned[harmed] += toPayer;
        earned[creator.addr] += toCreator + left - toReporter;
        earned[reporter] += toReporter;
    }

    function doAddBond(uint128 amount) external {
        amount = uint128(bound(amount, 1, 1_000e6));
        vm.prank(host.addr);
        leases.addBond(leaseId, amount);
        bonded += amount;
    }

    // Inside

    /// Ends the running epoch and reports what was served in it.
    function flush() internal {
        if (pending.length == 0) return;
        toEndOf(pendingEpoch);
        reportEpoch(pendingEpoch);
    }

    function claimEverything() internal {
        for (uint256 i = 0; i < CHANNELS; ++i) {
            for (uint64 lane = 0; lane < LANES; ++lane) {
                claimLane(i, lane);
            }
        }
        unclaimedSince = 0;
    }

    function claimLane(uint256 which, uint64 lane) internal {
        Party storage party = parties[which];
        Counts memory counts = laneStates[party.id][lane].counts;
        IPaymentEscrow.Lane memory before = escrow.lane(party.id, lane);
        if (counts.requests == before.requests) return;
        IPaymentEscrow.LeaseClaims[] memory batch = signedBatch(party, voucherFor(party.id, lane, 0));
        vm.prank(host.addr);
        uint256 paid = escrow.claimBatch(batch);
        bookClaim(party, before, counts, paid);
        claimedCounts[which][lane] = counts;
        ++claimsMade;
    }

    function signedBatch(Party storage party, Voucher memory voucher)
        internal
        view
        returns (IPaymentEscrow.LeaseClaims[] memory)
    {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(party.secret, escrow.voucherDigest(voucher));
        return batchOf(claimOf(party.channel, voucher, abi.encodePacked(r, s, v)), splits);
    }

    function bookClaim(Party storage party, IPaymentEscrow.Lane memory before, Counts memory counts, uint256 paid)
        internal
    {
        require(
            paid
                == cost(counts.requests, counts.promptTokens, counts.cachedTokens, counts.completionTokens)
                    - cost(before.requests, before.promptTokens, before.cachedTokens, before.completionTokens),
            "another price than the lane's"
        );
        party.spent += paid;
        MerkleSum.Sums memory used = MerkleSum.Sums(
            counts.requests - before.requests,
            counts.promptTokens - before.promptTokens,
            counts.cachedTokens - before.cachedTokens,
            counts.completionTokens - before.completionTokens,
            uint128(paid)
        );
        uint256 royalty = royaltyOn(paid, used);
        uint256 validators = paid * 133 / 10_000;
        bookRoyalty(royalty);
        earned[address(audit)] += validators;
        earned[host.addr] += paid - royalty - validators;
    }

    function royaltyOn(uint256 paid, MerkleSum.Sums memory used) internal pure returns (uint256) {
        uint256 share = paid * 777 / 10_000;
        uint256 floor =
            ((uint256(used.promptTokens) - used.cachedTokens)
                    * 20_000
                    + uint256(used.cachedTokens)
                    * 2_000
                    + uint256(used.completionTokens)
                    * 60_000) / 1e6;
        return share > floor ? share : floor;
    }

    function bookRoyalty(uint256 royalty) internal {
        uint256 parent = royalty * 2_500 / 10_000;
        uint256 contributor = royalty * 1_111 / 10_000;
        earned[splits[0].recipient] += parent;
        earned[splits[1].recipient] += contributor;
        earned[creator.addr] += royalty - parent - contributor;
    }

    // What the invariants look at

    function accounts(uint256 which) public view returns (address) {
        if (which == 0) return creator.addr;
        if (which == 1) return splits[0].recipient;
        if (which == 2) return splits[1].recipient;
        if (which == 3) return host.addr;
        if (which == 4) return address(audit);
        return stranger.addr;
    }

    function partyCount() external pure returns (uint256) {
        return CHANNELS;
    }

    function laneCount() external pure returns (uint64) {
        return LANES;
    }

    function partyId(uint256 which) external view returns (ChannelId) {
        return parties[which].id;
    }

    function partyAccount(uint256 which) external view returns (address) {
        return parties[which].account;
    }

    /// What the payer accepted and the host did not claim yet.
    function unclaimed(uint256 which) external view returns (uint256) {
        return parties[which].accepted - parties[which].spent;
    }

    function fixtureChannel() external view returns (ChannelId) {
        return channelId;
    }

    function costOf(IPaymentEscrow.Lane memory lane) external view returns (uint256) {
        return cost(lane.requests, lane.promptTokens, lane.cachedTokens, lane.completionTokens);
    }

    function lease() external view returns (LeaseId) {
        return leaseId;
    }

    function contracts() external view returns (address, address, address, address) {
        return (address(escrow), address(leases), address(usage), address(token));
    }
}
