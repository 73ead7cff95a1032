// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {MerkleSum} from "../libraries/MerkleSum.sol";
import {ChannelId, LeaseId} from "../types/Ids.sol";
import {Channel, SessionGrant, Split, Statement, Voucher} from "../types/Messages.sol";
import {IUsageLog} from "./IUsageLog.sol";

/// @title Deposits, vouchers, and claims that cannot be made without paying the creator
/// @notice A payer deposits into a channel with one host. Every request is paid by a cumulative voucher on a lane of the
/// channel. A claim turns vouchers into balances: the host's, the creator's and its splits', the validators', in one call.
/// Balances are taken out by `payOut`, so that nobody's refusal to be paid can stop anybody else's payment.
/// @dev Assumptions and warnings:
/// - A claim depends on nothing but counts that the payer signed, and on prices and shares that were published before.
/// - A payer that is a wallet contract (ERC-1271) can stop accepting its own signatures at any time. A host should accept
///   its vouchers only if they are signed by a key under a registered grant, which the wallet cannot take back at once.
/// - Tokens that take fees are refused. A token whose balances shrink by themselves harms its own depositors only: the
///   last ones to withdraw find nothing. Do not publish terms in such a token.
/// - Once a withdrawal is announced, its amount is free after the channel's delay. A host that does not claim by then, at
///   least two claim intervals later, trusts the payer.
interface IPaymentEscrow {
    struct ChannelState {
        uint128 deposited; // everything that ever came in, less withdrawals
        uint128 spent; // everything that was claimed
        uint128 withdrawal; // announced
        uint64 withdrawableAt; // seconds since 1970, 0: nothing is announced
    }

    /// A lane of a channel; it belongs to the lease of its first claim.
    struct Lane {
        LeaseId leaseId; // 0: never claimed
        uint48 requests;
        uint48 promptTokens;
        uint48 cachedTokens;
        uint48 completionTokens;
    }

    struct Grant {
        uint128 cap;
        uint128 spent; // claimed under it
        uint128 perRequestCap;
        uint64 expiresAt; // seconds since 1970
        uint64 nonce;
        bool registered;
    }

    /// A voucher with what proves it. With a statement, the request in flight is claimed too.
    struct Claim {
        Channel channel;
        Voucher voucher;
        bytes signature; // of the payer, or of a granted key
        Statement[] inFlight; // none or one
        bytes statementSignature; // of the lease key
    }

    /// Claims under one lease, with the recipients that its terms name.
    struct LeaseClaims {
        LeaseId leaseId;
        Split[] splits;
        Claim[] claims;
    }

    event Deposited(ChannelId indexed channelId, address indexed from, uint128 amount, Channel channel);
    event WithdrawalAnnounced(ChannelId indexed channelId, uint128 amount, uint64 withdrawableAt);
    event WithdrawalCancelled(ChannelId indexed channelId);
    event Withdrawn(ChannelId indexed channelId, uint128 amount);
    event Released(ChannelId indexed channelId, uint128 amount);
    event GrantRegistered(ChannelId indexed channelId, address indexed key, SessionGrant grant);
    event GrantRevoked(ChannelId indexed channelId, address indexed key, uint64 expiresAt);
    event Claimed(
        ChannelId indexed channelId,
        LeaseId indexed leaseId,
        uint64 lane,
        Lane counts,
        uint256 cost,
        uint256 royalty,
        uint256 validatorShare,
        bytes32 statement // digest of the claimed request in flight, or 0
    );
    event RoyaltySettled(LeaseId indexed leaseId, MerkleSum.Sums used, uint256 royalty);
    event RoyaltyEnforced(LeaseId indexed leaseId, uint256 reportIndex, uint256 owed, uint256 collected);
    event Credited(address indexed token, address indexed account, uint256 amount);
    event PaidOut(address indexed token, address indexed account, uint256 amount);

    error Zero();
    error Delays();
    error WithdrawDelay(uint64 least, uint64 longest, uint64 actual);
    error NotPayer(address expected, address actual);
    error NotHost(address expected, address actual);
    error WrongToken(address expected, address actual);
    error WrongChannel(ChannelId expected, ChannelId actual);
    error WrongLease(LeaseId expected, LeaseId actual);
    error WrongLane(uint64 expected, uint64 actual);
    error WrongSplits(bytes32 expected, bytes32 actual);
    error InsufficientDeposit(uint256 available, uint256 needed);
    error NothingAnnounced();
    error WithdrawalTooEarly(uint64 withdrawableAt);
    error UnknownGrant(ChannelId channelId, address key);
    error GrantNonce(uint64 current, uint64 actual);
    error GrantExpired(uint64 expiredAt);
    error GrantCapExceeded(uint256 cap, uint256 needed);
    error RequestCapExceeded(uint128 perRequestCap, uint128 ceiling);
    error VoucherExpired(uint64 expiredAt);
    error NotNewer(uint48 claimed, uint48 requests);
    error CeilingExceeded(uint128 ceiling, uint256 cost);
    error OneStatement(uint256 given);
    error StatementOutOfOrder(bytes32 expectedPrevious, bytes32 actualPrevious);
    error StatementCounts();
    error StatementCharge(uint256 expected, uint128 actual);
    error LeaseNotClaimable(uint64 until);
    error MoreThanReported(MerkleSum.Sums reported, MerkleSum.Sums settled);
    error NothingOwed();
    error GrantReduced();
    error NotDue(uint64 dueAt);
    error NothingToPay(address token, address account);

    /// @notice Deposits into a channel; the tokens are taken from the caller. Anybody may, the deposit is the payer's.
    function deposit(Channel calldata channel, uint128 amount) external returns (ChannelId channelId);

    /// @notice Deposits with the caller's ERC-2612 permit.
    /// @dev A permit that somebody already used, to get in the way, is no failure: the allowance is then there.
    function depositWithPermit(
        Channel calldata channel,
        uint128 amount,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external returns (ChannelId channelId);

    /// @notice Deposits with an ERC-3009 authorization of the payer, whoever sends it.
    /// @dev The authorization's nonce must be `authorizationNonce(channelId, salt)`, so that nobody can turn it to another
    /// channel.
    function depositWithAuthorization(
        Channel calldata channel,
        uint128 amount,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 salt,
        bytes calldata signature
    ) external returns (ChannelId channelId);

    /// @notice Where plain transfers, from an exchange or a wallet that knows nothing of Hallmark, reach a channel.
    /// @dev Only the channel's own token can be booked there: any other that is sent to it stays there for ever.
    function depositAddress(ChannelId channelId) external view returns (address);

    /// @notice Books what was transferred to a channel's deposit address.
    function collectDeposit(Channel calldata channel) external returns (uint128 amount);

    /// @notice Announces a withdrawal; the payer calls it. A second announcement replaces the first and starts anew.
    function initiateWithdraw(Channel calldata channel, uint128 amount) external;
    function cancelWithdraw(Channel calldata channel) external;

    /// @notice Takes out what was announced, or what is left of it, once the delay is over. It goes to the payer.
    function withdraw(Channel calldata channel) external returns (uint128 amount);

    /// @notice Gives unspent deposit back without delay; the host calls it when it has nothing left to claim. What was announced
    /// for withdrawal is served by it first.
    function release(Channel calldata channel, uint128 amount) external;

    /// @notice Lets a key sign vouchers for a channel, within caps, under the payer's signature. A later grant to the same key
    /// may widen the first and not narrow it: vouchers that are out could not be claimed.
    function registerGrant(Channel calldata channel, SessionGrant calldata grant, bytes calldata signature) external;

    /// @notice Ends a key's grant after `GRANT_THAW`; the payer calls it. The key cannot be granted again on this channel.
    function revokeGrant(Channel calldata channel, address key) external;

    /// @notice Turns vouchers into money; the host of every one of their channels calls it.
    function claimBatch(LeaseClaims[] calldata batch) external returns (uint256 paid);

    /// @notice Pays the royalty on reported use that was billed outside of this escrow, from the tokens of the
    /// host, who calls it.
    /// @dev What is settled here counts as claimed: vouchers for the same use cannot be claimed any more.
    function settleRoyalty(LeaseId leaseId, MerkleSum.Sums calldata used, Split[] calldata splits)
        external
        returns (uint256 royalty);

    /// @notice Collects the royalty on use that was reported and neither claimed nor settled in time, from the lease's bond,
    /// and suspends the lease. Anybody may call it.
    function enforceRoyalty(LeaseId leaseId, uint256 reportIndex, Split[] calldata splits)
        external
        returns (uint256 collected);

    /// @notice Adds the caller's tokens to an account's balance.
    function credit(address token, address account, uint128 amount) external;

    /// @notice Sends an account its balance. Anybody may call it.
    function payOut(address token, address account) external returns (uint256 amount);

    function USAGE() external view returns (IUsageLog);
    /// @notice Seconds within which a host is expected to claim what it holds.
    function CLAIM_INTERVAL() external view returns (uint64);
    function channelId(Channel calldata channel) external view returns (ChannelId);
    function channelState(ChannelId channelId) external view returns (ChannelState memory);
    function lane(ChannelId channelId, uint64 lane) external view returns (Lane memory);
    function grant(ChannelId channelId, address key) external view returns (Grant memory);
    function balance(address token, address account) external view returns (uint256);
    /// @notice Use of a lease that was claimed or settled; never more than was reported.
    function settled(LeaseId leaseId) external view returns (MerkleSum.Sums memory);
    /// @notice Royalty that a lease's bond could not pay.
    function royaltyDebt(LeaseId leaseId) external view returns (uint256);
    function voucherDigest(Voucher calldata voucher) external view returns (bytes32);
    function grantDigest(SessionGrant calldata grant) external view returns (bytes32);
    function authorizationNonce(ChannelId channelId, bytes32 salt) external pure returns (bytes32);
}
