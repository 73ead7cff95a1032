#!/usr/bin/env python3
"""What the contracts cost in gas, beside the figures that others published.

Runs the contracts' gas tests on EigenLayer's released core (licensing-contracts/script/test, which needs Node.js) and prints
targets C1 and C2 of the design. Every call is measured as a transaction of its own, calldata and the 21,000 included.
"""

import argparse
import json
import pathlib
import subprocess
import sys

CONTRACTS = pathlib.Path(__file__).resolve().parent.parent / "licensing-contracts"
CHANNELS, INFERENCES = 50, 10_000  # of a batch, and of each of its claims: the test asserts both

# x402 `exact` settles every request in a transaction of its own; the least that one can cost is a transaction's 21,000.
X402_LEAST = 21_000
# Ritual Infernet's own gas snapshot: creating and delivering, less creating.
INFERNET_DELIVERY = 352_544 - 142_471
# EigenLayer's BN254CertificateVerifier, and a minimal contract with stored keys, both measured on 200 validators.
CERTIFICATE_VERIFIER = {0: 198_520, 20: 1_841_862, 66: 5_338_189}
STORED_KEYS = {0: 195_072, 20: 350_227, 66: 700_554}


def measure() -> dict[str, int]:
    """Runs the gas tests; they write what they measured where CI compares it."""
    command = [CONTRACTS / "script" / "test", "--match-path", "test/Gas.t.sol"]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if ran.returncode != 0:
        sys.exit(f"the gas tests failed:\n{ran.stdout}")
    snapshot = json.loads((CONTRACTS / "snapshots" / "gas.json").read_text())
    return {name: int(gas) for name, gas in snapshot.items()}


def rows(gas: dict[str, int]) -> list[tuple[str, float, str, str]]:
    """Figure, ours, target, and what others need."""
    claim = gas[f"PaymentEscrow.claimBatch, {CHANNELS} channels"]
    table = [
        ("C1 gas a channel, batch of 50", claim / CHANNELS, "60,000", "-"),
        ("C1 the same, channels claimed for the first time", gas["PaymentEscrow.claimBatch, 50 new channels"] / CHANNELS, "-", "-"),
        (
            f"C1 gas an inference, {INFERENCES:,} a claim",
            claim / CHANNELS / INFERENCES,
            "10",
            f"x402 exact: more than {X402_LEAST:,}; Infernet: {INFERNET_DELIVERY:,} a delivery",
        ),
    ]
    for absent, verifier in CERTIFICATE_VERIFIER.items():
        ours = gas[f"submitVerdict, 200 validators, {absent} absent"]
        others = f"EigenLayer's verifier {verifier:,} ({ours / verifier:.2f}x); stored keys {STORED_KEYS[absent]:,} ({ours / STORED_KEYS[absent]:.2f}x)"
        table.append((f"C2 gas a verdict, 200 validators, {absent} absent", ours, f"{STORED_KEYS[absent]:,}", others))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="every call that is measured, too")
    arguments = parser.parse_args()
    gas = measure()
    print("| figure | ours | target | others, as published |\n|---|---|---|---|")
    for figure, ours, target, others in rows(gas):
        print(f"| {figure} | {f'{ours:,.0f}' if ours >= 100 else f'{ours:.1f}'} | {target} | {others} |")
    if arguments.all:
        print("\n| call | gas |\n|---|---|")
        for name, value in gas.items():
            print(f"| {name} | {value:,} |")


if __name__ == "__main__":
    main()
