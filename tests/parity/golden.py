"""The reference values of the shipped models, computed with PyTorch and transformers and with nothing of uspx.

    python golden.py ROOT                      prints the JSON of tests/data/nano.json
    python golden.py ROOT --check FILE.json    computes it anew and compares; exits with 6 where a bound is exceeded

ROOT is the repository. Everything runs in f32, one prompt at a time, without padding or cache. For teacher and student:
the loss of 58 held-out prompts (48 command lines, 10 of arithmetic that are longer than the sliding window), their
first token ids, and the five largest logits after the last token. For the teacher on the first 16 prompts: how often
each expert is routed to and its gate mass, over the positions that hold response tokens, and two exact effects in nats
per response token: an expert banned at every position, so that its tokens re-route, and a head's output replaced by 0.

Prompt and answer are tokenised apart and joined, as the engine's contract says.
"""

import argparse
import json
import math
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Mxfp4Config

CLI_PROMPTS, MATH_PROMPTS, PROBED = 48, 10, 16
# How far two runs of this script may be apart: other versions and processors add up in another order. Counts are whole.
BOUNDS = {"loss": 1e-5, "logits": 1e-3, "gate_mass": 1e-3, "effect": 1e-4}


def prompts(root: str, name: str, count: int) -> list[dict]:
    with open(os.path.join(root, "cli/assets/prompts", name), encoding="utf-8") as file:
        return [json.loads(line) for line in file][:count]


class Subject:
    """A shipped model with its tokenizer."""

    def __init__(self, root: str, which: str):
        folder = os.path.join(root, "cli/assets/nano", which)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        quantised = {"quantization_config": Mxfp4Config(dequantize=True)} if which == "teacher" else {}
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, device_map="cpu", attn_implementation="eager", **quantised
        )
        self.model = model.float().eval()

    def sequence(self, prompt: dict) -> tuple[list[int], int]:
        """Token ids, and where the answer begins."""
        asked = [{"role": "user", "content": prompt["prompt"]}]
        answered = asked + [{"role": "assistant", "content": prompt["reference"]}]
        opening = self.tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
        whole = self.tokenizer.apply_chat_template(answered, tokenize=False)
        assert whole.startswith(opening)
        ids = [self.tokenizer(t, add_special_tokens=False).input_ids for t in (opening, whole[len(opening) :])]
        return ids[0] + ids[1], len(ids[0])

    @torch.no_grad()
    def run(self, ids: list[int], start: int) -> tuple[float, torch.Tensor]:
        """The answer's loss in nats, and the logits after the last token."""
        logits = self.model(torch.tensor([ids]), use_cache=False).logits[0]
        loss = torch.nn.functional.cross_entropy(logits[start - 1 : -1], torch.tensor(ids[start:]), reduction="sum")
        return float(loss), logits[-1]


def losses(subject: Subject, all_prompts: list[dict]) -> dict:
    rows, nats, tokens, size = [], 0.0, 0, 0
    for at, prompt in enumerate(all_prompts):
        ids, start = subject.sequence(prompt)
        loss, last = subject.run(ids, start)
        values, which = torch.topk(last, 5)
        if at < CLI_PROMPTS:
            nats, tokens, size = nats + loss, tokens + len(ids) - start, size + len(prompt["reference"].encode())
        rows.append(
            {
                "id": prompt["id"],
                "prompt_tokens": start,
                "response_tokens": len(ids) - start,
                "loss_sum": round(loss, 5),
                "first_ids": ids[:8],
                "last_logits_top5": [[int(i), round(float(v), 4)] for i, v in zip(which, values)],
            }
        )
    return {"loss_per_token": nats / tokens, "bits_per_byte": nats / math.log(2) / size, "per_prompt": rows}


class Routing:
    """Counts and gate mass per layer and expert, over the positions from `start` on."""

    def __init__(self, model):
        experts = model.config.num_local_experts
        self.start = 0
        self.count = torch.zeros(len(model.model.layers), experts, dtype=torch.float64)
        self.mass = torch.zeros_like(self.count)
        self.hooks = [
            layer.mlp.router.register_forward_hook(self.hook(at)) for at, layer in enumerate(model.model.layers)
        ]

    def hook(self, layer: int):
        def add(_, __, output):
            _, gates, chosen = output
            chosen, gates = chosen[self.start :].flatten(), gates[self.start :].flatten().double()
            self.count[layer].index_add_(0, chosen, torch.ones_like(gates))
            self.mass[layer].index_add_(0, chosen, gates)

        return add

    def end(self) -> None:
        for hook in self.hooks:
            hook.remove()


def routing(subject: Subject, sequences: list) -> tuple[float, Routing]:
    seen, nats = Routing(subject.model), 0.0
    for ids, start in sequences:
        seen.start = start
        nats += subject.run(ids, start)[0]
    seen.end()
    return nats, seen


def banned(subject: Subject, sequences: list, layer: int, expert: int) -> float:
    """Loss where the router cannot choose an expert: its bias is far below every logit."""
    bias = subject.model.model.layers[layer].mlp.router.bias
    before = bias.data[expert].item()
    bias.data[expert] = -1e9
    nats = sum(subject.run(ids, start)[0] for ids, start in sequences)
    bias.data[expert] = before
    return nats


def headless(subject: Subject, sequences: list, layer: int, head: int) -> float:
    """Loss where a head gives 0 at every position, before the output projection."""
    size = subject.model.config.head_dim

    def zero(_, inputs):
        x = inputs[0].clone()
        x[..., head * size : (head + 1) * size] = 0
        return (x,)

    hook = subject.model.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(zero)
    nats = sum(subject.run(ids, start)[0] for ids, start in sequences)
    hook.remove()
    return nats


def probe(subject: Subject, some: list[dict]) -> dict:
    sequences = [subject.sequence(prompt) for prompt in some]
    tokens = sum(len(ids) - start for ids, start in sequences)
    clean, seen = routing(subject, sequences)
    config = subject.model.config

    def effects(of, units: int) -> list:
        rise = lambda layer, unit: round((of(subject, sequences, layer, unit) - clean) / tokens, 6)
        return [[rise(layer, unit) for unit in range(units)] for layer in range(config.num_hidden_layers)]

    return {
        "prompts": [prompt["id"] for prompt in some],
        "response_tokens": tokens,
        "clean_loss_per_token": clean / tokens,
        "expert_count": seen.count.long().tolist(),
        "expert_gate_mass": [[round(v, 4) for v in row] for row in seen.mass.tolist()],
        "expert_ban_reroute_effect_nats_per_token": effects(banned, config.num_local_experts),
        "head_zero_effect_nats_per_token": effects(headless, config.num_attention_heads),
    }


def compute(root: str) -> dict:
    all_prompts = prompts(root, "cli-heldout.jsonl", CLI_PROMPTS) + prompts(root, "math-heldout.jsonl", MATH_PROMPTS)
    teacher, student = Subject(root, "teacher"), Subject(root, "student")
    return {
        "teacher": losses(teacher, all_prompts),
        "teacher_probe": probe(teacher, all_prompts[:PROBED]),
        "student": losses(student, all_prompts),
    }


def same(found, want, what: str) -> None:
    if found != want:
        raise SystemExit(f"{what}: {found} was computed, the file has {want}")


def largest(found: list, want: list) -> float:
    gaps = [abs(a - b) for x, y in zip(found, want, strict=True) for a, b in zip(x, y, strict=True)]
    return max(gaps)


def compare(found: dict, want: dict) -> dict:
    """The largest differences; whatever has to be the same to the token ends the script where it is not."""
    loss = logits = 0.0
    for which in ("teacher", "student"):
        ours, theirs = found[which], want[which]
        for a, b in zip(ours["per_prompt"], theirs["per_prompt"], strict=True):
            for key in ("id", "prompt_tokens", "response_tokens", "first_ids"):
                same(a[key], b[key], f"{which} {b['id']} {key}")
            loss = max(loss, abs(a["loss_sum"] - b["loss_sum"]) / b["loss_sum"])
            # Two logits that are almost equal may change places: compared by value, each with its own token's.
            logits = max(logits, largest([[v for _, v in a["last_logits_top5"]]], [[v for _, v in b["last_logits_top5"]]]))
            same(a["last_logits_top5"][0][0], b["last_logits_top5"][0][0], f"{which} {b['id']} first token")
        for key in ("loss_per_token", "bits_per_byte"):
            loss = max(loss, abs(ours[key] - theirs[key]) / theirs[key])
    ours, theirs = found["teacher_probe"], want["teacher_probe"]
    for key in ("prompts", "response_tokens", "expert_count"):
        same(ours[key], theirs[key], f"teacher_probe {key}")
    loss = max(loss, abs(ours["clean_loss_per_token"] - theirs["clean_loss_per_token"]) / theirs["clean_loss_per_token"])
    effects = ("expert_ban_reroute_effect_nats_per_token", "head_zero_effect_nats_per_token")
    return {
        "loss": loss,
        "logits": logits,
        "gate_mass": largest(ours["expert_gate_mass"], theirs["expert_gate_mass"]),
        "effect": max(largest(ours[key], theirs[key]) for key in effects),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("--check")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = compute(options.root)
    if not options.check:
        print(json.dumps(found, indent=1))
        return
    with open(options.check, encoding="utf-8") as file:
        gaps = compare(found, json.load(file))
    good = all(gaps[name] <= bound for name, bound in BOUNDS.items())
    print(json.dumps({"golden": gaps, "bounds": BOUNDS, "pass": good}))
    sys.exit(0 if good else 6)


if __name__ == "__main__":
    main()
