"""What a trace is held to, computed with PyTorch and transformers and with nothing of uspx.

    python trace_golden.py ROOT                      prints the JSON of tests/data/trace.json
    python trace_golden.py ROOT --check FILE.json    computes it anew and compares; exits with 6 where a bound is exceeded

The shipped models on the first 16 held-out command lines, in f32, one prompt at a time. Sums over the positions that
hold response tokens, and apart from them over those of the prompts: per layer and expert of the teacher how often it
is routed to, how far its router logit lies above the first one that is not taken, gate times output norm (saliency),
and that times how far its layer turns the stream (EASY-EP); per layer and head the squared norm of its output; of the
hidden channels of one expert, and of one layer of the student, the sum of |a| and of a². Over response tokens also
which experts have the same one.
"""

import argparse
import json
import sys

import torch
from golden import PROBED, Subject, largest, prompts, same

LAYER, EXPERT = 1, 3
# As in golden.py; relative to the largest value of a table.
BOUND = 1e-4


class Sums:
    """Named tables that grow by what is added at a place."""

    def __init__(self):
        self.tables = {}

    def add(self, name: str, values: torch.Tensor) -> None:
        values = values.double()
        self.tables[name] = self.tables[name] + values if name in self.tables else values

    def lists(self) -> dict:
        return {name: [[round(v, 5) for v in row] for row in table.tolist()] for name, table in self.tables.items()}


def catch(model, seen: dict) -> list:
    """Hooks that keep what each layer shows of the last sequence."""

    def keep(name, layer, pick):
        def hook(_, inputs, output=None):
            seen[name, layer] = pick(inputs, output)

        return hook

    hooks = []
    for at, layer in enumerate(model.model.layers):
        first = lambda inputs, _: inputs[0].reshape(-1, inputs[0].shape[-1])
        hooks.append(layer.self_attn.o_proj.register_forward_pre_hook(keep("z", at, first)))
        hooks.append(layer.post_attention_layernorm.register_forward_pre_hook(keep("mid", at, first)))
        if hasattr(layer.mlp, "router"):
            hooks.append(layer.mlp.router.register_forward_hook(keep("router", at, lambda _, output: output)))
            hooks.append(layer.mlp.experts.register_forward_pre_hook(keep("x", at, first)))
            hooks.append(layer.mlp.register_forward_hook(keep("out", at, lambda _, output: output[0][0])))
        else:
            hooks.append(layer.mlp.down_proj.register_forward_pre_hook(keep("channels", at, first)))
    return hooks


def heads(config, seen: dict, rows: slice, sums: Sums) -> None:
    z = [seen["z", at][rows] for at in range(config.num_hidden_layers)]
    energy = [z.reshape(len(z), config.num_attention_heads, -1).pow(2).sum((0, 2)) for z in z]
    sums.add("head_energy", torch.stack(energy))


def channels(values: torch.Tensor, sums: Sums) -> None:
    sums.add("channels", torch.stack([values.abs().sum(0), values.pow(2).sum(0)]))


def hidden(experts, expert: int, x: torch.Tensor) -> torch.Tensor:
    return experts._apply_gate(x @ experts.gate_up_proj[expert] + experts.gate_up_proj_bias[expert])


def of_experts(model, seen: dict, rows: slice, sums: Sums) -> None:
    count, margin, saliency, turning = [], [], [], []
    for at, layer in enumerate(model.model.layers):
        logits, gates, chosen = (t[rows] for t in seen["router", at])
        x, mid, out = (seen[name, at][rows] for name in ("x", "mid", "out"))
        turned = (1 - torch.nn.functional.cosine_similarity(mid, mid + out, dim=-1)).clamp(min=0)
        next_best = logits.scatter(1, chosen, float("-inf")).max(1).values
        tables = [torch.zeros(logits.shape[1], dtype=torch.float64) for _ in range(4)]
        for choice in range(chosen.shape[1]):
            who = chosen[:, choice]
            for row, expert in enumerate(who.tolist()):
                f = hidden(layer.mlp.experts, expert, x[row]) @ layer.mlp.experts.down_proj[expert]
                size = gates[row, choice] * (f + layer.mlp.experts.down_proj_bias[expert]).norm()
                values = [1, logits[row, expert] - next_best[row], size, size * turned[row]]
                for table, value in zip(tables, values, strict=True):
                    table[expert] += float(value)
        for column, table in zip((count, margin, saliency, turning), tables, strict=True):
            column.append(table)
    for name, column in (("count", count), ("margin", margin), ("saliency", saliency), ("easy_ep", turning)):
        sums.add(name, torch.stack(column))
    chosen = (seen["router", LAYER][2][rows] == EXPERT).any(1)
    channels(hidden(model.model.layers[LAYER].mlp.experts, EXPERT, seen["x", LAYER][rows][chosen]), sums)


def together(model, seen: dict, rows: slice, sums: Sums) -> None:
    tables = []
    for at in range(len(model.model.layers)):
        logits, _, chosen = (t[rows] for t in seen["router", at])
        has = torch.zeros_like(logits).scatter(1, chosen, 1.0)
        tables.append((has.T @ has).flatten())
    sums.add("co_activation", torch.stack(tables))


@torch.no_grad()
def traced(subject: Subject, some: list[dict]) -> dict:
    model, seen = subject.model, {}
    hooks = catch(model, seen)
    parts = {"response": Sums(), "prompt": Sums()}
    for prompt in some:
        ids, start = subject.sequence(prompt)
        model(torch.tensor([ids]), use_cache=False)
        for part, rows in (("response", slice(start, None)), ("prompt", slice(0, start))):
            heads(model.config, seen, rows, parts[part])
            if ("router", 0) in seen:
                of_experts(model, seen, rows, parts[part])
            else:
                channels(seen["channels", LAYER][rows], parts[part])
        if ("router", 0) in seen:
            together(model, seen, slice(start, None), parts["response"])
    for hook in hooks:
        hook.remove()
    return {part: sums.lists() for part, sums in parts.items()}


def compute(root: str) -> dict:
    some = prompts(root, "cli-heldout.jsonl", PROBED)
    of = {which: traced(Subject(root, which), some) for which in ("teacher", "student")}
    return {"prompts": [prompt["id"] for prompt in some], "layer": LAYER, "expert": EXPERT, **of}


def compare(found: dict, want: dict) -> float:
    same(found["prompts"], want["prompts"], "prompts")
    gaps = []
    for which in ("teacher", "student"):
        for part in ("response", "prompt"):
            ours, theirs = found[which][part], want[which][part]
            same(sorted(ours), sorted(theirs), f"{which} {part}")
            for name, table in theirs.items():
                gaps.append(largest(ours[name], table) / max(abs(v) for row in table for v in row))
    return max(gaps)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("--check")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = compute(options.root)
    if not options.check:
        print(json.dumps(found))
        return
    with open(options.check, encoding="utf-8") as file:
        gap = compare(found, json.load(file))
    print(json.dumps({"trace": gap, "bound": BOUND, "pass": gap <= BOUND}))
    sys.exit(0 if gap <= BOUND else 6)


if __name__ == "__main__":
    main()
