"""A Llama of random weights as a GGUF file in Q4_K: what decoding is measured on.

    python q4k.py FILE.gguf [--seed N]

Shapes, vocabulary, tokenizer and chat template are those of checkpoints.py's llama-300m (0.16 GB); every matrix is
Q4_K, norms are f32. Needs numpy alone. Values are d·s·(q - 7.5) with random codes q and factors s, deviation 0.02: a
group's minimum has the same 6-bit factor as its scale, and a d that is 7.5 times as large.
"""

import argparse
import json
import os
import struct

import numpy as np

STUDENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../cli/assets/nano/student")
HIDDEN, INNER, LAYERS, HEADS, KV, HEAD, THETA, CONTEXT = 1024, 2816, 24, 16, 8, 64, 500000.0, 8192
# Numbers of GGUF: value types, tensor types, kinds of tokens.
U32, I32, F32, STRING, ARRAY = 4, 5, 6, 8, 9
TENSOR_F32, TENSOR_Q4_K = 0, 12
NORMAL, CONTROL, UNUSED = 1, 3, 5
ALIGNMENT, BLOCK, BLOCK_BYTES = 32, 256, 144


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def entry(key: str, kind: int, value) -> bytes:
    """A key with its value."""
    plain = {U32: "<I", I32: "<i", F32: "<f"}
    data = text(value) if kind == STRING else struct.pack(plain[kind], value)
    return text(key) + struct.pack("<I", kind) + data


def entries(key: str, kind: int, values: list) -> bytes:
    """A key with an array."""
    items = b"".join(text(v) if kind == STRING else struct.pack("<i", v) for v in values)
    return text(key) + struct.pack("<IIQ", ARRAY, kind, len(values)) + items


def tokenizer() -> list:
    """The student's tokenizer as GGUF has it."""
    with open(os.path.join(STUDENT, "tokenizer.json"), encoding="utf-8") as file:
        described = json.load(file)
    with open(os.path.join(STUDENT, "tokenizer_config.json"), encoding="utf-8") as file:
        settings = json.load(file)
    with open(os.path.join(STUDENT, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    tokens = [f"[unused{at}]" for at in range(config["vocab_size"])]
    kinds = [UNUSED] * len(tokens)
    for token, at in described["model"]["vocab"].items():
        tokens[at], kinds[at] = token, NORMAL
    for added in described["added_tokens"]:
        tokens[added["id"]], kinds[added["id"]] = added["content"], CONTROL
    merges = [m if isinstance(m, str) else " ".join(m) for m in described["model"]["merges"]]
    return [
        entry("llama.vocab_size", U32, len(tokens)),
        entry("tokenizer.ggml.model", STRING, "gpt2"),
        entry("tokenizer.ggml.pre", STRING, "llama-bpe"),
        entries("tokenizer.ggml.tokens", STRING, tokens),
        entries("tokenizer.ggml.token_type", I32, kinds),
        entries("tokenizer.ggml.merges", STRING, merges),
        entry("tokenizer.ggml.bos_token_id", U32, config["bos_token_id"]),
        entry("tokenizer.ggml.eos_token_id", U32, config["eos_token_id"]),
        entry("tokenizer.chat_template", STRING, settings["chat_template"]),
    ]


def model() -> list:
    """The numbers of a Llama."""
    whole = {"block_count": LAYERS, "context_length": CONTEXT, "embedding_length": HIDDEN, "feed_forward_length": INNER}
    whole |= {"attention.head_count": HEADS, "attention.head_count_kv": KV, "rope.dimension_count": HEAD}
    whole |= {"attention.key_length": HEAD, "attention.value_length": HEAD}
    return [
        entry("general.architecture", STRING, "llama"),
        entry("general.name", STRING, "random-llama-300m"),
        # LLAMA_FTYPE_MOSTLY_Q4_K_S
        entry("general.file_type", U32, 14),
        entry("general.alignment", U32, ALIGNMENT),
        *(entry(f"llama.{key}", U32, value) for key, value in whole.items()),
        entry("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        entry("llama.rope.freq_base", F32, THETA),
    ]


def shapes(vocab: int) -> dict:
    """Tensors by name: (rows, width), or (width,) for a norm."""
    found = {"token_embd.weight": (vocab, HIDDEN)}
    for layer in range(LAYERS):
        within = {"attn_norm": (HIDDEN,), "ffn_norm": (HIDDEN,), "attn_q": (HEADS * HEAD, HIDDEN)}
        within |= {"attn_k": (KV * HEAD, HIDDEN), "attn_v": (KV * HEAD, HIDDEN), "attn_output": (HIDDEN, HEADS * HEAD)}
        within |= {"ffn_gate": (INNER, HIDDEN), "ffn_up": (INNER, HIDDEN), "ffn_down": (HIDDEN, INNER)}
        found |= {f"blk.{layer}.{name}.weight": shape for name, shape in within.items()}
    return found | {"output_norm.weight": (HIDDEN,), "output.weight": (vocab, HIDDEN)}


def q4_k(draw, values: int) -> bytes:
    """Random blocks: f16 d and dmin, eight 6-bit scales and minima in 12 bytes, 256 codes in 128 bytes."""
    blocks = values // BLOCK
    factors = draw.integers(32, 64, (blocks, 8), dtype=np.uint8)
    low, high = factors[:, :4], factors[:, 4:]
    # A scale's upper two bits go on top of an earlier one's six; scale and minimum are the same number here.
    first = low | (high >> 4 << 6)
    packed = np.concatenate([first, first, (high & 15) | ((high & 15) << 4)], 1)
    ends = np.tile(np.array([9e-5, 7.5 * 9e-5], dtype=np.float16).view(np.uint8), (blocks, 1))
    codes = draw.integers(0, 256, (blocks, 128), dtype=np.uint8)
    return np.concatenate([ends, packed, codes], 1).tobytes()


def write(path: str, seed: int) -> int:
    """Writes the file; its size."""
    keys, draw = model() + tokenizer(), np.random.default_rng(seed)
    with open(os.path.join(STUDENT, "config.json"), encoding="utf-8") as file:
        found = shapes(json.load(file)["vocab_size"])
    header, at = b"", 0
    for name, shape in found.items():
        norm = len(shape) == 1
        # GGUF names the fastest dimension first.
        kind = TENSOR_F32 if norm else TENSOR_Q4_K
        header += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), kind, at)
        size = 4 * shape[0] if norm else shape[0] * shape[1] // BLOCK * BLOCK_BYTES
        at += size + (-size) % ALIGNMENT
    with open(path, "wb") as file:
        file.write(struct.pack("<4sIQQ", b"GGUF", 3, len(found), len(keys)) + b"".join(keys) + header)
        file.write(b"\0" * (-file.tell() % ALIGNMENT))
        for name, shape in found.items():
            one = np.ones(shape[0], dtype=np.float32).tobytes() if len(shape) == 1 else q4_k(draw, shape[0] * shape[1])
            file.write(one + b"\0" * (-len(one) % ALIGNMENT))
        return file.tell()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(json.dumps({"model": "llama-300m", "bytes": write(options.file, options.seed)}))


if __name__ == "__main__":
    main()
