// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// A model: the ERC-721 token of `ModelRegistry` that owns the rights to it.
type ModelId is uint256;

/// One immutable version of a model's licence: the EIP-712 digest of its `LicenseTerms`.
type TermsId is bytes32;

/// A host's right to serve under one version of the terms, numbered from 1 by `LeaseManager`.
type LeaseId is uint64;

/// An escrow relation from one payer to one host in one token: the EIP-712 digest of its `Channel`.
type ChannelId is bytes32;

/// One audit, numbered from 1 by `AuditServiceManager`.
type TaskId is uint64;

using {sameLease as ==} for LeaseId global;
using {sameChannel as ==} for ChannelId global;

function sameLease(LeaseId a, LeaseId b) pure returns (bool) {
    return LeaseId.unwrap(a) == LeaseId.unwrap(b);
}

function sameChannel(ChannelId a, ChannelId b) pure returns (bool) {
    return ChannelId.unwrap(a) == ChannelId.unwrap(b);
}
