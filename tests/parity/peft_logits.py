"""An adapter of uspx in peft: logits on the base in transformers, against ours with the adapter attached and merged.

    python peft_logits.py BASE BLOB.safetensors OURS.json IDS.json FOLDER

BLOB is the adapter as it travels in a colony, OURS what worker/distill's example `adapter` prints. FOLDER is made as a
release holds it: the blob as adapter_model.safetensors, and adapter_config.json out of the blob's header. Prints one JSON
object with the largest absolute differences; exits with 6 where one exceeds the bound.
"""

import json
import os
import shutil
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM

BOUND = 1e-4


def release_folder(blob: str, folder: str) -> dict:
    os.makedirs(folder, exist_ok=True)
    shutil.copyfile(blob, os.path.join(folder, "adapter_model.safetensors"))
    with safe_open(blob, "pt") as file:
        config = json.loads(file.metadata()["uspx_adapter"])["peft"]
    with open(os.path.join(folder, "adapter_config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)
    return config


@torch.no_grad()
def logits(model, prompts: list[list[int]]) -> torch.Tensor:
    return torch.stack([model(torch.tensor([ids])).logits[0, -1].float() for ids in prompts])


def main() -> None:
    base_path, blob, ours_path, ids_path, folder = sys.argv[1:]
    torch.set_num_threads(1)
    with open(ours_path, encoding="utf-8") as a, open(ids_path, encoding="utf-8") as b:
        ours, prompts = json.load(a), json.load(b)
    config = release_folder(blob, folder)
    base = AutoModelForCausalLM.from_pretrained(base_path, dtype=torch.float32, attn_implementation="eager").eval()
    plain = logits(base, prompts)
    model = PeftModel.from_pretrained(base, folder).eval()
    tensors = len([name for name, _ in model.named_parameters() if "lora_" in name])
    attached = logits(model, prompts)
    merged = logits(model.merge_and_unload(), prompts)
    apart = lambda a, b: float((a - torch.tensor(b)).abs().max())
    result = {
        "adapter_in": "peft",
        "rank": config["r"],
        "tensors": tensors,
        "largest_logit": float(attached.abs().max()),
        "adapter_moves": apart(plain, attached.tolist()),
        "attached": apart(attached, ours["attached"]),
        "merged": apart(merged, ours["merged"]),
        "bound": BOUND,
    }
    # An adapter that does nothing would agree too.
    result["pass"] = max(result["attached"], result["merged"]) <= BOUND and result["adapter_moves"] > 1.0
    print(json.dumps(result))
    sys.exit(0 if result["pass"] else 6)


if __name__ == "__main__":
    main()
