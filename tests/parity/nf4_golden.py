"""What bitsandbytes makes of a matrix in NF4 with double quantisation, for the tests of worker/kernel.

    python nf4_golden.py FIXTURE.json           writes it
    python nf4_golden.py FIXTURE.json --check   compares it with the one that is there; exits with 6 where they differ

Needs bitsandbytes (0.50.2 was used) beside PyTorch; no GPU. Its native library is left out, so that its reference
kernels in PyTorch run: they round as those on a GPU do. (The CPU library of 0.50 looks second-level codes up in a
table of steps, and takes the farther of two codes for some values near their middle.)

The matrix is made by a formula that the test has, too: integers over 65536, so small that their sums are exact in any
order. It has 262.5 blocks of 64: both levels end with a part of a block.
"""

import ctypes
import json
import sys

import numpy as np
import torch

ROWS, COLUMNS = 40, 420


def leave_out(*_args, **_kwargs):
    raise OSError("left out on purpose")


ctypes.cdll.LoadLibrary = leave_out
import bitsandbytes  # noqa: E402
import bitsandbytes.functional as functional  # noqa: E402


def mixed(value: int) -> int:
    """MurmurHash3's finaliser."""
    value ^= value >> 16
    value = value * 0x85EBCA6B & 0xFFFFFFFF
    value ^= value >> 13
    value = value * 0xC2B2AE35 & 0xFFFFFFFF
    return value ^ value >> 16


def weight(at: int) -> float:
    """About normal, the width another one every 50 values."""
    around = sum(mixed(at + 1).to_bytes(4, "little")) - 510
    return around * (16 + mixed(at // 50 + 1_000_000) % 48) / 65536


def digest(values: np.ndarray) -> str:
    """FNV-1a of the values' bytes."""
    state = 0xCBF29CE484222325
    for byte in values.astype("<f4").tobytes():
        state = (state ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{state:016x}"


def bits(values: torch.Tensor) -> list[int]:
    return np.atleast_1d(values.numpy()).astype("<f4").view("<u4").tolist()


def golden() -> dict:
    values = torch.tensor([weight(at) for at in range(ROWS * COLUMNS)], dtype=torch.float32).reshape(ROWS, COLUMNS)
    packed, state = functional.quantize_4bit(values, quant_type="nf4", compress_statistics=True)
    assert (state.blocksize, state.state2.blocksize) == (64, 256)
    return {
        "bitsandbytes": bitsandbytes.__version__,
        "rows": ROWS,
        "columns": COLUMNS,
        "values": bits(state.code),
        "steps": bits(state.state2.code),
        "codes": bytes(packed.flatten().tolist()).hex(),
        "scale_codes": bytes(state.absmax.flatten().tolist()).hex(),
        "scale_absmax": bits(state.state2.absmax),
        "offset": bits(state.offset)[0],
        "dequantised": digest(functional.dequantize_4bit(packed, state).numpy()),
    }


def main() -> None:
    path, *flags = sys.argv[1:]
    found = golden()
    if flags == ["--check"]:
        with open(path, encoding="utf-8") as file:
            there = json.load(file)
        apart = [key for key, value in found.items() if key != "bitsandbytes" and there.get(key) != value]
        print(json.dumps({"nf4_in": f"bitsandbytes {found['bitsandbytes']}", "differ": apart}))
        sys.exit(6 if apart else 0)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(found, file)
        file.write("\n")


if __name__ == "__main__":
    main()
