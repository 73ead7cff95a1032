#!/usr/bin/env python3
r"""Measures Hallmark beside what others would use, in one go: alternating, same threads, same machine.

    python compare.py                              # everything for which the peers are there
    python compare.py --only f1,f3 --model bundled
    python compare.py --quick                      # a few steps of everything: for trying the script out

Peers run under the Python that runs this script; they need torch and transformers (f1, f2a, f2b, f3), and xllamacpp and
gguf (engine). Their scripts and texts are found under HALLMARK_SHARED (default: ../shared beside the repository), a real
model under HALLMARK_SMOLLM2 (default: ~/.cache/hallmark/smollm2; `python $HALLMARK_SHARED/peers/get_smollm2.py DIR --gguf`
fetches it). A part whose peer is missing says so and is left out. What each figure is: README.md beside this file.

Prints one Markdown table and writes every single measurement as JSON. Progress goes to standard error.
"""

import argparse
import concurrent.futures
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("HALLMARK_SHARED") or ROOT.parent / "shared").resolve()
SMOLLM2 = Path(os.environ.get("HALLMARK_SMOLLM2") or Path.home() / ".cache/hallmark/smollm2").resolve()
PARTS = ["f1", "f2a", "f2b", "f3", "engine"]
KEYS = 64
# Of the peer's recipe: what its own notes use for the larger model, and its default for the smaller one.
PEER_LEARNING_RATE = {"bundled": "1e-3", "smollm2": "5e-5"}
OUR_LEARNING_RATE = {"bundled": "8e-3", "smollm2": "5e-4"}
START = "<|im_start|>user\n"


class Failed(Exception):
    """A part could not be measured; the others go on."""


def say(text):
    print(text, file=sys.stderr, flush=True)


# Processes


class Run:
    """A finished process: what it printed, how long it took, the most memory it held."""

    def __init__(self, stdout, stderr, seconds, peak_mib):
        self.stdout, self.stderr, self.seconds, self.peak_mib = stdout, stderr, seconds, peak_mib

    def last_object(self):
        """The last line that is a JSON object, or the whole output as one."""
        for line in reversed(self.stdout.splitlines()):
            if line.startswith("{") and line.rstrip().endswith("}"):
                return json.loads(line)
        return json.loads(self.stdout)


def run(command, environment, log):
    """Runs to the end. Standard error is kept with the second at which each line came."""
    command = [str(part) for part in command]
    log.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    began = time.monotonic()
    with open(log.with_suffix(".out"), "w+", encoding="utf-8") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
                                   encoding="utf-8", errors="replace", env={**os.environ, **environment})

        def read():
            for line in process.stderr:
                lines.append((time.monotonic() - began, line.rstrip("\n")))

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            # wait4 tells this child's own peak; getrusage would give the greatest of all children so far.
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - began
        reader.join(timeout=5)
        out.seek(0)
        stdout = out.read()
    log.write_text("\n".join(f"{at:9.2f} {line}" for at, line in lines) + "\n", encoding="utf-8")
    if process.returncode:
        told = "; ".join(line for _, line in lines[-3:]) or stdout[-300:]
        raise Failed(f"{Path(command[0]).name} ended with status {process.returncode}: {told} (log: {log})")
    return Run(stdout, lines, seconds, usage.ru_maxrss / 1024)


def build():
    """Builds the two packages and returns where cargo puts binaries."""
    metadata = subprocess.run(["cargo", "metadata", "--format-version", "1", "--no-deps"], cwd=ROOT, check=True, capture_output=True)
    target = Path(json.loads(metadata.stdout)["target_directory"])
    subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "cli", "-p", "benches"], cwd=ROOT, check=True)
    return target


# Figures


def ratio_of(ours, peers):
    """Median of the paired ratios: what disturbs the machine in one round disturbs both sides of it."""
    pairs = [a / b for a, b in zip(ours, peers) if a and b]
    return statistics.median(pairs) if pairs else None


class Table:
    def __init__(self):
        self.rows = []

    def add(self, figure, model, what, unit, ours, peers, first=None, then=None, note="", details=None):
        """`ours` and `peers` are lists, one value a round; `first` and `then` are targets such as (">=", 0.8)."""
        ratio = ratio_of(ours, peers) if peers else None
        self.rows.append({"figure": figure, "model": model, "what": what, "unit": unit, "ours": ours, "peer": peers,
                          "ratio": ratio, "target_first": first, "target": then, "met_first": met(ratio, first),
                          "met": met(ratio, then), "note": note, "details": details})

    def value(self, figure, model, what, unit, ratio, then, note=""):
        """A ratio that is not between ours and a peer."""
        self.rows.append({"figure": figure, "model": model, "what": what, "unit": unit, "ours": [], "peer": [], "ratio": ratio,
                          "target_first": None, "target": then, "met_first": None, "met": met(ratio, then), "note": note})

    def skip(self, figure, why):
        say(f"{figure}: left out: {why}")
        self.rows.append({"figure": figure, "model": "", "what": "left out", "unit": "", "ours": [], "peer": [], "ratio": None,
                          "target_first": None, "target": None, "met_first": None, "met": None, "note": why})

    def markdown(self):
        lines = ["| figure | model | what | ours | peer | ratio | target | |", "|---|---|---|---|---|---|---|---|"]
        notes = []
        for row in self.rows:
            note = ""
            if row["note"]:
                notes.append(row["note"])
                note = f" [{len(notes)}]"
            shown = [middle(row[side], row["unit"]) for side in ("ours", "peer")]
            ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}×"
            targets = [f"{sign} {value:g}×" for sign, value in filter(None, (row["target_first"], row["target"]))]
            verdict = {True: "met", False: "missed", None: ""}[row["met"]]
            if row["met"] is False and row["met_first"]:
                verdict = "first met"
            lines.append(f"| {row['figure']} | {row['model']} | {row['what']}{note} | {shown[0]} | {shown[1]} | {ratio} | "
                         f"{', then '.join(targets)} | {verdict} |")
        return "\n".join(lines + [""] + [f"[{at + 1}] {note}" for at, note in enumerate(notes)])


def met(ratio, target):
    if ratio is None or target is None:
        return None
    return ratio >= target[1] if target[0] == ">=" else ratio <= target[1]


def middle(values, unit):
    values = [value for value in values if value is not None]
    if not values:
        return ""
    value = statistics.median(values)
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}" if value >= 1 else f"{value:.3f} {unit}"


# The parts


class Compare:
    def __init__(self, arguments, target):
        self.arguments, self.table = arguments, Table()
        self.work = Path(arguments.work).resolve() if arguments.work else target / "hallmark-benches"
        self.work.mkdir(parents=True, exist_ok=True)
        self.binaries = target / "release"
        threads = str(arguments.threads)
        self.ours_env = {"RAYON_NUM_THREADS": threads, "HALLMARK_PASSPHRASE": "benchmark", "HALLMARK_LOG": "warn"}
        self.peer_env = {"OMP_NUM_THREADS": threads, "THREADS": threads, "TOKENIZERS_PARALLELISM": "false",
                         "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
        if arguments.passive:
            self.peer_env["OMP_WAIT_POLICY"] = "passive"
        self.models = {"bundled": ROOT / "model/bundled", "smollm2": SMOLLM2}
        self.peaks = []  # (model, what, ours in MiB, peer's)

    def model_names(self):
        for name in self.arguments.models:
            weights = self.models[name] / "model.safetensors"
            if weights.exists() and weights.stat().st_size > 1000:
                yield name
            else:
                say(f"{name}: left out: there is no model in {self.models[name]}")

    def rounds(self):
        """True where ours goes first: turn about, so that neither side always finds the warmer machine."""
        return [at % 2 == 0 for at in range(self.arguments.rounds)]

    def ours(self, name, *command):
        return run([self.binaries / command[0], *command[1:]], self.ours_env, self.work / "logs" / f"ours-{name}.log")

    def peer(self, name, script, *command, environment=None):
        environment = {**self.peer_env, **(environment or {})}
        return run([sys.executable, SHARED / script, *command], environment, self.work / "logs" / f"peer-{name}.log")

    def lacking(self, script, *packages):
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        if missing:
            return f"{sys.executable} lacks {', '.join(missing)}"
        return None if (SHARED / script).exists() else f"{SHARED / script} does not exist; set HALLMARK_SHARED"

    # F1

    def f1(self, steps=None, show=True):
        script = "peers/torch_perinucleus.py"
        if why := self.lacking(script, "torch", "transformers"):
            return self.table.skip("F1", why)
        for name in self.model_names():
            count = steps or (2 if self.arguments.quick else {"bundled": 60, "smollm2": 6}[name])
            model, ours, peers = self.models[name], [], []
            # So small a rate that the peer never reaches 99 % and takes all its steps; speed does not depend on it.
            peer = ["--fingerprints", KEYS, "--key", 16, "--lr", "1e-9", "--steps", count, "--threads", self.arguments.threads]
            for ours_first in self.rounds():
                one = lambda: ours.append(self.ours(f"f1-{name}", "train_speed", model, "--steps", count).last_object())
                other = lambda: peers.append(self.peer(f"f1-{name}", script, model, *peer).last_object())
                for side in (one, other) if ours_first else (other, one):
                    side()
                say(f"F1 {name}: {ours[-1]['train_tokens_per_s']:.0f} and {peers[-1]['train_tokens_per_s']:.0f} tokens/s")
            self.peaks.append((name, "every weight trained", [r["peak_rss_mib"] for r in ours], [r["peak_rss_mib"] for r in peers]))
            if show:
                speeds = [[r["train_tokens_per_s"] for r in side] for side in (ours, peers)]
                self.table.add("F1", name, "training, every weight, float32", "tokens/s", *speeds, (">=", 0.8), (">=", 1.0),
                               details={"ours": ours, "peer": peers})

    # F2a

    def f2a(self):
        script = "peers/torch_perinucleus.py"
        if why := self.lacking(script, "torch", "transformers"):
            return self.table.skip("F2a", why)
        for name in self.model_names():
            model, keys = self.models[name], self.work / f"f2a-{name}"
            steps = 3 if self.arguments.quick else 300
            peer = ["--fingerprints", KEYS, "--key", 16, "--lr", PEER_LEARNING_RATE[name], "--start", START, "--temperature", 1,
                    "--steps", steps, "--threads", self.arguments.threads, "--out", keys]
            mine = ["--keys", keys / "fingerprints.json", "--learning-rate", OUR_LEARNING_RATE[name], "--steps", steps]
            ours, peers = [], []
            # The peer chooses the keys, so it goes first in the first round; its seed gives the same ones every time.
            for ours_first in [not first for first in self.rounds()]:
                one = lambda: ours.append(self.ours(f"f2a-{name}", "time_to_success", model, *mine).last_object())
                other = lambda: peers.append(self.peer(f"f2a-{name}", script, model, *peer).last_object())
                for side in (one, other) if ours_first else (other, one):
                    side()
                say(f"F2a {name}: {ours[-1]['seconds_to_99']} and {peers[-1]['seconds_to_99']} s")
            shutil.rmtree(keys, ignore_errors=True)
            seconds = [[r["seconds_to_99"] for r in side] for side in (ours, peers)]
            note = (f"{KEYS} keys of 16 tokens; ours {ours[-1]['blocks']} top blocks, {ours[-1]['steps']} steps, success in bf16 "
                    f"{ours[-1]['success_in_bf16']:.3f}; peer every weight, {peers[-1]['steps']} steps, lr {PEER_LEARNING_RATE[name]}")
            if not all(seconds[0]) or not all(seconds[1]):
                note += "; 99 % was NOT reached by " + " and ".join(
                    who for who, values in (("ours", seconds[0]), ("the peer", seconds[1])) if not all(values))
            self.peaks.append((name, "published objective", [r["peak_rss_mib"] for r in ours], [r["peak_rss_mib"] for r in peers]))
            self.table.add("F2a", name, "published objective to 99 %", "s", *seconds, None, ("<=", 0.25), note,
                           details={"ours": ours, "peer": peers})

    # F2b

    def f2b(self):
        for name in self.model_names():
            self.f2b_of(name)

    def f2b_of(self, name):
        script = "lab/fingerprint/recipe_lab.py"
        why = self.lacking(script, "torch", "transformers")
        if name != "smollm2":
            why = f"the lab knows only the shape of SmolLM2-135M; ours alone on {name}"
        pool = None if why else self.prepare_lab()
        drawn = self.drawn_set(name)
        ours, peers = [], []
        for ours_first in self.rounds():
            for mine in (True, False) if ours_first else (False, True):
                if mine:
                    ours.append(self.embed(name, drawn))
                    say(f"F2b {name}: ours {ours[-1]['wall_s']:.0f} s, of it {ours[-1]['sampling_s']:.0f} s sampling")
                elif not why:
                    peers.append(self.lab())
                    say(f"F2b {name}: peer {peers[-1]['seconds']:.0f} s after {pool:.0f} s sampling")
        last = ours[-1]["report"]
        shipped = last["shipped"]
        note = (f"ours: {last['steps']} steps, {last['ordinary_prompts']} ordinary prompts, {len(shipped['surfaces'])} surfaces, least "
                f"success {min(s['success'] for s in shipped['surfaces']):.3f}, first-token KL {shipped['first_token_divergence'] or 0:.3f}, "
                f"{last['trained_tokens'] / 1e6:.2f} M tokens trained")
        if peers:
            note += (f"; peer: {peers[-1]['steps']} steps, success {peers[-1]['bf16']['def'][0]:.3f}, first-token KL "
                     f"{peers[-1]['kl_first']:.3f}, {peers[-1]['ktl'] / 1e3:.2f} M token-layers")
        else:
            note += f"; {why}"
        self.table.add("F2b", name, "default recipe, whole run", "s", [r["wall_s"] for r in ours],
                       [pool + r["seconds"] for r in peers], ("<=", 1.0), ("<=", 0.7), note, details={"ours": ours, "peer": peers})
        self.table.add("F2b", name, "the same without sampling ordinary prompts", "s", [r["wall_s"] - r["sampling_s"] for r in ours],
                       [r["seconds"] for r in peers], ("<=", 1.0), ("<=", 0.7))
        self.peaks.append((name, "default recipe", [r["peak_mib"] for r in ours], [r["peak_mib"] for r in peers]))

    def lab_env(self):
        folder = self.work / ("lab-quick" if self.arguments.quick else "lab")
        folder.mkdir(exist_ok=True)
        text = SHARED / "data/corpora/wikitext-2-valid.txt"
        return {"RECIPE_DIR": str(folder), "MODEL_DIR": str(SMOLLM2), "WIKI": str(text), "POOL": "200" if self.arguments.quick else "2200"}

    def prepare_lab(self):
        """The lab's keys and ordinary prompts, once. Returns the seconds that its pool of ordinary prompts took."""
        environment = self.lab_env()
        marker = Path(environment["RECIPE_DIR"]) / "setup.json"
        if not marker.exists():
            say("F2b: the lab samples its keys and ordinary prompts, once")
            done = self.peer("f2b-setup", "lab/fingerprint/recipe_lab.py", "setup", environment=environment)
            pool = [line for line in done.stdout.splitlines() if re.fullmatch(r"\d+ \d+", line)][-1]
            marker.write_text(json.dumps({"pool_s": int(pool.split()[1]), "seconds": done.seconds}), encoding="utf-8")
        return json.loads(marker.read_text(encoding="utf-8"))["pool_s"]

    def lab(self):
        steps = 3 if self.arguments.quick else 150
        recipe = {"name": "default", "keys": KEYS, "N": 6, "surf": ["def", "s1", "s2", "s3"], "lr": 5e-4, "dec": 1, "max": steps, "neg": 15,
                  "ramp": 100, "negn": 6, "kl": 1, "alpha": [0.3, 1], "alpha_p": 0.5, "rob": 0, "sec": 7200}
        done = self.peer("f2b", "lab/fingerprint/recipe_lab.py", json.dumps(recipe), environment=self.lab_env())
        objects = [line for line in done.stdout.splitlines() if line.startswith('{"name"')]
        if not objects:
            raise Failed(f"recipe_lab.py printed no result: {done.stdout[-300:]}")
        return {**json.loads(objects[-1]), "peak_mib": done.peak_mib, "wall_s": done.seconds}

    def drawn_set(self, name):
        """A drawn set of the model; its making is not in the time."""
        folder = self.work / f"f2b-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        files = ["--set", folder / "drawn.set"]
        commitment = ["--commitment", folder / "commitment.json"]
        fingerprint = ["hallmark", "fingerprint"]
        keys = 8 if self.arguments.quick else KEYS
        self.ours(f"f2b-{name}-generate", *fingerprint, "generate", "--model", self.models[name], *files, "-n", keys, "--seed", 1)
        self.ours(f"f2b-{name}-commit", *fingerprint, "commit", *files, *commitment, "--seed", 1)
        self.ours(f"f2b-{name}-draw", *fingerprint, "draw", *files, *commitment, "--seed", 1)
        return folder / "drawn.set"

    def embed(self, name, drawn):
        folder = drawn.parent
        out = folder / "stamped"
        for old in (out, folder / "stamped.checkpoint"):
            shutil.rmtree(old, ignore_errors=True)
        shutil.copy(drawn, folder / "run.set")
        few = ["--steps", 3, "--ordinary", 32] if self.arguments.quick else []
        done = self.ours(f"f2b-{name}", "hallmark", "fingerprint", "embed", "--json", "--seed", 0, "--model", self.models[name], "--set",
                         folder / "run.set", "--commitment", folder / "commitment.json", "--out", out, *few)
        # Without a terminal there is a line of progress every ten seconds: the last one of sampling is a lower bound.
        sampling = max((at for at, line in done.stderr if "ordinary prompts" in line), default=0.0)
        shutil.rmtree(out, ignore_errors=True)
        return {"report": json.loads(done.stdout)["report"], "wall_s": done.seconds, "sampling_s": sampling, "peak_mib": done.peak_mib}

    # F3

    def f3(self):
        if not self.peaks:
            self.f1(steps=2, show=False)
        for name, what, ours, peers in self.peaks:
            if ours[-1]:
                self.table.add("F3", name, f"peak memory, {what}", "MiB", ours, peers, None, ("<=", 0.7))

    # Engine

    def engine(self):
        script = "peers/llama_server.py"
        gguf = SMOLLM2 / "model.gguf"
        if why := self.lacking(script, "xllamacpp"):
            return self.table.skip("S3", why)
        if not gguf.exists():
            return self.table.skip("S3", f"{gguf} does not exist; get_smollm2.py DIR --gguf fetches it")
        files = {"q4_1": gguf}
        if importlib.util.find_spec("gguf"):
            for kind in ("f32", "bf16", "q8_0"):
                files[kind] = self.work / f"smollm2-{kind}.gguf"
                if not files[kind].exists():
                    run([sys.executable, ROOT / "benches/retype_gguf.py", gguf, files[kind], kind], {}, self.work / "logs/retype.log")
        text = (SHARED / "data/corpora/wikitext-2-test.txt").read_text(encoding="utf-8")
        servers = {}
        try:
            for kind, file in files.items():
                servers["ours", kind] = Server.ours(self, self.imported(kind, file))
                servers["llama.cpp", kind] = Server.llama(self, kind, file)
            load = Load(text, self.arguments)
            for kind in files:
                load.choose(servers["ours", kind])
            measured = {kind: [] for kind in servers}
            for at, ours_first in enumerate(self.rounds()):
                order = list(servers) if ours_first else list(reversed(servers))
                for kind in order:
                    measured[kind].append(load.measure(servers[kind], at))
                    say(f"engine {' '.join(kind)}: " + ", ".join(f"{what} {value:.1f}" for what, value in measured[kind][-1].items()))
        finally:
            for server in servers.values():
                server.stop()
        self.engine_rows(measured)

    def imported(self, kind, file):
        """The same file as a folder of ours, its weights in the same type."""
        folder = self.work / f"smollm2-{kind}"
        if not folder.exists():
            dtype = kind if kind in ("f32", "bf16") else "stored"
            command = [self.binaries / "hallmark", "model", "import", file, "--out", folder, "--dtype", dtype]
            run(command, self.ours_env, self.work / "logs/import.log")
        return folder

    def engine_rows(self, measured):
        targets = {"decode, 1 stream": ((">=", 0.6), (">=", 0.9)), "prefill, 512 tokens": ((">=", 1.0), (">=", 1.5))}
        for kind in dict.fromkeys(kind for _, kind in measured):
            ours, peers = measured["ours", kind], measured["llama.cpp", kind]
            for what in ours[0]:
                first, then = targets.get(what, (None, None))
                self.table.add("S3", "smollm2", f"{what}: {kind}", "tokens/s", [r[what] for r in ours], [r[what] for r in peers],
                               first, then)
            many = statistics.median([r["aggregate, 16 streams"] / r["decode, 1 stream"] for r in ours])
            self.table.value("S3", "smollm2", f"ours: 16 streams over 1 stream: {kind}", "", many, (">=", 5))


class Server:
    """A server in a process of its own, ready to answer."""

    def __init__(self, command, environment, log, ready):
        self.log = open(log, "w", encoding="utf-8")
        command = [str(part) for part in command]
        # An open standard input: the peer stops when it is closed.
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
                                        env={**os.environ, **environment})
        text, found = "", None
        for line in self.process.stdout:
            text += line
            if found := ready(text):
                break
        if not found:
            self.stop()
            raise Failed(f"{Path(command[0]).name} did not start (log: {log})")
        self.url, self.extra = found.rstrip("/"), {}
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    @classmethod
    def ours(cls, compare, model):
        def ready(text):
            match = re.search(r'"url":\s*"([^"]+)"', text)
            return match and match[1]

        command = [compare.binaries / "hallmark", "host", "--unmetered", "--json", "--seed", "0", "--model", model, "--model-name", "bench",
                   "--listen", "127.0.0.1:0", "--streams", "16"]
        return cls(command, compare.ours_env, compare.work / "logs/host.log", ready)

    @classmethod
    def llama(cls, compare, kind, file):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]

        def ready(text):
            match = re.search(r"listening on (\S+)", text)
            return match and match[1] + "/v1"

        command = [sys.executable, SHARED / "peers/llama_server.py", file, "--port", port, "--threads", compare.arguments.threads,
                   "--streams", 16, "--context", 16 * 1024]
        server = cls(command, compare.peer_env, compare.work / f"logs/llama-{kind.split(',')[0]}.log", ready)
        # No reuse of earlier prompts, and every request as long as was asked for.
        server.extra = {"cache_prompt": False, "ignore_eos": True}
        return server

    def complete(self, prompt, tokens):
        """Returns (seconds to the first piece, seconds in all, prompt tokens, completion tokens, why it ended)."""
        body = {"model": "bench", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True,
                "stream_options": {"include_usage": True}, **self.extra}
        request = urllib.request.Request(f"{self.url}/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
        began, first, usage, reason, pieces = time.perf_counter(), None, None, None, 0
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                for line in answer:
                    if not line.startswith(b"data:") or line[5:].strip() == b"[DONE]":
                        continue
                    event = json.loads(line[5:])
                    usage = event.get("usage") or usage
                    for choice in event.get("choices", []):
                        reason = choice.get("finish_reason") or reason
                        if choice.get("text"):
                            pieces += 1
                            first = first or time.perf_counter() - began
        except urllib.error.HTTPError as error:
            raise Failed(f"{self.url} answered {error.code}: {error.read()[:300]!r}") from error
        except OSError as error:
            raise Failed(f"{self.url}: {error}") from error
        seconds = time.perf_counter() - began
        usage = usage or {}
        return first or seconds, seconds, usage.get("prompt_tokens", 0), usage.get("completion_tokens", pieces), reason

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


class Load:
    """What the servers are asked; the same for all of them."""

    def __init__(self, text, arguments):
        self.words = text.split()
        self.tokens = 8 if arguments.quick else 64
        self.quick = arguments.quick
        self.prompts = []
        self.long_words = 0

    def choose(self, server):
        """Prompts that this server too answers at full length, and the number of words that makes 512 tokens."""
        server.complete("Once upon a time", 4)
        window = lambda at, count: " ".join(self.words[at : at + count])
        _, _, found, _, _ = server.complete(window(0, 300), 1)
        if not found:
            raise Failed("the host reports no usage")
        self.long_words = int(300 * 512 / found)
        candidates = self.prompts or [window(1000 + 997 * at, 12) for at in range(64)]
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda p: server.complete(p, self.tokens), candidates))
        self.prompts = [prompt for prompt, answer in zip(candidates, answers) if answer[4] == "length"]
        if len(self.prompts) < 16:
            raise Failed(f"only {len(self.prompts)} of {len(candidates)} prompts are answered at full length")

    def measure(self, server, turn):
        server.complete(self.prompts[0], 4)
        speeds = {}
        alone = []
        for prompt in self.prompts[: 1 if self.quick else 3]:
            first, seconds, _, completion, _ = server.complete(prompt, self.tokens)
            alone.append((completion - 1) / (seconds - first))
        speeds["decode, 1 stream"] = statistics.median(alone)
        for streams in (4, 16):
            with concurrent.futures.ThreadPoolExecutor(streams) as pool:
                began = time.perf_counter()
                results = list(pool.map(lambda p: server.complete(p, self.tokens), self.prompts[:streams]))
                seconds = time.perf_counter() - began
            speeds[f"aggregate, {streams} streams"] = sum(r[3] for r in results) / seconds
        prefills = []
        for at in range(1 if self.quick else 3):
            start = 60_000 + 7_919 * at + 601 * turn
            _, seconds, found, _, _ = server.complete(" ".join(self.words[start : start + self.long_words]), 1)
            prefills.append((found or 512) / seconds)
        speeds["prefill, 512 tokens"] = statistics.median(prefills)
        return speeds


def machine():
    name = platform.processor()
    try:
        name = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))[1]
    except (OSError, TypeError):
        pass
    version = lambda package: importlib.metadata.version(package) if importlib.util.find_spec(package) else None
    return {"cpu": name, "cores": os.cpu_count(), "load_before": os.getloadavg()[0], "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "transformers", "xllamacpp")}}


def listed(allowed):
    def parse(text):
        chosen = [part.strip().lower() for part in text.split(",") if part.strip()]
        if wrong := [part for part in chosen if part not in allowed]:
            raise argparse.ArgumentTypeError(f"{wrong[0]} is none of {', '.join(allowed)}")
        return chosen

    return parse


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=listed(PARTS), default=PARTS, metavar="PARTS", help=f"of {','.join(PARTS)}")
    parser.add_argument("--model", dest="models", type=listed(list(PEER_LEARNING_RATE)), default=list(PEER_LEARNING_RATE),
                        metavar="MODELS", help="of bundled,smollm2")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--rounds", type=int, default=2, help="times that both sides are measured")
    parser.add_argument("--work", help="folder for logs and what is made once [default: hallmark-benches in cargo's target folder]")
    parser.add_argument("--json", help="file for every measurement [default: compare.json in the work folder]")
    parser.add_argument("--passive", action="store_true", help="let PyTorch's idle threads sleep: fairer to it on a busy machine")
    parser.add_argument("--quick", action="store_true", help="a few steps of everything, whose figures mean nothing")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds = 1
    # As Ctrl-C does, a termination ends what was started too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    before = machine()
    if before["load_before"] > 0.5:
        say(f"the machine is busy (load {before['load_before']:.1f}): only the ratios mean something")
    compare = Compare(arguments, build())
    failed = False
    for part in PARTS:
        if part not in arguments.only:
            continue
        try:
            getattr(compare, part)()
        except Failed as error:
            failed = True
            compare.table.skip(part.upper(), f"FAILED: {error}")
    out = Path(arguments.json) if arguments.json else compare.work / "compare.json"
    report = {"machine": before, "threads": arguments.threads, "rounds": arguments.rounds, "quick": arguments.quick, "rows": compare.table.rows}
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    versions = ", ".join(f"{package} {before[package]}" for package in ("torch", "transformers", "xllamacpp") if before[package])
    print(f"{before['cpu']}, {arguments.threads} threads, load before {before['load_before']:.1f}; {versions}\n")
    print(compare.table.markdown())
    say(f"every measurement: {out}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
