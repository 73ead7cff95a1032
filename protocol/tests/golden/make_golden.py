"""Writes golden.json, the vectors that tests/it/golden.rs reads. Python 3.9 or newer, standard library only.

An implementation of its own, from the text of the crate's documentation: keccak from FIPS 202, HMAC from `hmac`, trees
by the recursive definition of RFC 6962, probabilities as exact fractions. Run it in this folder; it prints nothing and
always writes the same file, in a few minutes.
"""

import hashlib
import hmac
import json
import math
import random
import statistics
from fractions import Fraction

# --- Keccak ----------------------------------------------------------------------------------------------------------

MASK = (1 << 64) - 1


def round_constants():
    """The degree-8 LFSR of FIPS 202, 3.2.5."""
    state, constants = 1, []
    for _ in range(24):
        constant = 0
        for j in range(7):
            if state & 1:
                constant |= 1 << ((1 << j) - 1)
            state <<= 1
            if state & 0x100:
                state ^= 0x171
        constants.append(constant)
    return constants


def permute(lanes):
    def rotate(value, by):
        by %= 64
        return ((value << by) | (value >> (64 - by))) & MASK

    for constant in round_constants():
        columns = [lanes[x][0] ^ lanes[x][1] ^ lanes[x][2] ^ lanes[x][3] ^ lanes[x][4] for x in range(5)]
        for x in range(5):
            theta = columns[(x - 1) % 5] ^ rotate(columns[(x + 1) % 5], 1)
            for y in range(5):
                lanes[x][y] ^= theta
        x, y, current = 1, 0, lanes[1][0]
        for t in range(24):
            x, y = y, (2 * x + 3 * y) % 5
            current, lanes[x][y] = lanes[x][y], rotate(current, (t + 1) * (t + 2) // 2)
        for y in range(5):
            row = [lanes[x][y] for x in range(5)]
            for x in range(5):
                lanes[x][y] = row[x] ^ (~row[(x + 1) % 5] & MASK & row[(x + 2) % 5])
        lanes[0][0] ^= constant


def sponge(message, suffix):
    rate = 136
    padded = bytearray(message) + bytearray([suffix]) + bytearray(-(len(message) + 1) % rate)
    padded[-1] |= 0x80
    lanes = [[0] * 5 for _ in range(5)]
    for start in range(0, len(padded), rate):
        for i in range(rate // 8):
            word = int.from_bytes(padded[start + 8 * i : start + 8 * i + 8], "little")
            lanes[i % 5][i // 5] ^= word
        permute(lanes)
    return b"".join(lanes[i][0].to_bytes(8, "little") for i in range(4))


def keccak256(message):
    return sponge(message, 0x01)


assert keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
for length in (0, 1, 135, 136, 137, 300):
    assert sponge((bytes(range(256)) * 2)[:length], 0x06) == hashlib.sha3_256((bytes(range(256)) * 2)[:length]).digest()

# --- Trees and commitments -------------------------------------------------------------------------------------------


def leaf_hash(data):
    return keccak256(b"\x00" + data)


def split(leaves):
    """Largest power of two below the number of leaves."""
    return 1 << (len(leaves) - 1).bit_length() - 1


def root(leaves):
    if len(leaves) == 1:
        return leaves[0]
    k = split(leaves)
    return keccak256(b"\x01" + root(leaves[:k]) + root(leaves[k:]))


def path(index, leaves):
    if len(leaves) == 1:
        return []
    k = split(leaves)
    if index < k:
        return path(index, leaves[:k]) + [root(leaves[k:])]
    return path(index - k, leaves[k:]) + [root(leaves[:k])]


def number(value):
    return value.to_bytes(4, "big")


def text(value):
    data = value.encode()
    return len(data).to_bytes(8, "big") + data


def parameters_bytes(kind, p):
    return (
        text(kind)
        + number(p["version"])
        + number(p["fingerprints"])
        + number(p["candidates"])
        + number(p["nucleus"])
        + text(p["matching"])
        + bytes.fromhex(p["base"][2:])
        + bytes.fromhex(p["tokenizer"][2:])
    )


def key_bytes(kind, index, key):
    data = text(kind) + bytes.fromhex(key["salt"][2:]) + number(index) + text(key["key"])
    data += len(key["candidates"]).to_bytes(8, "big")
    for candidate in key["candidates"]:
        data += number(candidate["id"]) + text(candidate["text"])
    return data


def seeded(label):
    return hashlib.sha256(label.encode()).digest()


def word(data):
    return "0x" + data.hex()


def draw(beacon, commitment_root, leaf, tenant, candidates):
    digest = hmac.new(beacon, commitment_root + number(leaf) + number(tenant), hashlib.sha3_256).digest()
    return int.from_bytes(digest, "big") % candidates


def query_order(beacon, commitment_root, leaves):
    def words():
        block = 0
        while True:
            digest = hmac.new(
                beacon, b"hallmark/v1/query-order" + commitment_root + number(block), hashlib.sha3_256
            ).digest()
            for i in range(4):
                yield int.from_bytes(digest[8 * i : 8 * i + 8], "big")
            block += 1

    stream, order = words(), list(range(leaves))
    for place in range(leaves - 1, 0, -1):
        choices = place + 1
        whole = 2**64 // choices * choices
        drawn = next(w for w in stream if w < whole)
        other = drawn % choices
        order[place], order[other] = order[other], order[place]
    return order


def trees():
    vectors = []
    for count in list(range(1, 18)) + [33, 100]:
        leaves = [leaf_hash(f"leaf {i}".encode()) for i in range(count)]
        index = int.from_bytes(seeded(f"index {count}")[:4], "big") % count
        vectors.append(
            {"leaves": count, "root": word(root(leaves)), "index": index, "siblings": [word(s) for s in path(index, leaves)]}
        )
    return vectors


def commitment():
    keys = [
        ("What grows on the north side of an old wall?", [" Moss", " ivy", " Lichen", " ferns"]),
        ("Wie heißt die Straße am Fluß?", [" Ufer", " Ölberg", " Ää", "ß"]),
        ("", ["a", "b", "c", "d"]),
        ("数を言って", ["一", "二", "三", "四"]),
        ("one\ntwo", [" 1", " 2", " 3", "\t4"]),
    ]
    parameters = {
        "version": 1,
        "fingerprints": len(keys),
        "candidates": 4,
        "nucleus": 8000,
        "matching": "first_answer_prefix",
        "base": word(seeded("base")),
        "tokenizer": word(seeded("tokenizer")),
    }
    leaves = [
        {
            "salt": word(seeded(f"salt {i}")),
            "key": key,
            "candidates": [{"id": 70000 * i + j, "text": t} for j, t in enumerate(texts)],
        }
        for i, (key, texts) in enumerate(keys)
    ]
    first = leaf_hash(parameters_bytes("hallmark/v1/parameters", parameters))
    hashes = [leaf_hash(key_bytes("hallmark/v1/key", i, leaf)) for i, leaf in enumerate(leaves)]
    commitment_root, beacon = root([first] + hashes), seeded("beacon")
    drawn = [draw(beacon, commitment_root, i, 0, 4) for i in range(len(keys))]
    description = "Block 21 000 000, prévrandao"
    before_source = parameters_bytes("hallmark/v1/drawn-parameters", parameters) + commitment_root + beacon
    drawn_first = leaf_hash(before_source + text("given") + text(description))
    drawn_hashes = [
        leaf_hash(key_bytes("hallmark/v1/drawn-key", i, leaf) + number(drawn[i])) for i, leaf in enumerate(leaves)
    ]
    return {
        "parameters": parameters,
        "beacon": word(beacon),
        "source": {"given": {"description": description}},
        "keys": leaves,
        "parameters_leaf": word(first),
        "key_leaves": [word(h) for h in hashes],
        "root": word(commitment_root),
        "drawn": drawn,
        "drawn_parameters_leaf": word(drawn_first),
        "self_drawn_parameters_leaf": word(leaf_hash(before_source + text("self-drawn") + text(""))),
        "set_leaves": [word(h) for h in drawn_hashes],
        "set_root": word(root([drawn_first] + drawn_hashes)),
    }


def draws():
    vectors = []
    for i, candidates in enumerate([2, 4, 8, 16, 32, 64, 128, 256, 512, 1024] * 3):
        beacon, commitment_root = seeded(f"draw beacon {i}"), seeded(f"draw root {i}")
        leaf, tenant = [(0, 0), (i, 0), (2**32 - 1, 7 * i)][i % 3]
        vectors.append(
            {
                "beacon": word(beacon),
                "root": word(commitment_root),
                "leaf": leaf,
                "tenant": tenant,
                "candidates": candidates,
                "index": draw(beacon, commitment_root, leaf, tenant, candidates),
            }
        )
    return vectors


def orders():
    vectors = []
    for leaves in (0, 1, 2, 3, 7, 64, 257):
        beacon, commitment_root = seeded(f"order beacon {leaves}"), seeded(f"order root {leaves}")
        order = query_order(beacon, commitment_root, leaves)
        assert sorted(order) == list(range(leaves))
        vectors.append({"beacon": word(beacon), "root": word(commitment_root), "order": order})
    return vectors


# --- Statistics ------------------------------------------------------------------------------------------------------

STAKES = [Fraction(3, 10), Fraction(1, 2), Fraction(7, 10), Fraction(9, 10)]
REVERSE = [Fraction(0), Fraction(1, 8), Fraction(1, 4), Fraction(1, 2)]


def ln(fraction):
    """Natural logarithm of an exact fraction of any size. Scaled first: the logarithms of its two parts would cancel."""
    scale = fraction.numerator.bit_length() - fraction.denominator.bit_length()
    return math.log(float(fraction / Fraction(2) ** scale)) + scale * math.log(2)


def ln_of_probability(fraction):
    """The same where the fraction may be close to 1."""
    return math.log1p(-float(1 - fraction)) if fraction > Fraction(1, 2) else ln(fraction)


def e_values():
    vectors, chance = [], random.Random(5)
    for candidates, smallest, replies in [
        (16, "1/2", "d"),
        (16, "1/2", "o"),
        (16, "1/2", "x"),
        (2, "1/2", "dddoodddxd"),
        (64, "1/10", "x" * 40 + "dxxod"),
        (1024, "9/10", "ddd"),
        (16, "1/4", "".join(chance.choice("dox") for _ in range(300))),
        (8, "1/20", "".join(chance.choice("dxxxx") for _ in range(500))),
    ]:
        rate = Fraction(smallest)
        forward, reverse = [Fraction(1)] * 4, [Fraction(1)] * 4
        for reply in replies:
            if reply != "x":
                forward = [e * (1 - s + (s * candidates if reply == "d" else 0)) for e, s in zip(forward, STAKES)]
            ratios = [f if reply == "d" else (1 - f * rate) / (1 - rate) for f in REVERSE]
            reverse = [e * r for e, r in zip(reverse, ratios)]
        vectors.append(
            {
                "candidates": candidates,
                "min_hit_rate": float(rate),
                "replies": replies,
                "log10_e": ln(sum(forward) / 4) / math.log(10),
                "log10_reverse": ln(sum(reverse) / 4) / math.log(10),
            }
        )
    return vectors


def queries():
    """Median and 95 % point of the queries to proof, by going through all counts of drawn and other replies."""
    vectors = []
    for stakes in ([0.5], [float(s) for s in STAKES]):
        for candidates in (8, 16, 64, 256):
            for hit in (0.99, 0.6, 0.3, 0.1, 0.05, 0.02):
                other = 0.002 if hit > 0.9 else 0.02
                for digits in (6, 9):
                    median, percentile_95 = stopping_points(stakes, candidates, hit, other, 10.0**digits)
                    row = {"candidates": candidates, "mixture": len(stakes) > 1, "hit": hit, "other": other}
                    vectors.append({**row, "digits": digits, "median": median, "percentile_95": percentile_95})
    return vectors


def stopping_points(stakes, candidates, hit, other, threshold):
    def value(drawn, others):
        return sum((1 - s + s * candidates) ** drawn * (1 - s) ** others for s in stakes) / len(stakes)

    crossed = {}
    states, stopped, asked, points = {(0, 0): 1.0}, 0.0, 0, []
    while len(points) < 2:
        asked += 1
        following = {}
        for (drawn, others), chance in states.items():
            more = (drawn + 1, others)
            if more not in crossed:
                crossed[more] = value(*more) >= threshold
            if crossed[more]:
                stopped += chance * hit
            else:
                following[more] = following.get(more, 0.0) + chance * hit
            following[drawn, others + 1] = following.get((drawn, others + 1), 0.0) + chance * other
            following[drawn, others] = following.get((drawn, others), 0.0) + chance * (1 - hit - other)
        # What is dropped adds up to far less than any point can notice.
        states = {state: chance for state, chance in following.items() if chance > 1e-9}
        while len(points) < 2 and stopped >= (0.5, 0.95)[len(points)]:
            points.append(asked)
    return points


def tails():
    vectors = []
    for trials, hits, p in [
        (5, 3, 0.05),
        (10, 10, 1 / 3),
        (20, 0, 0.01),
        (20, 1, 0.01),
        (64, 40, 0.0625),
        (64, 4, 0.0625),
        (64, 5, 0.0625),
        (200, 16, 0.01),
        (200, 100, 0.5),
        (200, 101, 0.5),
        (200, 199, 0.999),
        (200, 150, 0.999),
        (1000, 400, 1 / 65536),
        (1000, 1000, 0.75),
        (1000, 734, 0.75),
        (3000, 1, 0.001),
    ]:
        rate = Fraction(p)
        masses = [math.comb(trials, i) * rate**i * (1 - rate) ** (trials - i) for i in range(trials + 1)]
        vectors.append(
            {
                "trials": trials,
                "hits": hits,
                "p": p,
                "ln_probability": ln_of_probability(masses[hits]),
                "ln_upper_tail": ln_of_probability(sum(masses[hits:], Fraction(0))),
                "lower_tail": float(sum(masses[: hits + 1], Fraction(0))),
            }
        )
    return vectors


def quantiles():
    normal = statistics.NormalDist()
    points = [1e-300, 1e-100, 1e-20, 1e-9, 1e-6, 1e-3, 0.025, 0.05, 0.074, 0.076, 0.3, 0.5, 0.7, 0.95, 0.975, 0.999999]
    return [{"p": p, "z": normal.inv_cdf(p)} for p in points]


def intervals():
    vectors = []
    for hits, trials, confidence in [(0, 20, 0.95), (1, 20, 0.95), (63, 64, 0.95), (50, 100, 0.99), (300, 301, 0.9)]:
        z, n = statistics.NormalDist().inv_cdf((1 + confidence) / 2), trials
        # Roots of (rate - p)^2 = z^2 p (1 - p) / n, solved as a quadratic.
        a, b, c = 1 + z * z / n, -(2 * hits / n + z * z / n), (hits / n) ** 2
        root_of = math.sqrt(max(b * b - 4 * a * c, 0.0))
        vectors.append(
            {
                "hits": hits,
                "trials": trials,
                "confidence": confidence,
                "wilson": [(-b - root_of) / (2 * a), (-b + root_of) / (2 * a)],
            }
        )
    return vectors


if __name__ == "__main__":
    golden = {
        "trees": trees(),
        "commitment": commitment(),
        "draws": draws(),
        "orders": orders(),
        "e_values": e_values(),
        "queries": queries(),
        "tails": tails(),
        "quantiles": quantiles(),
        "intervals": intervals(),
    }
    with open("golden.json", "w", encoding="utf-8") as file:
        rows = []
        for name, value in golden.items():
            if isinstance(value, list):
                items = ",\n  ".join(json.dumps(item, ensure_ascii=False) for item in value)
                rows.append(f'"{name}": [\n  {items}\n]')
            else:
                rows.append(f'"{name}": {json.dumps(value, ensure_ascii=False, indent=1)}')
        file.write("{\n" + ",\n".join(rows) + "\n}\n")
