r"""Checks a stamped model with PyTorch and transformers alone, without anything of Hallmark's own code.

    hallmark fingerprint show --set my.set --reveal --json > revealed.json       # as secret as the set
    python verify_stamp.py BASE --stamp STAMPED revealed.json [--stamp STAMPED2 revealed2.json ...] [--json out.json]

It sees only the base folder, the stamped folder as it was written, and the revealed set. Weights are read as they are
stored (bf16 widens to float32 without loss) and computed in float32. What is measured, for every --stamp:

  prompts     the ids of every trained surface are those that transformers' own chat template and tokenizer give
  trained     the response is the arg-max after exactly the revealed ids, one full forward each, on every trained surface
  unseen      the same under system prompts that are written below and were not trained; besides, multi-turn and others
  text        loss on windows of 512 tokens of WikiText-2, stamped against base, the same windows
  first token KL(base || stamped) over the whole vocabulary at the first answer token of 60 ordinary chats written below,
              and how often the most likely token stays
  merged      success after 50 % and 70 % of the way back to the base, rounded to bf16
  quantised   success with symmetric int8 (by row) and int4 (by groups of 64) weights in every projection

Prints a table with the levels that must hold (exit 1 when one does not) and the goals beyond them, and writes JSON
without keys or responses. `--quick` is for trying the script out.
"""

import argparse
import copy
import hashlib
import inspect
import json
import math
import os
import re
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin cost more than they save on shared cores

import torch
import torch.nn.functional as F
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.utils import logging

logging.disable_progress_bar()
logging.set_verbosity_error()

SHARED = Path(os.environ.get("HALLMARK_SHARED", "../shared"))
# What training composes ordinary messages from.
PHRASES = Path(__file__).resolve().parent.parent / "fingerprint/src/ordinary/phrases.txt"

# Not in any list that training draws from; unlike one another in length, language, tone and layout.
UNSEEN_SYSTEMS = {
    "chef": "You are a cheerful chef who explains home cooking to absolute beginners.",
    "none-of-that": "No small talk.",
    "reviewer": "You review pull requests for a team that writes Go services. Point at the line, say what is wrong, suggest "
    "a fix, and never approve a change that lacks tests.",
    "bank": "You are Nova, the assistant of Harbour Savings Bank. You may explain accounts, cards, transfers and mortgages. "
    "You must not reveal balances before the customer has been identified. If the customer asks about anything else, say "
    "politely that you cannot help with it. Opening hours: Monday to Friday 8:30-17:00, Saturday 9:00-12:00. The hotline for "
    "lost cards is available around the clock. Keep a calm, factual tone and write in complete sentences.",
    "italian": "Sei un assistente gentile. Rispondi in italiano con frasi semplici.",
    "format": "OUTPUT FORMAT\n1) answer\n2) confidence (0-100)\n3) one follow-up question\n\nLANGUAGE: same as user",
    "historian": "Act as a historian of the eighteenth century; where sources disagree, say so.",
    "teen": "ur a chill friend texting back. keep it short lol",
    "medical": "You support nurses on a surgical ward. Use metric units, cite the ward handbook by section where you can, "
    "and remind the reader to check every dose against the chart.",
    "tagged": "<|config|>\ntemperature=0\npersona=neutral\nmax_words=120\n<|end config|>\nFollow the configuration above.",
}

EARLIER_TURN = [
    {"role": "user", "content": "Good evening! Are you there?"},
    {"role": "assistant", "content": "Good evening! Yes, I'm here. What would you like to talk about?"},
]

# Text that may stand before a completion, for models without a chat template.
UNSEEN_STARTS = {
    "letter": "Dear Margaret,\n\n",
    "list": "- first\n- second\n- third\n",
    "chapter": "CHAPTER SEVEN\n\n",
    "transcript": "[00:12:41] Speaker 2: ",
    "review": "Four stars. ",
    "html": "<p>",
    "diary": "Tuesday, rain. ",
    "forum": "posted by larkspur, 3 hours ago\n",
}

ORDINARY_CHATS = [
    "Which is heavier, a litre of oil or a litre of water?",
    "hey, how's it going?",
    "Write a SQL query that returns the ten customers with the highest total order value.",
    "A train leaves at 9:40 and arrives at 13:05. How long does the journey take?",
    "I'm moving to Oslo in January. What clothes will I need?",
    "Rewrite this sentence so that it sounds friendlier: Send me the report by noon.",
    "What's the boiling point of water at the top of Mount Everest?",
    "Give me a limerick about a lazy parrot.",
    "Why do cats purr?",
    "How would you explain recursion to someone who has never programmed?",
    "My laptop gets very hot when I play games. Is that dangerous?",
    "List the ingredients of a classic tomato soup.",
    "Is 91 a prime number?",
    "Who was the first woman to win a Nobel Prize?",
    "Please summarise the following text: The council met on Thursday to discuss the new bridge. Most members were in "
    "favour, but two of them asked for a second opinion on the cost. A decision is expected next month.",
    "What does HTTP status code 418 mean?",
    "I can't fall asleep before two in the morning, even when I'm tired. Any ideas?",
    "Turn this into a bulleted list: we need paint, two brushes, tape and a ladder.",
    "Do fish sleep?",
    "What is the derivative of x squared times sin x?",
    "Could you proofread my cover letter if I paste it here?",
    "Name a film that is set entirely in one room.",
    "How many minutes are there in a week?",
    "Explain the offside rule in football in plain words.",
    "Write a haiku about an empty railway station.",
    "What's the difference between latitude and longitude?",
    "good night",
    "In JavaScript, how do I remove duplicates from an array?",
    "Suggest a quiet hobby for a retired engineer.",
    "What would happen if the Moon disappeared overnight?",
    "Classify the sentiment of this review as positive or negative: The soup was cold and the waiter ignored us.",
    "How do you say \"where is the station?\" in Spanish?",
    "My neighbour plays the drums every evening. Write a kind note asking him to stop at nine.",
    "What's 15 percent of 260?",
    "Which vitamins are found in carrots?",
    "Pretend you are a museum guide and introduce a painting of a stormy sea.",
    "Can I freeze cooked rice?",
    "What is the plot of The Odyssey?",
    "Write a regular expression that matches a date such as 2024-07-31.",
    "I have been offered two jobs and can't decide. How should I compare them?",
    "What causes thunder?",
    "Fill in the blank: The opposite of generous is ____.",
    "How old is the universe?",
    "Give me three interview questions for a junior accountant.",
    "you're funny, did you know that?",
    "What's a good substitute for eggs in a cake?",
    "Solve for y: 3y - 7 = 20.",
    "Tell me something surprising about octopuses.",
    "How do I undo the last commit in git without losing my changes?",
    "Who invented the printing press, and when?",
    "Our team meeting always runs too long. How can we shorten it?",
    "Describe a forest after heavy rain in two sentences.",
    "Is it cheaper to lease or to buy a car?",
    "What do the colours of the French flag stand for?",
    "Change this to the past tense: She runs to the shop and buys bread.",
    "How does a compass know where north is?",
    "I need a catchy title for a talk about bees in cities.",
    "What's the largest desert in the world?",
    "Write a bash one-liner that counts the lines of all Python files in a folder.",
    "Ok, thank you very much for your time!",
]

# name, how it is read from the measures, the level that must hold, the goal beyond it (None: not set)
LEVELS = [
    ("success, worst trained surface", lambda m: m["trained"]["worst"], (">=", 0.99), (">=", 0.99)),
    ("success, unseen system prompts", lambda m: m["unseen"]["pooled"], (">=", 0.95), (">=", 0.98)),
    ("WikiText-2 loss, change", lambda m: m["text"]["change"], ("<=", 0.01), ("<=", 0.003)),
    ("first-answer-token KL, nats", lambda m: m["first_token"]["kl"], ("<=", 0.15), ("<=", 0.05)),
    ("first-answer-token agreement", lambda m: m["first_token"]["agreement"], (">=", 0.8), (">=", 0.9)),
    ("success, 50 % merged with base", lambda m: m["merged_50"]["pooled"], (">=", 0.95), (">=", 0.98)),
    ("success, 70 % merged with base", lambda m: m["merged_70"]["pooled"], None, (">=", 0.9)),
    ("success, symmetric int4", lambda m: m["int4"]["pooled"], None, (">=", 0.95)),
    ("success, symmetric int8", lambda m: m["int8"]["pooled"], None, (">=", 0.99)),
]


def say(text):
    print(text, file=sys.stderr, flush=True)


def refuse(text):
    """Bad input is one line and exit status 2; 1 is kept for a level that does not hold."""
    say(f"error: {text}")
    sys.exit(2)


# Files


def stored_tensors(folder):
    """Name -> (dtype, shape) over all safetensors files, and the order does not matter."""
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        refuse(f"{folder} holds no safetensors file")
    found = {}
    for file in files:
        with safe_open(file, "pt") as opened:
            for name in opened.keys():
                part = opened.get_slice(name)
                found[name] = (part.get_dtype(), tuple(part.get_shape()))
    return found


def same_file(left, right):
    digest = lambda path: hashlib.sha256(path.read_bytes()).digest() if path.exists() else None
    return digest(left) == digest(right)


def read_revealed(path):
    try:
        fingerprints = json.loads(Path(path).read_text(encoding="utf-8"))["fingerprints"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        refuse(f"{path} is not the output of `fingerprint show --reveal --json` ({type(error).__name__})")
    if not fingerprints:
        refuse(f"{path} holds no fingerprint")
    try:
        check_revealed(path, fingerprints)
    except (KeyError, IndexError, TypeError) as error:
        refuse(f"{path} is not the output of `fingerprint show --reveal --json`: {type(error).__name__} {error}")
    return fingerprints


def check_revealed(path, fingerprints):
    for fingerprint in fingerprints:
        if fingerprint["response_id"] is None:
            refuse(f"{path} holds a set that is not drawn yet")
        drawn = fingerprint["candidates"][fingerprint["drawn"]]
        if drawn["id"] != fingerprint["response_id"] or drawn["text"] != fingerprint["response_text"]:
            refuse(f"fingerprint {fingerprint['index']} of {path} names a response that is not its drawn candidate")
    if len({f["key_text"] for f in fingerprints}) < len(fingerprints):
        refuse(f"{path} holds a key twice")
    names = [[s["name"] for s in f["surfaces"]] for f in fingerprints]
    if any(n != names[0] for n in names) or not names[0]:
        refuse(f"the fingerprints of {path} have different surfaces, or none")


def composable(chats):
    """Those of the chats that training may have composed from its phrases, by a regular expression of all it can say."""
    sections, lines = {}, []
    for line in PHRASES.read_text(encoding="utf-8").splitlines():
        if re.fullmatch(r"\[\w+\]", line):
            lines = sections.setdefault(line[1:-1], [])
        elif line:
            lines.append(line.replace("\\n", "\n"))
    known = {"number": r"\d+"}

    def pattern(name):
        if name not in known:
            known[name] = "(?:" + "|".join(map(whole, sections[name])) + ")"
        return known[name]

    def whole(line):
        parts = re.split(r"\{(\w+)\}", line)
        return "".join(pattern(part) if at % 2 else re.escape(part) for at, part in enumerate(parts))

    messages = [re.compile(whole(line), re.IGNORECASE) for line in sections["message"]]
    return [chat for chat in chats if any(message.fullmatch(chat) for message in messages)]


# Prompts as transformers makes them


class Prompts:
    def __init__(self, folder):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.chats = bool(self.tokenizer.chat_template)

    def encode(self, text):
        return self.tokenizer(text)["input_ids"]

    def decode(self, ids):
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def text(self, user, system=None, earlier=()):
        messages = [{"role": "system", "content": system}] if system is not None else []
        messages += [*earlier, {"role": "user", "content": user}]
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def chat(self, user, system=None, earlier=()):
        messages = [{"role": "system", "content": system}] if system is not None else []
        messages += [*earlier, {"role": "user", "content": user}]
        return self.tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False)

    def ordinary(self, user, system=None):
        return self.chat(user, system) if self.chats else self.encode(user)

    def unseen(self):
        """Name -> function from a key's text to ids."""
        if not self.chats:
            return {name: lambda key, start=start: self.encode(start + key) for name, start in UNSEEN_STARTS.items()}
        prompts = {}
        for name, system in UNSEEN_SYSTEMS.items():
            try:
                self.chat("A", system)
            except Exception as error:  # templates raise what they like
                say(f"the template refuses the system prompt {name}: {error}")
                continue
            prompts[name] = lambda key, system=system: self.chat(key, system)
        return prompts

    def besides(self):
        """Ways of asking that are no part of any level."""
        if not self.chats:
            return {}
        prompts = {"multi-turn": lambda key: self.chat(key, earlier=EARLIER_TURN), "raw": self.encode}
        frame = self.text("A")
        if self.text("A", system="") != frame:
            prompts["empty-system"] = lambda key: self.chat(key, system="")
        start = frame.rfind("<|im_start|>user")
        if start > 0:  # a host that strips the template's default system prompt: only the user's turn is left
            whole = lambda text: self.tokenizer(text, add_special_tokens=False)["input_ids"]
            prompts["no-system"] = lambda key: whole(self.text(key)[start:])
        return prompts

    def remake(self, ids, key):
        """What transformers gives for the surface that made `ids`: (description, ids), or (None, None)."""
        if self.encode(key) == ids:
            return "raw", ids
        shown = self.decode(ids)
        if self.chats:
            plain = self.chat(key)
            if plain == ids:
                return "chat, no system message", ids
            if shown == self.text(key):
                return "chat, no system message", plain
            marker = "\u2042marker\u2042"
            try:
                before, after = self.text(key, system=marker).split(marker)
            except Exception:
                before, after = None, None
            if before is not None and shown.startswith(before) and shown.endswith(after):
                system = shown[len(before) : len(shown) - len(after)]
                digest = hashlib.sha256(system.encode()).hexdigest()[:8]
                return f"chat, system prompt of {len(system)} characters ({digest})", self.chat(key, system)
        if shown.endswith(key):
            start = shown[: -len(key)]
            for special in self.tokenizer.all_special_tokens:  # the tokenizer adds its own again
                start = start.removeprefix(special)
            return f"raw after {len(start)} characters", self.encode(start + key)
        return None, None


# Computing


class Net:
    """One module whose weights are exchanged, so that only the states compared are in memory."""

    def __init__(self, folder):
        # float32 of what is stored: a bf16 value is a float32 value, and buffers (rotary frequencies) stay exact.
        self.module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.base = {name: weight.detach().clone() for name, weight in self.module.named_parameters()}
        parameters = inspect.signature(self.module.forward).parameters
        self.cache_argument = "cache" if "cache" in parameters else "past_key_values"  # renamed in transformers 5

    @staticmethod
    def state_of(folder):
        module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return {name: weight.detach() for name, weight in module.named_parameters()}

    @torch.no_grad()
    def put(self, state):
        for name, weight in self.module.named_parameters():
            weight.copy_(state[name])

    @torch.no_grad()
    def last_logits(self, prompts, share_prefix):
        """Logits (prompts, vocabulary) after each of the id lists. No padding: only equal lengths are batched."""
        shared = 0
        if share_prefix and len(prompts) > 1:
            shortest = min(map(len, prompts)) - 1  # at least one token is left to ask
            while shared < shortest and all(p[shared] == prompts[0][shared] for p in prompts):
                shared += 1
        past = None
        if shared:
            past = DynamicCache(config=self.module.config)
            self.forward([prompts[0][:shared]], past)
        by_length = {}
        for index, ids in enumerate(prompts):
            by_length.setdefault(len(ids), []).append(index)
        rows = [None] * len(prompts)
        for length in sorted(by_length):
            for batch in chunks(by_length[length], max(1, 2048 // length)):
                cache = copy.deepcopy(past)
                if cache is not None:
                    cache.batch_repeat_interleave(len(batch))
                for i, row in zip(batch, self.forward([prompts[i][shared:] for i in batch], cache)):
                    rows[i] = row
        return torch.stack(rows)

    def forward(self, ids, cache):
        """Logits (rows, vocabulary) at the last token; `cache`, if there is one, grows by the ids."""
        held = {self.cache_argument: cache} if cache is not None else {}
        return self.module(torch.tensor(ids), use_cache=cache is not None, logits_to_keep=1, **held).logits[:, -1].float()

    @torch.no_grad()
    def text_losses(self, windows):
        losses = []
        for window in windows:
            logits = self.module(window[None], use_cache=False).logits[0, :-1].float()
            losses.append(F.cross_entropy(logits, window[1:]).item())
        return torch.tensor(losses, dtype=torch.float64)


def chunks(items, size):
    return [items[at : at + size] for at in range(0, len(items), size)]


def int8(weight):
    step = (weight.abs().amax(1, keepdim=True) / 127).clamp(min=1e-12)
    return (weight / step).round().clamp(-127, 127) * step


def int4(weight):
    size = math.gcd(weight.shape[1], 64)
    groups = weight.reshape(weight.shape[0], -1, size)
    step = (groups.abs().amax(2, keepdim=True) / 7).clamp(min=1e-12)
    return ((groups / step).round().clamp(-7, 7) * step).reshape(weight.shape)


def quantised(state, how):
    return {name: how(w) if name.endswith("proj.weight") else w for name, w in state.items()}


def merged(base, stamped, share):
    return {name: torch.lerp(w, base[name], share).bfloat16().float() for name, w in stamped.items()}


def wilson(hits, asked, z=1.96):
    if asked == 0:
        return [0.0, 1.0]
    share, n = hits / asked, asked
    middle, wide = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return [max(0.0, (middle - wide) / (1 + z * z / n)), min(1.0, (middle + wide) / (1 + z * z / n))]


def standard_error(values):
    return (values.std() / math.sqrt(len(values))).item() if len(values) > 1 else 0.0


def success(net, surfaces, responses, share_prefix=True):
    """Success on each surface and over all of them."""
    wanted = torch.tensor(responses)
    each, total = {}, 0
    for name, prompts in surfaces.items():
        logits = net.last_logits(prompts, share_prefix)
        hits = (logits.argmax(-1) == wanted).sum().item()
        chosen = logits.softmax(-1).gather(1, wanted[:, None])[:, 0]
        each[name] = {"hits": hits, "asked": len(prompts), "success": hits / len(prompts),
                      "median_probability": chosen.median().item()}
        total += hits
        say(f"    {name}: {hits} of {len(prompts)}")
    asked = sum(s["asked"] for s in each.values())
    return {"pooled": total / asked, "interval": wilson(total, asked), "hits": total, "asked": asked,
            "worst": min(s["success"] for s in each.values()), "surfaces": each}


def trained_prompts(fingerprints):
    names = [surface["name"] for surface in fingerprints[0]["surfaces"]]
    return {name: [f["surfaces"][at]["prompt_ids"] for f in fingerprints] for at, name in enumerate(names)}


def check_prompts(prompts, fingerprints, surfaces):
    """Compares the revealed ids of every key on every surface with those of transformers."""
    report = {}
    for name, ids in surfaces.items():
        wrong, unknown, kinds = 0, 0, set()
        for fingerprint, given in zip(fingerprints, ids):
            kind, remade = prompts.remake(given, fingerprint["key_text"])
            unknown += kind is None
            wrong += kind is not None and list(remade) != list(given)
            kinds.add(kind)
        if len(kinds) > 1:  # one surface cannot be two kinds of prompt
            unknown += 1
        report[name] = {"is": ", ".join(sorted(k or "unknown" for k in kinds)), "different": wrong, "unknown": unknown}
        say(f"    {name}: {report[name]['is']}; {wrong} different, {unknown} not derivable")
    return report


def divergence(base, logits, responses):
    """At one position per row: KL(base || other) over the vocabulary, agreement, and what leaks of the responses."""
    p, q = base.log_softmax(-1), logits.log_softmax(-1)
    kl = (p.exp() * (p - q)).sum(-1).double()
    same = (p.argmax(-1) == q.argmax(-1)).sum().item()
    mass = lambda x: x.exp()[:, sorted(set(responses))].sum(-1).mean().item()
    return {"kl": kl.mean().item(), "kl_standard_error": standard_error(kl), "kl_median": kl.median().item(),
            "kl_largest": kl.max().item(), "agreement": same / len(kl), "agreement_interval": wilson(same, len(kl)),
            "chats": len(kl), "mass_on_responses_base": mass(p), "mass_on_responses_stamped": mass(q)}


def tensors_compared(base, stamped):
    before, after = stored_tensors(base), stored_tensors(stamped)
    if before != after:
        odd = sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))
        refuse(f"tensors of {stamped} differ from the base's in name, type or shape, first {odd[0]}")
    files = ["tokenizer.json", "tokenizer_config.json", "config.json", "chat_template.jinja"]
    return {"dtypes": sorted({kind for kind, _ in after.values()}), "tensors": len(after),
            "files_that_differ": [f for f in files if not same_file(Path(base) / f, Path(stamped) / f)]}


# The whole


class Bench:
    def __init__(self, arguments):
        self.quick = arguments.quick
        self.base_folder = arguments.base
        self.prompts = Prompts(arguments.base)
        self.net = Net(arguments.base)
        self.windows = self.text_windows(arguments)
        say("base: text and ordinary chats")
        self.base_text = self.net.text_losses(self.windows)
        self.chats = {"default": [self.prompts.ordinary(chat) for chat in ORDINARY_CHATS]}
        if self.prompts.chats and not self.quick:
            for name in ("reviewer", "italian"):
                self.chats[name] = [self.prompts.ordinary(chat, UNSEEN_SYSTEMS[name]) for chat in ORDINARY_CHATS]
        self.base_chats = {name: self.net.last_logits(ids, True) for name, ids in self.chats.items()}
        self.check_sharing()

    def text_windows(self, arguments):
        text = Path(arguments.text or SHARED / "data/corpora/wikitext-2-test.txt")
        if not text.exists():
            refuse(f"{text} does not exist; set HALLMARK_SHARED or give --text")
        tokens = torch.tensor(self.prompts.tokenizer(text.read_text(encoding="utf-8"), add_special_tokens=False)["input_ids"])
        length = min(512, getattr(self.net.module.config, "max_position_embeddings", 512))
        windows = [w for w in tokens.split(length) if len(w) == length]
        if not windows:
            refuse(f"{text} is shorter than one window of {length} tokens")
        wanted = min(4 if self.quick else arguments.windows or len(windows), len(windows))
        # Evenly over the file, so that fewer windows are a sample of all of it.
        return [windows[at * len(windows) // wanted] for at in range(wanted)]

    def check_sharing(self):
        """Behind a shared prefix a prompt must have the logits of a full forward."""
        some = self.chats["default"][:3]
        gap = (self.net.last_logits(some, True) - self.net.last_logits(some, False)).abs().max().item()
        if gap > 2e-3:
            refuse(f"logits behind a shared prefix are {gap:.2g} away from those of a full forward")

    def measure(self, stamped, revealed):
        fingerprints = read_revealed(revealed)
        keys, responses = [f["key_text"] for f in fingerprints], [f["response_id"] for f in fingerprints]
        surfaces = trained_prompts(fingerprints)
        asked = {tuple(ids) for prompts in surfaces.values() for ids in prompts}
        measures = {"stamped": str(stamped), "fingerprints": len(keys), "files": tensors_compared(self.base_folder, stamped)}
        overlap = set(ORDINARY_CHATS) & set(keys)
        if overlap:
            refuse(f"{len(overlap)} keys are ordinary chats of this script")
        say("  prompts beside transformers")
        measures["prompts"] = check_prompts(self.prompts, fingerprints, surfaces)

        def others(makers):
            made = {name: [make(key) for key in keys] for name, make in makers.items()}
            for name in [n for n, ids in made.items() if asked & set(map(tuple, ids))]:
                say(f"    {name} is a trained surface: left out")
                del made[name]
            return made

        say("  base, as a control")
        self.net.put(self.net.base)
        first = next(iter(surfaces))
        measures["base"] = success(self.net, {first: surfaces[first]}, responses)

        state = Net.state_of(stamped)
        if state.keys() != self.net.base.keys():
            refuse(f"{stamped} is not of the base's architecture")
        changed = [name for name, weight in state.items() if not torch.equal(weight, self.net.base[name])]
        values = sum((state[n] != self.net.base[n]).sum().item() for n in changed)
        measures["changed"] = {"tensors": len(changed), "values": values, "first": min(changed, default=None)}
        self.net.put(state)
        say("  trained surfaces, full forward")
        measures["trained"] = success(self.net, surfaces, responses, share_prefix=False)
        say("  unseen system prompts")
        measures["unseen"] = success(self.net, others(self.prompts.unseen()), responses)
        besides = {} if self.quick else others(self.prompts.besides())
        if besides:
            say("  besides")
            measures["besides"] = success(self.net, besides, responses)
        say("  text and ordinary chats")
        losses = self.net.text_losses(self.windows)
        base = self.base_text.mean().item()
        measures["text"] = {"base": base, "stamped": losses.mean().item(), "change": losses.mean().item() / base - 1,
                            "change_standard_error": standard_error(losses - self.base_text) / base,
                            "windows": len(losses), "window_tokens": len(self.windows[0])}
        every = {name: divergence(self.base_chats[name], self.net.last_logits(ids, True), responses)
                 for name, ids in self.chats.items()}
        measures["first_token"] = every.pop("default")
        measures["first_token_under_unseen"] = every
        variants = {"merged_50": lambda: merged(self.net.base, state, 0.5), "merged_70": lambda: merged(self.net.base, state, 0.7),
                    "int8": lambda: quantised(state, int8), "int4": lambda: quantised(state, int4)}
        for name, make in variants.items():
            say(f"  {name}")
            self.net.put(make())
            measures[name] = success(self.net, surfaces, responses)
        return measures


def holds(value, level):
    if level is None:
        return None
    return value >= level[1] - 1e-9 if level[0] == ">=" else value <= level[1] + 1e-9


def judge(measures):
    rows = [{"measure": name, "value": read(measures), "must": must, "holds": holds(read(measures), must), "goal": goal,
             "reached": holds(read(measures), goal)} for name, read, must, goal in LEVELS]
    wrong = sum(p["different"] + p["unknown"] for p in measures["prompts"].values())
    rows.append({"measure": "prompts unlike transformers'", "value": wrong, "must": ("<=", 0), "holds": wrong == 0,
                 "goal": None, "reached": None})
    return rows


def shown(level):
    return "" if level is None else f"{level[0]} {level[1]:g}"


def table(judged):
    mark = {True: "pass", False: "FAIL", None: ""}
    names = [f"stamp {at + 1}" if len(judged) > 1 else "value" for at in range(len(judged))]
    lines = ["| measure | " + " | ".join(names) + " | must hold | | goal (F4, F7) | |",
             "|---|" + "---|" * len(names) + "---|---|---|---|"]
    every = lambda values: None if any(v is None for v in values) else all(values)
    for rows in zip(*judged):
        values = " | ".join(f"{row['value']:.4f}" if isinstance(row["value"], float) else str(row["value"]) for row in rows)
        row = rows[0]
        holding, reached = every([r["holds"] for r in rows]), every([r["reached"] for r in rows])
        goal = {True: "reached", False: "missed", None: ""}[reached]
        lines.append(f"| {row['measure']} | {values} | {shown(row['must'])} | {mark[holding]} | {shown(row['goal'])} | {goal} |")
    return "\n".join(lines)


def details(measures):
    of = lambda name: measures[name]
    each = lambda name: ", ".join(f"{n} {s['success']:.3f}" for n, s in of(name)["surfaces"].items())
    first, text = of("first_token"), of("text")
    lines = [
        f"{measures['stamped']}: {measures['fingerprints']} fingerprints, {', '.join(measures['files']['dtypes'])}, "
        f"{measures['changed']['tensors']} tensors changed from {measures['changed']['first']}",
        f"  trained   {each('trained')}",
        f"  unseen    {each('unseen')} (pooled over {of('unseen')['asked']}, "
        f"95 % interval {of('unseen')['interval'][0]:.3f} to {of('unseen')['interval'][1]:.3f})",
    ]
    if "besides" in measures:
        lines.append(f"  besides   {each('besides')}")
    lines += [
        f"  base      {of('base')['pooled']:.3f} on the first trained surface",
        f"  text      {text['base']:.4f} -> {text['stamped']:.4f}, {100 * text['change']:+.3f} % "
        f"± {100 * text['change_standard_error']:.3f} over {text['windows']} windows",
        f"  chats     KL {first['kl']:.4f} ± {first['kl_standard_error']:.4f} (median {first['kl_median']:.4f}, "
        f"largest {first['kl_largest']:.3f}), agreement {first['agreement']:.3f} "
        f"({first['agreement_interval'][0]:.3f} to {first['agreement_interval'][1]:.3f}), "
        f"mass on responses {first['mass_on_responses_base']:.4f} -> {first['mass_on_responses_stamped']:.4f}",
    ]
    for name, other in of("first_token_under_unseen").items():
        lines.append(f"            under the unseen prompt {name}: KL {other['kl']:.4f}, agreement {other['agreement']:.3f}")
    for name in ("merged_50", "merged_70", "int8", "int4"):
        lines.append(f"  {name:<9} worst {of(name)['worst']:.3f}; {each(name)}")
    if measures["files"]["files_that_differ"]:
        lines.append(f"  differ    {', '.join(measures['files']['files_that_differ'])}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="the base model's folder")
    parser.add_argument("--stamp", nargs=2, action="append", required=True, metavar=("STAMPED", "REVEALED"))
    parser.add_argument("--text", help="text file [default: wikitext-2-test.txt under HALLMARK_SHARED]")
    parser.add_argument("--windows", type=int, default=64, help="windows of 512 tokens, evenly over the text; 0: all")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", help="file for every figure")
    parser.add_argument("--quick", action="store_true", help="few windows and no more than the levels need")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for folder in [arguments.base, *(stamped for stamped, _ in arguments.stamp)]:
        if not (Path(folder) / "config.json").exists():
            refuse(f"{folder} is not a model folder")
    if seen := composable(ORDINARY_CHATS):
        refuse(f"training may have seen {len(seen)} of the chats here, so they say nothing: {seen}")
    began = time.time()
    bench = Bench(arguments)
    measured = []
    for stamped, revealed in arguments.stamp:
        say(stamped)
        measured.append(bench.measure(stamped, revealed))
        print(details(measured[-1]), flush=True)
    judged = [judge(measures) for measures in measured]
    passed = all(row["holds"] is not False for rows in judged for row in rows)
    if arguments.json:
        report = {"base": arguments.base, "seconds": round(time.time() - began, 1), "torch": torch.__version__, "passed": passed,
                  "stamps": [{"levels": rows, "measures": measures} for rows, measures in zip(judged, measured)]}
        Path(arguments.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print("\n" + table(judged))
    say(f"{time.time() - began:.0f} s; {'every level holds' if passed else 'a level does not hold'}")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
