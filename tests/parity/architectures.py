"""Random tiny checkpoints of every architecture that uspx reads, with what transformers computes of them.

    python architectures.py                             writes tests/data/architectures/ anew, the same to the last bit
    python architectures.py --check                     computes them anew and compares; exits with 6 where they differ
    python architectures.py --fresh --seed N --out DIR  other, larger ones, drawn from the seed N

Each case is a folder, as a user has it:

    config.json               keys as on the hub (`rope_theta` and `rope_scaling` at the top, `torch_dtype`, ...)
    config.transformers5.json the same model as transformers 5 writes it (`rope_parameters` alone, `dtype`, ...)
    model.safetensors         written by transformers: layout "hub" (as published: for Mixtral and Qwen3-MoE a tensor
                              per expert) or "fused" (one for all experts of a layer); "mxfp4" has gpt-oss's experts in
                              blocks and scales made here; "own head" has a head of its own though the config ties it
    golden.json               sequences  [{ids, response_start}]
                              nats       per sequence the response's summed loss, in f64 from logits in f32
                              routing    per layer (empty where it has no experts), sequence and token: the chosen
                                         experts, ascending; null where there are none at all
                              first_logits  after the last token of sequence 0
                              relevance  effects by relevance (relevance.py, in f64) of heads and experts, baseline
                                         zero, by layer, unit and sequence, in nats
                              margin     the smallest distance of two router logits, last chosen and first not chosen
                              seed, layout

transformers computes in f32 with its plain (eager) attention and experts, one sequence at a time, from the folder as
written. A case is only accepted when it can fail for a reason: every kind of tensor, and every key that the case is
about, must change the loss when it is taken away; padding must not; both configs must mean the same model; no routing
may be near a tie. The cases themselves are in architecture_cases.py.
"""

import argparse
import copy
import hashlib
import json
import math
import os
import re
import shutil
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch
from architecture_cases import Case, committed, fresh, mxfp4_config
from relevance import largest_gap, relevance
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, Mxfp4Config
from transformers.utils import logging as transformers_logging

HERE = os.path.dirname(os.path.abspath(__file__))
COMMITTED = os.path.join(HERE, "..", "data", "architectures")
# Of a sequence's summed loss: what padding, or another machine, may change; and what a missing tensor has to change.
SAME, MATTERS = 1e-5, 1e-3
# Between the router logits of the last chosen expert and the next one.
MARGIN = 1e-4
# A folder of the committed ones, in bytes.
LARGEST = 100_000


# ---------------------------------------------------------------------------------------------------------------------
# Weights

MXFP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])
# Root mean square of the sixteen values.
MXFP4_RMS = 2.93


def spread(name: str, shape: list, tied: bool) -> tuple[float, float]:
    """Mean and deviation of a tensor's values.

    Each linear map keeps about the size of its input, so that every part has a say in the result; norms are around 1;
    gpt-oss's experts are strong enough to reach its clamp at 7.
    """
    inputs = shape[1] if len(shape) == 3 and "_oss" in name else shape[-1]
    gain = 1 / math.sqrt(inputs)
    if "norm" in name:
        return 1.0, 0.2
    if name.endswith("sinks"):
        return 0.0, 1.0
    if "bias" in name:
        return 0.0, 0.3
    if "embed_tokens" in name:
        return 0.0, 2 * gain if tied else 1.0
    kinds = [("lm_head", 2.0), ("router", 1.5), ("mlp.gate.", 1.5), ("q_proj", 1.5), ("k_proj", 1.5)]
    kinds += [("_oss.gate_up_proj", 3.0), ("_oss.down_proj", 0.6), ("", 1.2)]
    return 0.0, gain * next(factor for part, factor in kinds if part in name)


def randomise(model, seed: int) -> None:
    """Fills every parameter from `seed`, rounded to the checkpoint's dtype."""
    draw = np.random.default_rng(seed)
    config = model.config
    dtype = getattr(torch, str(config.dtype).removeprefix("torch."))
    for name, value in sorted(dict(model.named_parameters()).items()):
        called = name.replace("experts.", "experts_oss.") if config.model_type == "gpt_oss" else name
        mean, deviation = spread(called, list(value.shape), config.tie_word_embeddings)
        random = mean + deviation * draw.standard_normal(tuple(value.shape))
        value.data = torch.from_numpy(random).to(dtype)


def mxfp4_weights(model, seed: int) -> dict:
    """Random blocks and scales for every expert matrix, by tensor name."""
    draw, tensors = np.random.default_rng([seed, 4]), {}
    for name, value in sorted(dict(model.named_parameters()).items()):
        if not re.search(r"experts\.(gate_up|down)_proj$", name):
            continue
        experts, inputs, outputs = value.shape
        blocks = torch.from_numpy(draw.integers(0, 256, (experts, outputs, inputs // 32, 16), dtype=np.uint8))
        wanted = (3.0 if "gate_up" in name else 0.6) / math.sqrt(inputs)
        exponents = round(math.log2(wanted / MXFP4_RMS)) + draw.integers(-1, 2, (experts, outputs, inputs // 32))
        scales = torch.from_numpy((127 + exponents).astype(np.uint8))
        tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
    return tensors


def expand(blocks: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """[E, out, in/32, 16] bytes, low nibble first, and [E, out, in/32] exponents to [E, in, out] floats."""
    pairs = torch.stack([MXFP4[(blocks & 15).long()], MXFP4[(blocks >> 4).long()]], -1)
    values = pairs.flatten(-2) * torch.exp2(scales.float() - 127).unsqueeze(-1)
    return values.flatten(-2).transpose(1, 2).contiguous()


# ---------------------------------------------------------------------------------------------------------------------
# A folder


def write(case: Case, folder: str, seed: int) -> None:
    """Config of both generations and weights of a case."""
    os.makedirs(folder, exist_ok=True)
    # transformers completes the objects that it is given.
    plain = copy.deepcopy({k: v for k, v in case.config.items() if k != "quantization_config"})
    config = AutoConfig.for_model(**plain)
    model = AutoModelForCausalLM.from_config(config, dtype=config.dtype)
    randomise(model, seed)
    quantised = mxfp4_weights(model, seed) if case.layout == "mxfp4" else {}
    model.save_pretrained(folder, save_original_format=case.layout != "fused")
    if quantised:
        path = os.path.join(folder, "model.safetensors")
        tensors = load_file(path) | quantised
        for name in quantised:
            tensors.pop(re.sub("_(blocks|scales)$", "", name), None)
        save_file(tensors, path, metadata={"format": "pt"})
    if case.layout == "own head":
        path = os.path.join(folder, "model.safetensors")
        tensors = load_file(path)
        table = tensors["model.embed_tokens.weight"]
        random = np.random.default_rng([seed, 5]).standard_normal(tuple(table.shape))
        tensors["lm_head.weight"] = torch.from_numpy(2 * random / math.sqrt(table.shape[1])).to(table.dtype)
        save_file(tensors, path, metadata={"format": "pt"})
    os.chmod(os.path.join(folder, "model.safetensors"), 0o644)
    newer = os.path.join(folder, "config.transformers5.json")
    os.replace(os.path.join(folder, "config.json"), newer)
    if quantised:
        with open(newer, encoding="utf-8") as file:
            written = json.load(file) | {"quantization_config": mxfp4_config()}
        save_json(newer, written)
    save_json(os.path.join(folder, "config.json"), case.config)
    generation = os.path.join(folder, "generation_config.json")
    if os.path.exists(generation):
        os.remove(generation)


def save_json(path: str, value) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(value, indent=1) + "\n")


def load(folder: str, config_name: str = "config.json"):
    """The folder in transformers, as any user loads it, in f32."""
    with tempfile.TemporaryDirectory() as place:
        shutil.copy(os.path.join(folder, config_name), os.path.join(place, "config.json"))
        os.symlink(os.path.abspath(os.path.join(folder, "model.safetensors")), os.path.join(place, "model.safetensors"))
        with open(os.path.join(place, "config.json"), encoding="utf-8") as file:
            quantised = "quantization_config" in json.load(file)
        extra = {"quantization_config": Mxfp4Config(dequantize=True)} if quantised else {}
        model, report = AutoModelForCausalLM.from_pretrained(
            place,
            dtype=torch.bfloat16 if quantised else torch.float32,
            attn_implementation="eager",
            experts_implementation="eager",
            output_loading_info=True,
            **extra,
        )
    problems = {kind: list(found) for kind, found in report.items() if found}
    assert not problems, f"{folder}: {problems}"
    set_unit(model, getattr(model.config, "swiglu_alpha", 1.702), getattr(model.config, "swiglu_limit", 7.0))
    return model.float().eval()


def set_unit(model, alpha: float, limit: float) -> None:
    """gpt-oss's gated unit as the file says it: transformers has both numbers in its code."""
    for layer in model.model.layers if model.config.model_type == "gpt_oss" else []:
        layer.mlp.experts.alpha, layer.mlp.experts.limit = alpha, limit


# ---------------------------------------------------------------------------------------------------------------------
# Goldens


def sequences(case: Case, seed: int) -> list:
    """Random tokens; each response starts after the first token at the earliest, and may be empty."""
    draw, vocab = np.random.default_rng([seed, 7]), case.config["vocab_size"]
    rows = [draw.integers(0, vocab, n).tolist() for n in case.lengths]
    return [{"ids": ids, "response_start": int(draw.integers(1, max(2, len(ids) // 2)))} for ids in rows]


class Routing:
    """What each router said in a `with` block, call by call: (layer, logits [N, experts], chosen [N, k])."""

    def __init__(self, model):
        self.calls, self.hooks = [], []
        for at, layer in enumerate(model.model.layers):
            router = getattr(layer.mlp, "router", None) or getattr(layer.mlp, "gate", None)
            if router is not None:
                self.hooks.append(router.register_forward_hook(self.hook(at)))

    def hook(self, layer: int):
        def add(_, __, output):
            self.calls.append((layer, output[0].detach(), output[2].detach()))

        return add

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()


def nll(logits: torch.Tensor, sequence: dict) -> float:
    """Summed loss of a response in nats, in f64 from the logits of the whole sequence."""
    start, ids = sequence["response_start"], torch.tensor(sequence["ids"])
    if start >= len(ids):
        return 0.0
    logs = torch.log_softmax(logits[start - 1 : len(ids) - 1].double(), -1)
    return float(-logs.gather(1, ids[start:, None]).sum())


@torch.no_grad()
def one_by_one(model, rows: list) -> tuple[list, torch.Tensor]:
    """Loss of each sequence, and the first one's last logits."""
    each = [model(torch.tensor([row["ids"]]), use_cache=False).logits[0] for row in rows]
    return [nll(logits, row) for logits, row in zip(each, rows)], each[0][-1]


@torch.no_grad()
def padded(model, rows: list) -> list:
    """The same in one batch, padded at the end."""
    width = max(len(row["ids"]) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for at, row in enumerate(rows):
        ids[at, : len(row["ids"])] = torch.tensor(row["ids"])
        mask[at, : len(row["ids"])] = 1
    logits = model(ids, attention_mask=mask, use_cache=False).logits
    return [nll(logits[at, : len(row["ids"])], row) for at, row in enumerate(rows)]


def gap(a: list, b: list) -> float:
    """The largest relative difference of summed losses; an empty response's is 0 in both."""
    return max(abs(x - y) / max(abs(x), 1e-9) if x or y else 0.0 for x, y in zip(a, b, strict=True))


def assert_blocks(model, folder: str) -> None:
    """transformers' reading of MXFP4 against the format's description, value by value."""
    tensors = load_file(os.path.join(folder, "model.safetensors"))
    for name in (name for name in tensors if name.endswith("_blocks")):
        stem = name.removesuffix("_blocks")
        floats = expand(tensors[name], tensors[f"{stem}_scales"])
        assert torch.equal(model.get_parameter(stem), floats), f"{folder}: {name} is read otherwise"


def golden(folder: str, case: Case, seed: int) -> dict:
    """Computes a written folder's golden values."""
    model, rows = load(folder), sequences(case, seed)
    assert_blocks(model, folder)
    with Routing(model) as seen:
        nats, last = one_by_one(model, rows)
    apart = gap(nats, padded(model, rows))
    assert apart < SAME, f"{case.name}: padding changes the loss by {apart}"
    other = load(folder, "config.transformers5.json")
    assert one_by_one(other, rows)[0] == nats, f"{case.name}: the two configs are not the same model"
    routing, margin = choices(seen.calls, len(rows), len(model.model.layers))
    return {
        "sequences": rows,
        "nats": nats,
        "routing": routing,
        "first_logits": [float(f"{v:.7g}") for v in last.tolist()],
        "relevance": relevance(model, rows),
        "margin": margin,
        "seed": seed,
        "layout": case.layout,
    }


def turned_margin(folder: str, rows: list) -> float:
    """The smallest margin where answers are read backwards, as the engine's test of shared beginnings runs them too."""
    model = load(folder)
    turn = lambda row: row | {"ids": row["ids"][: row["response_start"]] + row["ids"][row["response_start"] :][::-1]}
    with Routing(model) as seen:
        one_by_one(model, [turn(row) for row in rows])
    return choices(seen.calls, len(rows), len(model.model.layers))[1] or math.inf


def choices(calls: list, rows: int, layers: int) -> tuple[list | None, float | None]:
    """Chosen experts by layer, sequence and token, and the smallest margin; nothing where there is no router."""
    if not calls:
        return None, None
    routing, margin = [[] for _ in range(layers)], math.inf
    for layer, logits, chosen in calls:
        k = chosen.shape[1]
        top = torch.topk(logits, k + 1, -1).values
        margin = min(margin, float((top[:, k - 1] - top[:, k]).min()))
        routing[layer].append(chosen.sort(-1).values.tolist())
    assert all(len(of_layer) in (0, rows) for of_layer in routing)
    return routing, margin


# ---------------------------------------------------------------------------------------------------------------------
# What makes a case worth having


def changed(config, change: dict):
    """A copy of a config with some keys changed."""
    keys = config.to_dict()
    for path, value in change.items():
        *outer, last = path.split(".")
        place = keys
        for part in outer:
            place = place[part]
        place[last] = value
    if keys["rope_parameters"]["rope_type"] == "default":
        keys["rope_parameters"] = {"rope_type": "default", "rope_theta": keys["rope_parameters"]["rope_theta"]}
    keys.pop("quantization_config", None)
    return type(config)(**{k: v for k, v in keys.items() if k not in ("transformers_version", "model_type")})


def prove(folder: str, case: Case, wanted: dict) -> None:
    """Every kind of tensor, and every key that the case is about, changes the result when it is taken away."""
    model, rows = load(folder), wanted["sequences"]
    kinds: dict = {}
    for name, value in model.named_parameters():
        kinds.setdefault(re.sub(r"\.\d+\.", ".N.", name), []).append(value)
    for kind, values in kinds.items():
        kept = [value.data for value in values]
        for value in values:
            value.data = torch.ones_like(value) if "norm" in kind else torch.zeros_like(value)
        moved = gap(wanted["nats"], one_by_one(model, rows)[0])
        assert moved > MATTERS, f"{case.name}: without {kind} the loss changes by {moved} only"
        for value, data in zip(values, kept):
            value.data = data
    for change in case.about:
        other = AutoModelForCausalLM.from_config(
            changed(model.config, change), attn_implementation="eager", experts_implementation="eager"
        )
        other.load_state_dict(model.state_dict())
        moved = gap(wanted["nats"], one_by_one(other.float().eval(), rows)[0])
        assert moved > MATTERS, f"{case.name}: with {change} the loss changes by {moved} only"
    if case.config["model_type"] == "gpt_oss":
        alpha, limit = case.config.get("swiglu_alpha", 1.702), case.config.get("swiglu_limit", 7.0)
        for other in (alpha, math.inf), (3 * alpha, limit):
            set_unit(model, *other)
            moved = gap(wanted["nats"], one_by_one(model, rows)[0])
            assert moved > MATTERS, f"{case.name}: with a unit of {other} the loss changes by {moved} only"
    tokens = sum(len(row["ids"]) - row["response_start"] for row in rows)
    uniform = math.log(case.config["vocab_size"])
    assert abs(sum(wanted["nats"]) / tokens - uniform) > 0.3, f"{case.name}: the loss is that of guessing"


def make(case: Case, folder: str, seed: int, thorough: bool) -> dict:
    """Writes a case; with near ties in its routing, from the next seed that has none."""
    for attempt in range(20):
        write(case, folder, seed + attempt)
        found = golden(folder, case, seed + attempt)
        far = found["margin"] is None or found["margin"] > MARGIN
        # The committed ones were accepted by the first condition alone, and their tests pass.
        if far and (thorough or turned_margin(folder, found["sequences"]) > MARGIN):
            break
    else:
        raise SystemExit(f"{case.name}: 20 seeds, each with a routing near a tie")
    if thorough:
        prove(folder, case, found)
    with open(os.path.join(folder, "golden.json"), "w", encoding="utf-8") as file:
        file.write(json.dumps(found, separators=(",", ":")) + "\n")
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Commands


def seed_of(name: str, seed: int) -> int:
    """A seed of its own for each case, so that adding one does not change the others."""
    return int.from_bytes(hashlib.sha256(f"{name} {seed}".encode()).digest()[:4], "big")


def regenerate(cases: list, out: str, seed: int, thorough: bool) -> None:
    for case in cases:
        folder = os.path.join(out, case.name)
        shutil.rmtree(folder, ignore_errors=True)
        found = make(case, folder, seed_of(case.name, seed), thorough)
        size = sum(entry.stat().st_size for entry in os.scandir(folder))
        assert not thorough or size < LARGEST, f"{case.name} has {size} bytes"
        tokens = sum(len(row["ids"]) - row["response_start"] for row in found["sequences"])
        line = {"case": case.name, "bytes": size, "nats_per_token": round(sum(found["nats"]) / tokens, 4)}
        print(json.dumps(line | {"margin": found["margin"] and round(found["margin"], 5)}), flush=True)


def check(cases: list, root: str) -> bool:
    """Whether the committed files are what this script makes: weights and configs to the byte, values within SAME."""
    worst, relevances, different = 0.0, 0.0, []
    with tempfile.TemporaryDirectory() as place:
        for case in cases:
            ours, theirs = os.path.join(place, case.name), os.path.join(root, case.name)
            found = make(case, ours, seed_of(case.name, 0), thorough=False)
            for name in ("config.json", "model.safetensors"):
                with open(os.path.join(ours, name), "rb") as a, open(os.path.join(theirs, name), "rb") as b:
                    if a.read() != b.read():
                        different.append(f"{case.name}/{name}")
            with open(os.path.join(theirs, "golden.json"), encoding="utf-8") as file:
                want = json.load(file)
            if any(found[key] != want[key] for key in ("sequences", "routing")):
                different.append(f"{case.name}/golden.json")
            worst = max(worst, gap(want["nats"], found["nats"]))
            relevances = max(relevances, largest_gap(found["relevance"], want["relevance"]))
    good = not different and max(worst, relevances) < SAME
    line = {"architectures": len(cases), "nats": worst, "relevance": relevances, "bound": SAME}
    print(json.dumps(line | {"different": different, "pass": good}))
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=COMMITTED)
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    if options.check:
        sys.exit(0 if check(committed(), options.out) else 6)
    if options.fresh and options.out == COMMITTED:
        raise SystemExit("--fresh needs --out: the committed cases stay as they are")
    cases = fresh(options.seed) if options.fresh else committed()
    regenerate(cases, options.out, options.seed, thorough=not options.fresh)


if __name__ == "__main__":
    main()
