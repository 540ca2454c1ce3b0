"""What cut.sh cuts: the shipped teacher with as many experts in every layer and with different counts, the committed
checkpoint of every architecture with experts; heads and channels of the shipped student and of every dense architecture. No
dependency.

    python cut_cases.py ROOT OUT

For each case OUT/NAME gets `model` (the shipped teacher's tokenizer beside the checkpoints, which have none: the folder has
to be whole, its tokens do not matter), keep.json (of each kind of unit a list for each layer) and ids.json. Prints the names.
"""

import json
import os
import random
import shutil
import sys

PROMPTS = 6
# Cut per layer; layers without experts are passed over.
ARCHITECTURES = {
    "gpt-oss-floats": [1, 2],
    "gpt-oss-mxfp4": [1, 1],
    "gpt-oss-top1": [1, 2],
    "mixtral-hub": [2, 2],
    "mixtral-fused": [3, 3],
    "qwen3-moe-hub": [2, 2],
    "qwen3-moe-fused": [2, 0, 2],
    "qwen3-moe-sparse": [0, 3, 0, 3],
}
TEACHER = {"teacher-uniform": [8, 8, 8, 8], "teacher-ragged": [3, 14, 9, 12]}
# Heads that stay of each KV head's; "groups": whole KV heads go, another one in each layer.
DENSE = {
    "llama2": "groups",
    "llama-bias": "groups",
    "llama31": 1,
    "llama32-tied": "groups",
    "mistral-full": 3,
    "mistral-window": 1,
    "qwen2": 2,
    "qwen2-window": "groups",
    "qwen3": 1,
    "qwen3-window": 1,
    "yarn-factor-null": 1,
}
SHIPPED = {"teacher-uniform": "teacher", "teacher-ragged": "teacher", "student-half": "student"}
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")


def kept(experts: list[int], cut: list[int], draw: random.Random) -> list[list[int]]:
    return [sorted(draw.sample(range(count), count - gone)) for count, gone in zip(experts, cut, strict=True)]


def experts_of(config: dict) -> list[int]:
    """Experts of each layer."""
    count = config.get("num_local_experts") or config["num_experts"]
    step, dense = config.get("decoder_sparse_step", 1), config.get("mlp_only_layers", [])
    layers = range(config["num_hidden_layers"])
    return [0 if (at + 1) % step or at in dense else count for at in layers]


def heads_of(config: dict, stay: int | str, draw: random.Random) -> list[list[int]]:
    """Those of each layer that stay."""
    heads = config["num_attention_heads"]
    groups = config.get("num_key_value_heads") or heads
    size, layers = heads // groups, []
    for layer in range(config["num_hidden_layers"]):
        if stay == "groups":
            first = layer % groups
            asked = sorted((first + at) % groups for at in range(max(1, groups // 2)))
            layers.append([group * size + at for group in asked for at in range(size)])
        else:
            layers.append([group * size + at for group in range(groups) for at in sorted(draw.sample(range(size), stay))])
    return layers


def channels_of(config: dict, draw: random.Random) -> list[list[int]]:
    """Two thirds of each layer's, in whole eights where there are as many: rows of 16 bytes run everywhere."""
    width = config["intermediate_size"]
    count = max(8, width * 2 // 3 // 8 * 8)
    return [sorted(draw.sample(range(width), count)) for _ in range(config["num_hidden_layers"])]


def save(path: str, value) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file)


def read(*path: str) -> dict:
    with open(os.path.join(*path), encoding="utf-8") as file:
        return json.load(file)


def main() -> None:
    root, out = sys.argv[1:]
    teacher, committed = (os.path.join(root, at) for at in ("cli/assets/nano/teacher", "tests/data/architectures"))
    for name, cut in (TEACHER | ARCHITECTURES | DENSE | {"student-half": 1}).items():
        draw, place = random.Random(name), os.path.join(out, name)
        if name in SHIPPED:
            shutil.copytree(os.path.join(os.path.dirname(teacher), SHIPPED[name]), os.path.join(place, "model"))
            ids = [[draw.randrange(2039) for _ in range(draw.randrange(5, 90))] for _ in range(PROMPTS)]
        else:
            shutil.copytree(os.path.join(committed, name), os.path.join(place, "model"))
            for file in TOKENIZER:
                shutil.copy(os.path.join(teacher, file), os.path.join(place, "model", file))
            ids = [row["ids"] for row in read(committed, name, "golden.json")["sequences"]]
        config = read(place, "model", "config.json")
        if isinstance(cut, list):
            keep = {"expert": kept(experts_of(config), cut, draw)}
        else:
            keep = {"head": heads_of(config, cut, draw), "channel": channels_of(config, draw)}
        save(os.path.join(place, "keep.json"), keep)
        save(os.path.join(place, "ids.json"), ids)
        print(name)


if __name__ == "__main__":
    main()
