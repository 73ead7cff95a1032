// SPDX-License-Identifier: Apache-2.0
// Merkle-sum trees by the recursive definition of RFC 6962 §2.1: split at the largest power of two below the length.

import {encodeAbiParameters, encodePacked, keccak256, toHex} from "viem";

import {Random} from "./random.mjs";

const SUMS = ["requests", "promptTokens", "cachedTokens", "completionTokens", "charge"];
const LEAF_COMPONENTS = [
  {name: "digest", type: "bytes32"},
  {name: "promptTokens", type: "uint64"},
  {name: "cachedTokens", type: "uint64"},
  {name: "completionTokens", type: "uint64"},
  {name: "charge", type: "uint128"},
];
const SUMS_COMPONENTS = SUMS.map((name) => ({name, type: name === "charge" ? "uint128" : "uint64"}));
const PATH = {
  name: "path",
  type: "tuple[]",
  components: [
    {name: "hash", type: "bytes32"},
    {name: "sums", type: "tuple", components: SUMS_COMPONENTS},
    {name: "left", type: "bool"},
  ],
};
const LEAF = {name: "leaf", type: "tuple", components: LEAF_COMPONENTS};

const sumsOf = (leaf) => ({
  requests: 1n,
  promptTokens: leaf.promptTokens,
  cachedTokens: leaf.cachedTokens,
  completionTokens: leaf.completionTokens,
  charge: leaf.charge,
});

const packed = ({hash, sums}) =>
  encodePacked(
    ["bytes32", "uint64", "uint64", "uint64", "uint64", "uint128"], [hash, ...SUMS.map((name) => sums[name])],
  );

const prefixed = (prefix, ...parts) => keccak256(`0x${prefix}${parts.map((part) => part.slice(2)).join("")}`);

function leafNode(leaf) {
  const bytes = encodePacked(
    ["bytes32", "uint64", "uint64", "uint64", "uint128"],
    [leaf.digest, leaf.promptTokens, leaf.cachedTokens, leaf.completionTokens, leaf.charge],
  );
  return {hash: prefixed("00", bytes), sums: sumsOf(leaf)};
}

function above(left, right) {
  const sums = Object.fromEntries(SUMS.map((name) => [name, left.sums[name] + right.sums[name]]));
  return {hash: prefixed("01", packed(left), packed(right)), sums};
}

function splitPoint(length) {
  let point = 1;
  while (point * 2 < length) point *= 2;
  return point;
}

function top(leaves) {
  if (leaves.length === 1) return leafNode(leaves[0]);
  const point = splitPoint(leaves.length);
  return above(top(leaves.slice(0, point)), top(leaves.slice(point)));
}

/// Siblings from the leaf upwards.
function pathOf(leaves, index) {
  if (leaves.length === 1) return [];
  const point = splitPoint(leaves.length);
  const [left, right] = [leaves.slice(0, point), leaves.slice(point)];
  return index < point
    ? [...pathOf(left, index), {...top(right), left: false}]
    : [...pathOf(right, index - point), {...top(left), left: true}];
}

const withCharge = (value) => ({...value, charge: value.charge.toString()});

function treeVector(label, unsorted) {
  const leaves = [...unsorted].sort((a, b) => (BigInt(a.digest) < BigInt(b.digest) ? -1 : 1));
  const none = {requests: 0n, promptTokens: 0n, cachedTokens: 0n, completionTokens: 0n, charge: 0n};
  const node = leaves.length === 0 ? null : top(leaves);
  const prove = (index) => ({leaf: leaves[index], path: pathOf(leaves, index)});

  const inclusions = leaves.map((leaf, index) => ({
    digest: leaf.digest,
    index,
    // abi.encode(leaf, path)
    abi: encodeAbiParameters([LEAF, PATH], [leaf, pathOf(leaves, index)]),
  }));
  // One digest in every gap: right before each leaf, and right behind the last one.
  const digests = leaves.map((leaf) => BigInt(leaf.digest));
  const missing = [...digests.map((digest) => digest - 1n), digests.length === 0 ? 7n : digests.at(-1) + 1n];
  const absences = missing
    .filter((digest) => digest >= 0n && digest < 1n << 256n && !digests.includes(digest))
    .map((digest) => {
      const place = digests.filter((other) => other < digest).length;
      const neighbours = [place - 1, place].filter((index) => index >= 0 && index < leaves.length).map(prove);
      return {
        digest: toHex(digest, {size: 32}),
        // abi.encode(neighbours)
        abi: encodeAbiParameters([{type: "tuple[]", components: [LEAF, PATH]}], [neighbours]),
      };
    });
  return {
    label,
    leaves: unsorted.map(withCharge),
    root: node === null ? toHex(0n, {size: 32}) : prefixed("02", packed(node)),
    totals: withCharge(node === null ? none : node.sums),
    inclusions,
    absences,
  };
}

export function merkleSumVectors() {
  const source = new Random("merkle sum");
  const random = () => ({
    digest: source.word(),
    promptTokens: source.integer(48),
    cachedTokens: source.integer(40),
    completionTokens: source.integer(48),
    charge: source.integer(120),
  });
  const most64 = (1n << 64n) - 1n;
  const leaf = (digest, promptTokens, cachedTokens, completionTokens, charge) => ({
    digest: toHex(digest, {size: 32}), promptTokens, cachedTokens, completionTokens, charge,
  });
  const trees = [
    treeVector("none", []),
    treeVector("one of zeros", [leaf(0n, 0n, 0n, 0n, 0n)]),
    treeVector("one of the largest", [leaf((1n << 256n) - 1n, most64, most64, most64, (1n << 128n) - 1n)]),
    treeVector("two whose sums are the largest", [
      leaf(5n, most64 - 1n, 1n, 0n, (1n << 128n) - 2n),
      leaf(3n, 1n, most64 - 1n, most64, 1n),
    ]),
  ];
  for (const size of [2, 3, 4, 5, 6, 7, 9]) {
    trees.push(treeVector(`${size} random ones`, Array.from({length: size}, random)));
  }
  return {madeBy: "make.mjs, by the recursive definition", trees};
}
