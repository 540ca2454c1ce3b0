"""What transformers makes of each family's config.json, and of the same with one key changed, set to null or taken away.

    python config_meanings.py            writes tests/data/config_meanings.json anew
    python config_meanings.py --check    computes it anew and compares; exits with 6 where it differs

    classes   per family: every key of its configuration class and the class's default
    bases     per family: a config.json as on the hub
    cases     [{family, change: {key: value}, without: [key], meaning}]: null where transformers refuses it
    meanings  what `meaning` points to, each one once

A meaning is read off a model of that configuration, not off the configuration: widths from its weights, frequencies from
its rotary embedding, the window from its layers. Losses of whole models are compared in architectures.py.
"""

import argparse
import copy
import dataclasses
import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from architecture_cases import gpt_oss, llama, llama3, mistral, mixtral, mxfp4_config, qwen2, qwen3, qwen3_moe
from architecture_cases import sizes, yarn
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

HERE = os.path.dirname(os.path.abspath(__file__))
COMMITTED = os.path.join(HERE, "..", "data", "config_meanings.json")
FAMILIES = ["gpt_oss", "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe"]
# What a file has beside its class's keys.
BESIDE = ["model_type", "rope_theta", "rope_scaling", "original_max_position_embeddings", "head_dim"]


def bases() -> dict:
    """One file a family, with every key that it can have."""
    dense, small = sizes(16, 24, 3, 4, 2, 40), sizes(16, 24, 4, 4, 2, 40)
    sliding = {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}
    experts = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 12, "mlp_only_layers": [2]}
    oss = gpt_oss(3, 2, **dense | {"max_position_embeddings": 131072}, num_local_experts=5, head_dim=4, sliding_window=5)
    # transformers does not know this other name of num_experts_per_tok; here it counts.
    del oss["experts_per_token"]
    return {
        "gpt_oss": oss,
        "llama": llama(**dense, head_dim=4, rope_theta=500000.0) | {"rope_scaling": llama3(8.0, 56)},
        "mistral": mistral(**dense, head_dim=4, sliding_window=7),
        "mixtral": mixtral(**dense, head_dim=4, num_local_experts=5, num_experts_per_tok=2) | {"sliding_window": 7},
        "qwen2": qwen2(**dense) | sliding | {"rope_scaling": yarn(4.0, 40)},
        "qwen3": qwen3(**dense, head_dim=4) | sliding,
        "qwen3_moe": qwen3_moe(**small, head_dim=4) | experts | {"use_sliding_window": True, "sliding_window": 6},
    }


def classes() -> dict:
    """Every key of each family's class and its default."""
    fields = {family: dataclasses.fields(CONFIG_MAPPING[family]) for family in FAMILIES}
    default = lambda field: None if field.default is dataclasses.MISSING else field.default  # noqa: E731
    return {family: {field.name: default(field) for field in fields[family]} for family in FAMILIES}


def frequencies(model) -> dict:
    """Inverse frequencies and the factor on cosines and sines."""
    rotary = model.model.rotary_emb
    return {"frequencies": [float(f"{v:.6g}") for v in rotary.inv_freq.tolist()], "factor": rotary.attention_scaling}


def window(config, layer: int, attention):
    """How far a layer looks back. Mistral's, Mixtral's and Qwen3-MoE's masks are the same for all layers."""
    if config.model_type in ("gpt_oss", "qwen2", "qwen3"):
        if config.layer_types[layer] == "sliding_attention" and config.sliding_window is None:
            raise ValueError("the mask of a layer that slides cannot be made")
        return attention.sliding_window
    return None if config.model_type == "llama" else config.sliding_window


def mlp(layer) -> dict:
    """Width of a dense layer; experts, chosen ones and width of a mixture."""
    part = layer.mlp
    router = getattr(part, "router", None) or getattr(part, "gate", None)
    if router is None or isinstance(router, torch.nn.Linear):
        return {"inner": part.gate_proj.weight.shape[0]}
    down, kind = part.experts.down_proj, type(part.experts).__name__
    inner = down.shape[1] if kind.startswith("GptOss") else down.shape[2]
    # The chosen gates sum to one; Qwen3-MoE alone asks.
    found = {"experts": down.shape[0], "top_k": router.top_k, "inner": inner}
    return found | {"renormalise": getattr(router, "norm_topk_prob", True)}


def meaning(raw: dict):
    """What a file means; nothing where transformers refuses it."""
    raw = copy.deepcopy({k: v for k, v in raw.items() if k != "quantization_config"})
    try:
        config = CONFIG_MAPPING[raw["model_type"]].from_dict(raw)
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        return of_model(model)
    except Exception as error:  # noqa: BLE001: whatever it is, transformers does not run this file
        print(f"  refused: {type(error).__name__} {str(error)[:100]!r}", file=sys.stderr)
        return None


def of_model(model) -> dict:
    config, layers = model.config, model.model.layers
    first = layers[0].self_attn
    if config.hidden_act not in ("silu", "swish"):
        raise ValueError("not a gated silu")
    heads = config.num_attention_heads
    return {
        "layers": len(layers),
        "hidden": model.model.embed_tokens.weight.shape[1],
        "vocab": model.model.embed_tokens.weight.shape[0],
        "heads": heads,
        "kv_heads": first.k_proj.weight.shape[0] // first.head_dim,
        "head_dim": first.head_dim,
        "qkv_bias": first.q_proj.bias is not None,
        "o_bias": first.o_proj.bias is not None,
        "eps": model.model.norm.variance_epsilon,
        "tied": bool(config.tie_word_embeddings),
        "windows": [window(config, at, layer.self_attn) for at, layer in enumerate(layers)],
        "mlps": [mlp(layer) for layer in layers],
        **frequencies(model),
    }


def other(value):
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value * 2
    if isinstance(value, float):
        return value * 2
    if isinstance(value, str):
        return "other"
    if isinstance(value, list):
        return value[:-1] + (["full_attention"] if "attention" in str(value) else [0])
    return {}


def changes(family: str, base: dict, keys: list) -> list:
    """(changed, without) of the cases of a family: each key another value, null, another type, and gone."""
    found = [({}, [])]
    for key in keys:
        value = base.get(key)
        if value is not None:
            found.append(({key: other(value)}, []))
            found.append(({key: str(value) if not isinstance(value, str) else 7}, []))
        found += [({key: None}, []), ({}, [key])] if key in base else [({key: None}, [])]
    return found + of_rope(base) + of_pairs(family)


def of_rope(base: dict) -> list:
    """Every form of stretching, by every key of it, and which of two places counts."""
    weighed = yarn(4.0, 32, beta_fast=16.0, beta_slow=2.0, truncate=True, mscale=0.7, mscale_all_dim=1.3)
    found, gone = [], [key for key in ("rope_scaling", "rope_parameters", "rope_theta") if key in base]
    found += [({}, gone), ({"rope_parameters": {}}, gone), ({"rope_scaling": {}}, gone), ({"rope_theta": 777.0}, gone)]
    for scaling in (weighed, llama3(8.0, 32)):
        for place in ("rope_scaling", "rope_parameters"):
            found.append(({place: scaling, "rope_theta": 5000.0}, gone))
            found.append(({place: scaling | {"rope_theta": 900.0}, "rope_theta": 5000.0}, gone))
            found.append(({place: scaling | {"rope_theta": 900.0}, "original_max_position_embeddings": 64}, gone))
        for key in scaling:
            for value in (None, other(scaling[key])) + ((0.0,) if "beta" in key or "mscale" in key else ()):
                found.append(({"rope_scaling": scaling | {key: value}}, gone))
            found.append(({"rope_scaling": {k: v for k, v in scaling.items() if k != key}}, gone))
        extra = {"attention_factor": 1.5} if scaling["rope_type"] == "yarn" else {}
        found.append(({"rope_scaling": scaling | extra}, gone))
        found.append(({"rope_scaling": scaling, "rope_parameters": {"rope_type": "default", "rope_theta": 3.0}}, gone))
        older = {("type" if k == "rope_type" else k): v for k, v in scaling.items()}
        found += [({"rope_scaling": older}, gone), ({"rope_scaling": older | {"rope_type": "default"}}, gone)]
    plain = yarn(4.0, 32)
    found += [({"rope_scaling": plain, "max_position_embeddings": 32}, gone)]
    found += [({"rope_scaling": plain | {"factor": 1.0}}, gone)]
    return found + [({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, gone)]


def of_pairs(family: str) -> list:
    """Keys that only mean something together."""
    if family in ("qwen2", "qwen3"):
        kinds = ["sliding_attention", "full_attention", "sliding_attention"]
        off = {"use_sliding_window": False}
        return [({"layer_types": kinds}, []), (off | {"layer_types": kinds}, []), (off | {"sliding_window": 9}, []),
                ({"max_window_layers": 0}, []), ({}, ["max_window_layers"]), ({}, ["sliding_window"]),
                ({"layer_types": kinds[:2]}, []), ({"layer_types": ["chunked_attention"] * 3}, [])]
    if family == "qwen3_moe":
        return [({"num_experts": 0}, []), ({"decoder_sparse_step": 3}, []), ({"norm_topk_prob": True}, []),
                ({"mlp_only_layers": []}, []), ({"decoder_sparse_step": 0}, []), ({"use_sliding_window": False}, [])]
    if family == "gpt_oss":
        return [({"layer_types": ["sliding_attention"] * 3}, []), ({}, ["layer_types"]), ({}, ["sliding_window"]),
                ({"sliding_window": None, "layer_types": ["full_attention"] * 3}, [])]
    return [({"num_key_value_heads": None}, []), ({"head_dim": None}, []), ({"hidden_act": "swish"}, [])]


def compute() -> dict:
    found, meanings = [], []
    files, known = bases(), classes()
    for family in FAMILIES:
        base = files[family]
        keys = sorted((set(known[family]) | set(BESIDE) | set(base)) - {"model_type", "architectures"})
        for change, without in changes(family, base, keys):
            raw = {k: v for k, v in (base | change).items() if k not in without or k in change}
            means = meaning(raw)
            if means is not None and means not in meanings:
                meanings.append(means)
            at = None if means is None else meanings.index(means)
            found.append({"family": family, "change": change, "without": without, "meaning": at})
    files["gpt_oss"]["quantization_config"] = mxfp4_config()
    return {"classes": known, "bases": files, "cases": found, "meanings": meanings}


def lines(value: dict) -> str:
    """JSON, a case or meaning a line."""
    def part(key):
        held = value[key]
        rows = held.items() if isinstance(held, dict) else enumerate(held)
        dump = lambda v: json.dumps(v, separators=(",", ":"))  # noqa: E731
        rows = [(f"{dump(k)}:" if isinstance(held, dict) else "") + dump(v) for k, v in rows]
        opened, closed = "{}" if isinstance(held, dict) else "[]"
        return f'"{key}":{opened}\n' + ",\n".join(rows) + f"\n{closed}"
    return "{" + ",\n".join(part(key) for key in value) + "}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    text = lines(compute())
    if not check:
        with open(COMMITTED, "w", encoding="utf-8") as file:
            file.write(text)
        return
    with open(COMMITTED, encoding="utf-8") as file:
        good = json.loads(text) == json.load(file)
    print(json.dumps({"config_meanings": len(json.loads(text)["cases"]), "pass": good}))
    sys.exit(0 if good else 6)


if __name__ == "__main__":
    main()
