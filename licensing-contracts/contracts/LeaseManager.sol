// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {MessageDomain} from "./MessageDomain.sol";
import {IAuditServiceManager} from "./interfaces/IAuditServiceManager.sol";
import {ILeaseManager} from "./interfaces/ILeaseManager.sol";
import {IModelRegistry} from "./interfaces/IModelRegistry.sol";
import {IPaymentEscrow} from "./interfaces/IPaymentEscrow.sol";
import {ExactTransfer} from "./libraries/ExactTransfer.sol";
import {MerkleSum} from "./libraries/MerkleSum.sol";
import {MessageHash} from "./libraries/MessageHash.sol";
import {Pricing} from "./libraries/Pricing.sol";
import {UsageSums} from "./libraries/UsageSums.sol";
import {LeaseId, ModelId, TermsId} from "./types/Ids.sol";
import {LicenseTerms, Prices, Statement} from "./types/Messages.sol";

/// @title LeaseManager
/// @dev Described in `ILeaseManager`.
contract LeaseManager is ILeaseManager, MessageDomain, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;
    using ExactTransfer for IERC20;

    /// The reporter's share of what is left of a slashed bond once those who were harmed are whole.
    uint16 public constant REPORTER_BPS = 3000;

    /// @inheritdoc ILeaseManager
    IModelRegistry public immutable REGISTRY;
    /// @inheritdoc ILeaseManager
    IPaymentEscrow public immutable ESCROW;
    IAuditServiceManager public immutable AUDIT;
    /// Seconds between a creator's revocation and the lease's end.
    uint64 public immutable REVOCATION_NOTICE;
    /// @inheritdoc ILeaseManager
    uint64 public immutable CLAIM_DELAY;
    /// Seconds after a lease's end in which its bond is held.
    uint64 public immutable UNBONDING_DELAY;

    mapping(ModelId => mapping(address host => bool)) public excluded;
    uint64 public leases;
    mapping(LeaseId => LeaseRecord) private _leases;

    constructor(
        IModelRegistry registry,
        IPaymentEscrow escrow,
        IAuditServiceManager audit,
        uint64 revocationNotice,
        uint64 claimDelay,
        uint64 unbondingDelay
    ) {
        require(
            address(registry) != address(0) && address(escrow) != address(0) && address(audit) != address(0), Zero()
        );
        // Invariant 5: royalty on the last claim can still be collected from the bond.
        require(claimDelay != 0 && unbondingDelay >= claimDelay + registry.MAX_DISPUTE_WINDOW(), Delays());
        REGISTRY = registry;
        ESCROW = escrow;
        AUDIT = audit;
        REVOCATION_NOTICE = revocationNotice;
        CLAIM_DELAY = claimDelay;
        UNBONDING_DELAY = unbondingDelay;
    }

    modifier onlyHost(LeaseId leaseId) {
        address host = _record(leaseId).host;
        require(msg.sender == host, NotHost(host, msg.sender));
        _;
    }

    modifier onlyAudit() {
        require(msg.sender == address(AUDIT), NotAuthorized(msg.sender));
        _;
    }

    /// @inheritdoc ILeaseManager
    function open(OpenRequest calldata request) external nonReentrant returns (LeaseId leaseId) {
        LicenseTerms memory terms = REGISTRY.terms(request.termsId);
        require(request.leaseKey != address(0), Zero());
        require(request.to > block.timestamp, NotLater(uint64(block.timestamp), request.to));
        _requirePrices(request.prices, terms);
        _requireEligible(request.termsId, terms, msg.sender, request.to, request.bond);

        leaseId = LeaseId.wrap(++leases);
        _leases[leaseId] = LeaseRecord({
            termsId: request.termsId,
            host: msg.sender,
            from: uint64(block.timestamp),
            state: LeaseState.Open,
            ending: false,
            leaseKey: request.leaseKey,
            to: request.to,
            prices: request.prices,
            variantRoot: request.variantRoot,
            bond: request.bond
        });
        emit LeaseOpened(
            leaseId,
            request.termsId,
            msg.sender,
            request.leaseKey,
            request.variantRoot,
            request.endpoint,
            request.prices,
            uint64(block.timestamp),
            request.to,
            request.bond
        );
        IERC20(terms.paymentToken).receiveExactly(msg.sender, request.bond);
    }

    /// @inheritdoc ILeaseManager
    function renew(LeaseId leaseId, uint64 to) external onlyHost(leaseId) {
        LeaseRecord storage record = _leases[leaseId];
        require(record.state == LeaseState.Open, WrongState(LeaseState.Open, record.state));
        require(block.timestamp < record.to, LeaseOver(record.to));
        require(!record.ending, LeaseEnding(record.to));
        require(to > record.to, NotLater(record.to, to));
        _requireEligible(record.termsId, REGISTRY.terms(record.termsId), record.host, to, record.bond);
        record.to = to;
        emit LeaseRenewed(leaseId, to);
    }

    /// @inheritdoc ILeaseManager
    function revoke(LeaseId leaseId) external {
        LeaseRecord storage record = _record(leaseId);
        address creator = REGISTRY.creatorOf(REGISTRY.terms(record.termsId).modelId);
        require(msg.sender == creator, NotCreator(creator, msg.sender));
        _end(leaseId, record, uint64(block.timestamp) + REVOCATION_NOTICE);
    }

    /// @inheritdoc ILeaseManager
    function close(LeaseId leaseId) external onlyHost(leaseId) {
        _end(leaseId, _leases[leaseId], uint64(block.timestamp));
    }

    /// @inheritdoc ILeaseManager
    function addBond(LeaseId leaseId, uint128 amount) external nonReentrant {
        LeaseRecord storage record = _record(leaseId);
        record.bond += amount;
        emit BondAdded(leaseId, amount);
        _token(record).receiveExactly(msg.sender, amount);
    }

    /// @inheritdoc ILeaseManager
    function suspend(LeaseId leaseId) external {
        LeaseRecord storage record = _record(leaseId);
        require(record.state == LeaseState.Open, WrongState(LeaseState.Open, record.state));
        LicenseTerms memory terms = REGISTRY.terms(record.termsId);
        require(
            record.bond < terms.minBond || AUDIT.hostStake(record.host) < terms.minRestake
                || !AUDIT.isHost(record.host),
            CollateralIsEnough()
        );
        _setState(leaseId, record, LeaseState.Suspended);
    }

    /// @inheritdoc ILeaseManager
    function reinstate(LeaseId leaseId) external onlyHost(leaseId) {
        LeaseRecord storage record = _leases[leaseId];
        require(record.state == LeaseState.Suspended, WrongState(LeaseState.Suspended, record.state));
        require(block.timestamp < record.to, LeaseOver(record.to));
        _requireCollateral(REGISTRY.terms(record.termsId), record.host, record.bond);
        _setState(leaseId, record, LeaseState.Open);
    }

    /// @inheritdoc ILeaseManager
    function withdrawBond(LeaseId leaseId) external nonReentrant onlyHost(leaseId) returns (uint128 amount) {
        LeaseRecord storage record = _leases[leaseId];
        uint64 until = record.to + UNBONDING_DELAY;
        require(block.timestamp >= until, BondLocked(until));
        uint256 cases = AUDIT.openCases(leaseId);
        require(cases == 0, CasesOpen(cases));
        uint256 royalty = _royaltyOwed(leaseId, record);
        require(royalty == 0, RoyaltyOwed(royalty));
        amount = record.bond;
        record.bond = 0;
        emit BondWithdrawn(leaseId, amount);
        _token(record).safeTransfer(record.host, amount);
    }

    /// @inheritdoc ILeaseManager
    function setExcluded(ModelId modelId, address host, bool isExcluded) external {
        address creator = REGISTRY.creatorOf(modelId);
        require(msg.sender == creator, NotCreator(creator, msg.sender));
        excluded[modelId][host] = isExcluded;
        emit ExclusionChanged(modelId, host, isExcluded);
    }

    /// @inheritdoc ILeaseManager
    function slashBond(LeaseId leaseId, uint128 wanted, Compensation calldata compensation)
        external
        nonReentrant
        onlyAudit
        returns (uint128 slashed)
    {
        LeaseRecord storage record = _record(leaseId);
        slashed = _take(leaseId, record, wanted);
        uint128 toPayer = compensation.payer == address(0) ? 0 : _atMost(compensation.refund, slashed);
        uint128 left = slashed - toPayer;
        uint128 toCreator = _atMost(compensation.creatorLoss, left);
        left -= toCreator;
        uint128 toReporter = compensation.reporter == address(0) ? 0 : uint128(Pricing.shareDown(left, REPORTER_BPS));
        toCreator += left - toReporter;
        emit BondSlashed(leaseId, toPayer, toCreator, toReporter, compensation.reporter);

        if (slashed == 0) return 0;
        LicenseTerms memory terms = REGISTRY.terms(record.termsId);
        IERC20(terms.paymentToken).forceApprove(address(ESCROW), slashed);
        ESCROW.credit(terms.paymentToken, compensation.payer, toPayer);
        ESCROW.credit(terms.paymentToken, REGISTRY.creatorOf(terms.modelId), toCreator);
        ESCROW.credit(terms.paymentToken, compensation.reporter, toReporter);
    }

    /// @inheritdoc ILeaseManager
    function revokeByVerdict(LeaseId leaseId) external onlyAudit {
        LeaseRecord storage record = _record(leaseId);
        if (block.timestamp < record.to) _end(leaseId, record, uint64(block.timestamp));
        _setState(leaseId, record, LeaseState.Revoked);
    }

    /// @inheritdoc ILeaseManager
    function collectFromBond(LeaseId leaseId, uint128 wanted) external nonReentrant returns (uint128 collected) {
        require(msg.sender == address(ESCROW), NotAuthorized(msg.sender));
        LeaseRecord storage record = _record(leaseId);
        collected = _take(leaseId, record, wanted);
        if (record.state == LeaseState.Open) _setState(leaseId, record, LeaseState.Suspended);
        emit BondCollected(leaseId, collected);
        // Some tokens refuse to move nothing, and a lease without a bond must be suspended all the same.
        if (collected != 0) _token(record).safeTransfer(address(ESCROW), collected);
    }

    /// @inheritdoc ILeaseManager
    function lease(LeaseId leaseId) external view returns (LeaseRecord memory) {
        return _record(leaseId);
    }

    /// @inheritdoc ILeaseManager
    function account(LeaseId leaseId) external view returns (LeaseAccount memory) {
        LeaseRecord storage record = _record(leaseId);
        LicenseTerms memory terms = REGISTRY.terms(record.termsId);
        return LeaseAccount({
            host: record.host,
            leaseKey: record.leaseKey,
            creator: REGISTRY.creatorOf(terms.modelId),
            token: terms.paymentToken,
            claimableUntil: record.to + CLAIM_DELAY,
            disputeWindow: terms.disputeWindow,
            royaltyBps: terms.royaltyBps,
            validatorBps: terms.validatorBps,
            splitRoot: terms.splitRoot,
            prices: record.prices,
            floors: _floors(terms)
        });
    }

    /// @inheritdoc ILeaseManager
    function isActive(LeaseId leaseId) external view returns (bool) {
        LeaseRecord storage record = _leases[leaseId];
        return record.state == LeaseState.Open && block.timestamp < record.to;
    }

    /// @inheritdoc ILeaseManager
    function statementDigest(Statement calldata statement) external view returns (bytes32) {
        return _hashTypedData(MessageHash.hash(statement));
    }

    function _record(LeaseId leaseId) private view returns (LeaseRecord storage record) {
        record = _leases[leaseId];
        require(record.state != LeaseState.None, UnknownLease(leaseId));
    }

    /// @dev On use that was reported and neither claimed nor settled, and what an empty bond could not pay before.
    function _royaltyOwed(LeaseId leaseId, LeaseRecord storage record) private view returns (uint256) {
        LicenseTerms memory terms = REGISTRY.terms(record.termsId);
        MerkleSum.Sums memory unpaid = UsageSums.missing(ESCROW.USAGE().reported(leaseId), ESCROW.settled(leaseId));
        return UsageSums.royaltyDown(unpaid, terms.royaltyBps, _floors(terms)) + ESCROW.royaltyDebt(leaseId);
    }

    function _token(LeaseRecord storage record) private view returns (IERC20) {
        return IERC20(REGISTRY.terms(record.termsId).paymentToken);
    }

    /// @dev What a lease must fulfil when it is opened or extended.
    function _requireEligible(TermsId termsId, LicenseTerms memory terms, address host, uint64 to, uint128 bond)
        private
        view
    {
        require(REGISTRY.termsOpen(termsId), TermsClosedForLeases(termsId));
        require(block.timestamp >= terms.validFrom && to <= terms.validTo, OutsideTerms(terms.validFrom, terms.validTo));
        require(REGISTRY.model(terms.modelId).openChallenges == 0, OwnershipDisputed(terms.modelId));
        require(!excluded[terms.modelId][host], HostExcluded(terms.modelId, host));
        _requireCollateral(terms, host, bond);
    }

    function _requireCollateral(LicenseTerms memory terms, address host, uint128 bond) private view {
        require(bond >= terms.minBond, BondTooSmall(terms.minBond, bond));
        uint256 stake = AUDIT.hostStake(host);
        require(stake >= terms.minRestake && AUDIT.isHost(host), RestakeTooSmall(terms.minRestake, stake));
    }

    /// @dev Floors leave room for the validators' share, so that royalty and shares of a claim never pass the claim.
    function _requirePrices(Prices calldata prices, LicenseTerms memory terms) private pure {
        Prices memory floors = _floors(terms);
        uint256 rest = Pricing.WHOLE_BPS - terms.validatorBps;
        _requireFloor(0, prices.request, floors.request, rest);
        _requireFloor(1, prices.prompt, floors.prompt, rest);
        _requireFloor(2, prices.cached, floors.cached, rest);
        _requireFloor(3, prices.completion, floors.completion, rest);
        require(prices.cached <= prices.prompt, CachedPriceAbovePrice(prices.cached, prices.prompt));
    }

    function _requireFloor(uint256 item, uint128 price, uint128 floor, uint256 rest) private pure {
        uint256 least = uint256(floor) * Pricing.WHOLE_BPS;
        require(uint256(price) * rest >= least, PriceBelowFloor(item, price, floor));
    }

    function _floors(LicenseTerms memory terms) private pure returns (Prices memory) {
        return Prices(terms.floorRequest, terms.floorPrompt, terms.floorCached, terms.floorCompletion);
    }

    /// @dev A lease only ever ends earlier than it would have.
    function _end(LeaseId leaseId, LeaseRecord storage record, uint64 at) private {
        require(at < record.to, LeaseOver(record.to));
        record.to = at;
        record.ending = true;
        emit LeaseEnds(leaseId, at);
    }

    function _setState(LeaseId leaseId, LeaseRecord storage record, LeaseState state) private {
        record.state = state;
        emit LeaseStateChanged(leaseId, state);
    }

    /// @dev Takes from the bond, and suspends a lease whose bond falls short.
    function _take(LeaseId leaseId, LeaseRecord storage record, uint128 wanted) private returns (uint128 taken) {
        taken = _atMost(wanted, record.bond);
        record.bond -= taken;
        if (record.state == LeaseState.Open && record.bond < REGISTRY.terms(record.termsId).minBond) {
            _setState(leaseId, record, LeaseState.Suspended);
        }
    }

    function _atMost(uint128 amount, uint128 limit) private pure returns (uint128) {
        return amount < limit ? amount : limit;
    }
}
