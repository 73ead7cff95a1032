// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Test} from "forge-std/Test.sol";

import {MessageDomain} from "../contracts/MessageDomain.sol";
import {BN254} from "../contracts/libraries/BN254.sol";
import {MerkleSum} from "../contracts/libraries/MerkleSum.sol";
import {MessageHash} from "../contracts/libraries/MessageHash.sol";
import {Counts, Pricing} from "../contracts/libraries/Pricing.sol";
import {
    Channel,
    EpochCommit,
    Lease,
    LicenseTerms,
    Prices,
    SessionGrant,
    Split,
    Statement,
    Verdict,
    Voucher
} from "../contracts/types/Messages.sol";
import {Bls} from "./utils/Bls.sol";

/// The contracts' arithmetic behind calls of its own.
contract VectorHarness is MessageDomain {
    function digest(bytes32 structHash) external view returns (bytes32) {
        return _hashTypedData(structHash);
    }

    function separator() external view returns (bytes32) {
        return _domainSeparator();
    }

    function hashChannel(Channel calldata message) external pure returns (bytes32) {
        return MessageHash.hash(message);
    }

    function hashGrant(SessionGrant calldata message) external pure returns (bytes32) {
        return MessageHash.hash(message);
    }

    function hashVoucher(Voucher calldata message) external pure returns (bytes32) {
        return MessageHash.hash(message);
    }

    function hashStatement(Statement calldata message) external pure returns (bytes32) {
        return MessageHash.hash(message);
    }

    function hashCommit(EpochCommit calldata message) external pure returns (bytes32) {
        return MessageHash.hash(message);
    }

    function costUp(Counts memory counts, Prices memory prices) external pure returns (uint128) {
        return Pricing.costUp(counts, prices);
    }

    function proveInclusion(
        bytes32 root,
        MerkleSum.Sums memory totals,
        MerkleSum.Leaf calldata leaf,
        MerkleSum.Sibling[] calldata path
    ) external pure returns (uint64) {
        return MerkleSum.verify(root, totals, leaf, path);
    }

    function proveAbsence(
        bytes32 root,
        MerkleSum.Sums memory totals,
        bytes32 missing,
        MerkleSum.Neighbour[] calldata neighbours
    ) external pure {
        MerkleSum.proveAbsence(root, totals, missing, neighbours);
    }

    function verify(
        bytes32 signed,
        BN254.G1Point memory signature,
        BN254.G1Point memory key,
        BN254.G2Point memory keyG2
    ) external view returns (bool) {
        return BN254.verify(signed, signature, key, keyG2);
    }
}

/// Golden vectors that an implementation made which shares no code with this one: see vectors/make.mjs.
contract VectorsTest is Test {
    VectorHarness internal harness = new VectorHarness();

    function read(string memory name) internal view returns (string memory) {
        return vm.readFile(string.concat(vm.projectRoot(), "/vectors/", name, ".json"));
    }

    function at(string memory list, uint256 index) internal pure returns (string memory) {
        return string.concat(list, "[", vm.toString(index), "]");
    }

    function has(string memory json, string memory path) internal view returns (bool) {
        return vm.keyExistsJson(json, path);
    }

    // Messages

    function test_messages_hash_and_recover_as_viem_says() public {
        string memory json = read("eip712");
        address signer = vm.parseJsonAddress(json, ".signer");
        uint256 checked = 0;
        for (; has(json, at(".vectors", checked)); ++checked) {
            string memory path = at(".vectors", checked);
            string memory label = vm.parseJsonString(json, string.concat(path, ".label"));
            string memory kind = vm.parseJsonString(json, string.concat(path, ".type"));
            bytes32 structHash = hashOf(kind, vm.parseJsonBytes(json, string.concat(path, ".abi")));
            assertEq(structHash, vm.parseJsonBytes32(json, string.concat(path, ".structHash")), label);

            bytes32 digest = digestAt(json, path, structHash);
            assertEq(digest, vm.parseJsonBytes32(json, string.concat(path, ".digest")), label);
            (bytes32 r, bytes32 s, uint8 v) = split(vm.parseJsonBytes(json, string.concat(path, ".signature")));
            assertEq(ecrecover(digest, v, r, s), signer, label);
        }
        assertEq(checked, 56, "seven vectors of each of eight messages");
    }

    /// The digest as a contract at the vector's address on the vector's chain would compute it.
    function digestAt(string memory json, string memory path, bytes32 structHash) internal returns (bytes32 digest) {
        address place = vm.parseJsonAddress(json, string.concat(path, ".verifyingContract"));
        uint256 home = block.chainid;
        vm.etch(place, address(harness).code);
        vm.chainId(vm.parseJsonUint(json, string.concat(path, ".chainId")));
        assertEq(
            VectorHarness(place).separator(),
            vm.parseJsonBytes32(json, string.concat(path, ".domainSeparator")),
            "the domain"
        );
        digest = VectorHarness(place).digest(structHash);
        vm.chainId(home);
    }

    function hashOf(string memory kind, bytes memory message) internal view returns (bytes32) {
        bytes32 name = keccak256(bytes(kind));
        if (name == keccak256("LicenseTerms")) return MessageHash.hash(abi.decode(message, (LicenseTerms)));
        if (name == keccak256("Lease")) return MessageHash.hash(abi.decode(message, (Lease)));
        if (name == keccak256("Channel")) return harness.hashChannel(abi.decode(message, (Channel)));
        if (name == keccak256("SessionGrant")) return harness.hashGrant(abi.decode(message, (SessionGrant)));
        if (name == keccak256("Voucher")) return harness.hashVoucher(abi.decode(message, (Voucher)));
        if (name == keccak256("Statement")) return harness.hashStatement(abi.decode(message, (Statement)));
        if (name == keccak256("EpochCommit")) return harness.hashCommit(abi.decode(message, (EpochCommit)));
        if (name == keccak256("Verdict")) return MessageHash.hash(abi.decode(message, (Verdict)));
        revert(string.concat("a vector of an unknown message: ", kind));
    }

    function split(bytes memory signature) internal pure returns (bytes32 r, bytes32 s, uint8 v) {
        require(signature.length == 65, "a signature has 65 bytes");
        assembly ("memory-safe") {
            r := mload(add(signature, 0x20))
            s := mload(add(signature, 0x40))
            v := byte(0, mload(add(signature, 0x60)))
        }
    }

    // Money

    function test_costs_are_as_computed_with_unbounded_integers() public {
        string memory json = read("money");
        uint256 checked = 0;
        uint256 refused = 0;
        for (; has(json, at(".costs", checked)); ++checked) {
            string memory path = at(".costs", checked);
            (Counts memory counts, Prices memory prices) =
                abi.decode(vm.parseJsonBytes(json, string.concat(path, ".abi")), (Counts, Prices));
            if (keccak256(vm.parseJson(json, string.concat(path, ".cost"))) == keccak256(vm.parseJson("null"))) {
                vm.expectPartialRevert(Pricing.CostTooLarge.selector);
                harness.costUp(counts, prices);
                ++refused;
            } else {
                uint256 cost = vm.parseJsonUint(json, string.concat(path, ".cost"));
                assertEq(harness.costUp(counts, prices), cost, path);
            }
        }
        assertEq(checked, 41, "cost vectors");
        assertGt(refused, 0, "some cost too much");
    }

    function test_claims_are_shared_as_computed_with_unbounded_integers() public view {
        string memory json = read("money");
        uint256 checked = 0;
        for (; has(json, at(".claims", checked)); ++checked) {
            checkClaim(json, at(".claims", checked));
        }
        assertEq(checked, 48, "claim vectors");
    }

    function checkClaim(string memory json, string memory path) internal pure {
        (
            Counts memory before,
            Counts memory afterwards,
            Prices memory prices,
            Prices memory floors,
            uint16 royaltyBps,
            uint16 validatorBps
        ) = abi.decode(
            vm.parseJsonBytes(json, string.concat(path, ".abi")), (Counts, Counts, Prices, Prices, uint16, uint16)
        );
        uint256 charge = Pricing.costUp(afterwards, prices) - Pricing.costUp(before, prices);
        uint256 floor = Pricing.floorDown(Pricing.difference(before, afterwards), floors);
        uint256 royalty = Pricing.shareDown(charge, royaltyBps);
        if (floor > royalty) royalty = floor;
        uint256 validatorShare = Pricing.shareDown(charge, validatorBps);
        assertEq(charge, vm.parseJsonUint(json, string.concat(path, ".charge")), path);
        assertEq(floor, vm.parseJsonUint(json, string.concat(path, ".floor")), path);
        assertEq(royalty, vm.parseJsonUint(json, string.concat(path, ".royalty")), path);
        assertEq(validatorShare, vm.parseJsonUint(json, string.concat(path, ".validatorShare")), path);
        assertEq(charge - royalty - validatorShare, vm.parseJsonUint(json, string.concat(path, ".host")), path);
    }

    function test_royalties_are_split_as_computed_with_unbounded_integers() public view {
        string memory json = read("money");
        uint256 checked = 0;
        for (; has(json, at(".splits", checked)); ++checked) {
            string memory path = at(".splits", checked);
            Split[] memory splits = abi.decode(vm.parseJsonBytes(json, string.concat(path, ".abi")), (Split[]));
            assertEq(MessageHash.splitRoot(splits), vm.parseJsonBytes32(json, string.concat(path, ".root")), path);
            uint256 royalty = vm.parseJsonUint(json, string.concat(path, ".royalty"));
            uint256 left = royalty;
            for (uint256 i = 0; i < splits.length; ++i) {
                uint256 part = Pricing.shareDown(royalty, splits[i].bps);
                assertEq(part, vm.parseJsonUint(json, at(string.concat(path, ".parts"), i)), path);
                left -= part;
            }
            assertEq(left, vm.parseJsonUint(json, string.concat(path, ".creator")), path);
        }
        assertEq(checked, 49, "split vectors");
    }

    // Trees

    function test_inclusions_and_absences_are_proven() public view {
        string memory json = read("merkle_sum");
        uint256 checked = 0;
        for (; has(json, at(".trees", checked)); ++checked) {
            checkTree(json, at(".trees", checked));
        }
        assertEq(checked, 11, "trees");
    }

    function checkTree(string memory json, string memory tree) internal view {
        bytes32 root = vm.parseJsonBytes32(json, string.concat(tree, ".root"));
        MerkleSum.Sums memory totals = totalsOf(json, string.concat(tree, ".totals"));
        string memory list = string.concat(tree, ".inclusions");
        uint256 checked = 0;
        for (; has(json, at(list, checked)); ++checked) {
            (MerkleSum.Leaf memory leaf, MerkleSum.Sibling[] memory path) = abi.decode(
                vm.parseJsonBytes(json, string.concat(at(list, checked), ".abi")), (MerkleSum.Leaf, MerkleSum.Sibling[])
            );
            assertEq(
                harness.proveInclusion(root, totals, leaf, path),
                vm.parseJsonUint(json, string.concat(at(list, checked), ".index")),
                list
            );
        }
        assertEq(checked, totals.requests, "every leaf is proven");
        list = string.concat(tree, ".absences");
        for (checked = 0; has(json, at(list, checked)); ++checked) {
            harness.proveAbsence(
                root,
                totals,
                vm.parseJsonBytes32(json, string.concat(at(list, checked), ".digest")),
                abi.decode(vm.parseJsonBytes(json, string.concat(at(list, checked), ".abi")), (MerkleSum.Neighbour[]))
            );
        }
        assertGt(checked, 0, "some absences are proven");
    }

    function totalsOf(string memory json, string memory path) internal pure returns (MerkleSum.Sums memory) {
        return MerkleSum.Sums(
            uint64(vm.parseJsonUint(json, string.concat(path, ".requests"))),
            uint64(vm.parseJsonUint(json, string.concat(path, ".promptTokens"))),
            uint64(vm.parseJsonUint(json, string.concat(path, ".cachedTokens"))),
            uint64(vm.parseJsonUint(json, string.concat(path, ".completionTokens"))),
            uint128(vm.parseJsonUint(json, string.concat(path, ".charge")))
        );
    }

    // BLS

    function test_digests_hash_to_the_curve_as_noble_says() public view {
        string memory json = read("bls");
        uint256 checked = 0;
        for (; has(json, at(".hashes", checked)); ++checked) {
            string memory path = at(".hashes", checked);
            BN254.G1Point memory point = BN254.hashToG1(vm.parseJsonBytes32(json, string.concat(path, ".digest")));
            bytes32[] memory words = vm.parseJsonBytes32Array(json, string.concat(path, ".point"));
            assertEq(bytes32(point.x), words[0], path);
            assertEq(bytes32(point.y), words[1], path);
        }
        assertEq(checked, 16, "hash vectors");
    }

    function test_keys_and_the_negated_generator_are_noble_s() public view {
        string memory json = read("bls");
        checkG2(BN254.negatedG2(), vm.parseJsonBytes32Array(json, ".negatedGeneratorG2"));
        uint256 checked = 0;
        for (; has(json, at(".keys", checked)); ++checked) {
            string memory path = at(".keys", checked);
            uint256 secret = uint256(vm.parseJsonBytes32(json, string.concat(path, ".secretKey")));
            bytes32[] memory words = vm.parseJsonBytes32Array(json, string.concat(path, ".g1"));
            BN254.G1Point memory key = Bls.publicKey(secret);
            assertEq(bytes32(key.x), words[0], path);
            assertEq(bytes32(key.y), words[1], path);
            checkG2(Bls.publicKeyG2(secret), vm.parseJsonBytes32Array(json, string.concat(path, ".g2")));
        }
        assertEq(checked, 8, "keys");
    }

    function checkG2(BN254.G2Point memory point, bytes32[] memory words) internal pure {
        assertEq(bytes32(point.x[0]), words[0], "imaginary part of x");
        assertEq(bytes32(point.x[1]), words[1], "real part of x");
        assertEq(bytes32(point.y[0]), words[2], "imaginary part of y");
        assertEq(bytes32(point.y[1]), words[3], "real part of y");
    }

    function test_aggregates_verify_on_the_precompiles() public view {
        string memory json = read("bls");
        uint256 checked = 0;
        for (; has(json, at(".verifications", checked)); ++checked) {
            string memory path = at(".verifications", checked);
            (bytes32 digest, BN254.G1Point memory signature, BN254.G1Point memory key, BN254.G2Point memory keyG2) = abi.decode(
                vm.parseJsonBytes(json, string.concat(path, ".abi")),
                (bytes32, BN254.G1Point, BN254.G1Point, BN254.G2Point)
            );
            assertEq(
                harness.verify(digest, signature, key, keyG2),
                vm.parseJsonBool(json, string.concat(path, ".valid")),
                vm.parseJsonString(json, string.concat(path, ".label"))
            );
        }
        assertEq(checked, 12, "verifications");
    }

    function test_malformed_points_are_refused_in_their_place() public {
        string memory json = read("bls");
        uint256 checked = 0;
        for (; has(json, at(".invalidPoints", checked)); ++checked) {
            string memory path = at(".invalidPoints", checked);
            uint256[] memory words = vm.parseJsonUintArray(json, string.concat(path, ".words"));
            if (vm.parseJsonUint(json, string.concat(path, ".group")) == 1) {
                refuseKey(BN254.G1Point(words[0], words[1]));
            } else {
                refuseKeyG2(BN254.G2Point([words[0], words[1]], [words[2], words[3]]));
            }
        }
        assertEq(checked, 11, "points");
    }

    function refuseKey(BN254.G1Point memory key) internal {
        BN254.G1Point memory signature = Bls.sign(5, "digest");
        BN254.G2Point memory keyG2 = Bls.publicKeyG2(5);
        vm.expectPartialRevert(BN254.isInfinity(key) ? BN254.KeyAtInfinity.selector : BN254.NotOnCurve.selector);
        harness.verify("digest", signature, key, keyG2);
    }

    function refuseKeyG2(BN254.G2Point memory keyG2) internal {
        BN254.G1Point memory signature = Bls.sign(5, "digest");
        BN254.G1Point memory key = Bls.publicKey(5);
        // The pairing knows infinity; it just fits no key.
        bool infinity = keyG2.x[0] == 0 && keyG2.x[1] == 0 && keyG2.y[0] == 0 && keyG2.y[1] == 0;
        if (infinity) {
            assertFalse(harness.verify("digest", signature, key, keyG2), "infinity is no key");
            return;
        }
        vm.expectPartialRevert(BN254.PairingRefused.selector);
        harness.verify("digest", signature, key, keyG2);
    }
}
