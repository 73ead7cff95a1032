// SPDX-License-Identifier: Apache-2.0
// BLS signatures over BN254 with noble's curve and pairing; the hash to the curve is written out here.

import {bn254} from "@noble/curves/bn254";
import {concat, encodeAbiParameters, keccak256, toHex} from "viem";

import {Random} from "./random.mjs";

const {Fp, Fp2, Fp12} = bn254.fields;
const P = Fp.ORDER;
const R = bn254.fields.Fr.ORDER;
const G1 = bn254.G1.ProjectivePoint;
const G2 = bn254.G2.ProjectivePoint;

const hex = (number) => toHex(number, {size: 32});
const words = (numbers) => encodeAbiParameters(numbers.map(() => ({type: "uint256"})), numbers.map(BigInt));

const g1Words = (point) => {
  const {x, y} = point.toAffine();
  return [hex(x), hex(y)];
};
/// The imaginary part comes first, as the precompile takes it.
const g2Words = (point) => {
  const {x, y} = point.toAffine();
  return [hex(x.c1), hex(x.c0), hex(y.c1), hex(y.c0)];
};

function hashToG1(digest) {
  for (let x = BigInt(digest) % P; ; x = (x + 1n) % P) {
    const square = (x * x * x + 3n) % P;
    const y = Fp.pow(square, (P + 1n) / 4n);
    if (y * y % P === square) return G1.fromAffine({x, y});
  }
}

function gammaOf(digest, key, keyG2, signature) {
  return BigInt(keccak256(words([digest, ...g1Words(key), ...g2Words(keyG2), ...g1Words(signature)]))) % R;
}

/// e(σ + γ·K1, −G2) · e(H + γ·G1, K2) = 1
function verify(digest, signature, key, keyG2) {
  const gamma = gammaOf(digest, key, keyG2, signature);
  const product = bn254.pairingBatch([
    {g1: signature.add(key.multiply(gamma)), g2: G2.BASE.negate()},
    {g1: hashToG1(digest).add(G1.BASE.multiply(gamma)), g2: keyG2},
  ]);
  return Fp12.eql(product, Fp12.ONE);
}

const sum = (points, zero) => points.reduce((total, point) => total.add(point), zero);
const sign = (secret, digest) => hashToG1(digest).multiply(secret);

/// The first 64 bytes of two hashes, reduced: how the Rust side makes a key of entropy.
function keyOf(entropy) {
  const half = (part) => keccak256(concat([toHex("hallmark/v1/bls-key"), toHex(part, {size: 1}), entropy]));
  return BigInt(concat([half(0), half(1)])) % R;
}

const ABI = [
  {type: "bytes32"},
  {type: "tuple", components: [{name: "x", type: "uint256"}, {name: "y", type: "uint256"}]},
  {type: "tuple", components: [{name: "x", type: "uint256"}, {name: "y", type: "uint256"}]},
  {type: "tuple", components: [{name: "x", type: "uint256[2]"}, {name: "y", type: "uint256[2]"}]},
];

/// abi.encode(digest, signature, key, keyG2), as BN254.verify takes them.
function abi(digest, signature, key, keyG2) {
  const [x, y] = g1Words(signature).map(BigInt);
  const [keyX, keyY] = g1Words(key).map(BigInt);
  const [a, b, c, d] = g2Words(keyG2).map(BigInt);
  return encodeAbiParameters(ABI, [digest, {x, y}, {x: keyX, y: keyY}, {x: [a, b], y: [c, d]}]);
}

function verification(label, digest, signature, key, keyG2) {
  return {
    label,
    digest,
    signature: g1Words(signature),
    key: g1Words(key),
    keyG2: g2Words(keyG2),
    gamma: hex(gammaOf(digest, key, keyG2, signature)),
    valid: verify(digest, signature, key, keyG2),
    abi: abi(digest, signature, key, keyG2),
  };
}

function keyVectors(secrets) {
  return secrets.map((secret) => ({
    secretKey: hex(secret), g1: g1Words(G1.BASE.multiply(secret)), g2: g2Words(G2.BASE.multiply(secret)),
  }));
}

function hashVectors(source) {
  const digests = [hex(0n), hex(1n), hex(P - 1n), hex(P), hex(P + 1n), hex((1n << 256n) - 1n)];
  for (let number = 0; number < 10; number += 1) digests.push(source.word());
  return digests.map((digest) => ({digest, point: g1Words(hashToG1(digest))}));
}

function possessionVectors(secrets, source) {
  return secrets.slice(0, 3).map((secret, key) => {
    const chainId = key === 0 ? 1n : source.integer(64);
    const verifyingContract = source.address();
    const operator = source.address();
    const digest = keccak256(encodeAbiParameters(
      [{type: "bytes32"}, {type: "uint256"}, {type: "address"}, {type: "address"}],
      [keccak256(toHex("Hallmark BLS proof of possession")), chainId, verifyingContract, operator],
    ));
    return {
      chainId: chainId.toString(), verifyingContract, operator, key, digest, signature: g1Words(sign(secret, digest)),
    };
  });
}

function verificationVectors(secrets, source) {
  const keys = secrets.map((secret) => G1.BASE.multiply(secret));
  const keysG2 = secrets.map((secret) => G2.BASE.multiply(secret));
  const pick = (list, chosen) => chosen.map((index) => list[index]);
  const vectors = [];
  for (const signers of [[0], [1, 2], [0, 1, 2, 3], [0, 2, 4, 6], [0, 1, 2, 3, 4, 5, 6, 7]]) {
    const digest = source.word();
    const signature = sum(pick(secrets, signers).map((secret) => sign(secret, digest)), G1.ZERO);
    const nonSigners = keys.map((_, index) => index).filter((index) => !signers.includes(index));
    // The total less those who did not sign, as the chain works it out.
    const key = sum(keys, G1.ZERO).subtract(sum(pick(keys, nonSigners), G1.ZERO));
    const keyG2 = sum(pick(keysG2, signers), G2.ZERO);
    vectors.push({
      ...verification(`signed by ${signers.join(", ")}`, digest, signature, key, keyG2), signers, nonSigners,
    });
  }
  const [digest, other] = [source.word(), source.word()];
  const signature = sign(secrets[0], digest);
  const wrong = (label, ...rest) => vectors.push({...verification(label, ...rest), signers: null, nonSigners: null});
  wrong("another digest", other, signature, keys[0], keysG2[0]);
  wrong("another signature", digest, sign(secrets[1], digest), keys[0], keysG2[0]);
  wrong("a negated signature", digest, signature.negate(), keys[0], keysG2[0]);
  wrong("another key in G1", digest, signature, keys[1], keysG2[0]);
  wrong("another key in G2", digest, signature, keys[0], keysG2[1]);
  wrong("the generator as signature", digest, G1.BASE, keys[0], keysG2[0]);
  // Errors that would cancel if γ were 1: the signature is moved by as much as the key.
  const moved = G1.BASE.multiply(5n);
  wrong("errors that cancel without γ", digest, signature.add(moved), keys[0].subtract(moved), keysG2[0]);
  if (vectors.some(({valid, signers}) => valid !== (signers !== null))) throw new Error("a verification went wrong");
  return vectors;
}

/// A point of the twist that is not in the group.
function outsideOfG2() {
  const b = Fp2.div(Fp2.create({c0: 3n, c1: 0n}), Fp2.create({c0: 9n, c1: 1n}));
  for (let x = 1n; ; x += 1n) {
    const affine = Fp2.create({c0: x, c1: 0n});
    const square = Fp2.add(Fp2.mul(Fp2.sqr(affine), affine), b);
    let y;
    try {
      y = Fp2.sqrt(square);
    } catch {
      continue;
    }
    const point = G2.fromAffine({x: affine, y});
    if (!point.isTorsionFree()) return g2Words(point);
  }
}

function invalidPoints(secrets) {
  const g1 = g1Words(G1.BASE.multiply(secrets[0]));
  const g2 = g2Words(G2.BASE.multiply(secrets[0]));
  const plusP = (word) => hex(BigInt(word) + P);
  const zero = hex(0n);
  return [
    {group: 1, why: "infinity", words: [zero, zero]},
    {group: 1, why: "not reduced", words: [plusP(g1[0]), g1[1]]},
    {group: 1, why: "not reduced", words: [g1[0], plusP(g1[1])]},
    {group: 1, why: "not reduced", words: [hex(P), hex(P)]},
    {group: 1, why: "not on the curve", words: [g1[1], g1[0]]},
    {group: 1, why: "not on the curve", words: [hex(1n), hex(1n)]},
    {group: 2, why: "infinity", words: [zero, zero, zero, zero]},
    {group: 2, why: "not reduced", words: [plusP(g2[0]), g2[1], g2[2], g2[3]]},
    {group: 2, why: "not reduced", words: [g2[0], g2[1], g2[2], plusP(g2[3])]},
    {group: 2, why: "not on the curve", words: [g2[1], g2[0], g2[3], g2[2]]},
    {group: 2, why: "not in the group", words: outsideOfG2()},
  ];
}

export function blsVectors() {
  const source = new Random("bls");
  const entropies = [`0x${"00".repeat(32)}`, ...[1, 2, 3].map(() => source.word()), concat([source.word(), source.word()])];
  const secrets = [...entropies.map(keyOf), 1n, 2n, R - 1n];
  return {
    madeBy: "make.mjs, with noble's bn254",
    negatedGeneratorG2: g2Words(G2.BASE.negate()),
    entropies: entropies.map((entropy) => ({entropy, secretKey: hex(keyOf(entropy))})),
    keys: keyVectors(secrets),
    hashes: hashVectors(source),
    possessions: possessionVectors(secrets, source),
    verifications: verificationVectors(secrets, source),
    invalidPoints: invalidPoints(secrets),
  };
}
