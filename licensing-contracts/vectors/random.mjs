// SPDX-License-Identifier: Apache-2.0
// Values that look random and are the same in every run: keccak256 of a seed and a counter.

import {encodeAbiParameters, keccak256} from "viem";

export class Random {
  constructor(seed) {
    this.seed = seed;
    this.count = 0n;
  }

  /// 32 bytes.
  word() {
    this.count += 1n;
    return keccak256(encodeAbiParameters([{type: "string"}, {type: "uint256"}], [this.seed, this.count]));
  }

  /// An integer of at most so many bits; every length is as likely as any other.
  integer(bits) {
    const length = BigInt(this.word()) % BigInt(bits + 1);
    return BigInt(this.word()) & ((1n << length) - 1n);
  }

  /// An integer below the bound.
  below(bound) {
    return BigInt(this.word()) % bound;
  }

  address() {
    return `0x${this.word().slice(26)}`;
  }
}
