"""A model whose cut units are gone, in transformers: its logits against those of the whole model whose routers give the cut
experts -inf, and whose cut heads and channels give 0.

    python cut_logits.py MODEL KEEP.json CUT IDS.json

MODEL is the whole model, KEEP the kept units of each layer by kind, CUT what `uspx mask export` wrote of it. Every position of
every list of ids is compared, in f32. Prints one JSON object with the largest difference over the largest logit, and leaves
the logits of the last positions in CUT as logits.json, for compare.py; exits with 6 where the bound is exceeded.
"""

import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import AutoModelForCausalLM, Mxfp4Config

BOUND = 1e-4


def load(folder: str):
    """As any user loads it, its blocks expanded, in f32."""
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        quantised = "quantization_config" in json.load(file)
    extra = {"quantization_config": Mxfp4Config(dequantize=True)} if quantised else {}
    model, report = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        device_map="cpu",
        attn_implementation="eager",
        experts_implementation="eager",
        output_loading_info=True,
        **extra,
    )
    assert not any(report.values()), f"{folder}: {report}"
    return model.float().eval()


def ban(model, keep: list[list[int]]) -> None:
    """Gives every expert that is not kept a logit of -inf."""
    for layer, kept in zip(model.model.layers, keep, strict=True):
        router = getattr(layer.mlp, "router", None) or getattr(layer.mlp, "gate", None)
        if router is None:
            continue
        experts = router.weight.shape[0]
        gone = torch.tensor([expert not in kept for expert in range(experts)])
        if getattr(router, "bias", None) is not None:
            router.bias.data[gone] = -torch.inf
            continue
        # Without a bias the logits are a function's result: it is called as it is, and then they are banned.
        plain = torch.nn.functional.linear
        own = router.forward

        def forward(hidden, own=own, gone=gone):
            torch.nn.functional.linear = lambda *at: plain(*at).masked_fill(gone, -torch.inf)
            try:
                return own(hidden)
            finally:
                torch.nn.functional.linear = plain

        router.forward = forward


def silence(model, heads: list[list[int]], channels: list[list[int]]) -> None:
    """Gives every head and channel that is not kept nothing to say."""
    for layer, stay, open_ in zip(model.model.layers, heads, channels, strict=True):
        attention = layer.self_attn
        for map_, kept, each in ((attention.o_proj, stay, attention.head_dim), (layer.mlp.down_proj, open_, 1)):
            counts = torch.zeros(map_.in_features // each)
            counts[kept] = 1
            counts = counts.repeat_interleave(each)
            map_.register_forward_pre_hook(lambda _, given, counts=counts: (given[0] * counts,))


@torch.no_grad()
def logits(model, prompts: list[list[int]]) -> list[torch.Tensor]:
    return [model(torch.tensor([ids]), use_cache=False).logits[0] for ids in prompts]


def apart(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    """The largest difference over the largest logit; NaN where one is none."""
    return float(torch.stack([(x - y).abs().max() / x.abs().max() for x, y in zip(a, b, strict=True)]).max())


def runs_as_it_is(folder: str, prompts: list[list[int]]) -> bool | None:
    """Whether the folder, loaded with nothing said but where to, gives numbers: its own type, the usual kernels, which
    want rows of whole 16 bytes (None: they are not)."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", device_map="cpu").eval()
    config = model.config
    inner = getattr(config, "moe_intermediate_size", None) or config.intermediate_size
    if config.hidden_size % 8 or inner % 8:
        return None
    return all(bool(at.isfinite().all()) for at in logits(model, prompts))


def main() -> None:
    folder, keep_path, cut, ids_path = sys.argv[1:]
    torch.set_num_threads(1)
    with open(keep_path, encoding="utf-8") as a, open(ids_path, encoding="utf-8") as b:
        keep, prompts = json.load(a), json.load(b)
    whole = load(folder)
    before = logits(whole, prompts)
    if "expert" in keep:
        ban(whole, keep["expert"])
    else:
        silence(whole, keep["head"], keep["channel"])
    banned, written = logits(whole, prompts), logits(load(cut), prompts)
    counts = {kind: [len(kept) for kept in lists if kept] for kind, lists in keep.items()}
    result = {
        "cut_in": "transformers",
        "case": os.path.basename(os.path.dirname(os.path.abspath(cut))),
        "kept": counts,
        "worst": apart(banned, written),
        "the_cut_moves": apart(before, banned),
        "runs_as_it_is": runs_as_it_is(cut, prompts),
        "bound": BOUND,
    }
    # A cut that does nothing would agree too.
    result["pass"] = result["worst"] <= BOUND and result["the_cut_moves"] > 1e-2 and result["runs_as_it_is"] is not False
    print(json.dumps(result))
    with open(os.path.join(cut, "logits.json"), "w", encoding="utf-8") as file:
        json.dump([at[-1].tolist() for at in written], file)
    sys.exit(0 if result["pass"] else 6)


if __name__ == "__main__":
    main()
