"""Write gguf.json: blocks of every storage type with their values, and small vocabularies with the ids of texts.

    pip install gguf transformers tokenizers && python make_gguf_goldens.py

Values come from the `gguf` package (llama.cpp's own Python code); ids from transformers' reader of GGUF files, which the
vocabularies are handed to as a GGUF file that the `gguf` package writes.
"""
import json
import os
import tempfile

import gguf
import numpy as np
import tokenizers
import transformers
from gguf import GGMLQuantizationType as Kind
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer
from transformers.integrations.gguf import gguf_tokenizer_mapping as reference

HERE = os.path.dirname(os.path.abspath(__file__))
BLOCKS = 4
# Offsets of the half-precision scales in a block: random bits there would be infinite or NaN now and then.
HALVES = {Kind.Q8_0: [0], Kind.Q4_0: [0], Kind.Q4_1: [0, 2], Kind.Q4_K: [0, 2], Kind.Q6_K: [208], Kind.Q5_0: [0],
          Kind.Q5_1: [0, 2], Kind.Q2_K: [80, 82], Kind.Q3_K: [108], Kind.Q5_K: [0, 2]}

TRAINING = [
    "The quick brown fox jumps over the lazy dog. The dogs' foxes weren't quick enough, they'd say; I'LL SAY!",
    "In 1984 there were 12345 tokens, 3.14159 of them pie; 2024-07-26 10:15:30.",
    "def main(argv):\n    for index in range(10):\n        print(argv[index], end='\\n\\n')\n\treturn 0\n",
    "Größe, Übermut und Straße; Œuvre à l'école; Привет, мир! 你好，世界。こんにちは 안녕하세요 🙂👍🏽",
    "the the the there then this that those these other another mother brother   spaces    and\t\ttabs",
]
TEXTS = [
    "", " ", "  ", "a", " a", "The quick brown fox", "they'd they'LL I'm we'Ve", "12345 67 8 3.14", "1a2b3c",
    "def f(x):\n    return x\n\n\n", "trailing spaces   ", "   leading", "a\t\tb \n c\r\n", "Größe Straße", "日本語 text 你好世界",
    "Привет, мир!", "🙂👍🏽 x", "no-such-chars: ₿ ∑ ௵ ℵ", "!!! ??? ... /// \\\\", "other<s>mother</s>", "<|end|> the <|end|>",
    "mixed<custom>the<custom> end", "\u00a0nbsp\u2003em", "CamelCaseIsHere andANOTHERone", "x" * 50, "\u0000\u0001\u007f",
    "don't <0x41> \u2581 lower", "the\u2581there",
]


def quantizations():
    generator = np.random.default_rng(7)
    out = []
    for kind in (Kind.F32, Kind.F16, Kind.BF16, *HALVES):
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        if kind in HALVES:
            blocks = generator.integers(0, 256, (BLOCKS, size), dtype=np.uint8)
            for offset in HALVES[kind]:
                scales = generator.normal(0, 0.01, BLOCKS).astype("<f2")
                blocks[:, offset:offset + 2] = scales.view(np.uint8).reshape(BLOCKS, 2)
        else:
            values = generator.normal(0, 1, (1, 256)).astype(np.float32)
            values[0, :4] = [0.0, -0.0, 1.0039062, 65504.0]
            blocks = gguf.quantize(values, kind).view(np.uint8)
        values = gguf.dequantize(blocks, kind).astype("<f4").ravel()
        out.append({"name": kind.name, "code": int(kind), "bytes": blocks.tobytes().hex(),
                    "bits": [int(bits) for bits in values.view("<u4")]})
    return out


def byte_level(split, digits=False, size=420):
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    first = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    first += [pre_tokenizers.Split(Regex(split), behavior="isolated")] if split else []
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*first, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, special_tokens=["<s>", "</s>", "<|end|>"],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(TRAINING * 3, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return {"tokens": tokens + ["<custom>"], "merges": merges, "token_type": [3, 3, 3] + [1] * (len(tokens) - 3) + [4]}


def sentence_piece(size=420):
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="first")
    tokenizer.train_from_iterator(TRAINING * 3, trainers.BpeTrainer(vocab_size=size, show_progress=False))
    vocab = json.loads(tokenizer.to_str())["model"]["vocab"]
    # As SentencePiece writes it: control tokens, bytes, merged pieces by rank, then single characters.
    pieces = sorted(vocab, key=lambda token: (len(token) == 1, vocab[token]))
    head = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = head + pieces
    scores = [0.0] * len(head) + [-float(rank) for rank in range(len(pieces))]
    return {"tokens": tokens, "scores": scores, "token_type": [2, 3, 3] + [6] * 256 + [1] * len(pieces)}


def write(path, architecture, entry):
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_tokenizer_model(entry["model"])
    if entry.get("pre"):
        writer.add_tokenizer_pre(entry["pre"])
    writer.add_token_list(entry["tokens"])
    writer.add_token_types(entry["token_type"])
    if "merges" in entry:
        writer.add_token_merges(entry["merges"])
    if "scores" in entry:
        writer.add_token_scores(entry["scores"])
    writer.add_bos_token_id(entry["bos"])
    writer.add_eos_token_id(entry["eos"])
    if "unknown" in entry:
        writer.add_unk_token_id(entry["unknown"])
    for key in ("add_bos_token", "add_space_prefix"):
        if key in entry:
            writer.add_bool(f"tokenizer.ggml.{key}", entry[key])
    writer.add_block_count(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def vocabularies():
    splits = reference.GGUF_PRE_TOKENIZER_SPLITS
    bpe = {"model": "gpt2", "bos": 0, "eos": 1}
    spm = {"model": "llama", "bos": 1, "eos": 2, "unknown": 0}
    entries = [
        ("gpt-2", "llama", {**bpe, "pre": "gpt-2", "add_bos_token": False, **byte_level(None)}),
        ("llama-bpe", "llama", {**bpe, "pre": "llama-bpe", "add_bos_token": True, **byte_level(splits["llama-bpe"])}),
        ("qwen2", "qwen2", {**bpe, "pre": "qwen2", "add_bos_token": False, **byte_level(splits["qwen2"])}),
        ("tekken", "llama", {**bpe, "pre": "tekken", "add_bos_token": True, **byte_level(splits["tekken"])}),
        ("sentencepiece", "llama", {**spm, **sentence_piece()}),
        ("sentencepiece-no-bos", "llama", {**spm, "add_bos_token": False, **sentence_piece(380)}),
    ]
    out = []
    for name, architecture, entry in entries:
        with tempfile.TemporaryDirectory() as folder:
            write(os.path.join(folder, "model.gguf"), architecture, entry)
            tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file="model.gguf")
        texts = []
        for text in TEXTS:
            ids = tokenizer(text)["input_ids"]
            texts.append({"text": text, "ids": ids, "decoded": tokenizer.decode(ids)})
        out.append({"name": name, "architecture": architecture, **entry, "texts": texts})
    return out


def main():
    about = f"made by make_gguf_goldens.py with transformers {transformers.__version__}, tokenizers {tokenizers.__version__}"
    goldens = {"about": about, "quantizations": quantizations(), "vocabularies": vocabularies()}
    with open(os.path.join(HERE, "gguf.json"), "w", encoding="utf-8") as f:
        json.dump(goldens, f, ensure_ascii=False)
        f.write("\n")


if __name__ == "__main__":
    main()
