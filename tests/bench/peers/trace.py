"""The peer of `uspx probe trace`: the same statistics with transformers, forward hooks and padded batches.

    python trace.py MODEL_DIR [PROMPTS.jsonl] [--tokens-file TOKENS.jsonl] [--limit N] [--threads T] [--batch 32]
                    [--experts eager|grouped|best] [--device cpu|cuda] [--dtype f32|bf16] [--equal-length L|none]
                    [--dump FILE.json]

Tokens come from TOKENS.jsonl (lines of {"ids", "response_start"}, see tokens.py), or else from PROMPTS.jsonl.
Sequences are sorted by length, padded at the end to batches of --batch, and run without a cache. MXFP4 is expanded
when the model is loaded, as transformers does it where it has no kernel for it. What is timed is the model's body with
its hooks: not loading, not the batch that warms up, and not the output head, which the statistics do not need (it is
run afterwards, for the loss).

Per prompt, summed over response tokens: of each expert its count, gate mass, saliency g·|f| and EASY-EP
g·|f|·max(0, 1 - cos(h, h + MoE(h))); of each head the norm of its output. The experts are one module in transformers 5,
and its hooks do not see what a single expert gives, so

    --experts eager    runs an implementation registered here: transformers' eager loop, norms taken inside it (tokens are
                       sorted once instead of a mask per expert)
    --experts grouped  runs transformers' own grouped_mm, its default: hooks then see gates, choices and the module's
                       output, and the norm of the experts' sum stands in for |f|. That is less work than the statistics
                       ask for: it favours the peer
    --experts best     takes what is fastest on the warming batch: one of these, or batched_mm where the weights that it
                       copies for every token fit into 4 GiB

Prints one JSON line: tokens (real ones, not padding), seconds, tokens_per_second, peak_rss_bytes (of the timed part,
weights included), experts_implementation ("recording" is the one from here), loss (nats per response token), and what
else is needed to judge them.
"""

import argparse
import json
import os
import platform
import resource
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import tokens
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, Mxfp4Config
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
from transformers.utils import logging as transformers_logging

# How --experts names transformers' implementations; "recording" is registered here.
IMPLEMENTATIONS = {"eager": "recording", "grouped": "grouped_mm", "batched": "batched_mm"}
# batched_mm copies an expert's weights for every token that goes to it.
BATCHED_BYTES = 4 << 30


def recording_experts(self, hidden_states, top_k_index, top_k_weights):
    """Every expert on its tokens, one after another, like transformers' eager loop; `self.norms` is |f| per choice."""
    choices = top_k_index.shape[-1]
    order = top_k_index.flatten().argsort(stable=True)
    counts = top_k_index.flatten().bincount(minlength=self.num_experts).tolist()
    gates, norms = top_k_weights.flatten(), hidden_states.new_zeros(top_k_index.numel())
    total, start = torch.zeros_like(hidden_states), 0
    for expert, count in enumerate(counts):
        if count == 0:
            continue
        slots = order[start : start + count]
        start += count
        rows = slots // choices
        inner = self._apply_gate(affine(self, "gate_up_proj", expert, hidden_states[rows]))
        output = affine(self, "down_proj", expert, inner)
        norms[slots] = output.norm(dim=-1)
        total.index_add_(0, rows, (output * gates[slots, None]).to(total.dtype))
    self.norms = norms.view(top_k_index.shape)
    return total


def affine(experts, name: str, expert: int, x):
    """x through one matrix of one expert; gpt-oss stores it [in, out] with a bias, the others [out, in]."""
    weight = getattr(experts, name)[expert]
    weight = weight if experts.is_transposed else weight.t()
    return torch.addmm(getattr(experts, f"{name}_bias")[expert], x, weight) if experts.has_bias else x @ weight


class Batch:
    """Sequences padded to a rectangle, and which of its rows hold response tokens of which prompt."""

    def __init__(self, members: list, sequences: list, device: str):
        rows = [sequences[at] for at in members]
        width = max(len(row["ids"]) for row in rows)
        ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
        response, prompt, targets = [], [], []
        for at, (row, member) in enumerate(zip(rows, members)):
            length, start = len(row["ids"]), row["response_start"]
            ids[at, :length], mask[at, :length] = torch.tensor(row["ids"]), 1
            response += range(at * width + start, at * width + length)
            prompt += [member] * (length - start)
            targets += row["ids"][start:]
        self.tokens, self.padded = int(mask.sum()), ids.numel()
        self.ids, self.mask = ids.to(device), None if self.tokens == self.padded else mask.to(device)
        # Rows of the flattened rectangle, the prompt of each, and the token there.
        self.response, self.prompt, self.targets = (
            torch.tensor(values, dtype=torch.long, device=device) for values in (response, prompt, targets)
        )


class Tracer:
    """Forward hooks that add up the statistics."""

    def __init__(self, model, prompts: int):
        config = model.config
        self.experts, self.heads = getattr(config, "num_local_experts", 0), config.num_attention_heads
        layers = config.num_hidden_layers
        zeros = lambda units: torch.zeros(layers, prompts * units, dtype=torch.float64, device=model.device)
        self.sums = {"head_norm": zeros(self.heads)}
        if self.experts:
            self.sums |= {name: zeros(self.experts) for name in ("count", "gate_mass", "saliency", "easy_ep")}
        self.batch, self.residual, self.routing = None, None, None
        for at, layer in enumerate(model.model.layers):
            layer.self_attn.o_proj.register_forward_pre_hook(self.head_hook(at))
            router = getattr(layer.mlp, "router", getattr(layer.mlp, "gate", None))
            if self.experts and router is not None:
                layer.post_attention_layernorm.register_forward_pre_hook(self.keep_residual)
                router.register_forward_hook(self.keep_routing)
                layer.mlp.register_forward_hook(self.experts_hook(at))

    def of_response(self, x):
        """Rows of response tokens, in f32."""
        return x.reshape(-1, x.shape[-1])[self.batch.response].float()

    def add(self, name: str, layer: int, index, values) -> None:
        self.sums[name][layer].index_add_(0, index.flatten(), values.flatten().double())

    def head_hook(self, layer: int):
        def hook(_, inputs):
            norms = self.of_response(inputs[0]).unflatten(-1, (self.heads, -1)).norm(dim=-1)
            units = torch.arange(self.heads, device=norms.device)
            self.add("head_norm", layer, self.batch.prompt[:, None] * self.heads + units, norms)

        return hook

    def keep_residual(self, _, inputs) -> None:
        self.residual = inputs[0]

    def keep_routing(self, _, __, output) -> None:
        self.routing = output[1:]

    def experts_hook(self, layer: int):
        def hook(module, _, output):
            output = self.of_response(output[0] if isinstance(output, tuple) else output)
            gates, chosen = (x[self.batch.response] for x in self.routing)
            gates, index = gates.float(), self.batch.prompt[:, None] * self.experts + chosen
            norms = getattr(module.experts, "norms", None)
            norms = output.norm(dim=-1, keepdim=True) if norms is None else norms[self.batch.response].float()
            before = self.of_response(self.residual)
            turned = (1 - torch.cosine_similarity(before, before + output, dim=-1)).clamp(min=0)
            saliency = gates * norms
            self.add("count", layer, index, torch.ones_like(gates))
            self.add("gate_mass", layer, index, gates)
            self.add("saliency", layer, index, saliency)
            self.add("easy_ep", layer, index, saliency * turned[:, None])

        return hook

    def values(self, prompts: int) -> dict:
        """Per statistic: [layer][unit][prompt]."""
        shaped = {name: sums.view(sums.shape[0], prompts, -1).transpose(1, 2) for name, sums in self.sums.items()}
        return {name: sums.tolist() for name, sums in shaped.items()}


class Peer:
    """A model with its tracer, and how long it took."""

    def __init__(self, model, tracer: Tracer):
        self.model, self.tracer, self.on_gpu = model, tracer, model.device.type == "cuda"

    @torch.no_grad()
    def run(self, batch: Batch) -> tuple[float, float]:
        """Seconds of a batch, and its summed loss."""
        self.tracer.batch = batch
        self.wait()
        began = time.perf_counter()
        hidden = self.model.model(batch.ids, attention_mask=batch.mask, use_cache=False).last_hidden_state
        self.wait()
        seconds = time.perf_counter() - began
        logits = self.model.lm_head(hidden.flatten(0, 1)[batch.response - 1]).float()
        return seconds, float(torch.nn.functional.cross_entropy(logits, batch.targets, reduction="sum"))

    def wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def use(self, experts: str) -> None:
        """Another implementation of the experts."""
        for layer in self.model.model.layers:
            if hasattr(layer.mlp, "experts"):
                layer.mlp.experts.norms = None
        self.model.set_experts_implementation(IMPLEMENTATIONS[experts])

    def fastest(self, batch: Batch) -> tuple[str, dict]:
        """Which implementation is the fastest on a batch, the second of two runs counting, and what each took."""
        config, tried = self.model.config, {}
        weight = next(layer.mlp.experts.down_proj for layer in self.model.model.layers if hasattr(layer.mlp, "experts"))
        copied = batch.padded * config.num_experts_per_tok * weight[0].numel() * 2 * weight.element_size()
        for name in IMPLEMENTATIONS:
            if name != "batched" or copied <= BATCHED_BYTES:
                self.use(name)
                tried[name] = min(self.run(batch)[0] for _ in range(2))
        return min(tried, key=tried.get), tried


def load(folder: str, device: str, dtype: torch.dtype):
    """The model in `dtype`; MXFP4 is expanded (exactly: its values fit into bf16)."""
    config = AutoConfig.from_pretrained(folder)
    quantised = getattr(config, "quantization_config", None) is not None
    extra = {"quantization_config": Mxfp4Config(dequantize=True)} if quantised else {}
    first = torch.bfloat16 if quantised else dtype
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=first, device_map=device, **extra)
    return model.to(dtype).eval()


def memory(key: str) -> int:
    """A line of /proc/self/status in bytes; where there is none, the largest size so far."""
    try:
        with open("/proc/self/status", encoding="utf-8") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith(f"{key}:"))
    except (OSError, StopIteration):
        unit = 1 if platform.system() == "Darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak() -> None:
    """Peak memory counts from here on, where the system can do that."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="utf-8") as file:
            file.write("5")
    except OSError:
        pass


def sequences_of(options) -> list:
    if options.tokens_file:
        found = tokens.read(options.tokens_file)[: options.limit]
    elif options.prompts:
        found = tokens.tokenise(options.model, tokens.read(options.prompts)[: options.limit])
    else:
        raise SystemExit("give PROMPTS.jsonl or --tokens-file")
    return found if options.equal_length == "none" else tokens.equal(found, int(options.equal_length))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("prompts", nargs="?")
    parser.add_argument("--tokens-file")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--experts", choices=["eager", "grouped", "best"], default="best")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--equal-length", default="none")
    parser.add_argument("--dump", help="writes every statistic: [layer][unit][prompt]")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    torch.set_num_interop_threads(1)
    transformers_logging.disable_progress_bar()
    ALL_EXPERTS_FUNCTIONS.register("recording", recording_experts)
    sequences = sequences_of(options)
    began = time.perf_counter()
    model = load(options.model, options.device, {"f32": torch.float32, "bf16": torch.bfloat16}[options.dtype])
    loading = time.perf_counter() - began
    order = sorted(range(len(sequences)), key=lambda at: len(sequences[at]["ids"]))
    groups = [order[at : at + options.batch] for at in range(0, len(order), options.batch)]
    batches = [Batch(group, sequences, options.device) for group in groups]

    tracer = Tracer(model, len(sequences))
    peer, middle = Peer(model, tracer), batches[len(batches) // 2]
    experts, tried = options.experts if tracer.experts else None, {}
    if experts == "best":
        experts, tried = peer.fastest(middle)
    if experts:
        peer.use(experts)
    loaded = memory("VmHWM")
    forget_peak()
    peer.run(middle)
    for sums in tracer.sums.values():
        sums.zero_()

    seconds = nats = 0.0
    for batch in batches:
        took, loss = peer.run(batch)
        seconds, nats = seconds + took, nats + loss
    real, responses = sum(b.tokens for b in batches), sum(len(b.targets) for b in batches)
    result = {
        "tokens": real,
        "seconds": seconds,
        "tokens_per_second": real / seconds,
        "peak_rss_bytes": memory("VmHWM"),
        "experts_implementation": experts and IMPLEMENTATIONS[experts],
        "loss": nats / responses,
        "sequences": len(sequences),
        "padded_tokens": sum(b.padded for b in batches),
        "response_tokens": responses,
        "tried_seconds": tried,
        "load_seconds": loading,
        "load_peak_rss_bytes": loaded,
        "attention_implementation": model.config._attn_implementation,
        "threads": options.threads,
        "device": torch.cuda.get_device_name() if peer.on_gpu else "cpu",
        "peak_device_bytes": torch.cuda.max_memory_allocated() if peer.on_gpu else None,
        "dtype": options.dtype,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    print(json.dumps(result))
    if options.dump:
        with open(options.dump, "w", encoding="utf-8") as file:
            json.dump(tracer.values(len(sequences)), file)


if __name__ == "__main__":
    main()
