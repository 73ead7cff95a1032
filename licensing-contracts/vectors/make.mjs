// SPDX-License-Identifier: Apache-2.0
// Golden vectors for the protocol's messages, money rules, trees and BLS signatures, made by an implementation that shares
// no code with the contracts or with the Rust side: viem for EIP-712, ABI and ECDSA, noble for BN254, BigInt for the rest.
// The tests of both sides read what it writes.
//
//   node vectors/make.mjs            writes the files beside this one
//   node vectors/make.mjs --check    fails if they would change
//
// There is no clock and no chance in it: every run writes the same bytes.

import {existsSync, readFileSync, writeFileSync} from "node:fs";
import {fileURLToPath} from "node:url";

import {blsVectors} from "./bls.mjs";
import {messageVectors} from "./eip712.mjs";
import {stringify} from "./json.mjs";
import {merkleSumVectors} from "./merkle_sum.mjs";
import {moneyVectors} from "./money.mjs";

const files = {
  "eip712.json": await messageVectors(),
  "money.json": moneyVectors(),
  "merkle_sum.json": merkleSumVectors(),
  "bls.json": blsVectors(),
};

const check = process.argv.includes("--check");
let changed = 0;
for (const [name, vectors] of Object.entries(files)) {
  const path = fileURLToPath(new URL(name, import.meta.url));
  const text = stringify(vectors) + "\n";
  if (existsSync(path) && readFileSync(path, "utf8") === text) continue;
  changed += 1;
  if (check) console.error(`${name} is not what make.mjs writes`);
  else writeFileSync(path, text);
}
if (check && changed > 0) process.exit(1);
console.log(check ? "the vectors are up to date" : `${changed} of ${Object.keys(files).length} files changed`);
