// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {MessageDomain} from "./MessageDomain.sol";
import {IAuditServiceManager} from "./interfaces/IAuditServiceManager.sol";
import {IAllocationManager, IAVSRegistrar, OperatorSet} from "./interfaces/eigenlayer/IEigenLayer.sol";
import {BN254} from "./libraries/BN254.sol";
import {MessageHash} from "./libraries/MessageHash.sol";
import {Verdict} from "./types/Messages.sol";

/// @title The audit's operator sets, and what a quorum of validators signed
/// @dev Keys and weights of active validators are kept as one hash each; whoever submits a verdict passes those of the
/// non-signers. That costs one storage read for each of them, where storing points costs three.
abstract contract ValidatorSet is IAuditServiceManager, IAVSRegistrar, MessageDomain {
    using SafeCast for uint256;

    uint32 public constant VALIDATORS = 0;
    uint32 public constant HOSTS = 1;
    /// Share of the validators' weight that a verdict needs.
    uint256 public constant QUORUM_BPS = 6_667;
    bytes32 private constant POSSESSION = keccak256("Hallmark BLS proof of possession");

    IAllocationManager public immutable ALLOCATIONS;
    /// Least weight of an active validator: each one makes verdicts dearer that it does not sign, so a place has a price.
    uint128 public immutable MIN_WEIGHT;

    uint256 public totalWeight;
    /// Hashes of the active validators, in the order of their numbers.
    bytes32[] internal _active;
    address[] internal _operators;
    BN254.G1Point internal _aggregateKey;
    /// Strategies whose stake counts, ascending.
    address[] internal _strategies;
    mapping(address operator => Validator) internal _validators;
    mapping(bytes32 keyHash => bool) internal _keyTaken;

    constructor(
        IAllocationManager allocations,
        address[] memory restaked,
        string memory metadataUri,
        uint128 minWeight
    ) {
        require(address(allocations) != address(0) && restaked.length != 0 && minWeight != 0, Zero());
        ALLOCATIONS = allocations;
        MIN_WEIGHT = minWeight;
        _strategies = restaked;
        allocations.updateAVSMetadataURI(address(this), metadataUri);
        IAllocationManager.CreateSetParams[] memory sets = new IAllocationManager.CreateSetParams[](2);
        sets[0] = IAllocationManager.CreateSetParams(VALIDATORS, restaked);
        sets[1] = IAllocationManager.CreateSetParams(HOSTS, restaked);
        allocations.createOperatorSets(address(this), sets);
    }

    modifier onlyAllocations() {
        require(msg.sender == address(ALLOCATIONS), NotAllocationManager(msg.sender));
        _;
    }

    /// @notice Called by EigenLayer when an operator joins. A validator's `data` is `abi.encode(key, keyG2, proof)`: its BLS key
    /// in both groups and a signature over `possessionDigest(operator)`. A host's is empty.
    function registerOperator(address operator, address avs, uint32[] calldata operatorSetIds, bytes calldata data)
        external
        onlyAllocations
    {
        require(supportsAVS(avs), NotAllocationManager(avs));
        for (uint256 i = 0; i < operatorSetIds.length; ++i) {
            require(operatorSetIds[i] <= HOSTS, UnknownOperatorSet(operatorSetIds[i]));
            if (operatorSetIds[i] == VALIDATORS) _join(operator, data);
        }
    }

    /// @notice Called by EigenLayer when an operator leaves. It stays slashable for the core's deallocation delay.
    function deregisterOperator(address operator, address, uint32[] calldata operatorSetIds) external onlyAllocations {
        for (uint256 i = 0; i < operatorSetIds.length; ++i) {
            // One that had too little stake is no longer active.
            if (operatorSetIds[i] == VALIDATORS && _validators[operator].number != 0) _leave(operator);
        }
    }

    function supportsAVS(address avs) public view returns (bool) {
        return avs == address(this);
    }

    /// @inheritdoc IAuditServiceManager
    function updateStakes(address[] calldata operators) external {
        for (uint256 i = 0; i < operators.length; ++i) {
            Validator storage record = _validators[operators[i]];
            require(record.number != 0, NotValidator(operators[i]));
            uint128 weight = _stake(operators[i], VALIDATORS).toUint128();
            if (weight < MIN_WEIGHT) {
                _leave(operators[i]);
                continue;
            }
            totalWeight = totalWeight - record.weight + weight;
            record.weight = weight;
            _active[record.number - 1] = _hash(operators[i], weight, record.key);
            emit WeightChanged(operators[i], weight);
        }
    }

    /// @inheritdoc IAuditServiceManager
    function validator(address operator) external view returns (Validator memory) {
        return _validators[operator];
    }

    /// @inheritdoc IAuditServiceManager
    function validators() external view returns (uint256) {
        return _active.length;
    }

    /// @notice The active validator of a number from 1.
    function operatorAt(uint32 number) external view returns (address) {
        return _operators[number - 1];
    }

    /// @notice Strategies whose stake counts.
    function strategies() external view returns (address[] memory) {
        return _strategies;
    }

    /// @inheritdoc IAuditServiceManager
    function isHost(address operator) public view returns (bool) {
        return ALLOCATIONS.isMemberOfOperatorSet(operator, OperatorSet(address(this), HOSTS));
    }

    /// @inheritdoc IAuditServiceManager
    function hostStake(address operator) external view returns (uint256) {
        return _stake(operator, HOSTS);
    }

    /// @inheritdoc IAuditServiceManager
    function verdictDigest(Verdict calldata verdict) public view returns (bytes32) {
        return _hashTypedData(MessageHash.hash(verdict));
    }

    /// @inheritdoc IAuditServiceManager
    function possessionDigest(address operator) public view returns (bytes32) {
        return keccak256(abi.encode(POSSESSION, block.chainid, address(this), operator));
    }

    /// @dev Requires that validators with a quorum of the weight signed `digest`, all but `nonSigners`.
    function _requireQuorum(
        bytes32 digest,
        BN254.G1Point calldata signature,
        BN254.G2Point calldata aggregateKey,
        NonSigner[] calldata nonSigners
    ) internal view returns (uint256 signed, uint256 total) {
        BN254.G1Point memory absent;
        uint32 previous = 0;
        (signed, total) = (totalWeight, totalWeight);
        for (uint256 i = 0; i < nonSigners.length; ++i) {
            NonSigner calldata one = nonSigners[i];
            require(one.number > previous, NonSignerOrder(previous, one.number));
            require(
                one.number <= _active.length && _active[one.number - 1] == _hash(one.operator, one.weight, one.key),
                NonSignerUnknown(one.number)
            );
            previous = one.number;
            absent = BN254.add(absent, one.key);
            signed -= one.weight;
        }
        require(total != 0 && signed * 10_000 >= total * QUORUM_BPS, QuorumMissed(signed, total));
        BN254.G1Point memory key = nonSigners.length == 0 ? _aggregateKey : BN254.add(_aggregateKey, BN254.neg(absent));
        require(BN254.verify(digest, signature, key, aggregateKey), AggregateSignature());
    }

    /// @dev Slashes `wad` of what an operator allocated to a set, where it still can be.
    function _slash(address operator, uint32 set, uint256 wad) internal returns (bool slashed) {
        if (!ALLOCATIONS.isOperatorSlashable(operator, OperatorSet(address(this), set))) return false;
        uint256[] memory wads = new uint256[](_strategies.length);
        for (uint256 i = 0; i < wads.length; ++i) {
            wads[i] = wad;
        }
        ALLOCATIONS.slashOperator(
            address(this), IAllocationManager.SlashingParams(operator, set, _strategies, wads, "Hallmark")
        );
        return true;
    }

    function _stake(address operator, uint32 set) internal view returns (uint256 stake) {
        address[] memory one = new address[](1);
        one[0] = operator;
        uint256[][] memory stakes = ALLOCATIONS.getMinimumSlashableStake(
            OperatorSet(address(this), set), one, _strategies, uint32(block.number)
        );
        for (uint256 i = 0; i < stakes[0].length; ++i) {
            stake += stakes[0][i];
        }
    }

    function _join(address operator, bytes calldata data) private {
        require(_validators[operator].number == 0, AlreadyValidator(operator));
        (BN254.G1Point memory key, BN254.G2Point memory keyG2, BN254.G1Point memory proof) =
            abi.decode(data, (BN254.G1Point, BN254.G2Point, BN254.G1Point));
        bytes32 keyHash = keccak256(abi.encode(key));
        BN254.G1Point memory known = _validators[operator].key;
        // For ever, both ways: a key that came back under another operator would answer for two, and an operator that came
        // back with another key would no longer answer for what it signed with the first.
        if (BN254.isInfinity(known)) {
            require(!_keyTaken[keyHash], KeyTaken(keyHash));
        } else {
            bytes32 expected = keccak256(abi.encode(known));
            require(keyHash == expected, OtherKey(expected, keyHash));
        }
        require(BN254.verify(possessionDigest(operator), proof, key, keyG2), ProofOfPossession());
        _keyTaken[keyHash] = true;

        uint128 weight = _stake(operator, VALIDATORS).toUint128();
        require(weight >= MIN_WEIGHT, WeightTooSmall(MIN_WEIGHT, weight));
        _active.push(_hash(operator, weight, key));
        _operators.push(operator);
        uint32 number = uint32(_active.length);
        _validators[operator] = Validator(key, weight, number);
        _aggregateKey = BN254.add(_aggregateKey, key);
        totalWeight += weight;
        emit ValidatorJoined(operator, key, keyG2, number, weight);
    }

    /// @dev The last validator takes the number of the one that leaves. Its key stays known, for what it signed.
    function _leave(address operator) private {
        Validator storage record = _validators[operator];
        uint32 number = record.number;
        totalWeight -= record.weight;
        _aggregateKey = BN254.add(_aggregateKey, BN254.neg(record.key));
        (record.number, record.weight) = (0, 0);
        emit ValidatorLeft(operator, number);

        uint256 last = _active.length;
        if (number != last) {
            address moved = _operators[last - 1];
            _active[number - 1] = _active[last - 1];
            _operators[number - 1] = moved;
            _validators[moved].number = number;
            emit ValidatorMoved(moved, number);
        }
        _active.pop();
        _operators.pop();
    }

    function _hash(address operator, uint128 weight, BN254.G1Point memory key) private pure returns (bytes32) {
        return keccak256(abi.encode(operator, weight, key));
    }
}
