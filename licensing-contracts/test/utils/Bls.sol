// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {BN254} from "../../contracts/libraries/BN254.sol";

/// @title BLS keys and signatures for tests
/// @dev There is no precompile for G2, so its arithmetic is written out here: Jacobian coordinates over the quadratic
/// extension, with the formulas `dbl-2009-l` and `madd-2007-bl` of the Explicit-Formulas Database.
library Bls {
    using BN254 for BN254.G1Point;

    uint256 private constant FIELD = BN254.FIELD;

    /// An element real + imaginary · u of the quadratic extension, u² = −1.
    struct Fp2 {
        uint256 real;
        uint256 imaginary;
    }

    struct Jacobian {
        Fp2 x;
        Fp2 y;
        Fp2 z;
    }

    function publicKey(uint256 secret) internal view returns (BN254.G1Point memory) {
        return BN254.mul(BN254.G1Point(1, 2), secret);
    }

    function sign(uint256 secret, bytes32 digest) internal view returns (BN254.G1Point memory) {
        return BN254.mul(BN254.hashToG1(digest), secret);
    }

    /// `secret` times the generator of G2; `secret` is not 0 and below the group order.
    function publicKeyG2(uint256 secret) internal view returns (BN254.G2Point memory) {
        require(secret != 0 && secret < BN254.ORDER, "secret out of range");
        (Fp2 memory x, Fp2 memory y) = generator();
        Jacobian memory sum = Jacobian(x, y, Fp2(1, 0));
        uint256 bit = 255;
        while (secret >> bit == 0) --bit;
        while (bit > 0) {
            --bit;
            sum = double(sum);
            if ((secret >> bit) & 1 == 1) sum = addAffine(sum, x, y);
        }
        return affine(sum);
    }

    function generator() internal pure returns (Fp2 memory x, Fp2 memory y) {
        BN254.G2Point memory negated = BN254.negatedG2();
        x = Fp2(negated.x[1], negated.x[0]);
        y = Fp2(FIELD - negated.y[1], FIELD - negated.y[0]);
    }

    function double(Jacobian memory p) private pure returns (Jacobian memory r) {
        Fp2 memory a = mul(p.x, p.x);
        Fp2 memory b = mul(p.y, p.y);
        Fp2 memory c = mul(b, b);
        Fp2 memory d = add(p.x, b);
        d = twice(sub(sub(mul(d, d), a), c));
        Fp2 memory e = add(twice(a), a);
        r.x = sub(mul(e, e), twice(d));
        r.y = sub(mul(e, sub(d, r.x)), twice(twice(twice(c))));
        r.z = twice(mul(p.y, p.z));
    }

    /// `p` is neither infinity nor ±(x, y): true of every partial sum of double-and-add below the group order.
    function addAffine(Jacobian memory p, Fp2 memory x, Fp2 memory y) private pure returns (Jacobian memory r) {
        Fp2 memory zz = mul(p.z, p.z);
        Fp2 memory h = sub(mul(x, zz), p.x);
        Fp2 memory s = twice(sub(mul(y, mul(p.z, zz)), p.y));
        Fp2 memory hh = mul(h, h);
        Fp2 memory i = twice(twice(hh));
        Fp2 memory j = mul(h, i);
        Fp2 memory v = mul(p.x, i);
        r.x = sub(sub(mul(s, s), j), twice(v));
        r.y = sub(mul(s, sub(v, r.x)), twice(mul(p.y, j)));
        r.z = add(p.z, h);
        r.z = sub(sub(mul(r.z, r.z), zz), hh);
    }

    function affine(Jacobian memory p) private view returns (BN254.G2Point memory) {
        Fp2 memory inverse = invert(p.z);
        Fp2 memory square = mul(inverse, inverse);
        Fp2 memory x = mul(p.x, square);
        Fp2 memory y = mul(p.y, mul(square, inverse));
        return BN254.G2Point([x.imaginary, x.real], [y.imaginary, y.real]);
    }

    function add(Fp2 memory a, Fp2 memory b) private pure returns (Fp2 memory) {
        return Fp2(addmod(a.real, b.real, FIELD), addmod(a.imaginary, b.imaginary, FIELD));
    }

    function sub(Fp2 memory a, Fp2 memory b) private pure returns (Fp2 memory) {
        return Fp2(addmod(a.real, FIELD - b.real, FIELD), addmod(a.imaginary, FIELD - b.imaginary, FIELD));
    }

    function twice(Fp2 memory a) private pure returns (Fp2 memory) {
        return add(a, a);
    }

    function mul(Fp2 memory a, Fp2 memory b) private pure returns (Fp2 memory) {
        return Fp2(
            addmod(mulmod(a.real, b.real, FIELD), FIELD - mulmod(a.imaginary, b.imaginary, FIELD), FIELD),
            addmod(mulmod(a.real, b.imaginary, FIELD), mulmod(a.imaginary, b.real, FIELD), FIELD)
        );
    }

    function invert(Fp2 memory a) private view returns (Fp2 memory) {
        uint256 norm = addmod(mulmod(a.real, a.real, FIELD), mulmod(a.imaginary, a.imaginary, FIELD), FIELD);
        (bool success, bytes memory answer) = address(0x05).staticcall(abi.encode(32, 32, 32, norm, FIELD - 2, FIELD));
        require(success, "modular exponentiation failed");
        uint256 inverse = abi.decode(answer, (uint256));
        return Fp2(mulmod(a.real, inverse, FIELD), mulmod(FIELD - a.imaginary, inverse, FIELD));
    }
}
