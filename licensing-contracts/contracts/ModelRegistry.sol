// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ERC721, IERC721} from "@openzeppelin/contracts/token/ERC721/ERC721.sol";

import {MessageDomain} from "./MessageDomain.sol";
import {IAuditServiceManager} from "./interfaces/IAuditServiceManager.sol";
import {IModelRegistry} from "./interfaces/IModelRegistry.sol";
import {BlockHeader} from "./libraries/BlockHeader.sol";
import {MessageHash} from "./libraries/MessageHash.sol";
import {Pricing} from "./libraries/Pricing.sol";
import {ModelId, TaskId, TermsId} from "./types/Ids.sol";
import {LicenseTerms, Split} from "./types/Messages.sol";

/// @title ModelRegistry
/// @dev Described in `IModelRegistry`.
contract ModelRegistry is IModelRegistry, ERC721, MessageDomain {
    /// Most recipients of a royalty: each one is paid in every claim.
    uint256 public constant MAX_SPLITS = 8;
    /// @inheritdoc IModelRegistry
    uint64 public constant MAX_DISPUTE_WINDOW = 7 days;
    /// @inheritdoc IModelRegistry
    uint64 public immutable MIN_DISPUTE_WINDOW;
    /// Blocks between a commitment and the one that draws: more than a proposer can foresee his own turn's randomness in.
    uint64 public immutable DRAW_DELAY_BLOCKS;
    /// Seconds after registration within which ownership can be challenged.
    uint64 public immutable CHALLENGE_WINDOW;
    /// Where validators decide.
    IAuditServiceManager public immutable AUDIT;

    /// @inheritdoc IModelRegistry
    mapping(bytes32 manifestDigest => ModelId) public modelOf;
    /// @inheritdoc IModelRegistry
    mapping(TermsId => bool) public termsOpen;
    /// @inheritdoc IModelRegistry
    mapping(ModelId => uint256) public commitments;
    mapping(ModelId => Model) private _models;
    mapping(TermsId => LicenseTerms) private _terms;
    mapping(bytes32 root => FingerprintCommitment) private _commitments;
    mapping(bytes32 root => mapping(uint256 word => uint256 bits)) private _burned;

    constructor(IAuditServiceManager audit, uint64 drawDelayBlocks, uint64 challengeWindow, uint64 minDisputeWindow)
        ERC721("Hallmark Model", "HALLMARK")
    {
        require(address(audit) != address(0) && drawDelayBlocks != 0 && minDisputeWindow != 0, Zero());
        require(
            minDisputeWindow <= MAX_DISPUTE_WINDOW,
            DisputeWindow(minDisputeWindow, MAX_DISPUTE_WINDOW, minDisputeWindow)
        );
        AUDIT = audit;
        DRAW_DELAY_BLOCKS = drawDelayBlocks;
        CHALLENGE_WINDOW = challengeWindow;
        MIN_DISPUTE_WINDOW = minDisputeWindow;
    }

    modifier onlyCreator(ModelId modelId) {
        _requireCreator(modelId);
        _;
    }

    /// @inheritdoc IModelRegistry
    function register(bytes32 manifestDigest, ModelId[] calldata parents, string calldata uri)
        external
        returns (ModelId modelId)
    {
        modelId = ModelId.wrap(uint256(keccak256(abi.encode(block.chainid, address(this), msg.sender, manifestDigest))));
        _claimManifest(modelId, manifestDigest);
        for (uint256 i = 0; i < parents.length; ++i) {
            creatorOf(parents[i]);
        }
        Model storage record = _models[modelId];
        record.manifestDigest = manifestDigest;
        record.uri = uri;
        (record.registeredAt, record.publishedAt) = (uint64(block.timestamp), uint64(block.timestamp));
        record.manifestVersion = 1;
        emit ModelRegistered(modelId, msg.sender, manifestDigest, parents, uri);
        // Not `_safeMint`: a callback would run before the caller knows the token, and a wallet without it can still sell.
        _mint(msg.sender, ModelId.unwrap(modelId));
    }

    /// @inheritdoc IModelRegistry
    function publishManifest(ModelId modelId, bytes32 manifestDigest, string calldata uri)
        external
        onlyCreator(modelId)
    {
        _claimManifest(modelId, manifestDigest);
        Model storage record = _models[modelId];
        record.manifestDigest = manifestDigest;
        record.uri = uri;
        // Or a thief could put stolen weights under an established model, where nobody could challenge them.
        record.publishedAt = uint64(block.timestamp);
        emit ManifestPublished(modelId, ++record.manifestVersion, manifestDigest, uri);
    }

    /// @inheritdoc IModelRegistry
    function publishTerms(LicenseTerms calldata newTerms, Split[] calldata splits)
        external
        onlyCreator(newTerms.modelId)
        returns (TermsId termsId)
    {
        uint32 version = ++_models[newTerms.modelId].termsVersion;
        require(newTerms.version == version, TermsVersion(version, newTerms.version));
        require(newTerms.paymentToken.code.length != 0, TokenWithoutCode(newTerms.paymentToken));
        uint256 shares = uint256(newTerms.royaltyBps) + newTerms.validatorBps;
        require(shares <= Pricing.WHOLE_BPS, SharesExceedWhole(shares));
        require(
            newTerms.floorCached <= newTerms.floorPrompt,
            CachedFloorAboveFloor(newTerms.floorCached, newTerms.floorPrompt)
        );
        // Times of the far future would overflow sums of times in the contracts that read the terms.
        require(
            newTerms.validFrom < newTerms.validTo && newTerms.validTo > block.timestamp
                && newTerms.validTo <= type(uint40).max,
            Period(newTerms.validFrom, newTerms.validTo)
        );
        require(
            newTerms.disputeWindow >= MIN_DISPUTE_WINDOW && newTerms.disputeWindow <= MAX_DISPUTE_WINDOW,
            DisputeWindow(MIN_DISPUTE_WINDOW, MAX_DISPUTE_WINDOW, newTerms.disputeWindow)
        );
        _requireSplits(newTerms.splitRoot, splits);

        termsId = TermsId.wrap(_hashTypedData(MessageHash.hash(newTerms)));
        _terms[termsId] = newTerms;
        termsOpen[termsId] = true;
        emit TermsPublished(newTerms.modelId, termsId, newTerms, splits);
    }

    /// @inheritdoc IModelRegistry
    function closeTerms(TermsId termsId) external onlyCreator(terms(termsId).modelId) {
        termsOpen[termsId] = false;
        emit TermsClosed(_terms[termsId].modelId, termsId);
    }

    /// @inheritdoc IModelRegistry
    function commitFingerprints(ModelId modelId, bytes32 root, uint32 fingerprints) external onlyCreator(modelId) {
        require(root != 0 && fingerprints != 0, Zero());
        // Also a root that lapsed undrawn: whoever saw its randomness could otherwise let it pass and try the next block.
        require(_commitments[root].drawBlock == 0, AlreadyCommitted(root));
        uint64 drawBlock = uint64(block.number) + DRAW_DELAY_BLOCKS;
        _commitments[root] = FingerprintCommitment(modelId, drawBlock, fingerprints, 0, 0);
        ++commitments[modelId];
        emit FingerprintsCommitted(modelId, root, fingerprints, drawBlock);
    }

    /// @inheritdoc IModelRegistry
    function recordBeacon(bytes32 root, bytes calldata header) external returns (bytes32 beacon) {
        FingerprintCommitment storage record = _commitments[root];
        require(record.drawBlock != 0, UnknownCommitment(root));
        require(record.beacon == 0, AlreadyRecorded(root));
        beacon = BlockHeader.randomness(header, record.drawBlock);
        record.beacon = beacon;
        emit BeaconRecorded(root, beacon);
    }

    /// @inheritdoc IModelRegistry
    function publishSet(bytes32 root, bytes32 setRoot) external onlyCreator(_commitments[root].modelId) {
        FingerprintCommitment storage record = _commitments[root];
        require(setRoot != 0, Zero());
        require(record.beacon != 0, NotDrawn(root));
        require(record.setRoot == 0, AlreadyRecorded(root));
        record.setRoot = setRoot;
        emit SetPublished(root, setRoot);
    }

    /// @inheritdoc IModelRegistry
    function burnOpened(bytes32 root, uint32[] calldata leaves) external onlyCreator(_commitments[root].modelId) {
        uint32 fingerprints = _commitments[root].fingerprints;
        for (uint256 i = 0; i < leaves.length; ++i) {
            require(leaves[i] < fingerprints, LeafOutOfRange(leaves[i], fingerprints));
            _burned[root][leaves[i] >> 8] |= 1 << (leaves[i] & 0xff);
        }
        emit LeavesBurned(root, leaves);
    }

    /// @inheritdoc IModelRegistry
    function challenge(ModelId modelId, bytes32 evidenceRoot) external payable returns (TaskId taskId) {
        address creator = creatorOf(modelId);
        Model storage record = _models[modelId];
        uint64 until = record.publishedAt + CHALLENGE_WINDOW;
        require(block.timestamp <= until, ChallengeWindowOver(until));
        // Any number at a time: a thief could otherwise keep everybody out by challenging itself.
        ++record.openChallenges;
        taskId = AUDIT.openOwnershipTask{value: msg.value}(modelId, msg.sender, creator, evidenceRoot);
        emit ChallengeOpened(modelId, taskId, msg.sender);
    }

    /// @inheritdoc IModelRegistry
    function resolveChallenge(ModelId modelId, TaskId taskId, address challenger, bool upheld) external {
        require(msg.sender == address(AUDIT), NotAuditor(msg.sender));
        Model storage record = _models[modelId];
        require(record.openChallenges != 0, NoChallenge(modelId));
        --record.openChallenges;
        emit ChallengeResolved(modelId, taskId, upheld);
        // Whatever other challenges are open. No receiver hook: a challenger's contract could otherwise refuse the token and
        // keep the challenge open for ever.
        if (upheld) super._update(challenger, ModelId.unwrap(modelId), address(0));
    }

    /// @inheritdoc IModelRegistry
    function model(ModelId modelId) external view returns (Model memory) {
        return _models[modelId];
    }

    /// @inheritdoc IModelRegistry
    function terms(TermsId termsId) public view returns (LicenseTerms memory found) {
        found = _terms[termsId];
        require(found.version != 0, UnknownTerms(termsId));
    }

    /// @inheritdoc IModelRegistry
    function commitment(bytes32 root) external view returns (FingerprintCommitment memory) {
        return _commitments[root];
    }

    /// @inheritdoc IModelRegistry
    function isBurned(bytes32 root, uint32 leaf) external view returns (bool) {
        return _burned[root][leaf >> 8] >> (leaf & 0xff) & 1 == 1;
    }

    /// @inheritdoc IModelRegistry
    function creatorOf(ModelId modelId) public view returns (address creator) {
        creator = _ownerOf(ModelId.unwrap(modelId));
        require(creator != address(0), UnknownModel(modelId));
    }

    function tokenURI(uint256 tokenId) public view override returns (string memory) {
        creatorOf(ModelId.wrap(tokenId));
        return _models[ModelId.wrap(tokenId)].uri;
    }

    /// @dev A challenged token stays where it is, or a thief could sell it before the verdict.
    function _update(address to, uint256 tokenId, address authorized) internal override returns (address from) {
        uint64 open = _models[ModelId.wrap(tokenId)].openChallenges;
        require(open == 0, ChallengeOpen(open));
        return super._update(to, tokenId, authorized);
    }

    function _requireCreator(ModelId modelId) private view {
        require(msg.sender == creatorOf(modelId), NotCreator(msg.sender));
    }

    function _claimManifest(ModelId modelId, bytes32 manifestDigest) private {
        require(manifestDigest != 0, Zero());
        ModelId holder = modelOf[manifestDigest];
        require(ModelId.unwrap(holder) == 0, ManifestTaken(holder));
        modelOf[manifestDigest] = modelId;
    }

    function _requireSplits(bytes32 root, Split[] calldata splits) private pure {
        require(splits.length <= MAX_SPLITS, TooManySplits(splits.length, MAX_SPLITS));
        bytes32 actual = MessageHash.splitRoot(splits);
        require(actual == root, SplitRoot(root, actual));
        uint256 shares = 0;
        for (uint256 i = 0; i < splits.length; ++i) {
            require(
                splits[i].recipient != address(0) && splits[i].bps != 0, SplitShare(splits[i].recipient, splits[i].bps)
            );
            shares += splits[i].bps;
        }
        require(shares <= Pricing.WHOLE_BPS, SharesExceedWhole(shares));
    }
}
