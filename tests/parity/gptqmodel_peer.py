"""Our GPTQ against gptqmodel's own quantiser: same student, same calibration, same width, group and damping.

    python gptqmodel_peer.py BASE OURS CALIBRATION.json HELDOUT.json WORK

BASE is the unquantised student's folder, OURS our GPTQ folder; the JSON files hold [ids, start of the answer] pairs
(examples/parity.rs prints them); gptqmodel's result goes to WORK/gptqmodel. For both folders, in plain f32 PyTorch:

- "output_error": mean over the linears of tr(E H E') / tr(W H W'), H = 2 X'X from the *unquantised* student's activations,
- "loss": nats per answer token on HELDOUT.
"""

import json
import os
import sys

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from gptq_logits import expanded_model
from transformers import LlamaForCausalLM


def quantise(base: str, sequences: list, out: str) -> None:
    from gptqmodel import GPTQModel, QuantizeConfig

    config = QuantizeConfig(bits=4, group_size=128, sym=True, desc_act=False)
    config.damp_percent = 0.05
    model = GPTQModel.load(base, config, device="cpu")
    data = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids, _ in sequences]
    model.quantize(data, batch_size=1)
    model.save(out)


def linears(model) -> dict:
    return {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n.startswith("model.layers")}


@torch.no_grad()
def hessians(model, sequences: list) -> dict:
    sums = {name: torch.zeros(m.in_features, m.in_features, dtype=torch.float64) for name, m in linears(model).items()}

    def hook(name):
        def add(_, inputs, __):
            x = inputs[0].reshape(-1, inputs[0].shape[-1]).double()
            sums[name] += 2 * x.T @ x
        return add

    handles = [m.register_forward_hook(hook(name)) for name, m in linears(model).items()]
    for ids, _ in sequences:
        model(torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    return sums


def output_error(full, quantised, sums: dict) -> float:
    ratios, other = [], linears(quantised)
    for name, module in linears(full).items():
        weight, error = module.weight.double(), (module.weight - other[name].weight).double()
        energy = lambda m: float((m @ sums[name] * m).sum())
        ratios.append(energy(error) / energy(weight))
    return sum(ratios) / len(ratios)


@torch.no_grad()
def loss(model, sequences: list) -> float:
    nats, tokens = 0.0, 0
    for ids, start in sequences:
        logits = model(torch.tensor([ids])).logits[0, start - 1 : -1]
        nats += float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[start:]), reduction="sum"))
        tokens += len(ids) - start
    return nats / tokens


def main() -> None:
    base, ours, calibration_path, heldout_path, work = sys.argv[1:]
    torch.set_num_threads(1)
    with open(calibration_path, encoding="utf-8") as a, open(heldout_path, encoding="utf-8") as b:
        calibration, heldout = json.load(a), json.load(b)
    theirs = os.path.join(work, "gptqmodel")
    if not os.path.exists(os.path.join(theirs, "model.safetensors")):
        quantise(base, calibration, theirs)
    full = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    sums = hessians(full, calibration)
    result = {"full": {"loss": loss(full, heldout)}}
    for name, folder in (("ours", ours), ("gptqmodel", theirs)):
        model = expanded_model(folder)
        result[name] = {"output_error": output_error(full, model, sums), "loss": loss(model, heldout)}
    print("\n" + json.dumps(result))


if __name__ == "__main__":
    main()
