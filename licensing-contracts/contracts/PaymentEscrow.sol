// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {LibClone} from "solady/utils/LibClone.sol";

import {DepositForwarder} from "./DepositForwarder.sol";
import {MessageDomain} from "./MessageDomain.sol";
import {IERC3009} from "./interfaces/IERC3009.sol";
import {ILeaseManager} from "./interfaces/ILeaseManager.sol";
import {IPaymentEscrow} from "./interfaces/IPaymentEscrow.sol";
import {IUsageLog} from "./interfaces/IUsageLog.sol";
import {ExactTransfer} from "./libraries/ExactTransfer.sol";
import {MerkleSum} from "./libraries/MerkleSum.sol";
import {MessageHash} from "./libraries/MessageHash.sol";
import {Counts, Pricing} from "./libraries/Pricing.sol";
import {Signatures} from "./libraries/Signatures.sol";
import {UsageSums} from "./libraries/UsageSums.sol";
import {ChannelId, LeaseId} from "./types/Ids.sol";
import {Channel, Prices, SessionGrant, Split, Statement, Voucher} from "./types/Messages.sol";

/// @title PaymentEscrow
/// @dev Described in `IPaymentEscrow`.
contract PaymentEscrow is IPaymentEscrow, MessageDomain, ReentrancyGuardTransient {
    using ExactTransfer for IERC20;
    using SafeCast for uint256;
    using SafeERC20 for IERC20;

    uint64 public constant MAX_WITHDRAW_DELAY = 30 days;

    ILeaseManager public immutable LEASES;
    /// @inheritdoc IPaymentEscrow
    IUsageLog public immutable USAGE;
    /// Receives the validators' shares.
    address public immutable AUDIT;
    /// @inheritdoc IPaymentEscrow
    uint64 public immutable CLAIM_INTERVAL;
    /// Invariant 4: a voucher that was signed before a withdrawal or a revocation was announced has two intervals to be claimed.
    uint64 public immutable MIN_WITHDRAW_DELAY;
    uint64 public immutable GRANT_THAW;
    address public immutable FORWARDER;

    /// @inheritdoc IPaymentEscrow
    mapping(address token => mapping(address account => uint256)) public balance;
    /// @inheritdoc IPaymentEscrow
    mapping(LeaseId => uint256) public royaltyDebt;
    mapping(ChannelId => ChannelState) private _channels;
    mapping(ChannelId => mapping(uint64 lane => Lane)) private _lanes;
    mapping(ChannelId => mapping(address key => Grant)) private _grants;
    mapping(LeaseId => MerkleSum.Sums) private _settled;

    /// What a group of claims adds up to.
    struct Tally {
        MerkleSum.Sums used;
        uint256 royalty;
        uint256 validatorShare;
    }

    constructor(ILeaseManager leases, IUsageLog usage, address audit, uint64 claimInterval) {
        require(address(leases) != address(0) && address(usage) != address(0) && audit != address(0), Zero());
        require(claimInterval != 0 && 2 * claimInterval <= MAX_WITHDRAW_DELAY, Delays());
        // Whoever claims every interval claims in time: after a lease's end, and before its royalty is enforced.
        require(
            leases.CLAIM_DELAY() >= 2 * claimInterval && leases.REGISTRY().MIN_DISPUTE_WINDOW() >= 2 * claimInterval,
            Delays()
        );
        LEASES = leases;
        USAGE = usage;
        AUDIT = audit;
        CLAIM_INTERVAL = claimInterval;
        MIN_WITHDRAW_DELAY = 2 * claimInterval;
        GRANT_THAW = 2 * claimInterval;
        FORWARDER = address(new DepositForwarder());
    }

    // Deposits and withdrawals

    /// @inheritdoc IPaymentEscrow
    function deposit(Channel calldata channel, uint128 amount) public nonReentrant returns (ChannelId id) {
        id = _book(channel, msg.sender, amount);
        IERC20(channel.token).receiveExactly(msg.sender, amount);
    }

    /// @inheritdoc IPaymentEscrow
    function depositWithPermit(
        Channel calldata channel,
        uint128 amount,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external returns (ChannelId id) {
        try IERC20Permit(channel.token).permit(msg.sender, address(this), amount, deadline, v, r, s) {} catch {}
        return deposit(channel, amount);
    }

    /// @inheritdoc IPaymentEscrow
    function depositWithAuthorization(
        Channel calldata channel,
        uint128 amount,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 salt,
        bytes calldata signature
    ) external nonReentrant returns (ChannelId id) {
        id = _book(channel, channel.payer, amount);
        IERC20 token = IERC20(channel.token);
        uint256 before = token.balanceOf(address(this));
        bytes32 nonce = authorizationNonce(id, salt);
        if (signature.length == 65) {
            IERC3009(channel.token)
                .receiveWithAuthorization(
                    channel.payer,
                    address(this),
                    amount,
                    validAfter,
                    validBefore,
                    nonce,
                    uint8(signature[64]),
                    bytes32(signature[0:32]),
                    bytes32(signature[32:64])
                );
        } else {
            IERC3009(channel.token)
                .receiveWithAuthorization(
                    channel.payer, address(this), amount, validAfter, validBefore, nonce, signature
                );
        }
        token.requireArrived(before, amount);
    }

    /// @inheritdoc IPaymentEscrow
    function collectDeposit(Channel calldata channel) external nonReentrant returns (uint128 amount) {
        bytes32 salt = ChannelId.unwrap(channelId(channel));
        address forwarder = LibClone.predictDeterministicAddress(FORWARDER, salt, address(this));
        if (forwarder.code.length == 0) LibClone.cloneDeterministic(FORWARDER, salt);
        IERC20 token = IERC20(channel.token);
        uint256 before = token.balanceOf(address(this));
        amount = DepositForwarder(forwarder).forward(token).toUint128();
        token.requireArrived(before, amount);
        _book(channel, forwarder, amount);
    }

    /// @inheritdoc IPaymentEscrow
    function initiateWithdraw(Channel calldata channel, uint128 amount) external {
        ChannelId id = _payersChannel(channel);
        require(amount != 0, Zero());
        ChannelState storage state = _channels[id];
        uint64 withdrawableAt = uint64(block.timestamp) + channel.withdrawDelay;
        state.withdrawal = amount;
        state.withdrawableAt = withdrawableAt;
        emit WithdrawalAnnounced(id, amount, withdrawableAt);
    }

    /// @inheritdoc IPaymentEscrow
    function cancelWithdraw(Channel calldata channel) external {
        ChannelId id = _payersChannel(channel);
        ChannelState storage state = _channels[id];
        require(state.withdrawableAt != 0, NothingAnnounced());
        (state.withdrawal, state.withdrawableAt) = (0, 0);
        emit WithdrawalCancelled(id);
    }

    /// @inheritdoc IPaymentEscrow
    function withdraw(Channel calldata channel) external nonReentrant returns (uint128 amount) {
        ChannelId id = _payersChannel(channel);
        ChannelState storage state = _channels[id];
        require(state.withdrawableAt != 0, NothingAnnounced());
        require(block.timestamp >= state.withdrawableAt, WithdrawalTooEarly(state.withdrawableAt));
        uint128 unspent = state.deposited - state.spent;
        amount = state.withdrawal < unspent ? state.withdrawal : unspent;
        state.deposited -= amount;
        (state.withdrawal, state.withdrawableAt) = (0, 0);
        emit Withdrawn(id, amount);
        IERC20(channel.token).safeTransfer(channel.payer, amount);
    }

    /// @inheritdoc IPaymentEscrow
    function release(Channel calldata channel, uint128 amount) external nonReentrant {
        require(msg.sender == channel.host, NotHost(channel.host, msg.sender));
        ChannelId id = channelId(channel);
        ChannelState storage state = _channels[id];
        uint128 unspent = state.deposited - state.spent;
        require(amount <= unspent, InsufficientDeposit(unspent, amount));
        state.deposited -= amount;
        // Or the payer would take the same out twice, the second time from what vouchers are signed against.
        state.withdrawal = amount < state.withdrawal ? state.withdrawal - amount : 0;
        emit Released(id, amount);
        IERC20(channel.token).safeTransfer(channel.payer, amount);
    }

    // Session keys

    /// @inheritdoc IPaymentEscrow
    function registerGrant(Channel calldata channel, SessionGrant calldata newGrant, bytes calldata signature)
        external
    {
        ChannelId id = channelId(channel);
        require(newGrant.channelId == id, WrongChannel(id, newGrant.channelId));
        require(newGrant.key != address(0), Zero());
        require(block.timestamp < newGrant.expiresAt, GrantExpired(newGrant.expiresAt));
        Grant storage current = _grants[id][newGrant.key];
        if (current.registered) {
            require(newGrant.nonce > current.nonce, GrantNonce(current.nonce, newGrant.nonce));
            require(
                newGrant.cap >= current.cap && newGrant.perRequestCap >= current.perRequestCap
                    && newGrant.expiresAt >= current.expiresAt,
                GrantReduced()
            );
        }
        Signatures.requireAccount(channel.payer, grantDigest(newGrant), signature);
        current.cap = newGrant.cap;
        current.perRequestCap = newGrant.perRequestCap;
        current.expiresAt = newGrant.expiresAt;
        current.nonce = newGrant.nonce;
        current.registered = true;
        emit GrantRegistered(id, newGrant.key, newGrant);
    }

    /// @inheritdoc IPaymentEscrow
    function revokeGrant(Channel calldata channel, address key) external {
        ChannelId id = _payersChannel(channel);
        Grant storage current = _grants[id][key];
        require(current.registered, UnknownGrant(id, key));
        uint64 thawed = uint64(block.timestamp) + GRANT_THAW;
        if (thawed < current.expiresAt) current.expiresAt = thawed;
        // No grant has a higher one: one that was signed before and is still about cannot lift the revocation.
        current.nonce = type(uint64).max;
        emit GrantRevoked(id, key, current.expiresAt);
    }

    // Claims

    /// @inheritdoc IPaymentEscrow
    function claimBatch(LeaseClaims[] calldata batch) external nonReentrant returns (uint256 paid) {
        for (uint256 i = 0; i < batch.length; ++i) {
            paid += _claimUnderLease(batch[i]);
        }
    }

    /// @inheritdoc IPaymentEscrow
    function settleRoyalty(LeaseId leaseId, MerkleSum.Sums calldata used, Split[] calldata splits)
        external
        nonReentrant
        returns (uint256 royalty)
    {
        ILeaseManager.LeaseAccount memory lease = LEASES.account(leaseId);
        // The host alone: what is settled cannot be claimed, so a payer could otherwise pay the royalty instead of the bill.
        require(msg.sender == lease.host, NotHost(lease.host, msg.sender));
        _requireSplits(lease.splitRoot, splits);
        _settle(leaseId, used);
        royalty = _royaltyOn(used, lease);
        emit RoyaltySettled(leaseId, used, royalty);
        _creditRoyalty(lease, splits, royalty);
        IERC20(lease.token).receiveExactly(msg.sender, royalty);
    }

    /// @inheritdoc IPaymentEscrow
    function enforceRoyalty(LeaseId leaseId, uint256 reportIndex, Split[] calldata splits)
        external
        nonReentrant
        returns (uint256 collected)
    {
        ILeaseManager.LeaseAccount memory lease = LEASES.account(leaseId);
        _requireSplits(lease.splitRoot, splits);
        IUsageLog.Report memory report = USAGE.report(leaseId, reportIndex);
        uint64 dueAt = report.committedAt + lease.disputeWindow;
        require(block.timestamp > dueAt, NotDue(dueAt));

        MerkleSum.Sums memory known = _settled[leaseId];
        uint256 owed = _royaltyOn(UsageSums.missing(report.cumulative, known), lease) + royaltyDebt[leaseId];
        require(owed != 0, NothingOwed());
        _settled[leaseId] = UsageSums.larger(report.cumulative, known);

        IERC20 token = IERC20(lease.token);
        uint256 before = token.balanceOf(address(this));
        collected = LEASES.collectFromBond(leaseId, owed.toUint128());
        token.requireArrived(before, collected);
        royaltyDebt[leaseId] = owed - collected;
        emit RoyaltyEnforced(leaseId, reportIndex, owed, collected);
        _creditRoyalty(lease, splits, collected);
    }

    /// @inheritdoc IPaymentEscrow
    function credit(address token, address account, uint128 amount) external nonReentrant {
        if (amount == 0) return;
        require(account != address(0), Zero());
        _credit(token, account, amount);
        IERC20(token).receiveExactly(msg.sender, amount);
    }

    /// @inheritdoc IPaymentEscrow
    function payOut(address token, address account) external nonReentrant returns (uint256 amount) {
        amount = balance[token][account];
        require(amount != 0, NothingToPay(token, account));
        balance[token][account] = 0;
        emit PaidOut(token, account, amount);
        IERC20(token).safeTransfer(account, amount);
    }

    // Views

    /// @inheritdoc IPaymentEscrow
    function channelId(Channel calldata channel) public view returns (ChannelId) {
        return ChannelId.wrap(_hashTypedData(MessageHash.hash(channel)));
    }

    /// @inheritdoc IPaymentEscrow
    function depositAddress(ChannelId id) external view returns (address) {
        return LibClone.predictDeterministicAddress(FORWARDER, ChannelId.unwrap(id), address(this));
    }

    /// @inheritdoc IPaymentEscrow
    function channelState(ChannelId id) external view returns (ChannelState memory) {
        return _channels[id];
    }

    /// @inheritdoc IPaymentEscrow
    function lane(ChannelId id, uint64 number) external view returns (Lane memory) {
        return _lanes[id][number];
    }

    /// @inheritdoc IPaymentEscrow
    function grant(ChannelId id, address key) external view returns (Grant memory) {
        return _grants[id][key];
    }

    /// @inheritdoc IPaymentEscrow
    function settled(LeaseId leaseId) external view returns (MerkleSum.Sums memory) {
        return _settled[leaseId];
    }

    /// @inheritdoc IPaymentEscrow
    function voucherDigest(Voucher calldata voucher) public view returns (bytes32) {
        return _hashTypedData(MessageHash.hash(voucher));
    }

    /// @inheritdoc IPaymentEscrow
    function grantDigest(SessionGrant calldata newGrant) public view returns (bytes32) {
        return _hashTypedData(MessageHash.hash(newGrant));
    }

    /// @inheritdoc IPaymentEscrow
    function authorizationNonce(ChannelId id, bytes32 salt) public pure returns (bytes32) {
        return keccak256(abi.encode(id, salt));
    }

    // Inside

    function _payersChannel(Channel calldata channel) private view returns (ChannelId) {
        require(msg.sender == channel.payer, NotPayer(channel.payer, msg.sender));
        return channelId(channel);
    }

    function _book(Channel calldata channel, address from, uint128 amount) private returns (ChannelId id) {
        require(channel.payer != address(0) && channel.host != address(0) && amount != 0, Zero());
        require(
            channel.withdrawDelay >= MIN_WITHDRAW_DELAY && channel.withdrawDelay <= MAX_WITHDRAW_DELAY,
            WithdrawDelay(MIN_WITHDRAW_DELAY, MAX_WITHDRAW_DELAY, channel.withdrawDelay)
        );
        id = channelId(channel);
        _channels[id].deposited += amount;
        emit Deposited(id, from, amount, channel);
    }

    function _claimUnderLease(LeaseClaims calldata group) private returns (uint256 cost) {
        ILeaseManager.LeaseAccount memory lease = LEASES.account(group.leaseId);
        require(msg.sender == lease.host, NotHost(lease.host, msg.sender));
        require(block.timestamp <= lease.claimableUntil, LeaseNotClaimable(lease.claimableUntil));
        _requireSplits(lease.splitRoot, group.splits);

        Tally memory tally;
        for (uint256 i = 0; i < group.claims.length; ++i) {
            _claim(group.leaseId, lease, group.claims[i], tally);
        }
        _settle(group.leaseId, tally.used);
        cost = tally.used.charge;
        _credit(lease.token, AUDIT, tally.validatorShare);
        _creditRoyalty(lease, group.splits, tally.royalty);
        // The host takes the remainder, so the parts always sum to what the channels paid.
        _credit(lease.token, lease.host, cost - tally.royalty - tally.validatorShare);
    }

    function _claim(LeaseId leaseId, ILeaseManager.LeaseAccount memory lease, Claim calldata claim, Tally memory tally)
        private
    {
        ChannelId id = _requireOurs(leaseId, lease, claim);
        Counts memory before = _countsBefore(leaseId, _lanes[id][claim.voucher.lane]);
        (Counts memory afterwards, bytes32 statement) = _countsOf(claim, lease);
        require(afterwards.requests > before.requests, NotNewer(before.requests, afterwards.requests));
        Counts memory used = Pricing.difference(before, afterwards);
        uint256 cost = Pricing.costUp(afterwards, lease.prices) - Pricing.costUp(before, lease.prices);

        _requireSigner(id, claim, cost, statement != 0);
        _spend(_channels[id], cost);
        Lane memory counts = _laneOf(leaseId, afterwards);
        _lanes[id][claim.voucher.lane] = counts;
        (uint256 royalty, uint256 validatorShare) = _tally(tally, lease, used, cost);
        emit Claimed(id, leaseId, claim.voucher.lane, counts, cost, royalty, validatorShare, statement);
    }

    function _spend(ChannelState storage state, uint256 cost) private {
        uint256 unspent = state.deposited - state.spent;
        require(cost <= unspent, InsufficientDeposit(unspent, cost));
        // Not more than `deposited`, which fits.
        state.spent += uint128(cost);
    }

    function _tally(Tally memory tally, ILeaseManager.LeaseAccount memory lease, Counts memory used, uint256 cost)
        private
        pure
        returns (uint256 royalty, uint256 validatorShare)
    {
        royalty = _larger(Pricing.shareDown(cost, lease.royaltyBps), Pricing.floorDown(used, lease.floors));
        validatorShare = Pricing.shareDown(cost, lease.validatorBps);
        tally.royalty += royalty;
        tally.validatorShare += validatorShare;
        UsageSums.add(tally.used, used, cost);
    }

    /// @dev A lane belongs to the lease of its first claim.
    function _countsBefore(LeaseId leaseId, Lane storage record) private view returns (Counts memory) {
        require(record.leaseId == leaseId || record.leaseId == LeaseId.wrap(0), WrongLease(record.leaseId, leaseId));
        return Counts(record.requests, record.promptTokens, record.cachedTokens, record.completionTokens);
    }

    function _laneOf(LeaseId leaseId, Counts memory counts) private pure returns (Lane memory) {
        return Lane(leaseId, counts.requests, counts.promptTokens, counts.cachedTokens, counts.completionTokens);
    }

    /// @dev A voucher counts on its own channel, lease and token, and until it expires.
    function _requireOurs(LeaseId leaseId, ILeaseManager.LeaseAccount memory lease, Claim calldata claim)
        private
        view
        returns (ChannelId id)
    {
        id = channelId(claim.channel);
        require(claim.voucher.channelId == id, WrongChannel(id, claim.voucher.channelId));
        require(claim.voucher.leaseId == leaseId, WrongLease(leaseId, claim.voucher.leaseId));
        require(claim.channel.host == lease.host, NotHost(claim.channel.host, lease.host));
        require(claim.channel.token == lease.token, WrongToken(lease.token, claim.channel.token));
        require(block.timestamp <= claim.voucher.expiresAt, VoucherExpired(claim.voucher.expiresAt));
    }

    /// @dev The lane's counts after the claim: the voucher's, and the request in flight if its statement is there.
    function _countsOf(Claim calldata claim, ILeaseManager.LeaseAccount memory lease)
        private
        view
        returns (Counts memory counts, bytes32 statement)
    {
        Voucher calldata voucher = claim.voucher;
        counts = Counts(voucher.requests, voucher.promptTokens, voucher.cachedTokens, voucher.completionTokens);
        if (claim.inFlight.length == 0) return (counts, 0);
        require(claim.inFlight.length == 1, OneStatement(claim.inFlight.length));

        Statement calldata last = claim.inFlight[0];
        require(last.channelId == voucher.channelId, WrongChannel(voucher.channelId, last.channelId));
        require(last.leaseId == voucher.leaseId, WrongLease(voucher.leaseId, last.leaseId));
        require(last.lane == voucher.lane, WrongLane(voucher.lane, last.lane));
        require(last.previous == voucher.statementsHead, StatementOutOfOrder(voucher.statementsHead, last.previous));
        require(
            last.seq == voucher.requests + 1 && last.promptTokensBefore == voucher.promptTokens
                && last.cachedTokensBefore == voucher.cachedTokens
                && last.completionTokensBefore == voucher.completionTokens,
            StatementCounts()
        );
        statement = LEASES.statementDigest(last);
        Signatures.requireKey(lease.leaseKey, statement, claim.statementSignature);

        Counts memory accepted = counts;
        counts = Counts(
            last.seq,
            voucher.promptTokens + last.promptTokens,
            voucher.cachedTokens + last.cachedTokens,
            voucher.completionTokens + last.completionTokens
        );
        Pricing.difference(accepted, counts);
        uint256 charge = Pricing.costUp(counts, lease.prices) - Pricing.costUp(accepted, lease.prices);
        require(last.charge == charge, StatementCharge(charge, last.charge));
        require(charge <= voucher.ceiling, CeilingExceeded(voucher.ceiling, charge));
    }

    /// @dev The payer itself, or a key under a grant of his that lasts and has room.
    function _requireSigner(ChannelId id, Claim calldata claim, uint256 cost, bool inFlight) private {
        address payer = claim.channel.payer;
        bytes32 digest = voucherDigest(claim.voucher);
        bool wallet = Signatures.isWallet(payer);
        if (
            wallet
                && (claim.signature.length != 65
                    || !_grants[id][Signatures.tryRecover(digest, claim.signature)].registered)
        ) {
            Signatures.requireAccount(payer, digest, claim.signature);
            return;
        }
        address key = Signatures.recover(digest, claim.signature);
        if (key == payer) return;
        Grant storage current = _grants[id][key];
        require(current.registered, UnknownGrant(id, key));
        require(block.timestamp <= current.expiresAt, GrantExpired(current.expiresAt));
        uint256 spent = current.spent + cost;
        require(spent <= current.cap, GrantCapExceeded(current.cap, spent));
        require(
            !inFlight || claim.voucher.ceiling <= current.perRequestCap,
            RequestCapExceeded(current.perRequestCap, claim.voucher.ceiling)
        );
        // Not more than `cap`, which fits.
        current.spent = uint128(spent);
    }

    /// @dev Counts use as paid for. Invariant 2: a lease is never paid for more than it reported.
    function _settle(LeaseId leaseId, MerkleSum.Sums memory used) private {
        MerkleSum.Sums memory total = UsageSums.plus(_settled[leaseId], used);
        MerkleSum.Sums memory reported = USAGE.reported(leaseId);
        require(UsageSums.covers(reported, total), MoreThanReported(reported, total));
        _settled[leaseId] = total;
    }

    function _royaltyOn(MerkleSum.Sums memory used, ILeaseManager.LeaseAccount memory lease)
        private
        pure
        returns (uint256)
    {
        return UsageSums.royaltyDown(used, lease.royaltyBps, lease.floors);
    }

    /// @dev Shares round down; the creator takes what is left of the royalty.
    function _creditRoyalty(ILeaseManager.LeaseAccount memory lease, Split[] calldata splits, uint256 royalty) private {
        uint256 left = royalty;
        for (uint256 i = 0; i < splits.length; ++i) {
            uint256 share = Pricing.shareDown(royalty, splits[i].bps);
            left -= share;
            _credit(lease.token, splits[i].recipient, share);
        }
        _credit(lease.token, lease.creator, left);
    }

    function _credit(address token, address account, uint256 amount) private {
        if (amount == 0) return;
        balance[token][account] += amount;
        emit Credited(token, account, amount);
    }

    function _requireSplits(bytes32 root, Split[] calldata splits) private pure {
        bytes32 actual = MessageHash.splitRoot(splits);
        require(actual == root, WrongSplits(root, actual));
    }

    function _larger(uint256 a, uint256 b) private pure returns (uint256) {
        return a > b ? a : b;
    }
}
