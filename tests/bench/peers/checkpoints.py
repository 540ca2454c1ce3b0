"""Mid-size random checkpoints to measure speed on: real shapes and files, weights that mean nothing.

    python checkpoints.py gptoss-mid FOLDER     gpt-oss: 8 layers, hidden 1024, 32 experts, top-4, MXFP4     (0.5 GB)
    python checkpoints.py llama-300m FOLDER     Llama: 24 layers, hidden 1024, 16 heads on 8 KV heads, bf16  (0.6 GB)
    python checkpoints.py gptoss-flat FOLDER    gptoss-mid of 4 layers and 16 experts                        (0.1 GB)
    python checkpoints.py mixtral-small FOLDER  Mixtral: 3 layers, hidden 96, 6 experts, top-2, bf16; to compare numbers
    python checkpoints.py llama-small FOLDER    Llama: 3 layers, hidden 96; to compare numbers

Vocabulary, tokenizer and chat template are those of the shipped teacher and student, so that real prompts can be run.
Weights are normal with deviation 0.02 (MXFP4: random codes, scaled to about that; the small ones 0.12, so that every
unit matters), norms 1, biases and sinks 0: the router's logits then spread by 0.6 and every expert gets work. The same
seed gives the same file.
"""

import argparse
import json
import os
import shutil

import torch
from safetensors.torch import save_file

NANO = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../cli/assets/nano")
DEVIATION = 0.02
DEVIATION_SMALL = 0.12
# A random MXFP4 code has a deviation of 2.93; 2^-7 brings that to 0.023.
SCALE_BYTE = 127 - 7

GPT_OSS = {
    "architectures": ["GptOssForCausalLM"],
    "model_type": "gpt_oss",
    "attention_bias": True,
    "attention_dropout": 0.0,
    "bos_token_id": 2039,
    "eos_token_id": 2041,
    "pad_token_id": 2040,
    "experts_per_token": 4,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "initial_context_length": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 1024,
    "layer_types": ["sliding_attention", "full_attention"] * 4,
    "max_position_embeddings": 131072,
    "num_attention_heads": 16,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 8,
    "num_key_value_heads": 4,
    "num_local_experts": 32,
    "output_router_logits": False,
    "quantization_config": {
        "modules_to_not_convert": [
            "model.layers.*.self_attn",
            "model.layers.*.mlp.router",
            "model.embed_tokens",
            "lm_head",
        ],
        "quant_method": "mxfp4",
    },
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
        "rope_type": "yarn",
        "truncate": False,
    },
    "rope_theta": 150000,
    "router_aux_loss_coef": 0.9,
    "sliding_window": 128,
    "swiglu_limit": 7.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 2048,
}

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 2042,
    "eos_token_id": 2046,
    "pad_token_id": 2047,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "initializer_range": 0.02,
    "intermediate_size": 2816,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 2048,
}

FLAT = GPT_OSS | {"num_hidden_layers": 4, "num_local_experts": 16, "layer_types": GPT_OSS["layer_types"][:4]}

SMALL = {"hidden_size": 96, "intermediate_size": 160, "num_attention_heads": 6, "num_key_value_heads": 2}
SMALL |= {"num_hidden_layers": 3, "head_dim": 16}
LLAMA_SMALL = LLAMA | SMALL
MIXTRAL_SMALL = {key: value for key, value in LLAMA.items() if key not in ("mlp_bias", "pretraining_tp", "rope_scaling")}
MIXTRAL_SMALL |= SMALL | {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.02,
    "sliding_window": None,
}

# The config of each model, and the shipped one whose tokenizer it has.
MODELS = {
    "gptoss-mid": (GPT_OSS, "teacher"),
    "gptoss-flat": (FLAT, "teacher"),
    "llama-300m": (LLAMA, "student"),
    "llama-small": (LLAMA_SMALL, "student"),
    "mixtral-small": (MIXTRAL_SMALL, "student"),
}


class Weights:
    """Tensors by name."""

    def __init__(self, seed: int, deviation: float):
        self.random, self.deviation = torch.Generator().manual_seed(seed), deviation
        self.tensors: dict = {}

    def normal(self, name: str, *shape: int) -> None:
        values = torch.empty(shape).normal_(0.0, self.deviation, generator=self.random)
        self.tensors[name] = values.to(torch.bfloat16)

    def same(self, name: str, value: float, *shape: int) -> None:
        self.tensors[name] = torch.full(shape, value, dtype=torch.bfloat16)

    def blocks(self, name: str, experts: int, rows: int, width: int) -> None:
        """A matrix of each expert in MXFP4; blocks of 32 values, their scales within a factor of 2 of each other."""
        shape = (experts, rows, width // 32)
        codes = torch.randint(0, 256, (*shape, 16), generator=self.random, dtype=torch.uint8)
        offsets = torch.randint(0, 2, shape, generator=self.random, dtype=torch.uint8)
        self.tensors |= {f"{name}_blocks": codes, f"{name}_scales": SCALE_BYTE + offsets}

    def linear(self, name: str, out: int, width: int, bias: bool) -> None:
        self.normal(f"{name}.weight", out, width)
        if bias:
            self.same(f"{name}.bias", 0.0, out)


def weights(config: dict, seed: int) -> dict:
    """All tensors of a model."""
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    made = Weights(seed, DEVIATION_SMALL if hidden < 512 else DEVIATION)
    made.normal("model.embed_tokens.weight", vocab, hidden)
    mlps = {"gpt_oss": (experts, "mlp"), "mixtral": (dense_experts, "block_sparse_moe"), "llama": (dense, "mlp")}
    mlp, name = mlps[config["model_type"]]
    for layer in range(config["num_hidden_layers"]):
        attention(made, config, f"model.layers.{layer}")
        mlp(made, config, f"model.layers.{layer}.{name}")
    made.same("model.norm.weight", 1.0, hidden)
    made.normal("lm_head.weight", vocab, hidden)
    return made.tensors


def attention(made: Weights, config: dict, layer: str) -> None:
    """Attention with the two norms of a layer."""
    hidden, bias = config["hidden_size"], config.get("attention_bias", False)
    heads, kv = (config[key] * config["head_dim"] for key in ("num_attention_heads", "num_key_value_heads"))
    for norm in ("input_layernorm", "post_attention_layernorm"):
        made.same(f"{layer}.{norm}.weight", 1.0, hidden)
    for name, out, width in (("q", heads, hidden), ("k", kv, hidden), ("v", kv, hidden), ("o", hidden, heads)):
        made.linear(f"{layer}.self_attn.{name}_proj", out, width, bias)
    if config["model_type"] == "gpt_oss":
        made.same(f"{layer}.self_attn.sinks", 0.0, config["num_attention_heads"])


def dense(made: Weights, config: dict, mlp: str) -> None:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    for name, out, width in (("gate", inner, hidden), ("up", inner, hidden), ("down", hidden, inner)):
        made.linear(f"{mlp}.{name}_proj", out, width, False)


def dense_experts(made: Weights, config: dict, mlp: str) -> None:
    """Mixtral's, a tensor per expert."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    made.linear(f"{mlp}.gate", config["num_local_experts"], hidden, False)
    for expert in range(config["num_local_experts"]):
        for name, out, width in (("w1", inner, hidden), ("w3", inner, hidden), ("w2", hidden, inner)):
            made.linear(f"{mlp}.experts.{expert}.{name}", out, width, False)


def experts(made: Weights, config: dict, mlp: str) -> None:
    hidden, inner, many = config["hidden_size"], config["intermediate_size"], config["num_local_experts"]
    made.linear(f"{mlp}.router", many, hidden, True)
    made.blocks(f"{mlp}.experts.gate_up_proj", many, 2 * inner, hidden)
    made.blocks(f"{mlp}.experts.down_proj", many, hidden, inner)
    made.same(f"{mlp}.experts.gate_up_proj_bias", 0.0, many, 2 * inner)
    made.same(f"{mlp}.experts.down_proj_bias", 0.0, many, hidden)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=list(MODELS))
    parser.add_argument("folder")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    config, donor = MODELS[options.model]
    os.makedirs(options.folder, exist_ok=True)
    tensors = weights(config, options.seed)
    path = os.path.join(options.folder, "model.safetensors")
    save_file(tensors, path, metadata={"format": "pt"})
    os.chmod(path, 0o644)
    with open(os.path.join(options.folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file, indent=1)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(os.path.join(NANO, donor, name), options.folder)
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    print(json.dumps({"model": options.model, "tensors": len(tensors), "bytes": size}))


if __name__ == "__main__":
    main()
