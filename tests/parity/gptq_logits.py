"""First-token logits of a GPTQ folder in transformers with gptqmodel's kernels, as JSON.

    python gptq_logits.py FOLDER IDS.json

Printed: "quantised", the logits of the folder loaded as any user of transformers loads it; "expanded", those of a plain
f32 LlamaForCausalLM whose weights this script expands from the packed tensors by the layout's formula
W[n, k] = (q - (z + 1)) * s, in numpy, with nothing of uspx. Both are lists per list of token ids.
"""

import json
import os
import sys

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM


def unpack(words: np.ndarray) -> np.ndarray:
    """Nibbles of each word, lowest first, on a new last axis."""
    shifts = np.arange(0, 32, 4, dtype=np.uint32)
    return (words.view(np.uint32)[..., None] >> shifts) & 15


def expand(tensors: dict, module: str) -> np.ndarray:
    qweight, qzeros = tensors[f"{module}.qweight"], tensors[f"{module}.qzeros"]
    qweight, qzeros, g_idx = qweight.numpy(), qzeros.numpy(), tensors[f"{module}.g_idx"].numpy()
    scales = tensors[f"{module}.scales"].float().numpy()
    codes = unpack(qweight).transpose(0, 2, 1).reshape(-1, qweight.shape[1]).astype(np.float32)
    zeros = unpack(qzeros).reshape(qzeros.shape[0], -1).astype(np.float32) + 1
    return ((codes - zeros[g_idx]) * scales[g_idx]).T


def expanded_model(folder: str) -> LlamaForCausalLM:
    config = AutoConfig.from_pretrained(folder)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    tensors = load_file(os.path.join(folder, "model.safetensors"))
    state = {}
    for name, value in tensors.items():
        if name.endswith(".qweight"):
            module = name.removesuffix(".qweight")
            state[f"{module}.weight"] = torch.from_numpy(np.ascontiguousarray(expand(tensors, module)))
        elif not name.endswith((".qzeros", ".scales", ".g_idx")):
            state[name] = value.float()
    model = LlamaForCausalLM(config).to(torch.float32)
    missing, unexpected = model.load_state_dict(state, strict=False)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    if set(missing) - tied or unexpected:
        raise SystemExit(f"the folder's tensors are not a Llama's: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    return model.eval()


@torch.no_grad()
def logits(model, prompts: list[list[int]]) -> list[list[float]]:
    return [model(torch.tensor([ids])).logits[0, -1].float().tolist() for ids in prompts]


def main() -> None:
    folder, ids_path = sys.argv[1:]
    torch.set_num_threads(1)
    with open(ids_path, encoding="utf-8") as file:
        prompts = json.load(file)
    quantised = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu").eval()
    kernels = sorted({type(m).__name__ for m in quantised.modules() if hasattr(m, "qweight") or "Quant" in type(m).__name__})
    result = {
        "kernels": kernels,
        "dtype": str(quantised.dtype),
        "quantised": logits(quantised, prompts),
        "expanded": logits(expanded_model(folder), prompts),
    }
    # gptqmodel logs to standard output; the JSON is the last line.
    print("\n" + json.dumps(result))


if __name__ == "__main__":
    main()
