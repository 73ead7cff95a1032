// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC721} from "@openzeppelin/contracts/token/ERC721/IERC721.sol";

import {ModelId, TaskId, TermsId} from "../types/Ids.sol";
import {LicenseTerms, Split} from "../types/Messages.sol";

/// @title Models, their licences and their fingerprint commitments
/// @notice A model is an ERC-721 token. Whoever owns it is its creator here: publishes terms, commits to fingerprints, and
/// is paid royalties. Nothing that was published can be changed, by its owner or by anybody else.
/// @dev Assumptions and warnings:
/// - The registry cannot know who made a model. The first to register a manifest holds it until a challenge succeeds;
///   royalties that were paid until then stay where they went.
/// - A manifest that somebody else registered first, in the same block or years ago, can only be won by a challenge.
/// - Ownership can be challenged within `CHALLENGE_WINDOW` of the model's newest manifest and not later, so that a quorum of
///   validators that turns bad cannot take established models. A newer version opens the window again, for the whole model;
///   a creator that minds registers it as a model of its own, with the first as its parent.
interface IModelRegistry is IERC721 {
    /// What is known of a model.
    struct Model {
        bytes32 manifestDigest; // the newest version's
        string uri; // where the manifest can be read
        uint64 registeredAt; // seconds since 1970
        uint64 publishedAt; // the newest version, seconds since 1970
        uint32 manifestVersion; // from 1
        uint32 termsVersion; // of the newest terms, 0: none
        uint64 openChallenges; // of its ownership
    }

    /// A promise of fingerprints, made before the randomness that draws their responses.
    struct FingerprintCommitment {
        ModelId modelId;
        uint64 drawBlock; // the block whose randomness draws
        uint32 fingerprints;
        bytes32 beacon; // that randomness, 0: not recorded yet
        bytes32 setRoot; // root of the drawn set, 0: not published
    }

    event ModelRegistered(
        ModelId indexed modelId, address indexed creator, bytes32 indexed manifestDigest, ModelId[] parents, string uri
    );
    event ManifestPublished(ModelId indexed modelId, uint32 version, bytes32 indexed manifestDigest, string uri);
    event TermsPublished(ModelId indexed modelId, TermsId indexed termsId, LicenseTerms terms, Split[] splits);
    event TermsClosed(ModelId indexed modelId, TermsId indexed termsId);
    event FingerprintsCommitted(ModelId indexed modelId, bytes32 indexed root, uint32 fingerprints, uint64 drawBlock);
    event BeaconRecorded(bytes32 indexed root, bytes32 beacon);
    event SetPublished(bytes32 indexed root, bytes32 setRoot);
    event LeavesBurned(bytes32 indexed root, uint32[] leaves);
    event ChallengeOpened(ModelId indexed modelId, TaskId indexed taskId, address indexed challenger);
    event ChallengeResolved(ModelId indexed modelId, TaskId indexed taskId, bool upheld);

    error Zero();
    error ManifestTaken(ModelId by);
    error UnknownModel(ModelId modelId);
    error UnknownTerms(TermsId termsId);
    error UnknownCommitment(bytes32 root);
    error NotCreator(address caller);
    error TermsVersion(uint32 expected, uint32 actual);
    error TokenWithoutCode(address token);
    error SharesExceedWhole(uint256 bps);
    error CachedFloorAboveFloor(uint128 cached, uint128 prompt);
    error Period(uint64 from, uint64 to);
    error DisputeWindow(uint64 least, uint64 longest, uint64 actual);
    error SplitRoot(bytes32 expected, bytes32 actual);
    error TooManySplits(uint256 actual, uint256 most);
    error SplitShare(address recipient, uint16 bps);
    error AlreadyCommitted(bytes32 root);
    error AlreadyRecorded(bytes32 root);
    error NotDrawn(bytes32 root);
    error LeafOutOfRange(uint32 leaf, uint32 fingerprints);
    error ChallengeWindowOver(uint64 until);
    error ChallengeOpen(uint64 count);
    error NoChallenge(ModelId modelId);
    error NotAuditor(address caller);

    /// @notice Registers a model to the caller.
    /// @param manifestDigest Hash over weights, tokenizer, template and configuration; registered nowhere before.
    /// @param parents Registered models that it was made from, as its creator declares them. They are paid only if the
    /// terms name their owners among the splits.
    function register(bytes32 manifestDigest, ModelId[] calldata parents, string calldata uri)
        external
        returns (ModelId modelId);

    /// @notice Adds a newer version of the weights. Terms, leases and commitments are the model's and go on.
    function publishManifest(ModelId modelId, bytes32 manifestDigest, string calldata uri) external;

    /// @notice Publishes a version of the licence. It cannot be changed; a later version applies to later leases only.
    /// @param splits Who shares the royalty; the creator takes what is left. `terms.splitRoot` is their digest.
    function publishTerms(LicenseTerms calldata terms, Split[] calldata splits) external returns (TermsId termsId);

    /// @notice Stops new leases under the terms. Those that run go on to their end.
    function closeTerms(TermsId termsId) external;

    /// @notice Commits to `fingerprints` keys and candidate lists under a Merkle root, once and for ever.
    /// @dev The draw uses the randomness of one fixed later block, so its creator cannot choose it by waiting. He can try
    /// again with another root; every root that he committed stays visible here.
    function commitFingerprints(ModelId modelId, bytes32 root, uint32 fingerprints) external;

    /// @notice Records the randomness of the commitment's draw block. Anybody can, while the chain still knows the block's hash.
    /// @param header The block's RLP-encoded header.
    function recordBeacon(bytes32 root, bytes calldata header) external returns (bytes32 beacon);

    /// @notice Publishes the root of the drawn set.
    function publishSet(bytes32 root, bytes32 setRoot) external;

    /// @notice Marks fingerprints as opened to the public: they prove nothing any more.
    function burnOpened(bytes32 root, uint32[] calldata leaves) external;

    /// @notice Disputes who owns a model. Pays the audit's bond; validators decide. The token cannot move until then, but by the
    /// verdict on another challenge.
    /// @param evidenceRoot Digest of the evidence that validators are going to read.
    function challenge(ModelId modelId, bytes32 evidenceRoot) external payable returns (TaskId taskId);

    /// @notice Ends a challenge; only the audit calls it. Upheld, the token moves to the challenger.
    function resolveChallenge(ModelId modelId, TaskId taskId, address challenger, bool upheld) external;

    /// @notice Shortest time that terms may give for settling reported usage, in seconds. Royalty that is enforced counts the
    /// usage as settled, and vouchers for it pay nothing any more, so a host must have had the time to claim them.
    function MIN_DISPUTE_WINDOW() external view returns (uint64);
    /// @notice Longest such time, in seconds; bonds are held longer than that.
    function MAX_DISPUTE_WINDOW() external view returns (uint64);
    function model(ModelId modelId) external view returns (Model memory);
    function terms(TermsId termsId) external view returns (LicenseTerms memory);
    function termsOpen(TermsId termsId) external view returns (bool);
    function modelOf(bytes32 manifestDigest) external view returns (ModelId);
    function commitment(bytes32 root) external view returns (FingerprintCommitment memory);
    function isBurned(bytes32 root, uint32 leaf) external view returns (bool);
    /// @notice How many roots a model has committed: a proof's error bound holds for each of them.
    function commitments(ModelId modelId) external view returns (uint256);
    function creatorOf(ModelId modelId) external view returns (address);
}
