"""Small tokenizers of the families that chat models have, trained on corpus.txt.

Each is a tokenizer.json as a dict, without the control tokens of a template: those are added per cell (cells.py).
Around the vocabulary (splitting, normalizer, decoder) it is as the model that the family is named after.
"""

import json
import math
import os
from collections import Counter

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAYON_NUM_THREADS", "1")

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
MARK = "\u2581"
# Ids 0 to 2 of every SentencePiece-like vocabulary; 3 to 258 are the bytes.
CONTROLS = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]

SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
AFTER_WORDS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
SPLITTING = {
    "o200k": rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{SHORT}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{SHORT}?"
    + r"|\p{N}{1,3}|"
    + AFTER_WORDS.replace(r"[\r\n]*|", r"[\r\n/]*|", 1),
    "llama3": SHORT + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + AFTER_WORDS,
    "qwen2": SHORT + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + AFTER_WORDS,
}
# Runs of line breaks and blanks that every published byte-level vocabulary has and a small corpus has not: LF LF,
# CR LF, and two and four blanks, in GPT-2's spelling of bytes.
BLANKS = [("\u010a", "\u010a"), ("\u010d", "\u010a"), ("\u0120", "\u0120"), ("\u0120" * 2, "\u0120" * 2)]


def corpus() -> str:
    """The committed text."""
    with open(os.path.join(HERE, "corpus.txt"), encoding="utf-8") as file:
        return file.read()


def byte_level(name: str) -> dict:
    """BPE over bytes with the splitting of GPT-4o (o200k), Llama 3 or Qwen2; Qwen2 also composes letters (NFC)."""
    tokenizer = Tokenizer(models.BPE())
    if name == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(SPLITTING[name]), behavior="isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=560, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus().splitlines(keepends=True), trainer)
    settings = json.loads(tokenizer.to_str())
    settings["model"]["ignore_merges"] = name == "llama3"
    vocab, merges = settings["model"]["vocab"], settings["model"]["merges"]
    for left, right in BLANKS:
        if left + right not in vocab:
            vocab[left + right] = len(vocab)
            merges.append([left, right])
    return settings


def lines() -> list[str]:
    """The corpus without letters that stand in it once: they are left to the bytes."""
    often = {letter for letter, count in Counter(corpus()).items() if count > 1}
    return ["".join(letter for letter in line if letter in often) for line in corpus().splitlines()]


def pieces() -> tuple[list[str], list[list[str]]]:
    """Pieces of a SentencePiece-like BPE and their merges: words with a marker before each, then runs of blanks."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=420, show_progress=False)
    tokenizer.train_from_iterator(lines(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    runs = [[MARK, MARK], [MARK * 2, MARK * 2]]
    vocab = sorted(model["vocab"], key=model["vocab"].get) + ["".join(run) for run in runs]
    return vocab, model["merges"] + runs


def sentencepiece(name: str) -> dict:
    """BPE with byte fallback: Llama 2's (`prefix`, a marker before every text), the same by Metaspace (`first`, before
    the first text alone), and Gemma's (`plain`, none; line breaks are pieces)."""
    vocab, merges = pieces()
    if name == "plain":
        vocab, merges = [*vocab, "\n", "\n\n"], [*merges, ["\n", "\n"]]
    ids = {token: at for at, token in enumerate(CONTROLS + BYTES + vocab)}
    model = {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None}
    model |= {"end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False}
    return around(name) | {"model": model | {"vocab": ids, "merges": merges}}


def around(name: str) -> dict:
    """What stands around a SentencePiece-like vocabulary in tokenizer.json."""
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
    back = {"type": "Replace", "pattern": {"String": MARK}, "content": " "}
    decoding = [back, {"type": "ByteFallback"}, {"type": "Fuse"}]
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    prepend = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": MARK}, replace]}
    first = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "first", "split": False}
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    normalizer = {"prefix": prepend, "first": None, "plain": replace}[name]
    pre_tokenizer = {"prefix": None, "first": first, "plain": split}[name]
    decoder = {"type": "Sequence", "decoders": decoding if name == "plain" else [*decoding, strip]}
    return frame() | {"normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "decoder": decoder}


def frame() -> dict:
    """The keys of tokenizer.json that say nothing; a tokenizer that adds a BOS when asked to, as Llama's does."""
    single = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    pair = [*single, {"SpecialToken": {"id": "<s>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}]
    special = {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}
    processor = {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}
    head = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": []}
    return head | {"normalizer": None, "pre_tokenizer": None, "post_processor": processor, "decoder": None}


def unigram() -> dict:
    """Unigram with byte fallback, a marker before every text, split at markers (as T5 and XLM-R have it).

    Its scores are the logarithms of how often the BPE above uses each piece: the library's own trainer for Unigram adds
    in an order that changes from run to run.
    """
    bpe = Tokenizer.from_str(json.dumps(sentencepiece("prefix")))
    counts = Counter(token for line in lines() for token in bpe.encode(line, add_special_tokens=False).tokens)
    total = counts.total()
    scored = [[token, round(math.log((counts[token] + 0.5) / total), 3)] for token in pieces()[0]]
    model = {"type": "Unigram", "unk_id": 0, "byte_fallback": True}
    model["vocab"] = [[token, 0.0] for token in CONTROLS + BYTES] + scored
    metaspace = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "always", "split": True}
    decoder = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, metaspace]}
    return frame() | {"pre_tokenizer": metaspace, "decoder": decoder, "model": model}


def wordpiece() -> dict:
    """BERT's: lower case, accents stripped, blanks dropped. What it encodes cannot be spelled back."""
    bare = dict.fromkeys(piece.replace(MARK, "").lower() for piece in pieces()[0])
    tokens = ["[UNK]", *(form for piece in bare if piece for form in (piece, f"##{piece}"))]
    ids = {token: at for at, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return json.loads(tokenizer.to_str())


def families() -> dict[str, dict]:
    """Every family's tokenizer, by name."""
    made = {f"bytes-{name}": byte_level(name) for name in SPLITTING}
    made |= {f"spm-{name}": sentencepiece(name) for name in ["prefix", "first", "plain"]}
    return made | {"unigram": unigram(), "wordpiece": wordpiece()}
