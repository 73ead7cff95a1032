// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title BLS signatures over BN254
/// @notice Signatures and public keys in G1, aggregate keys in G2, as EigenLayer's BLSSignatureChecker has it.
/// @dev Every call of a precompile is assembly, because Solidity has no other way to reach the addresses 6, 7 and 8 without
/// copying the arguments into a fresh `bytes` and the answer out of one.
library BN254 {
    /// @notice A point of the curve y² = x³ + 3 over the base field; (0, 0) is the point at infinity.
    struct G1Point {
        uint256 x;
        uint256 y;
    }

    /// @notice A point of the twist; each coordinate is (imaginary part, real part), the order that the precompile takes.
    struct G2Point {
        uint256[2] x;
        uint256[2] y;
    }

    /// @notice Order of the base field.
    uint256 internal constant FIELD = 21888242871839275222246405745257275088696311157297823662689037894645226208583;
    /// @notice Order of the groups.
    uint256 internal constant ORDER = 21888242871839275222246405745257275088548364400416034343698204186575808495617;
    /// @dev (FIELD + 1) / 4: raising a square to it gives a root of the square, since FIELD ≡ 3 (mod 4).
    uint256 private constant ROOT_EXPONENT = 0x0c19139cb84c680a6e14116da060561765e05aa45a1c72a34f082305b61f3f52;

    // The negated generator of G2.
    uint256 private constant NEGATED_G2_X_IMAGINARY =
        0x198e9393920d483a7260bfb731fb5d25f1aa493335a9e71297e485b7aef312c2;
    uint256 private constant NEGATED_G2_X_REAL = 0x1800deef121f1e76426a00665e5c4479674322d4f75edadd46debd5cd992f6ed;
    uint256 private constant NEGATED_G2_Y_IMAGINARY =
        0x275dc4a288d1afb3cbb1ac09187524c7db36395df7be3b99e673b13a075a65ec;
    uint256 private constant NEGATED_G2_Y_REAL = 0x1d9befcd05a5323e6da4d435f3b617cdb3af83285c2df711ef39c01571827f9d;

    /// @dev A failing precompile swallows all gas that it was given, and whether a point lies in G2 is known to the
    /// pairing alone. The cap is twice the price of two pairs, so a bad point costs little and a new price does no harm.
    uint256 private constant PAIRING_GAS_CAP = 240_000;

    /// @notice (`x`, `y`) is no point of the curve, or not in its shortest form.
    error NotOnCurve(uint256 x, uint256 y);
    /// @notice The point at infinity is no public key: it would accept the empty signature under any message.
    error KeyAtInfinity();
    /// @notice The pairing refused its input: the key is not in G2.
    error PairingRefused();
    /// @notice A precompile that cannot fail on checked points failed: the chain lacks it, or the gas ran out.
    error PrecompileFailed(uint256 precompile);

    /// @notice Sum of two points.
    /// @dev Reverts with `PrecompileFailed`, after burning the gas of the call, unless both points lie on the curve.
    function add(G1Point memory a, G1Point memory b) internal view returns (G1Point memory sum) {
        bool success;
        assembly ("memory-safe") {
            let input := mload(0x40)
            mstore(input, mload(a))
            mstore(add(input, 0x20), mload(add(a, 0x20)))
            mstore(add(input, 0x40), mload(b))
            mstore(add(input, 0x60), mload(add(b, 0x20)))
            success := staticcall(gas(), 0x06, input, 0x80, sum, 0x40)
            // An address without code answers every call with success and nothing.
            success := and(success, eq(returndatasize(), 0x40))
        }
        require(success, PrecompileFailed(0x06));
    }

    /// @notice `scalar` times a point.
    /// @dev As `add` about points that are not on the curve.
    function mul(G1Point memory point, uint256 scalar) internal view returns (G1Point memory product) {
        bool success;
        assembly ("memory-safe") {
            let input := mload(0x40)
            mstore(input, mload(point))
            mstore(add(input, 0x20), mload(add(point, 0x20)))
            mstore(add(input, 0x40), scalar)
            success := staticcall(gas(), 0x07, input, 0x60, product, 0x40)
            success := and(success, eq(returndatasize(), 0x40))
        }
        require(success, PrecompileFailed(0x07));
    }

    /// @notice The point that adds up to infinity with this one.
    function neg(G1Point memory point) internal pure returns (G1Point memory) {
        require(isOnCurve(point), NotOnCurve(point.x, point.y));
        // No point of the curve has y = 0 but the point at infinity, which stands for itself.
        return point.y == 0 ? point : G1Point(point.x, FIELD - point.y);
    }

    /// @notice Whether the coordinates are reduced and lie on the curve; so does the point at infinity.
    function isOnCurve(G1Point memory point) internal pure returns (bool) {
        (uint256 x, uint256 y) = (point.x, point.y);
        if (x == 0 && y == 0) return true;
        return x < FIELD && y < FIELD && mulmod(y, y, FIELD) == curve(x);
    }

    /// @notice Whether this is the point at infinity.
    function isInfinity(G1Point memory point) internal pure returns (bool) {
        return point.x == 0 && point.y == 0;
    }

    /// @notice Hashes a digest to the curve by try and increment: x = digest mod p, then the next x that has a y.
    /// @dev The loop ends: half of all x have a y, so two rounds are usual and 128 would be an attack on keccak256. The y
    /// is the root that exponentiation gives, whichever of the two it is.
    function hashToG1(bytes32 digest) internal view returns (G1Point memory) {
        uint256 x = uint256(digest) % FIELD;
        uint256 square = curve(x);
        uint256 y = squareRoot(square);
        while (mulmod(y, y, FIELD) != square) {
            x = addmod(x, 1, FIELD);
            square = curve(x);
            y = squareRoot(square);
        }
        return G1Point(x, y);
    }

    /// @notice Whether e(`a`, `a2`) · e(`b`, `b2`) = 1.
    /// @dev Reverts with `PairingRefused` for coordinates that are not reduced, off their curve or outside of their group.
    function pairingIsOne(G1Point memory a, G2Point memory a2, G1Point memory b, G2Point memory b2)
        internal
        view
        returns (bool)
    {
        uint256[12] memory input =
            [a.x, a.y, a2.x[0], a2.x[1], a2.y[0], a2.y[1], b.x, b.y, b2.x[0], b2.x[1], b2.y[0], b2.y[1]];
        uint256[1] memory output;
        bool success;
        assembly ("memory-safe") {
            success := staticcall(PAIRING_GAS_CAP, 0x08, input, 0x180, output, 0x20)
            success := and(success, eq(returndatasize(), 0x20))
        }
        require(success, PairingRefused());
        return output[0] == 1;
    }

    /// @notice Whether `signature` is that of `key` on `digest`, and `key` and `keyG2` are the same key in both groups.
    /// @dev Two equations in one: e(σ, −G2) · e(H, K2) = 1 says that the signature fits K2, e(K1, −G2) · e(G1, K2) = 1
    /// that K1 and K2 are one key. The second is added γ times, with γ a hash of everything, so that no choice of points
    /// makes the errors of the two cancel. A proof of possession is checked with the same call.
    ///
    /// Reverts with `NotOnCurve`, `KeyAtInfinity` or `PairingRefused` for malformed points, and answers false only for
    /// well-formed ones that do not fit.
    function verify(bytes32 digest, G1Point memory signature, G1Point memory key, G2Point memory keyG2)
        internal
        view
        returns (bool)
    {
        require(isOnCurve(signature), NotOnCurve(signature.x, signature.y));
        require(isOnCurve(key), NotOnCurve(key.x, key.y));
        require(!isInfinity(key), KeyAtInfinity());

        uint256 gamma = uint256(
            keccak256(
                abi.encode(
                    digest, key.x, key.y, keyG2.x[0], keyG2.x[1], keyG2.y[0], keyG2.y[1], signature.x, signature.y
                )
            )
        ) % ORDER;
        return pairingIsOne(
            add(signature, mul(key, gamma)), negatedG2(), add(hashToG1(digest), mul(G1Point(1, 2), gamma)), keyG2
        );
    }

    /// @notice The generator of G2, negated.
    function negatedG2() internal pure returns (G2Point memory) {
        return G2Point([NEGATED_G2_X_IMAGINARY, NEGATED_G2_X_REAL], [NEGATED_G2_Y_IMAGINARY, NEGATED_G2_Y_REAL]);
    }

    /// @dev x³ + 3: the square of y, if the point has one.
    function curve(uint256 x) private pure returns (uint256) {
        return addmod(mulmod(mulmod(x, x, FIELD), x, FIELD), 3, FIELD);
    }

    /// @dev A root of `square` if it has one, anything otherwise.
    function squareRoot(uint256 square) private view returns (uint256 root) {
        bool success;
        assembly ("memory-safe") {
            let input := mload(0x40)
            mstore(input, 0x20)
            mstore(add(input, 0x20), 0x20)
            mstore(add(input, 0x40), 0x20)
            mstore(add(input, 0x60), square)
            mstore(add(input, 0x80), ROOT_EXPONENT)
            mstore(add(input, 0xa0), FIELD)
            success := staticcall(gas(), 0x05, input, 0xc0, 0x00, 0x20)
            success := and(success, eq(returndatasize(), 0x20))
            root := mload(0x00)
        }
        require(success, PrecompileFailed(0x05));
    }
}
