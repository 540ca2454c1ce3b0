"""SAEs in SAELens' files: made by SAELens and used by us, written by us and used by SAELens.

    python saelens_peer.py EXAMPLE FOLDER

EXAMPLE is worker/sae's example `saelens`. Random SAEs of every architecture that is read here, in every way that SAELens
saves them, are saved by SAELens; features and reconstructions of random rows are compared with ours, and then with those
of SAELens on what we wrote. Prints one JSON object; exits with 6 where one differs.
"""

import json
import os
import subprocess
import sys
import warnings

warnings.filterwarnings("ignore")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from sae_lens import (
    SAE,
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    JumpReLUSAE,
    JumpReLUSAEConfig,
    StandardSAE,
    StandardSAEConfig,
    TopKSAE,
    TopKSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
    __version__,
)

BOUND = 1e-5
WIDTH, FEATURES, ROWS = 24, 96, 64


def randomise(sae) -> None:
    """Weights off every symmetry, decoder rows of different norms among them."""
    with torch.no_grad():
        for name, value in sae.named_parameters():
            value.copy_(torch.randn_like(value) * (0.3 if name.startswith("b_") else 1.0))
            if name == "threshold":
                value.copy_(torch.rand_like(value) * 4)


def cases():
    sizes = {"d_in": WIDTH, "d_sae": FEATURES}
    for centres in (True, False):
        yield f"standard, apply_b_dec_to_input {centres}", StandardSAE(StandardSAEConfig(**sizes, apply_b_dec_to_input=centres)), "save_model"
        yield f"topk, apply_b_dec_to_input {centres}", TopKSAE(TopKSAEConfig(**sizes, k=7, apply_b_dec_to_input=centres)), "save_model"
    for scaled in (True, False):
        yield f"topk, by norm {scaled}", TopKSAE(TopKSAEConfig(**sizes, k=5, rescale_acts_by_decoder_norm=scaled)), "save_model"
    for normalised in ("layer_norm", "constant_norm_rescale"):
        yield f"topk, {normalised}", TopKSAE(TopKSAEConfig(**sizes, k=5, normalize_activations=normalised)), "save_model"
        yield f"standard, {normalised}", StandardSAE(StandardSAEConfig(**sizes, normalize_activations=normalised)), "save_model"
    yield "jumprelu", JumpReLUSAE(JumpReLUSAEConfig(**sizes)), "save_model"
    yield "bfloat16", TopKSAE(TopKSAEConfig(**sizes, k=5, dtype="bfloat16")), "save_model"
    training = TopKTrainingSAE(TopKTrainingSAEConfig(**sizes, k=6))
    yield "topk of a training", training, "save_inference_model"
    batch = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**sizes, k=6))
    batch.topk_threshold = torch.tensor(2.5, dtype=torch.double)
    yield "batchtopk of a training, for inference", batch, "save_inference_model"


@torch.no_grad()
def through(folder: str, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    sae = SAE.load_from_disk(folder, dtype="float32")
    features = sae.encode(rows)
    return features, sae.decode(features)


def apart(ours: list, theirs: torch.Tensor) -> float:
    return float((torch.tensor(ours) - theirs).abs().max() / theirs.abs().max())


def main() -> None:
    example, work = sys.argv[1:]
    torch.manual_seed(5)
    torch.set_num_threads(1)
    os.makedirs(work, exist_ok=True)
    found = {}
    for at, (name, sae, save) in enumerate(cases()):
        randomise(sae)
        folder, again, rows_file = (os.path.join(work, f"{at}{part}") for part in ("", "-again", ".json"))
        getattr(sae, save)(folder)
        rows = torch.randn(ROWS, WIDTH) * 2 + 0.5
        with open(rows_file, "w", encoding="utf-8") as file:
            json.dump(rows.tolist(), file)
        said = subprocess.run([example, folder, rows_file, again], check=True, capture_output=True, text=True).stdout
        ours = json.loads(said)
        features, made = through(folder, rows)
        features_again, made_again = through(again, rows)
        found[name] = {
            "features": apart(ours["codes"], features),
            "reconstruction": apart(ours["made"], made),
            "written_features": float((features_again - features).abs().max() / features.abs().max()),
            "written_reconstruction": float((made_again - made).abs().max() / made.abs().max()),
            "active": float((features > 0).float().sum(-1).mean()),
        }
    worst = max(value for case in found.values() for key, value in case.items() if key != "active")
    active = all(0 < case["active"] < FEATURES for case in found.values())
    result = {"sae_in": f"sae-lens {__version__}", "cases": found, "worst": worst, "bound": BOUND, "pass": active and worst <= BOUND}
    print(json.dumps(result))
    sys.exit(0 if result["pass"] else 6)


if __name__ == "__main__":
    main()
