//! What to do when a contract refuses, by the name of its error. The values in the error say the rest.

/// A sentence for a person, or `None` for an error that is nobody's to act upon.
pub(crate) fn advice(error: &str) -> Option<&'static str> {
    registry(error)
        .or_else(|| leases(error))
        .or_else(|| payments(error))
        .or_else(|| audit(error))
        .or_else(|| eigenlayer(error))
        .or_else(|| common(error))
}

fn registry(error: &str) -> Option<&'static str> {
    Some(match error {
        "AlreadyCommitted" => "this root was committed before, and a root is drawn once: generate a new set",
        "AlreadyRecorded" => "it is on the chain already; nothing is left to do",
        "BlockHashUnavailable" => {
            "the chain no longer knows the block that was to draw, or has not reached it: wait for it, or commit a new root"
        }
        "CachedFloorAboveFloor" => {
            "a cached token cannot owe more royalty than one that is not: lower the floor of cached tokens"
        }
        "ChallengeOpen" => "the model's ownership is disputed: wait for the verdict",
        "ChallengeWindowOver" => "ownership can be challenged only shortly after registration",
        "DisputeWindow" => "choose a dispute window between the two for the terms",
        "LeafOutOfRange" => "the commitment has fewer fingerprints: check the numbers",
        "MalformedHeader" | "WrongHeader" | "WrongBlockNumber" => {
            "pass the RLP-encoded header of the commitment's draw block"
        }
        "ManifestTaken" => {
            "these weights are registered already: use that model, or challenge its ownership if they are yours"
        }
        "NotAuditor" => "only the audit contract calls this",
        "NotCreator" => "only the owner of the model's token may: sign with that account",
        "NotDrawn" => "record the randomness of the draw block first",
        "Period" => "the terms must begin before they end, and end in the future",
        "SharesExceedWhole" => "the shares add up to more than 10000 basis points: lower one",
        "SplitRoot" => {
            "the splits are not those that the terms name: compute the root from the same list, in the same order"
        }
        "SplitShare" => "every split needs a recipient and a share",
        "TermsVersion" => "versions of terms follow one another: use the next number",
        "TokenWithoutCode" => "the payment token is no contract on this chain: check its address",
        "TooManySplits" => "name fewer recipients; one of them can be a contract that shares further",
        "UnknownCommitment" => "no such root was committed on this chain",
        "UnknownModel" => "no such model is registered on this chain: check the id and the deployment file",
        "UnknownTerms" => "no such terms are published on this chain: check the id and the deployment file",
        _ => return None,
    })
}

fn leases(error: &str) -> Option<&'static str> {
    Some(match error {
        "BondLocked" => "the bond is held until then, so that claims and disputes can still be paid",
        "BondTooSmall" => "post at least the bond that the terms ask for",
        "CachedPriceAbovePrice" => "a cached token cannot cost more than one that is not: lower its price",
        "CasesOpen" => "accusations against the lease are open: the bond is free when they are closed",
        "CollateralIsEnough" => "the lease's collateral is as its terms ask: there is nothing to suspend",
        "Delays" => "the delays of this deployment contradict each other: see the contract's constructor",
        "HostExcluded" => "the creator does not lease this model to this host",
        "LeaseEnding" => "the lease is being ended: open a new one",
        "LeaseOver" => "the lease has ended, or ends earlier: open a new one",
        "NotAuthorized" => "only another contract of the protocol calls this",
        "NotHost" => "only the host may: sign with the account that holds the lease or the channel",
        "NotLater" => "choose a later end",
        "OutsideTerms" => "the lease must lie within the time for which the terms are valid: choose an earlier end",
        "OwnershipDisputed" => "somebody disputes who owns the model: no leases until the verdict",
        "PriceBelowFloor" => {
            "the price leaves no room for the royalty's floor and the validators' share: raise it (item 0 request, 1 prompt, \
             2 cached, 3 completion)"
        }
        "RoyaltyOwed" => "pay the royalty on what was reported first: claim its vouchers, or settle it",
        "RestakeTooSmall" => {
            "join the hosts' operator set and allocate stake first: `hallmark operator register` and `operator allocate`"
        }
        "TermsClosedForLeases" => "the creator takes no new leases under these terms: use a later version",
        "UnknownLease" => "no such lease on this chain: check the number and the deployment file",
        "WrongState" => "the lease is in another state (1 open, 2 suspended, 3 revoked)",
        _ => return None,
    })
}

fn payments(error: &str) -> Option<&'static str> {
    Some(match error {
        "CachedExceedsPrompt" => "cached tokens are part of the prompt tokens: check the counts",
        "CeilingExceeded" => "the request cost more than the payer's voucher allows: claim it without the statement",
        "CostTooLarge" => "no payment is that large: check prices and counts",
        "CountsDecrease" => {
            "the lane was claimed further than that, or more cached than prompt tokens were added: use the newest voucher"
        }
        "EmptyMismatch" => "an epoch without requests has root 0, and one with requests has another",
        "EpochBeforeLast" => "a later epoch was reported already: reports go forward",
        "EpochTooLong" => {
            "an epoch of this deployment may last a claim interval at most: see the contract's constructor"
        }
        "EpochNotOver" => "report the epoch when it is over",
        "GrantCapExceeded" => "the session key has spent what it may: the payer must grant more, or another key",
        "GrantExpired" => "the session key's grant has ended: the payer must sign a new one",
        "GrantNonce" => "a newer grant of the key is registered: use a higher nonce",
        "GrantReduced" => "a grant can be widened and not narrowed: revoke it, and use another key",
        "InsufficientDeposit" => "the channel's deposit does not cover it: deposit more, or claim other lanes",
        "LeaseNotClaimable" => "the time for claiming under this lease is over",
        "MoreThanReported" => "report the epoch's usage first: a lease is paid for what it reported and no more",
        "NothingAnnounced" => "announce the withdrawal first, and take it after the channel's delay",
        "NothingOwed" | "NothingToPay" => "there is nothing to pay out to this account",
        "NotDue" => "the host still has time to pay this royalty itself",
        "NotEscrow" => "only the escrow calls this",
        "NotNewer" => "the lane was claimed this far already: there is nothing more in this voucher",
        "NotPayer" => "only the payer may: sign with the account that the channel names",
        "OneStatement" => "a claim takes at most one statement: that of the request in flight",
        "PreviousReport" => "another report came between: read the newest one and build on it",
        "RequestCapExceeded" => "the session key may not promise that much for one request",
        "StatementCharge" => "the statement's charge is not what the lease's prices give: it cannot be claimed",
        "StatementCounts" => {
            "the statement does not begin where the voucher ends: pair it with the voucher of its request"
        }
        "StatementOutOfOrder" => "the statement does not follow the one that the voucher accepts",
        "TokenTookFee" => "the token keeps a part of transfers for itself and cannot be used here",
        "TooManyReports" => "an epoch takes four reports: put the rest into the next one",
        "UnknownGrant" => "this key may not sign for the channel: the payer must register a grant",
        "UnknownReport" => "the lease has no such report",
        "VoucherExpired" => "the voucher is too old: ask the payer for a new one",
        "WalletRefused" => "the payer's wallet contract does not accept the signature",
        "WithdrawDelay" => "choose a withdrawal delay between the two",
        "WithdrawalTooEarly" => "the withdrawal is announced; take it when its time has come",
        "WrongChannel" => "this was signed for another channel",
        "WrongLane" => "this was signed for another lane",
        "WrongLease" => "this was signed for another lease, or the lane belongs to one",
        "WrongSplits" => "pass the splits that the lease's terms were published with",
        "WrongToken" => "the channel is in another token than the lease's terms",
        _ => return None,
    })
}

fn audit(error: &str) -> Option<&'static str> {
    Some(match error {
        "AggregateSignature" => "the signatures do not add up to this key and message: aggregate them again",
        "AlreadyChallenged" => "the statement was asked for before",
        "AlreadyPunished" | "ConflictPunished" => "this offence was punished before",
        "AlreadyValidator" => "the operator is a validator already",
        "ChargeIsRight" => "the statement charges what the lease's prices give",
        "Included" | "NotBetween" | "NotAdjacent" | "NotFirst" | "NotLast" | "WrongNeighbourCount" => {
            "the proof does not show that the statement is missing: prove it against the report's own leaves"
        }
        "KeyAtInfinity" | "NotOnCurve" | "PairingRefused" => "this is no BLS key: generate one",
        "KeyTaken" => "the BLS key belongs to another operator: generate your own",
        "LeafMismatch" => "show the leaf of the statement that was asked for",
        "NoChallenge" => "there is no open challenge of it",
        "NoContradiction" => "both can be true: there is nothing to punish",
        "NonSignerOrder" => "list the validators that did not sign once each, by ascending number",
        "NonSignerUnknown" => "the set of validators changed: read it again and aggregate anew",
        "NotAllocationManager" => "only EigenLayer calls this: use `hallmark operator`",
        "NotChallengeable" => "the host still has time to report the statement's epoch",
        "NotCourt" | "NotRegistry" | "NotThisCourt" => "only another contract of the protocol calls this",
        "NotPostdated" => "the statement does not say that it ended in the future",
        "NotSlashable" => "the operator left too long ago to be slashed; the evidence keeps for its return",
        "NotValidator" => "the operator is no active validator",
        "OperatorsNotAscending" | "WrongOperatorCount" => "list all active validators, ascending by address",
        "OtherKey" => "an operator keeps its first BLS key for ever: join with that one, or as another operator",
        "PrecompileFailed" => "the chain lacks the BN254 precompiles, or the point is not on the curve",
        "ProofOfPossession" => "the proof is not a signature of this operator with this key",
        "QuorumMissed" => "too little stake has signed: collect more signatures",
        "ReportedAfterChallenge" => "only a report that was there before the challenge answers it",
        "SumOverflow" | "WrongRoot" | "WrongTotals" => {
            "the path does not lead to the report's root: rebuild it from the epoch's leaves"
        }
        "TooEarly" => "wait until then",
        "TooLate" => "the time for it is over",
        "UnknownOperatorSet" => "the sets are 0 (validators) and 1 (hosts)",
        "UnknownTask" => "no such task on this chain",
        "VerdictMismatch" => "the verdict does not belong to this task, or says what is decided already",
        "WeightTooSmall" => "allocate more stake to the validators' set first",
        "Windows" => "the audit would outlast EigenLayer's deallocation delay: see the contract's constructor",
        "WrongBond" => "send exactly the bond along",
        "WrongEpoch" => "the report is of another epoch",
        "WrongKind" => "ownership is challenged at the registry; other tasks need a kind from 1 to 4",
        "WrongTaskState" => "the task is in another state (1 open, 2 decided, 3 closed)",
        _ => return None,
    })
}

fn eigenlayer(error: &str) -> Option<&'static str> {
    Some(match error {
        "ActivelyDelegated" => "the account's stake is delegated to another operator: undelegate it first",
        "AlreadyMemberOfSet" => "the operator is in this set already",
        "CurrentlyPaused" => "EigenLayer's core is paused on this chain: wait",
        "FullySlashed" => "all stake of the operator was slashed",
        "InsufficientMagnitude" => {
            "the operator has less stake to allocate: lower the share, or deallocate elsewhere first"
        }
        "InvalidOperator" | "OperatorNotRegistered" => {
            "the account is no EigenLayer operator: `hallmark operator register` makes it one"
        }
        "InvalidOperatorSet" => "the audit has no such set: check the deployment file",
        "InvalidPermissions" | "InvalidCaller" | "WithdrawerNotCaller" => {
            "EigenLayer lets only the operator do this, or whom it appointed: sign with that account"
        }
        "ModificationAlreadyPending" => "an earlier change of this allocation has not taken effect: wait for it",
        "NotActivelyDelegated" => "the account's stake is delegated to nobody",
        "NotMemberOfSet" => "the operator is not in this set",
        "OperatorsCannotUndelegate" => "an operator's stake is delegated to itself for good",
        "SameMagnitude" => "this much is allocated already: there is nothing to change",
        "SharesAmountZero" => "the amount is too small to be worth a share: stake more",
        "StrategyNotInOperatorSet" => "the audit does not count stake in this strategy: check the deployment file",
        "StrategyNotWhitelisted" => "EigenLayer takes no deposits into this strategy: check the deployment file",
        "UninitializedAllocationDelay" => {
            "an operator can allocate some blocks after it was registered: wait, and try again"
        }
        "WithdrawalDelayNotElapsed" => "stake is free after EigenLayer's withdrawal delay: wait, and try again",
        "WithdrawalNotQueued" => "queue the withdrawal first",
        _ => return None,
    })
}

fn common(error: &str) -> Option<&'static str> {
    Some(match error {
        "AuthorizationExpired" | "ERC2612ExpiredSignature" => {
            "the token holder's authorization has expired: ask for a new one"
        }
        "AuthorizationIsUsed" => "this authorization was used before: nothing is left to do, or ask for a new one",
        "AuthorizationNotYetValid" => "the token holder's authorization is not valid yet: wait",
        "CallerIsNotPayee" => "only the contract that the authorization names may use it",
        "ECDSAInvalidSignature"
        | "ECDSAInvalidSignatureLength"
        | "ECDSAInvalidSignatureS"
        | "ERC2612InvalidSigner"
        | "InvalidAuthorization"
        | "InvalidAccountNonce" => {
            "the authorization is not signed by the token's holder, or was used: ask for a new one"
        }
        "ERC721IncorrectOwner" | "ERC721InsufficientApproval" => "the model's token belongs to another account",
        "ERC721InvalidReceiver" => "the receiving contract does not take tokens of models",
        "ERC721NonexistentToken" => "no such model is registered on this chain: check the id and the deployment file",
        "ERC20InsufficientAllowance" => "approve the contract for that amount of the token first",
        "ERC20InsufficientBalance" => "the account holds too little of the token",
        "SafeERC20FailedOperation" => "the token refused the transfer: check balance and allowance",
        "SignatureHighS" => "the signature is the second form of another one: sign with a library that follows EIP-2",
        "SignatureLength" => "a signature has 65 bytes",
        "SignatureMalformed" => "this is nobody's signature",
        "WrongSigner" => "signed by another key, or for another chain or contract",
        "Zero" => "an address, amount or digest is zero that must not be",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::client::Revert;

    /// Errors that no call of a user's can meet: those of a token's or a contract's inside, and those of calls that only a
    /// service makes.
    const INTERNAL: &[&str] = &[
        // OpenZeppelin, from arguments that a user does not choose.
        "ERC20InvalidApprover",
        "ERC20InvalidReceiver",
        "ERC20InvalidSender",
        "ERC20InvalidSpender",
        "ERC721InvalidApprover",
        "ERC721InvalidOperator",
        "ERC721InvalidOwner",
        "ERC721InvalidSender",
        "FailedCall",
        "InsufficientBalance",
        "InvalidShortString",
        "ReentrancyGuardReentrantCall",
        "SafeCastOverflowedUintDowncast",
        "StringTooLong",
        // EigenLayer, from calls that the audit contract makes.
        "AmountIsZero",
        "DurationExceedsMax",
        "DurationIsZero",
        "InputArrayLengthMismatch",
        "InvalidAVSRegistrar",
        "InvalidDurationRemainder",
        "InvalidStartTimestampRemainder",
        "InvalidWadToSlash",
        "NonexistentAVSMetadata",
        "OnlyStrategyWhitelister",
        "OperatorNotSlashable",
        "OperatorsNotInAscendingOrder",
        "StartTimestampTooFarInFuture",
        "StartTimestampTooFarInPast",
        "StrategiesMustBeInAscendingOrder",
        "StrategiesNotInAscendingOrder",
        "StrategyAlreadyInOperatorSet",
        "SubmissionNotRetroactive",
    ];

    #[test]
    fn every_error_that_a_user_can_meet_says_what_to_do() {
        let known: BTreeSet<&str> = Revert::known().collect();
        let mute: Vec<&&str> = known.iter().filter(|name| advice(name).is_none() && !INTERNAL.contains(name)).collect();
        assert!(mute.is_empty(), "no advice for {mute:?}");
        // The list is of errors that exist and have no advice, so that it cannot hide a new one.
        let stale: Vec<&&str> =
            INTERNAL.iter().filter(|name| !known.contains(**name) || advice(name).is_some()).collect();
        assert!(stale.is_empty(), "{stale:?}");
    }
}
