"""Relevance patching (RelP; Jafari et al. 2025, arXiv 2508.21258) on transformers' models, by replaced modules.

Written as the paper's own code does it: what is given is detached, a factor is x * (act(x) / x).detach(), and half of a
product is y / 2 + (y / 2).detach(). The gradient of a loss through such a model has the coefficients of relevance. Clamps
count as activations, a router's gates as given.
"""

import copy
import types
from collections import defaultdict

import torch
import torch.nn.functional as F


def factor(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """y = act(x), as x times a number that is given."""
    return x * (y / x).detach()


def half(product: torch.Tensor) -> torch.Tensor:
    """A product of which half goes back to either factor."""
    return product / 2 + (product / 2).detach()


def norm(self, x: torch.Tensor) -> torch.Tensor:
    given = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon).detach()
    return self.weight * (x * given)


def mlp(self, x: torch.Tensor) -> torch.Tensor:
    gate = self.gate_proj(x)
    return self.down_proj(half(factor(gate, self.act_fn(gate)) * self.up_proj(x)))


def halves_of_gpt_oss(self, expert: int, x: torch.Tensor) -> torch.Tensor:
    """gpt-oss's unit: its matrices are [in, out], gate and up in turns."""
    both = x @ self.gate_up_proj[expert] + self.gate_up_proj_bias[expert]
    gate, up = both[..., ::2], both[..., 1::2]
    clamped = gate.clamp(max=self.limit)
    gate = factor(gate, clamped * torch.sigmoid(clamped * self.alpha))
    up = factor(up, up.clamp(-self.limit, self.limit))
    return half((up + 1) * gate) @ self.down_proj[expert] + self.down_proj_bias[expert]


def halves_of_others(self, expert: int, x: torch.Tensor) -> torch.Tensor:
    gate, up = F.linear(x, self.gate_up_proj[expert]).chunk(2, -1)
    return F.linear(half(factor(gate, self.act_fn(gate)) * up), self.down_proj[expert])


class Relevant:
    """A copy of a model, in f64, through which relevance is carried back; it keeps the outputs of heads and experts."""

    def __init__(self, model):
        self.model = copy.deepcopy(model).double()
        self.model.requires_grad_(False)
        self.kept: dict = {}
        for module in self.model.modules():
            if type(module).__name__.endswith("RMSNorm"):
                module.forward = types.MethodType(norm, module)
        for at, layer in enumerate(self.model.model.layers):
            self.attention(at, layer.self_attn)
            experts = getattr(layer.mlp, "experts", None)
            if experts is None:
                layer.mlp.forward = types.MethodType(mlp, layer.mlp)
                continue
            router = getattr(layer.mlp, "router", None) or layer.mlp.gate
            router.register_forward_hook(lambda _, __, output: tuple(each.detach() for each in output))
            experts.forward = types.MethodType(self.experts(at), experts)

    def attention(self, layer: int, attention) -> None:
        for projection in (attention.q_proj, attention.k_proj):
            projection.register_forward_hook(lambda _, __, output: output.detach())

        def keep(_, inputs):
            self.kept["head", layer] = inputs[0]
            inputs[0].retain_grad()

        attention.o_proj.register_forward_pre_hook(keep)

    def experts(self, layer: int):
        def forward(experts, x, chosen, gates):
            one = halves_of_gpt_oss if hasattr(experts, "limit") else halves_of_others
            total = torch.zeros_like(x)
            for expert in chosen.unique().tolist():
                rows, places = torch.where(chosen == expert)
                out = one(experts, expert, x[rows])
                out.retain_grad()
                self.kept["expert", layer, expert] = out
                total = total.index_add(0, rows, out * gates[rows, places, None].to(out.dtype))
            return total

        return forward

    def effects(self, ids: list, start: int) -> dict:
        """(0 - n) times the coefficient of every head and expert, summed over the tokens of one sequence."""
        found: dict = defaultdict(float)
        if start >= len(ids):
            return found
        self.kept = {}
        embedded = self.model.model.embed_tokens(torch.tensor([ids])).requires_grad_()
        logits = self.model(inputs_embeds=embedded, use_cache=False).logits[0, start - 1 : -1]
        F.cross_entropy(logits, torch.tensor(ids[start:]), reduction="sum").backward()
        for (kind, layer, *expert), value in self.kept.items():
            pull = -(value * value.grad).detach()
            if kind == "expert":
                found[kind, layer, expert[0]] = float(pull.sum())
                continue
            heads = pull.unflatten(-1, (self.model.config.num_attention_heads, -1)).sum((0, 1, 3))
            found.update({(kind, layer, head): float(v) for head, v in enumerate(heads)})
        return found


def relevance(model, rows: list) -> dict:
    """Effects by relevance with baseline zero, by kind, layer, unit and sequence, in nats."""
    relevant, config = Relevant(model), model.config
    each = [relevant.effects(row["ids"], row["response_start"]) for row in rows]
    experts = [getattr(layer.mlp, "experts", None) for layer in model.model.layers]
    widths = {
        "head": [config.num_attention_heads] * len(experts),
        "expert": [0 if of_layer is None else of_layer.num_experts for of_layer in experts],
    }
    unit = lambda *key: [float(f"{found[key]:.7g}") for found in each]
    return {
        kind: [[unit(kind, layer, at) for at in range(width)] for layer, width in enumerate(of_layers)]
        for kind, of_layers in widths.items()
    }


def largest_gap(found: dict, want: dict) -> float:
    """The largest difference of two results, over the largest effect of its kind."""
    gaps = [0.0]
    for kind in want:
        flat = lambda of: [v for layer in of[kind] for unit in layer for v in unit]
        size = max(map(abs, flat(want)), default=0.0)
        gaps += [abs(a - b) / size for a, b in zip(flat(found), flat(want), strict=True)]
    return max(gaps)
