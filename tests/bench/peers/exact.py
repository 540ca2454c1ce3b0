"""The peer of `uspx probe patch --method exact`: the same patches with transformers, plain hooks and padded batches.

    python exact.py MODEL_DIR [PROMPTS.jsonl] [--tokens-file TOKENS.jsonl] [--limit N] [--threads T] [--batch 32]
                    [--units expert,head] [--layers A..B] [--baseline zero|mean|resample] [--sources SOURCES.json]
                    [--expert-mode ban|zero] [--experts eager|grouped|best] [--logits response|all] [--margins]

Every unit has a run of the whole model of its own on all prompts, with one hook: on the router, where an expert is
banned (its logit is -inf before the choice, so that its tokens go to the next one) or its gate is 0; before the output
projection of attention, where a head's output is 0, its mean over all tokens of the prompts, or what it is at the same
position of another prompt (SOURCES.json: for each prompt the number of that one). Tokens, batches and the choice of the
experts' implementation are those of trace.py. No graph is recorded, no cache kept, and of the output head only the rows
that predict response tokens are computed, unless --logits all asks for what `model(ids).logits` costs.

What is timed is the clean run and every patched one, with their losses: not loading, not the batch that warms up.
With --margins it also tells how near a tie each run's routing came: the smallest distance of the last chosen router
logit and the next one, of all tokens and layers. Where that is within rounding, two right implementations part ways.
Prints one JSON line: seconds, clean_loss (nats per response token), effects ({"expert": [layer][expert], "head": ..},
the rise of that loss), and what else is needed to judge them.
"""

import argparse
import json
import math
import os
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
import trace as tracing
import transformers
from transformers.utils import logging as transformers_logging


class Patching:
    """A model that can be run with one unit patched."""

    def __init__(self, model, options):
        self.model, self.options, config = model, options, model.config
        self.heads, self.experts = config.num_attention_heads, getattr(config, "num_local_experts", 0)
        self.experts = self.experts or getattr(config, "num_experts", 0)
        self.batch = None
        # The smallest margin of a router since it was last set to infinity.
        self.margin = math.inf
        # By layer: per head [head_dim], and per prompt [tokens, heads, head_dim].
        self.means, self.outputs = {}, {}

    def router(self, layer: int):
        mlp = self.model.model.layers[layer].mlp
        return getattr(mlp, "router", None) or getattr(mlp, "gate", None)

    def units(self, layers: range) -> list:
        """(kind, layer, index) of all that is asked for."""
        found = []
        for kind in self.options.units.split(","):
            for layer in layers:
                has_experts = isinstance(getattr(self.router(layer), "top_k", None), int)
                count = self.heads if kind == "head" else self.experts if has_experts else 0
                found += [(kind, layer, index) for index in range(count)]
        return found

    def watch_margins(self) -> None:
        """From now on `margin` is kept. A patch's hook is put in front, so that this sees what it made."""
        for layer in range(len(self.model.model.layers)):
            router = self.router(layer)
            if isinstance(getattr(router, "top_k", None), int):
                router.register_forward_hook(self.margin_hook)

    def margin_hook(self, router, _, output) -> None:
        logits = output[0].reshape(-1, output[0].shape[-1])
        logits = logits if self.batch.mask is None else logits[self.batch.mask.flatten().bool()]
        top = logits.topk(router.top_k + 1, dim=-1).values
        self.margin = min(self.margin, float((top[:, -2] - top[:, -1]).min()))

    @torch.no_grad()
    def losses(self, batches: list) -> float:
        """The summed loss of all responses."""
        return sum(self.loss(batch) for batch in batches)

    def loss(self, batch) -> float:
        self.batch = batch
        if self.options.logits == "all":
            logits = self.model(batch.ids, attention_mask=batch.mask, use_cache=False).logits.flatten(0, 1)
            logits = logits[batch.response - 1]
        else:
            hidden = self.model.model(batch.ids, attention_mask=batch.mask, use_cache=False).last_hidden_state
            logits = self.model.lm_head(hidden.flatten(0, 1)[batch.response - 1])
        return float(torch.nn.functional.cross_entropy(logits.float(), batch.targets, reduction="sum"))

    def patched(self, unit: tuple, batches: list) -> float:
        """The same with one unit patched."""
        kind, layer, index = unit
        if kind == "head":
            place = self.model.model.layers[layer].self_attn.o_proj
            handle = place.register_forward_pre_hook(self.head_hook(layer, index))
        else:
            ban = self.options.expert_mode == "ban"
            hook = (self.ban_hook if ban else self.zero_hook)(index)
            handle = self.router(layer).register_forward_hook(hook, prepend=True)
        try:
            return self.losses(batches)
        finally:
            handle.remove()

    def ban_hook(self, expert: int):
        def hook(router, _, output):
            logits = output[0].index_fill(-1, torch.tensor([expert]), float("-inf"))
            if self.model.config.model_type == "gpt_oss":
                top, chosen = logits.topk(router.top_k, dim=-1)
                return logits, top.softmax(-1), chosen
            gates, chosen = logits.float().softmax(-1).topk(router.top_k, dim=-1)
            if getattr(router, "norm_topk_prob", True):
                gates = gates / gates.sum(-1, keepdim=True)
            return logits, gates.to(logits.dtype), chosen

        return hook

    def zero_hook(self, expert: int):
        def hook(_, __, output):
            logits, gates, chosen = output
            return logits, gates.masked_fill(chosen == expert, 0.0), chosen

        return hook

    def head_hook(self, layer: int, head: int):
        def hook(_, inputs):
            z = inputs[0].unflatten(-1, (self.heads, -1)).clone()
            if self.options.baseline == "zero":
                z[:, :, head] = 0
            elif self.options.baseline == "mean":
                z[:, :, head] = self.means[layer][head]
            else:
                for row, member in enumerate(self.batch.members):
                    source = self.outputs[layer][self.options.sources[member]]
                    z[row, : len(source), head] = source[:, head]
            return (z.flatten(-2),)

        return hook

    @torch.no_grad()
    def keep_heads(self, batches: list, layers: range) -> None:
        """Every head's output on every prompt, and its mean over all their tokens."""

        def keeping(layer: int):
            def hook(_, inputs):
                z = inputs[0].unflatten(-1, (self.heads, -1))
                kept = {m: z[row, : self.batch.lengths[row]].clone() for row, m in enumerate(self.batch.members)}
                self.outputs.setdefault(layer, {}).update(kept)

            return hook

        at = lambda layer: self.model.model.layers[layer].self_attn.o_proj
        handles = [at(layer).register_forward_pre_hook(keeping(layer)) for layer in layers]
        self.losses(batches)
        for handle in handles:
            handle.remove()
        self.means = {layer: torch.cat(list(kept.values())).mean(0) for layer, kept in self.outputs.items()}


class Batch(tracing.Batch):
    """With which prompts are in it, and their lengths."""

    def __init__(self, members: list, sequences: list, device: str):
        super().__init__(members, sequences, device)
        self.members, self.lengths = members, [len(sequences[at]["ids"]) for at in members]


def grids(effects: dict, layers: int, kinds: list) -> dict:
    """Per kind: [layer][unit]; a layer that was not asked for is empty."""
    of = lambda kind, layer: [value for unit, value in effects.items() if unit[:2] == (kind, layer)]
    return {kind: [of(kind, layer) for layer in range(layers)] for kind in kinds}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("prompts", nargs="?")
    parser.add_argument("--tokens-file")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--units", default="expert,head")
    parser.add_argument("--layers")
    parser.add_argument("--baseline", choices=["zero", "mean", "resample"], default="zero")
    parser.add_argument("--sources")
    parser.add_argument("--expert-mode", choices=["ban", "zero"], default="ban")
    parser.add_argument("--experts", choices=["eager", "grouped", "best"], default="best")
    parser.add_argument("--margins", action="store_true")
    parser.add_argument("--logits", choices=["response", "all"], default="response")
    options = parser.parse_args()
    options.equal_length = "none"
    if options.sources:
        with open(options.sources, encoding="utf-8") as file:
            options.sources = json.load(file)
    return options


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    torch.set_num_interop_threads(1)
    transformers_logging.disable_progress_bar()
    tracing.ALL_EXPERTS_FUNCTIONS.register("recording", tracing.recording_experts)
    sequences = tracing.sequences_of(options)
    model = tracing.load(options.model, "cpu", torch.float32)
    order = sorted(range(len(sequences)), key=lambda at: len(sequences[at]["ids"]))
    groups = [order[at : at + options.batch] for at in range(0, len(order), options.batch)]
    batches = [Batch(group, sequences, "cpu") for group in groups]
    patching, depth = Patching(model, options), model.config.num_hidden_layers
    first, last = map(int, options.layers.split("..")) if options.layers else (0, depth)
    layers, units = range(first, last), patching.units(range(first, last))

    experts, tried, middle = None, {}, batches[len(batches) // 2]
    if patching.experts and options.experts == "best":
        experts, tried = fastest(model, patching, middle)
    elif patching.experts:
        experts = options.experts
    if experts:
        model.set_experts_implementation(tracing.IMPLEMENTATIONS[experts])
    patching.losses([middle])
    if options.margins:
        patching.watch_margins()

    began = time.perf_counter()
    if options.baseline != "zero":
        patching.keep_heads(batches, layers)
    clean = patching.losses(batches)
    nats, margins = {}, {}
    for unit in units:
        patching.margin = math.inf
        nats[unit] = patching.patched(unit, batches)
        margins[unit] = min(patching.margin, 1e9)
    seconds = time.perf_counter() - began
    tokens = sum(len(batch.targets) for batch in batches)
    effects = {unit: (value - clean) / tokens for unit, value in nats.items()}
    result = {
        "seconds": seconds,
        "clean_loss": clean / tokens,
        "effects": grids(effects, depth, options.units.split(",")),
        "margins": grids(margins, depth, options.units.split(",")) if options.margins else None,
        "units": len(units),
        "sequences": len(sequences),
        "tokens": sum(batch.tokens for batch in batches),
        "padded_tokens": sum(batch.padded for batch in batches),
        "response_tokens": tokens,
        "experts_implementation": experts and tracing.IMPLEMENTATIONS[experts],
        "tried_seconds": tried,
        "attention_implementation": model.config._attn_implementation,
        "logits": options.logits,
        "peak_rss_bytes": tracing.memory("VmHWM"),
        "threads": options.threads,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    print(json.dumps(result))


def fastest(model, patching: Patching, batch) -> tuple[str, dict]:
    """Which implementation of the experts runs a batch fastest, the second of two runs counting."""
    tried = {}
    for name in ("eager", "grouped"):
        model.set_experts_implementation(tracing.IMPLEMENTATIONS[name])
        seconds = []
        for _ in range(2):
            began = time.perf_counter()
            patching.losses([batch])
            seconds.append(time.perf_counter() - began)
        tried[name] = min(seconds)
    return min(tried, key=tried.get), tried


if __name__ == "__main__":
    main()
