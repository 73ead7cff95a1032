// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {LeaseId, ModelId, TermsId} from "../types/Ids.sol";
import {Prices, Statement} from "../types/Messages.sol";
import {IModelRegistry} from "./IModelRegistry.sol";
import {IPaymentEscrow} from "./IPaymentEscrow.sol";

/// @title Leases: who may serve which model, at what price, with what collateral
/// @notice A host opens a lease under one version of a model's terms, at prices of its own, with a bond in the terms' payment
/// token and a restaked allocation. Prices never change: a new price is a new lease.
/// @dev Assumptions and warnings:
/// - Collateral has two layers. The bond lies here and compensates; the allocation lies in EigenLayer and punishes. An
///   allocation is shared by all leases of a host: `minRestake` is checked for each of them, not summed.
/// - The restaked allocation is checked when a lease is opened, renewed or reinstated. EigenLayer lets an operator leave
///   after its deallocation delay, during which it remains slashable; gateways should look at it before they pay.
/// - The creator can end a lease with notice. Vouchers for work that was done stay claimable.
interface ILeaseManager {
    enum LeaseState {
        None,
        Open, // until `to`
        Suspended, // collateral fell short; the host may fill it up and reinstate
        Revoked // by a verdict, for good
    }

    struct LeaseRecord {
        TermsId termsId;
        address host;
        uint64 from; // seconds since 1970
        LeaseState state;
        bool ending; // closed or revoked: it cannot be renewed
        address leaseKey;
        uint64 to;
        Prices prices;
        bytes32 variantRoot;
        uint128 bond;
    }

    struct OpenRequest {
        TermsId termsId;
        address leaseKey;
        bytes32 variantRoot;
        string endpoint;
        Prices prices;
        uint64 to; // seconds since 1970
        uint128 bond; // taken from the caller
    }

    /// All that paying under a lease depends on.
    struct LeaseAccount {
        address host;
        address leaseKey;
        address creator;
        address token;
        uint64 claimableUntil; // seconds since 1970
        uint64 disputeWindow; // seconds
        uint16 royaltyBps;
        uint16 validatorBps;
        bytes32 splitRoot;
        Prices prices;
        Prices floors;
    }

    /// How a slashed part of a bond is shared, in this order.
    struct Compensation {
        address payer; // harmed customer, or 0
        uint128 refund; // at most this to the payer
        uint128 creatorLoss; // then at most this to the creator
        address reporter; // then the reporter's share; the rest goes to the creator
    }

    event LeaseOpened(
        LeaseId indexed leaseId,
        TermsId indexed termsId,
        address indexed host,
        address leaseKey,
        bytes32 variantRoot,
        string endpoint,
        Prices prices,
        uint64 from,
        uint64 to,
        uint128 bond
    );
    event LeaseRenewed(LeaseId indexed leaseId, uint64 to);
    event LeaseEnds(LeaseId indexed leaseId, uint64 to);
    event LeaseStateChanged(LeaseId indexed leaseId, LeaseState state);
    event BondAdded(LeaseId indexed leaseId, uint128 amount);
    event BondWithdrawn(LeaseId indexed leaseId, uint128 amount);
    event BondSlashed(
        LeaseId indexed leaseId, uint128 toPayer, uint128 toCreator, uint128 toReporter, address indexed reporter
    );
    event BondCollected(LeaseId indexed leaseId, uint128 amount);
    event ExclusionChanged(ModelId indexed modelId, address indexed host, bool excluded);

    error Zero();
    error Delays();
    error TermsClosedForLeases(TermsId termsId);
    error OutsideTerms(uint64 validFrom, uint64 validTo);
    error OwnershipDisputed(ModelId modelId);
    error HostExcluded(ModelId modelId, address host);
    error PriceBelowFloor(uint256 item, uint128 price, uint256 least);
    error CachedPriceAbovePrice(uint128 cached, uint128 prompt);
    error BondTooSmall(uint128 least, uint128 actual);
    error RestakeTooSmall(uint128 least, uint256 actual);
    error UnknownLease(LeaseId leaseId);
    error NotHost(address expected, address actual);
    error NotCreator(address expected, address actual);
    error NotAuthorized(address caller);
    error WrongState(LeaseState expected, LeaseState actual);
    error CollateralIsEnough();
    error LeaseOver(uint64 to);
    error LeaseEnding(uint64 to);
    error NotLater(uint64 current, uint64 requested);
    error BondLocked(uint64 until);
    error CasesOpen(uint256 count);
    error RoyaltyOwed(uint256 amount);

    /// @notice Opens a lease for the caller, who must be a member of the hosts' operator set with enough slashable stake.
    function open(OpenRequest calldata request) external returns (LeaseId leaseId);

    /// @notice Extends the caller's running lease at the same prices, within the terms' validity.
    function renew(LeaseId leaseId, uint64 to) external;

    /// @notice Ends a lease after `REVOCATION_NOTICE`; only the model's creator. Nothing that was earned is lost.
    function revoke(LeaseId leaseId) external;

    /// @notice Ends the caller's lease now. The bond is free after `UNBONDING_DELAY`.
    function close(LeaseId leaseId) external;

    /// @notice Adds to a lease's bond. Anybody may.
    function addBond(LeaseId leaseId, uint128 amount) external;

    /// @notice Suspends a lease whose bond or restaked allocation fell below its terms. Anybody may call it.
    function suspend(LeaseId leaseId) external;

    /// @notice Opens a suspended lease again once its collateral is whole; the host calls it.
    function reinstate(LeaseId leaseId) external;

    /// @notice Returns the bond of an ended lease to its host, when nothing can be demanded of it any more: no case is open, and
    /// the royalty on everything that was reported is paid.
    function withdrawBond(LeaseId leaseId) external returns (uint128 amount);

    /// @notice Keeps a host from opening or renewing leases of a model; only its creator.
    function setExcluded(ModelId modelId, address host, bool isExcluded) external;

    /// @notice Takes `wanted`, or what there is, from the bond and shares it out; only the audit. Suspends the lease if the
    /// bond is below the terms' minimum then.
    function slashBond(LeaseId leaseId, uint128 wanted, Compensation calldata compensation)
        external
        returns (uint128 slashed);

    /// @notice Ends a lease at once and for good; only the audit.
    function revokeByVerdict(LeaseId leaseId) external;

    /// @notice Takes unpaid royalty, or what there is, from the bond and suspends the lease; only the escrow, which receives it.
    function collectFromBond(LeaseId leaseId, uint128 wanted) external returns (uint128 collected);

    function REGISTRY() external view returns (IModelRegistry);
    function ESCROW() external view returns (IPaymentEscrow);
    /// @notice Seconds after a lease's end in which its use can be reported and its vouchers claimed.
    function CLAIM_DELAY() external view returns (uint64);
    function lease(LeaseId leaseId) external view returns (LeaseRecord memory);
    function account(LeaseId leaseId) external view returns (LeaseAccount memory);
    /// @notice Whether the host may serve under the lease now.
    function isActive(LeaseId leaseId) external view returns (bool);
    /// @notice The EIP-712 digest that a lease key signs for a statement.
    function statementDigest(Statement calldata statement) external view returns (bytes32);
}
