// SPDX-License-Identifier: Apache-2.0
// What use costs and who is paid, in BigInt and straight from the definitions: one rounding up, over the total.

import {encodeAbiParameters, keccak256, toHex} from "viem";

import {Random} from "./random.mjs";

const MILLION = 1_000_000n;
const WHOLE = 10_000n;
const MOST = (1n << 128n) - 1n;
const MOST_COUNT = (1n << 48n) - 1n;

const COUNTS = ["requests", "promptTokens", "cachedTokens", "completionTokens"];
const PRICES = ["request", "prompt", "cached", "completion"];
const tuple = (names, type) => ({type: "tuple", components: names.map((name) => ({name, type}))});

const object = (names, values) => Object.fromEntries(names.map((name, index) => [name, values[index]]));
const counts = (...values) => object(COUNTS, values);
const prices = (...values) => object(PRICES, values);
const decimal = (money) => Object.fromEntries(Object.entries(money).map(([name, value]) => [name, value.toString()]));
const numbers = (used) => Object.fromEntries(Object.entries(used).map(([name, value]) => [name, Number(value)]));
const min = (a, b) => (a < b ? a : b);
const max = (a, b) => (a > b ? a : b);

/// Millionths of the smallest unit.
const weigh = (used, list) =>
  used.requests * list.request + (used.promptTokens - used.cachedTokens) * list.prompt
  + used.cachedTokens * list.cached + used.completionTokens * list.completion;

/// `null`: more than any payment.
function costUp(used, list) {
  const weight = weigh(used, list);
  const cost = weight % MILLION === 0n ? weight / MILLION : weight / MILLION + 1n;
  return cost > MOST ? null : cost;
}

const less = (after, before) => object(COUNTS, COUNTS.map((name) => after[name] - before[name]));
const share = (amount, bps) => amount * bps / WHOLE;

/// Counts with at most so many bits each.
function randomCounts(source, bits) {
  const [requests, a, b, completion] = [1, 2, 3, 4].map(() => source.integer(bits));
  return counts(requests, max(a, b), min(a, b), completion);
}

function randomPrices(source, bits) {
  const [request, a, b, completion] = [1, 2, 3, 4].map(() => source.integer(bits));
  return prices(request, max(a, b), min(a, b), completion);
}

function costVectors() {
  const one = counts(1n, 1n, 0n, 1n);
  const largest = counts(MOST_COUNT, MOST_COUNT, MOST_COUNT, MOST_COUNT);
  const edge = MOST / MOST_COUNT * MILLION;
  const cases = [
    [counts(0n, 0n, 0n, 0n), prices(MOST, MOST, MOST, MOST)],
    [largest, prices(0n, 0n, 0n, 0n)],
    [largest, prices(1n, 1n, 1n, 1n)],
    [one, prices(1n, 0n, 0n, 0n)],
    [one, prices(MILLION, 0n, 0n, 0n)],
    [one, prices(MILLION + 1n, 0n, 0n, 0n)],
    [one, prices(333_333n, 333_333n, 0n, 333_334n)],
    [one, prices(333_333n, 333_333n, 0n, 333_335n)],
    [counts(0n, 5n, 5n, 0n), prices(0n, MOST, 3n, 0n)],
    [counts(0n, 5n, 4n, 0n), prices(0n, 1_000_000n, 250_000n, 0n)],
    // Where costs stop to fit into 128 bits.
    [counts(0n, 0n, 0n, MOST_COUNT), prices(0n, 0n, 0n, edge)],
    [counts(0n, 0n, 0n, MOST_COUNT), prices(0n, 0n, 0n, edge + MILLION)],
    [counts(1_000_000n, 0n, 0n, 0n), prices(MOST, 0n, 0n, 0n)],
    [counts(1_000_000n, 0n, 0n, 1n), prices(MOST, 0n, 0n, 1n)],
    [counts(1_000_001n, 0n, 0n, 0n), prices(MOST, 0n, 0n, 0n)],
    [largest, prices(MOST, MOST, MOST, MOST)],
    // A million tokens of a small model, in a token of six decimals.
    [counts(1291n, 1_043_201n, 400_128n, 310_555n), prices(100_000n, 200_000n, 20_000n, 600_000n)],
  ];
  const source = new Random("costs");
  for (let number = 0; number < 24; number += 1) cases.push([randomCounts(source, 48), randomPrices(source, 110)]);
  return cases.map(([used, list]) => {
    const cost = costUp(used, list);
    return {
      counts: used,
      prices: decimal(list),
      abi: encodeAbiParameters([tuple(COUNTS, "uint48"), tuple(PRICES, "uint128")], [numbers(used), list]),
      cost: cost === null ? null : cost.toString(),
    };
  });
}

/// Prices as low as the floors allow, and `above` more.
function lowestPrices(floors, validatorBps, above) {
  const rest = WHOLE - validatorBps;
  const least = (floor) => (floor * WHOLE + rest - 1n) / rest;
  const [request, prompt, cached, completion] = PRICES.map((name, index) => least(floors[name]) + above[index]);
  return prices(request, prompt, min(cached, prompt), completion);
}

function claimVectors() {
  const nothing = counts(0n, 0n, 0n, 0n);
  const cases = [
    // [before, after, prices, floors, royaltyBps, validatorBps]
    [nothing, nothing, prices(1n, 1n, 1n, 1n), prices(0n, 0n, 0n, 0n), 1000n, 100n],
    [nothing, counts(1n, 812n, 512n, 240n), prices(100_000n, 200_000n, 20_000n, 600_000n),
      prices(0n, 10_000n, 1_000n, 40_000n), 1000n, 100n],
    // All of the royalty by the floors, and a payment of one unit.
    [nothing, counts(1n, 0n, 0n, 0n), prices(MILLION, 0n, 0n, 0n), prices(MILLION, 0n, 0n, 0n), 0n, 0n],
    [nothing, counts(3n, 0n, 0n, 0n), prices(333_333n, 0n, 0n, 0n), prices(333_333n, 0n, 0n, 0n), 0n, 0n],
    // Everything goes to the creator, or to the validators.
    [nothing, counts(5n, 7n, 2n, 9n), prices(MILLION, MILLION, MILLION, MILLION), prices(0n, 0n, 0n, 0n), WHOLE, 0n],
    [nothing, counts(5n, 7n, 2n, 9n), prices(MILLION, MILLION, MILLION, MILLION), prices(0n, 0n, 0n, 0n), 0n, WHOLE],
    // The total does not move to the next unit: nothing is charged, and nothing is owed.
    [counts(1n, 0n, 0n, 0n), counts(2n, 0n, 0n, 0n), prices(400_000n, 0n, 0n, 0n), prices(100_000n, 0n, 0n, 0n), 5000n, 100n],
    // The largest claim.
    [nothing, counts(0n, 0n, 0n, MOST_COUNT), prices(0n, 0n, 0n, MOST / MOST_COUNT * MILLION), prices(0n, 0n, 0n, 0n),
      3333n, 6667n],
  ];
  const source = new Random("claims");
  for (let number = 0; number < 40; number += 1) {
    const before = randomCounts(source, 40);
    const used = randomCounts(source, number % 2 === 0 ? 8 : 40);
    const after = object(COUNTS, COUNTS.map((name) => before[name] + used[name]));
    const validatorBps = source.below(number % 5 === 0 ? WHOLE : 500n);
    const royaltyBps = source.below(WHOLE - validatorBps + 1n);
    const floors = randomPrices(source, number % 3 === 0 ? 20 : 70);
    const list = lowestPrices(floors, validatorBps, [1, 2, 3, 4].map(() => source.below(3n)));
    cases.push([before, after, list, floors, royaltyBps, validatorBps]);
  }
  return cases.map(([before, after, list, floors, royaltyBps, validatorBps]) => {
    const used = less(after, before);
    const charge = costUp(after, list) - costUp(before, list);
    const floor = weigh(used, floors) / MILLION;
    const royalty = max(share(charge, royaltyBps), floor);
    const validatorShare = share(charge, validatorBps);
    if (royalty + validatorShare > charge) throw new Error("a claim owes more than it pays");
    return {
      before,
      after,
      prices: decimal(list),
      floors: decimal(floors),
      royaltyBps,
      validatorBps,
      abi: encodeAbiParameters(
        [tuple(COUNTS, "uint48"), tuple(COUNTS, "uint48"), tuple(PRICES, "uint128"), tuple(PRICES, "uint128"),
          {type: "uint16"}, {type: "uint16"}],
        [numbers(before), numbers(after), list, floors, Number(royaltyBps), Number(validatorBps)],
      ),
      charge: charge.toString(),
      floor: floor.toString(),
      royalty: royalty.toString(),
      validatorShare: validatorShare.toString(),
      host: (charge - royalty - validatorShare).toString(),
    };
  });
}

function priceVectors() {
  const source = new Random("prices");
  const vectors = [];
  for (let number = 0; number < 40; number += 1) {
    const floors = randomPrices(source, number % 2 === 0 ? 12 : 128);
    const validatorBps = number % 7 === 0 ? WHOLE : source.below(WHOLE + 1n);
    const rest = WHOLE - validatorBps;
    // At the limit, one below it, one above it, item by item.
    const list = object(PRICES, PRICES.map((name) => {
      const limit = rest === 0n ? MOST : (floors[name] * WHOLE + rest - 1n) / rest;
      const near = limit + source.below(number % 4 === 0 ? 1n : 3n) - (number % 4 === 0 ? 0n : 1n);
      return max(0n, min(near, MOST));
    }));
    const covered = PRICES.every((name) => floors[name] * WHOLE <= list[name] * rest);
    vectors.push({
      prices: decimal(list), floors: decimal(floors), validatorBps, accepted: covered && list.cached <= list.prompt,
    });
  }
  return vectors;
}

function splitVectors() {
  const source = new Random("splits");
  const addresses = Array.from({length: 8}, () => source.address());
  const lists = [
    [],
    [10_000n],
    [1n],
    [3333n, 3333n, 3334n],
    [1250n, 1250n, 1250n, 1250n, 1250n, 1250n, 1250n, 1250n],
    [1n, 2n, 3n, 4n, 5n, 6n, 7n, 8n],
    [9999n, 1n],
  ];
  const royalties = [0n, 1n, 9_999n, 10_000n, 1_234_567n, MOST];
  return lists.flatMap((list, number) => {
    const splits = list.map((bps, index) => ({recipient: addresses[index], bps: Number(bps)}));
    const components = [{name: "recipient", type: "address"}, {name: "bps", type: "uint16"}];
    const abi = encodeAbiParameters([{type: "tuple[]", components}], [splits]);
    const root = list.length === 0 ? toHex(0n, {size: 32}) : keccak256(abi);
    return [...royalties, source.integer(120)].slice(number === 0 ? 0 : -7).map((royalty) => {
      const parts = list.map((bps) => share(royalty, bps));
      const creator = royalty - parts.reduce((sum, part) => sum + part, 0n);
      return {
        splits,
        abi,
        root,
        royalty: royalty.toString(),
        parts: parts.map(String),
        creator: creator.toString(),
      };
    });
  });
}

export function moneyVectors() {
  return {
    madeBy: "make.mjs, in BigInt",
    costs: costVectors(),
    claims: claimVectors(),
    prices: priceVectors(),
    splits: splitVectors(),
  };
}
