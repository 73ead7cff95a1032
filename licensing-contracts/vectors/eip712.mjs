// SPDX-License-Identifier: Apache-2.0
// Messages, their hashes and signatures.

import {encodeAbiParameters, hashDomain, hashStruct, hashTypedData, keccak256, toHex} from "viem";
import {privateKeyToAccount} from "viem/accounts";

import {Random} from "./random.mjs";

// As contracts/types/Messages.sol has them, with the types that its named types stand for.
const TYPES = {
  LicenseTerms:
    "uint256 modelId,uint32 version,address paymentToken,uint16 royaltyBps,uint128 floorRequest,uint128 floorPrompt,"
    + "uint128 floorCached,uint128 floorCompletion,uint16 validatorBps,bytes32 splitRoot,uint128 minBond,"
    + "uint128 minRestake,uint64 validFrom,uint64 validTo,uint64 disputeWindow,bytes32 tokenizerDigest,"
    + "bytes32 templateDigest,bytes32 legalTextDigest",
  Lease:
    "uint64 leaseId,bytes32 termsId,address host,address leaseKey,bytes32 variantRoot,string endpoint,"
    + "uint128 priceRequest,uint128 pricePrompt,uint128 priceCached,uint128 priceCompletion,uint64 from,uint64 to",
  Channel: "address payer,address host,address token,uint64 withdrawDelay,bytes32 salt",
  SessionGrant: "bytes32 channelId,address key,uint128 cap,uint128 perRequestCap,uint64 expiresAt,uint64 nonce",
  Voucher:
    "bytes32 channelId,uint64 leaseId,uint64 lane,uint48 requests,uint48 promptTokens,uint48 cachedTokens,"
    + "uint48 completionTokens,uint128 ceiling,bytes32 statementsHead,uint64 expiresAt",
  Statement:
    "bytes32 channelId,uint64 leaseId,uint64 lane,uint48 seq,uint48 promptTokensBefore,uint48 cachedTokensBefore,"
    + "uint48 completionTokensBefore,uint48 promptTokens,uint48 cachedTokens,uint48 completionTokens,uint128 charge,"
    + "bytes32 requestHash,bytes32 responseHash,uint64 startedMs,uint64 endedMs,uint8 finishReason,bytes32 execRoot,"
    + "bytes32 previous",
  EpochCommit:
    "uint64 leaseId,uint64 epoch,bytes32 root,uint64 requests,uint64 promptTokens,uint64 cachedTokens,"
    + "uint64 completionTokens,uint128 charge,bytes32 previous",
  Verdict:
    "uint64 taskId,uint64 leaseId,uint8 kind,uint8 outcome,uint32 eValueLog2,bytes32 evidenceRoot,uint64 epoch",
};

const members = (name) =>
  TYPES[name].split(",").map((member) => {
    const [type, memberName] = member.split(" ");
    return {type, name: memberName};
  });

const DOMAINS = [
  {chainId: 1n, verifyingContract: "0x0000000000000000000000000000000000000000"},
  {chainId: 31337n, verifyingContract: "0x5FbDB2315678afecb367f032d93F642f64180aa3"},
  {chainId: 8453n, verifyingContract: "0x00000000219ab540356cBB839Cbe05303d7705Fa"},
  {chainId: (1n << 64n) - 1n, verifyingContract: "0xFFfFfFffFFfffFFfFFfFFFFFffFFFffffFfFFFfF"},
];

const DOMAIN_TYPE = [
  {name: "name", type: "string"},
  {name: "version", type: "string"},
  {name: "chainId", type: "uint256"},
  {name: "verifyingContract", type: "address"},
];

// The first account of every development chain.
const PRIVATE_KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

const bitsOf = (type) => Number(type.slice(4));
const isInteger = (type) => type.startsWith("uint");

const ZERO = {address: "0x0000000000000000000000000000000000000000", bytes32: toHex(0n, {size: 32}), string: ""};
const LARGEST = {
  address: "0xFFfFfFffFFfffFFfFFfFFFFFffFFFffffFfFFFfF",
  bytes32: toHex((1n << 256n) - 1n, {size: 32}),
  string: "https://host.example/ünïcode/\u{1F980}?q=\"quoted\"\\\n" + "x".repeat(200),
};

const zero = (type) => (isInteger(type) ? 0n : ZERO[type]);
const largest = (type) => (isInteger(type) ? (1n << BigInt(bitsOf(type))) - 1n : LARGEST[type]);
const random = (source) => (type) => {
  if (isInteger(type)) return source.integer(bitsOf(type));
  if (type === "address") return source.address();
  if (type === "bytes32") return source.word();
  return `https://${source.word().slice(2, 20)}.example/v1`;
};

const word = (text) => keccak256(toHex(text));
const HOST = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const PAYER = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";
const TOKEN = "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48";

// One of each as it might be, in a token of six decimals.
const REALISTIC = {
  LicenseTerms: {
    modelId: BigInt(word("model")), version: 2n, paymentToken: TOKEN, royaltyBps: 1000n, floorRequest: 0n,
    floorPrompt: 10000n, floorCached: 1000n, floorCompletion: 40000n, validatorBps: 100n, splitRoot: word("splits"),
    minBond: 250000000n, minRestake: 32000000000000000000n, validFrom: 1767225600n, validTo: 1798761600n,
    disputeWindow: 86400n, tokenizerDigest: word("tokenizer"), templateDigest: word("template"),
    legalTextDigest: word("legal text"),
  },
  Lease: {
    leaseId: 7n, termsId: word("terms"), host: HOST, leaseKey: PAYER, variantRoot: ZERO.bytes32,
    endpoint: "https://inference.example/v1", priceRequest: 100000n, pricePrompt: 200000n, priceCached: 20000n,
    priceCompletion: 600000n, from: 1767225600n, to: 1769904000n,
  },
  Channel: {payer: PAYER, host: HOST, token: TOKEN, withdrawDelay: 7200n, salt: word("salt")},
  SessionGrant: {
    channelId: word("channel"), key: HOST, cap: 50000000n, perRequestCap: 250000n, expiresAt: 1767312000n, nonce: 3n,
  },
  Voucher: {
    channelId: word("channel"), leaseId: 7n, lane: 4n, requests: 1291n, promptTokens: 1043201n, cachedTokens: 400128n,
    completionTokens: 310555n, ceiling: 91000n, statementsHead: word("statement"), expiresAt: 1767312000n,
  },
  Statement: {
    channelId: word("channel"), leaseId: 7n, lane: 4n, seq: 1292n, promptTokensBefore: 1043201n,
    cachedTokensBefore: 400128n, completionTokensBefore: 310555n, promptTokens: 812n, cachedTokens: 512n,
    completionTokens: 240n, charge: 215n, requestHash: word("request"), responseHash: word("response"),
    startedMs: 1767230000123n, endedMs: 1767230004567n, finishReason: 1n, execRoot: word("seed"),
    previous: word("statement"),
  },
  EpochCommit: {
    leaseId: 7n, epoch: 490897n, root: word("root"), requests: 90211n, promptTokens: 71230411n,
    cachedTokens: 20110002n, completionTokens: 20933018n, charge: 23184225n, previous: ZERO.bytes32,
  },
  Verdict: {
    taskId: 12n, leaseId: 7n, kind: 1n, outcome: 1n, eValueLog2: 21n, evidenceRoot: word("evidence"), epoch: 490897n,
  },
};

/// Members as the Rust side writes them: integers of up to 64 bits as numbers, 128 bits as decimal digits, words in hex.
function toJson(type, value) {
  if (!isInteger(type)) return type === "address" ? value.toLowerCase() : value;
  if (bitsOf(type) <= 64) return value;
  return bitsOf(type) === 128 ? value.toString() : toHex(value, {size: 32});
}

/// viem takes numbers where 48 bits are enough.
const toViem = (type, value) => (isInteger(type) && bitsOf(type) <= 48 ? Number(value) : value);

async function vector(account, name, label, domainNumber, values) {
  const list = members(name);
  const domain = {name: "Hallmark", version: "1", ...DOMAINS[domainNumber % DOMAINS.length]};
  const types = {[name]: list};
  const message = Object.fromEntries(list.map((member) => [member.name, values[member.name]]));
  const abiMessage = Object.fromEntries(list.map(({type, name: key}) => [key, toViem(type, message[key])]));
  return {
    label: `${name}, ${label}`,
    type: name,
    typeString: `${name}(${TYPES[name]})`,
    chainId: domain.chainId.toString(),
    verifyingContract: domain.verifyingContract.toLowerCase(),
    message: Object.fromEntries(list.map(({type, name: key}) => [key, toJson(type, message[key])])),
    // abi.encode(message), for readers that would rather not parse JSON.
    abi: encodeAbiParameters([{type: "tuple", components: list}], [abiMessage]),
    structHash: hashStruct({data: message, primaryType: name, types}),
    domainSeparator: hashDomain({domain, types: {EIP712Domain: DOMAIN_TYPE}}),
    digest: hashTypedData({domain, types, primaryType: name, message}),
    signature: await account.signTypedData({domain, types, primaryType: name, message}),
  };
}

export async function messageVectors() {
  const account = privateKeyToAccount(PRIVATE_KEY);
  const vectors = [];
  for (const name of Object.keys(TYPES)) {
    const filled = (make) => Object.fromEntries(members(name).map((member) => [member.name, make(member.type)]));
    const source = new Random(`eip712 ${name}`);
    const instances = [
      ["zeros", filled(zero)],
      ["the largest of each", filled(largest)],
      ["realistic", REALISTIC[name]],
      ...[1, 2, 3, 4].map((number) => [`random ${number}`, filled(random(source))]),
    ];
    for (const [index, [label, values]] of instances.entries()) {
      vectors.push(await vector(account, name, label, index, values));
    }
  }
  return {madeBy: "make.mjs, with viem", privateKey: PRIVATE_KEY, signer: account.address.toLowerCase(), vectors};
}
