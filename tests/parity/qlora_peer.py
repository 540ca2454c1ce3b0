"""The same QLoRA training in PyTorch as worker/distill's example `qlora`: how far the losses of its steps are apart.

    python qlora_peer.py STUDENT OURS.json ADAPTERS.safetensors

OURS is what the example prints, ADAPTERS the first values that it writes. Here the student is transformers', the weights
of its layers what bitsandbytes' NF4 (with double quantisation) stands for, frozen; adapters, AdamW, clipping and the
rate over time are written out below. Same batches in the same order. Prints one JSON object with every tenth step's
losses; exits with 6 where one is more than 2 % apart. Needs bitsandbytes (0.50.2 was used, as by nf4_golden.py); no GPU.
"""

import json
import math
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from nf4_golden import functional  # as on a GPU: see there
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

BOUND = 0.02
WARM_UP, FLOOR, MAX_NORM = 0.05, 0.02, 1.0


class Adapted(torch.nn.Module):
    def __init__(self, weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float):
        super().__init__()
        packed, state = functional.quantize_4bit(weight.contiguous(), quant_type="nf4", compress_statistics=True)
        self.register_buffer("weight", functional.dequantize_4bit(packed, state))
        self.a, self.b, self.scale = torch.nn.Parameter(a), torch.nn.Parameter(b), scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight.T + self.scale * (x @ self.a.T) @ self.b.T


def adapt(model, tensors: dict, scale: float) -> list:
    parameters = []
    for path in sorted({name.rsplit(".", 1)[0] for name in tensors}):
        parent, name = path.rsplit(".", 1)
        holder = model.get_submodule(parent)
        adapted = Adapted(getattr(holder, name).weight.data, tensors[f"{path}.lora_A"], tensors[f"{path}.lora_B"], scale)
        setattr(holder, name, adapted)
        parameters += [adapted.a, adapted.b]
    return parameters


def rate(peak: float, step: int, steps: int) -> float:
    rise = max(steps * WARM_UP, 1.0)
    if step < rise:
        return peak * (step + 1) / rise
    through = min((step - rise) / max(steps - rise, 1.0), 1.0)
    return peak * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * through)))


def learn(model, lessons: list) -> float:
    """Adds up the gradients of one batch; gives its loss, nats per response token."""
    tokens = sum(len(lesson["ids"]) - lesson["start"] for lesson in lessons)
    total = 0.0
    for lesson in lessons:
        ids, start = torch.tensor([lesson["ids"]]), lesson["start"]
        logits = model(ids).logits[0, start - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits, ids[0, start:], reduction="sum") / tokens
        loss.backward()
        total += loss.item()
    return total


def first_training(steps: list) -> list:
    """The steps until they are counted from 1 again."""
    again = [at for at, step in enumerate(steps) if at and step["step"] == 1]
    return steps[: again[0]] if again else steps


def main() -> None:
    student, ours_path, adapters = sys.argv[1:]
    torch.set_num_threads(1)
    with open(ours_path, encoding="utf-8") as file:
        ours = json.load(file)
    model = AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32, attn_implementation="eager")
    model.requires_grad_(False)
    parameters = adapt(model, load_file(adapters), ours["alpha"] / ours["rank"])
    optimiser = torch.optim.AdamW(parameters, lr=0.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    steps = first_training(ours["steps"])
    rows = []
    for at, step in enumerate(steps):
        optimiser.zero_grad()
        loss = learn(model, [ours["lessons"][member] for member in step["members"]])
        norm = torch.stack([p.grad.square().sum() for p in parameters]).sum().sqrt().item()
        if norm > MAX_NORM:
            for parameter in parameters:
                parameter.grad *= MAX_NORM / norm
        optimiser.param_groups[0]["lr"] = rate(ours["learning_rate"], at, len(steps))
        optimiser.step()
        if at % 10 == 9 or at == 0:
            rows.append({"step": at + 1, "ours": round(step["loss"], 6), "pytorch": round(loss, 6)})
    apart = max(abs(row["ours"] / row["pytorch"] - 1) for row in rows)
    print(json.dumps({"qlora_in": f"PyTorch {torch.__version__}", "steps": len(steps), "apart": apart, "losses": rows}))
    sys.exit(6 if apart > BOUND else 0)


if __name__ == "__main__":
    main()
