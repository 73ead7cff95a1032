// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Test} from "forge-std/Test.sol";

import {BN254} from "../../contracts/libraries/BN254.sol";
import {Bls} from "../utils/Bls.sol";

/// Gives the library's functions a call of their own, so that their reverts can be expected.
contract BN254Harness {
    function add(BN254.G1Point memory a, BN254.G1Point memory b) external view returns (BN254.G1Point memory) {
        return BN254.add(a, b);
    }

    function mul(BN254.G1Point memory point, uint256 scalar) external view returns (BN254.G1Point memory) {
        return BN254.mul(point, scalar);
    }

    function neg(BN254.G1Point memory point) external pure returns (BN254.G1Point memory) {
        return BN254.neg(point);
    }

    function verify(
        bytes32 digest,
        BN254.G1Point memory signature,
        BN254.G1Point memory key,
        BN254.G2Point memory keyG2
    ) external view returns (bool) {
        return BN254.verify(digest, signature, key, keyG2);
    }
}

contract BN254Test is Test {
    BN254Harness internal harness = new BN254Harness();

    bytes32 internal constant DIGEST = keccak256("a verdict");
    uint256 internal constant SECRET = 0x1234567890abcdef1234567890abcdef;

    // A point of the twist outside of the group of the right order, as a hostile key would be.
    function outsideOfG2() internal pure returns (BN254.G2Point memory) {
        (Bls.Fp2 memory x, Bls.Fp2 memory y) = Bls.generator();
        return BN254.G2Point([x.imaginary, x.real], [y.real, y.imaginary]);
    }

    /// forge-config: default.fuzz.runs = 24
    /// forge-config: long.fuzz.runs = 1000
    function testFuzz_a_signature_verifies_under_its_key(uint256 secret, bytes32 digest) public view {
        secret = bound(secret, 1, BN254.ORDER - 1);
        assertTrue(
            harness.verify(digest, Bls.sign(secret, digest), Bls.publicKey(secret), Bls.publicKeyG2(secret)),
            "an honest signature"
        );
    }

    /// forge-config: default.fuzz.runs = 24
    /// forge-config: long.fuzz.runs = 1000
    function testFuzz_a_signature_verifies_under_no_other_digest(uint256 secret, bytes32 digest, bytes32 other)
        public
        view
    {
        vm.assume(uint256(digest) % BN254.FIELD != uint256(other) % BN254.FIELD);
        secret = bound(secret, 1, BN254.ORDER - 1);
        assertFalse(
            harness.verify(other, Bls.sign(secret, digest), Bls.publicKey(secret), Bls.publicKeyG2(secret)),
            "a signature on another digest"
        );
    }

    /// forge-config: default.fuzz.runs = 24
    /// forge-config: long.fuzz.runs = 1000
    function testFuzz_a_signature_verifies_under_no_other_key(uint256 secret, uint256 other) public view {
        secret = bound(secret, 1, BN254.ORDER - 1);
        other = bound(other, 1, BN254.ORDER - 1);
        vm.assume(secret != other);
        assertFalse(
            harness.verify(DIGEST, Bls.sign(secret, DIGEST), Bls.publicKey(other), Bls.publicKeyG2(other)),
            "a signature under another key"
        );
    }

    function test_the_two_halves_of_a_key_must_be_one_key() public view {
        // The signature fits the key in G2, which alone would pass; the key in G1 is what stake is counted by.
        assertFalse(
            harness.verify(DIGEST, Bls.sign(SECRET, DIGEST), Bls.publicKey(SECRET + 1), Bls.publicKeyG2(SECRET)),
            "a G1 key that is not the G2 key"
        );
    }

    function test_errors_in_signature_and_key_do_not_cancel() public view {
        // Adding the two equations up without a factor would accept this pair: what is wrong in one is missing in the other.
        BN254.G1Point memory shift = BN254.mul(BN254.G1Point(1, 2), 77);
        BN254.G1Point memory signature = BN254.add(Bls.sign(SECRET, DIGEST), shift);
        BN254.G1Point memory key = BN254.add(Bls.publicKey(SECRET), BN254.neg(shift));
        BN254.G2Point memory keyG2 = Bls.publicKeyG2(SECRET);
        assertTrue(
            BN254.pairingIsOne(
                BN254.add(signature, key),
                BN254.negatedG2(),
                BN254.add(BN254.hashToG1(DIGEST), BN254.G1Point(1, 2)),
                keyG2
            ),
            "the pair cancels without the factor"
        );
        assertFalse(harness.verify(DIGEST, signature, key, keyG2), "the pair does not cancel with it");
    }

    /// forge-config: default.fuzz.runs = 24
    /// forge-config: long.fuzz.runs = 1000
    function testFuzz_signatures_of_many_add_up(uint256 seed, uint256 signers) public view {
        signers = bound(signers, 1, 12);
        BN254.G1Point memory signature;
        BN254.G1Point memory key;
        uint256 sum = 0;
        for (uint256 i = 0; i < signers; ++i) {
            uint256 secret = uint256(keccak256(abi.encode(seed, i))) % BN254.ORDER;
            signature = BN254.add(signature, Bls.sign(secret, DIGEST));
            key = BN254.add(key, Bls.publicKey(secret));
            sum = addmod(sum, secret, BN254.ORDER);
        }
        assertTrue(harness.verify(DIGEST, signature, key, Bls.publicKeyG2(sum)), "the aggregate");
    }

    function test_the_empty_signature_of_the_empty_key_is_refused() public {
        BN254.G1Point memory infinity;
        BN254.G2Point memory infinityG2;
        // Both equations hold for them under every digest.
        vm.expectRevert(BN254.KeyAtInfinity.selector);
        harness.verify(DIGEST, infinity, infinity, infinityG2);
    }

    function test_the_empty_signature_of_a_real_key_is_wrong() public view {
        assertFalse(
            harness.verify(DIGEST, BN254.G1Point(0, 0), Bls.publicKey(SECRET), Bls.publicKeyG2(SECRET)), "no signature"
        );
    }

    /// forge-config: default.fuzz.runs = 24
    /// forge-config: long.fuzz.runs = 1000
    function testFuzz_points_off_the_curve_are_refused(uint256 x, uint256 y) public {
        BN254.G1Point memory point = BN254.G1Point(x, y);
        vm.assume(!BN254.isOnCurve(point));
        BN254.G1Point memory key = Bls.publicKey(SECRET);
        BN254.G2Point memory keyG2 = Bls.publicKeyG2(SECRET);
        vm.expectRevert(abi.encodeWithSelector(BN254.NotOnCurve.selector, x, y));
        harness.verify(DIGEST, point, key, keyG2);
        vm.expectRevert(abi.encodeWithSelector(BN254.NotOnCurve.selector, x, y));
        harness.verify(DIGEST, key, point, keyG2);
        vm.expectRevert(abi.encodeWithSelector(BN254.NotOnCurve.selector, x, y));
        harness.neg(point);
    }

    function test_a_signature_has_one_form_only() public {
        BN254.G1Point memory signature = Bls.sign(SECRET, DIGEST);
        BN254.G1Point memory key = Bls.publicKey(SECRET);
        BN254.G2Point memory keyG2 = Bls.publicKeyG2(SECRET);
        signature.x += BN254.FIELD;
        vm.expectRevert(abi.encodeWithSelector(BN254.NotOnCurve.selector, signature.x, signature.y));
        harness.verify(DIGEST, signature, key, keyG2);
        signature.x -= BN254.FIELD;
        signature.y += BN254.FIELD;
        vm.expectRevert(abi.encodeWithSelector(BN254.NotOnCurve.selector, signature.x, signature.y));
        harness.verify(DIGEST, signature, key, keyG2);
    }

    function test_a_key_outside_of_g2_is_refused_and_burns_little_gas() public {
        BN254.G1Point memory signature = Bls.sign(SECRET, DIGEST);
        BN254.G1Point memory key = Bls.publicKey(SECRET);
        BN254.G2Point memory foreign = outsideOfG2();
        uint256 before = gasleft();
        vm.expectRevert(BN254.PairingRefused.selector);
        harness.verify(DIGEST, signature, key, foreign);
        assertLt(before - gasleft(), 300_000, "gas burnt by a bad key");
    }

    function test_an_unreduced_g2_key_is_refused() public {
        BN254.G1Point memory signature = Bls.sign(SECRET, DIGEST);
        BN254.G1Point memory key = Bls.publicKey(SECRET);
        BN254.G2Point memory keyG2 = Bls.publicKeyG2(SECRET);
        keyG2.y[0] += BN254.FIELD;
        vm.expectRevert(BN254.PairingRefused.selector);
        harness.verify(DIGEST, signature, key, keyG2);
    }

    function test_sums_and_products_off_the_curve_say_which_precompile_refused() public {
        vm.expectRevert(abi.encodeWithSelector(BN254.PrecompileFailed.selector, 0x06));
        harness.add{gas: 100_000}(BN254.G1Point(1, 1), BN254.G1Point(1, 2));
        vm.expectRevert(abi.encodeWithSelector(BN254.PrecompileFailed.selector, 0x07));
        harness.mul{gas: 100_000}(BN254.G1Point(1, 1), 2);
    }

    function testFuzz_a_point_and_its_negative_cancel(uint256 secret) public view {
        BN254.G1Point memory point = BN254.mul(BN254.G1Point(1, 2), secret);
        BN254.G1Point memory sum = harness.add(point, harness.neg(point));
        assertTrue(BN254.isInfinity(sum), "point - point");
        assertTrue(BN254.isOnCurve(point), "a multiple of the generator");
    }

    function testFuzz_a_digest_hashes_to_the_first_x_that_has_a_y(bytes32 digest) public view {
        BN254.G1Point memory point = BN254.hashToG1(digest);
        assertTrue(BN254.isOnCurve(point), "the hash is on the curve");
        uint256 start = uint256(digest) % BN254.FIELD;
        uint256 steps = addmod(point.x, BN254.FIELD - start, BN254.FIELD);
        assertLt(steps, 128, "the next x that has a y is near");
        for (uint256 i = 0; i < steps; ++i) {
            assertFalse(isSquare(addmod(start, i, BN254.FIELD)), "an x before it has a y as well");
        }
    }

    function test_a_digest_at_the_end_of_the_field_wraps_around() public view {
        BN254.G1Point memory last = BN254.hashToG1(bytes32(BN254.FIELD - 1));
        assertTrue(BN254.isOnCurve(last), "the hash of the last x");
        BN254.G1Point memory first = BN254.hashToG1(bytes32(uint256(0)));
        BN254.G1Point memory wrapped = BN254.hashToG1(bytes32(BN254.FIELD));
        assertEq(first.x, wrapped.x, "x is the digest modulo the field");
        assertEq(first.y, wrapped.y, "and so is y");
    }

    /// Euler's criterion for x³ + 3, by square and multiply.
    function isSquare(uint256 x) private pure returns (bool) {
        uint256 base = addmod(mulmod(mulmod(x, x, BN254.FIELD), x, BN254.FIELD), 3, BN254.FIELD);
        uint256 power = 1;
        for (uint256 exponent = (BN254.FIELD - 1) / 2; exponent != 0; exponent >>= 1) {
            if (exponent & 1 == 1) power = mulmod(power, base, BN254.FIELD);
            base = mulmod(base, base, BN254.FIELD);
        }
        return power == 1;
    }
}
