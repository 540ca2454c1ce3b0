"""The models that architectures.py makes: configs as they are on the hub, with what has to matter in each.

`committed()` are those of `make test`, tiny; `fresh(seed)` two of each family, larger, with shapes drawn from a seed.
"""

import math
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Case:
    """A model to make: its config as on the hub, how it is stored, and what has to matter in it."""

    name: str
    config: dict
    lengths: list
    layout: str = "hub"
    # Changes of the (transformers 5) config that must change the result; keys may be "rope_parameters.factor".
    about: list = field(default_factory=list)


def base(kind: str, architecture: str, **keys) -> dict:
    """What configs on the hub have in common."""
    return {
        "architectures": [architecture],
        "model_type": kind,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "attention_dropout": 0.0,
    } | keys


def llama(**keys) -> dict:
    defaults = {"attention_bias": False, "mlp_bias": False, "pretraining_tp": 1, "rms_norm_eps": 1e-5}
    return base("llama", "LlamaForCausalLM", **(defaults | {"rope_scaling": None} | keys))


def mistral(**keys) -> dict:
    return base("mistral", "MistralForCausalLM", **({"rms_norm_eps": 1e-5, "rope_theta": 10000.0} | keys))


def mixtral(**keys) -> dict:
    defaults = {"rms_norm_eps": 1e-5, "rope_theta": 1000000.0, "sliding_window": None}
    defaults |= {"router_aux_loss_coef": 0.02, "output_router_logits": False}
    return base("mixtral", "MixtralForCausalLM", **(defaults | keys))


def qwen2(**keys) -> dict:
    defaults = {"rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "use_sliding_window": False}
    return base("qwen2", "Qwen2ForCausalLM", **(defaults | keys))


def qwen3(**keys) -> dict:
    defaults = {"rms_norm_eps": 1e-6, "rope_theta": 1000000, "rope_scaling": None, "attention_bias": False}
    defaults |= {"use_sliding_window": False, "sliding_window": None}
    return base("qwen3", "Qwen3ForCausalLM", **(defaults | keys))


def qwen3_moe(**keys) -> dict:
    defaults = {"rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "rope_scaling": None, "attention_bias": False}
    defaults |= {"use_sliding_window": False, "sliding_window": None, "decoder_sparse_step": 1, "mlp_only_layers": []}
    defaults |= {"router_aux_loss_coef": 0.001, "output_router_logits": False}
    return base("qwen3_moe", "Qwen3MoeForCausalLM", **(defaults | keys))


def gpt_oss(layers: int, top_k: int, **keys) -> dict:
    defaults = {
        "num_hidden_layers": layers,
        "num_experts_per_tok": top_k,
        "experts_per_token": top_k,
        "attention_bias": True,
        "rms_norm_eps": 1e-5,
        "initial_context_length": 4096,
        "max_position_embeddings": 131072,
        "layer_types": ["full_attention" if layer % 2 else "sliding_attention" for layer in range(layers)],
        "rope_theta": 150000,
        "rope_scaling": yarn(32.0, 4096, beta_fast=32.0, beta_slow=1.0, truncate=False),
        "swiglu_limit": 7.0,
        "router_aux_loss_coef": 0.9,
        "output_router_logits": False,
    }
    return base("gpt_oss", "GptOssForCausalLM", **(defaults | keys))


def yarn(factor: float, original: int, **keys) -> dict:
    return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original} | keys


def llama3(factor: float, original: int) -> dict:
    # Trained contexts are thousands of tokens; with a small one a short sequence meets all three bands of frequencies.
    bounds = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": original}
    return {"rope_type": "llama3", "factor": factor} | bounds


def sizes(hidden: int, inner: int, layers: int, heads: int, kv: int, vocab: int, **keys) -> dict:
    found = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers}
    found |= {"num_attention_heads": heads, "num_key_value_heads": kv, "vocab_size": vocab}
    return {"max_position_embeddings": 2048} | found | keys


UNSCALED = {"rope_parameters.rope_type": "default"}
THETA = {"rope_parameters.rope_theta": 31337.0}


def change(key: str, value) -> dict:
    """One change of a config's rope parameters."""
    return {f"rope_parameters.{key}": value}


def committed() -> list:
    """The cases of `make test`."""
    return llamas() + mistrals() + qwens() + qwens_with_experts() + gpts() + precedences()


def llamas() -> list:
    # Llama 2 was published without rope_theta, head_dim and the bias keys: what is absent has to mean what it meant.
    first = llama(**sizes(32, 40, 2, 4, 4, 96), torch_dtype="float16")
    for absent in ("attention_bias", "mlp_bias", "attention_dropout"):
        del first[absent]
    scaled = llama(**sizes(48, 32, 2, 4, 2, 72), rope_theta=10000.0, rope_scaling=llama3(8.0, 56))
    # head_dim is not hidden/heads, and the head is the embedding.
    tied = llama(**sizes(36, 40, 2, 4, 2, 128), head_dim=16, tie_word_embeddings=True, rope_theta=10000.0)
    biased = llama(**sizes(24, 32, 2, 6, 6, 96), attention_bias=True, rope_theta=500000.0, torch_dtype="float32")
    bands = [change("low_freq_factor", 2.0), change("high_freq_factor", 8.0)]
    return [
        Case("llama2", first, [23, 9, 31], about=[THETA]),
        Case("llama31", scaled, [60, 11, 37, 1], about=[UNSCALED, THETA] + bands),
        Case("llama32-tied", tied | {"rope_scaling": llama3(32.0, 24)}, [45, 20], about=[UNSCALED]),
        Case("llama-bias", biased, [19, 3, 12]),
    ]


def mistrals() -> list:
    window = mistral(**sizes(36, 32, 3, 6, 3, 72), sliding_window=7)
    full = mistral(**sizes(32, 40, 2, 4, 1, 96), sliding_window=None, head_dim=18)
    hub = mixtral(**sizes(32, 16, 2, 4, 2, 96), num_local_experts=5, num_experts_per_tok=2)
    fused = mixtral(**sizes(24, 16, 2, 4, 4, 96), num_local_experts=7, num_experts_per_tok=3, head_dim=10)
    # With one expert a token its gate is 1: Mixtral normalises over the chosen ones.
    single = mixtral(**sizes(32, 24, 2, 2, 1, 96), num_local_experts=3, num_experts_per_tok=1)
    return [
        Case("mistral-window", window, [41, 6, 7, 8], about=[{"sliding_window": None}, {"sliding_window": 8}]),
        Case("mistral-full", full, [26, 13]),
        Case("mixtral-hub", hub, [29, 4, 17], about=[{"num_experts_per_tok": 1}, THETA]),
        Case("mixtral-fused", fused | {"sliding_window": 9}, [33, 21, 2], "fused", about=[{"sliding_window": None}]),
        Case("mixtral-top1", single, [18, 27]),
    ]


def qwens() -> list:
    # A window that is not used: the keys are there, as in Qwen2.5's configs.
    unused = {"sliding_window": 4, "max_window_layers": 1}
    second = qwen2(**sizes(36, 56, 2, 6, 2, 96), tie_word_embeddings=True) | unused
    window = qwen2(**sizes(32, 24, 3, 4, 4, 72), use_sliding_window=True, sliding_window=6, max_window_layers=1)
    # YaRN as Qwen's model cards say to switch it on: with "type", and nothing but the factor and the trained context.
    window |= {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 40}}
    third = qwen3(**sizes(32, 40, 2, 4, 2, 96), head_dim=20, tie_word_embeddings=True)
    biased = qwen3(**sizes(28, 32, 3, 4, 2, 96), head_dim=12, attention_bias=True, use_sliding_window=True)
    all_full, all_sliding = ({"layer_types": [kind] * 3} for kind in ("full_attention", "sliding_attention"))
    return [
        Case("qwen2", second, [35, 10, 22]),
        Case("qwen2-window", window | {"rope_theta": 10000.0}, [48, 5, 16], about=[all_full, all_sliding, UNSCALED]),
        Case("qwen3", third, [28, 14], about=[THETA]),
        Case("qwen3-window", biased | {"sliding_window": 5, "max_window_layers": 2}, [24, 9, 40], about=[all_full]),
    ]


def qwens_with_experts() -> list:
    hub = qwen3_moe(**sizes(24, 96, 2, 4, 2, 96), head_dim=10, moe_intermediate_size=16)
    hub |= {"num_experts": 7, "num_experts_per_tok": 4, "norm_topk_prob": True}
    # One dense layer of another width among those with experts; the chosen gates are not normalised.
    fused = qwen3_moe(**sizes(24, 40, 3, 2, 1, 96), head_dim=20, moe_intermediate_size=16, mlp_only_layers=[1])
    fused |= {"num_experts": 5, "num_experts_per_tok": 2, "norm_topk_prob": False}
    # Experts in every second layer; a window holds for all layers here.
    sparse = qwen3_moe(**sizes(24, 32, 4, 4, 4, 72), head_dim=8, moe_intermediate_size=12, decoder_sparse_step=2)
    sparse |= {"num_experts": 5, "num_experts_per_tok": 1, "norm_topk_prob": False}
    sparse |= {"attention_bias": True, "use_sliding_window": True, "sliding_window": 8}
    return [
        Case("qwen3-moe-hub", hub, [30, 8, 15], about=[{"norm_topk_prob": False}]),
        Case("qwen3-moe-fused", fused, [20, 33], "fused", about=[{"norm_topk_prob": True}]),
        Case("qwen3-moe-sparse", sparse, [25, 12, 9], about=[{"sliding_window": None}]),
    ]


def gpts() -> list:
    floats = gpt_oss(2, 2, **sizes(24, 20, 2, 4, 2, 96), num_local_experts=5, head_dim=12, sliding_window=5)
    blocks = gpt_oss(2, 4, **sizes(64, 32, 2, 4, 1, 64), num_local_experts=5, head_dim=8, sliding_window=8)
    blocks |= {"quantization_config": mxfp4_config()}
    # Without layer_types layers alternate, the sliding one first; the bounds of YaRN's ramp are rounded (truncate).
    single = gpt_oss(2, 1, **sizes(32, 64, 2, 2, 2, 72), num_local_experts=3, head_dim=20, sliding_window=4)
    single |= {"quantization_config": mxfp4_config(), "rope_theta": 10000.0}
    single |= {"rope_scaling": yarn(8.0, 64, beta_fast=4.0, beta_slow=1.0, truncate=True)}
    del single["layer_types"]
    windows = [{"sliding_window": 6}, {"layer_types": ["full_attention"] * 2}]
    ramp = [change("truncate", False), change("beta_fast", 8.0), change("beta_slow", 2.0)]
    return [
        Case("gpt-oss-floats", floats, [38, 4, 21], about=[change("factor", 16.0)] + windows),
        Case("gpt-oss-mxfp4", blocks, [27, 13, 40], "mxfp4"),
        Case("gpt-oss-top1", single, [44, 17], "mxfp4", about=ramp),
    ]


def precedences() -> list:
    """What a file means by what it leaves out, or says twice."""
    # The factor is the ratio of the two contexts.
    inferred = qwen2(**sizes(32, 24, 2, 4, 2, 72), rope_scaling={"type": "yarn", "factor": None})
    inferred["rope_scaling"]["original_max_position_embeddings"] = 128
    # The trained context at the top counts before the one within.
    top = llama(**sizes(32, 24, 2, 4, 2, 72), rope_theta=10000.0, rope_scaling=yarn(8.0, 4096))
    weighed = mistral(**sizes(24, 32, 2, 2, 1, 72), sliding_window=None)
    weighed["rope_parameters"] = yarn(8.0, 40, rope_theta=5000.0, mscale=0.7, mscale_all_dim=1.4)
    # 128, not hidden / heads.
    wide = qwen3(**sizes(16, 24, 1, 2, 1, 72))
    unit = gpt_oss(2, 2, **sizes(24, 20, 2, 4, 2, 96), num_local_experts=4, head_dim=12, sliding_window=5)
    head = llama(**sizes(32, 24, 1, 4, 2, 96), tie_word_embeddings=True)
    tiers = [change("mscale", 1.4), change("factor", 4.0), {"rope_parameters.rope_theta": 10000.0}]
    return [
        Case("yarn-factor-null", inferred, [60, 9], about=[change("factor", 4.0), UNSCALED]),
        Case("yarn-context-at-the-top", top | {"original_max_position_embeddings": 40}, [52, 14], about=[UNSCALED]),
        Case("yarn-weighed", weighed, [47, 12], about=tiers),
        Case("qwen3-wide-heads", wide, [22, 8]),
        Case("gpt-oss-unit", unit | {"swiglu_alpha": 1.2, "swiglu_limit": 2.5}, [31, 12]),
        Case("head-of-its-own", head, [26, 11], "own head"),
    ]


def mxfp4_config() -> dict:
    floats = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    return {"modules_to_not_convert": floats, "quant_method": "mxfp4"}


class Draw:
    """Random shapes."""

    def __init__(self, seed: int):
        self.random = np.random.default_rng(seed)

    def number(self, least: int, most: int) -> int:
        return int(self.random.integers(least, most + 1))

    def pick(self, *values):
        return values[self.number(0, len(values) - 1)]

    def shape(self) -> dict:
        """Widths, heads and layers."""
        kv = self.number(1, 4)
        heads = kv * self.pick(1, 2, 4)
        # transformers wants the heads to divide the width, even where head_dim is given.
        hidden = self.number(64, 240)
        hidden += (-hidden) % (2 * heads)
        keys = sizes(hidden, 2 * self.number(24, 200), self.number(2, 5), heads, kv, self.number(97, 600))
        return keys | {"head_dim": 2 * self.number(4, 32), "torch_dtype": self.pick("bfloat16", "float32", "float16")}

    def shape_of_blocks(self) -> dict:
        """The same for gpt-oss: rows of MXFP4 are whole blocks of 32."""
        keys = self.shape()
        keys["hidden_size"] += (-keys["hidden_size"]) % math.lcm(32, keys["num_attention_heads"])
        keys["intermediate_size"] += (-keys["intermediate_size"]) % 32
        return keys | {"torch_dtype": "bfloat16", "sliding_window": self.window()}

    def lengths(self) -> list:
        return [self.number(1, 96) for _ in range(self.number(2, 5))] + [64]

    def window(self) -> int:
        return self.number(1, 39)

    def scaling(self) -> dict:
        stretched = llama3(self.pick(2.0, 8.0, 32.0), self.pick(16, 48, 8192))
        some = [None, stretched, yarn(self.pick(2.0, 16.0), self.pick(32, 4096))]
        return {"rope_scaling": self.pick(*some), "rope_theta": self.pick(10000.0, 150000.0, 1000000.0)}

    def experts(self, key: str) -> dict:
        many = self.number(3, 13)
        return {key: many, "num_experts_per_tok": self.number(1, min(many - 1, 4))}


def fresh(seed: int) -> list:
    """Two cases of each family with shapes drawn from `seed`; what can be on or off is off in the first."""
    draw, cases = Draw(seed), []
    for turn, on in enumerate((False, True)):
        layout = "fused" if on else "hub"
        tied = {"tie_word_embeddings": draw.pick(True, False)}
        windows = {"use_sliding_window": on, "sliding_window": draw.window(), "max_window_layers": draw.number(0, 2)}
        moe = draw.experts("num_experts") | {"moe_intermediate_size": 2 * draw.number(8, 60), "norm_topk_prob": on}
        moe |= {"decoder_sparse_step": draw.pick(1, 1, 2), "mlp_only_layers": [0] if on else []}
        # Qwen2 has no head_dim: it is always hidden / heads.
        derived = {k: v for k, v in draw.shape().items() if k != "head_dim"}
        oss, many = draw.shape_of_blocks(), draw.experts("num_local_experts")
        oss |= {"num_local_experts": many["num_local_experts"]}
        quantised = {"quantization_config": mxfp4_config()} if on else {}
        configs = [
            ("llama", llama(**(draw.shape() | draw.scaling() | tied | {"attention_bias": on})), "hub"),
            ("mistral", mistral(**(draw.shape() | {"sliding_window": draw.window() if on else None})), "hub"),
            ("mixtral", mixtral(**(draw.shape() | draw.experts("num_local_experts"))), layout),
            ("qwen2", qwen2(**(derived | draw.scaling() | windows | tied)), "hub"),
            ("qwen3", qwen3(**(draw.shape() | draw.scaling() | windows | {"attention_bias": on})), "hub"),
            ("qwen3-moe", qwen3_moe(**(draw.shape() | moe)), layout),
            ("gpt-oss", gpt_oss(oss["num_hidden_layers"], many["num_experts_per_tok"], **oss) | quantised, layout),
        ]
        for name, config, stored in configs:
            stored = "mxfp4" if "quantization_config" in config else stored
            cases.append(Case(f"{name}-{turn}", config, draw.lengths(), stored))
    return cases
