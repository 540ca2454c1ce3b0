"""How fast PyTorch multiplies f32 matrices here: what a bound on an engine's speed is measured by.

    python torch_gemm.py [--threads T] [--seconds S]

Prints one JSON line: per size n, GFLOP/s of [m, n] x [n, n] for few and for many rows m, the best of the repetitions
that fit into S seconds (the machine may be busy: the best is the least disturbed).
"""

import argparse
import json
import time

import torch

SIZES, ROWS = (1024, 2880), (32, 128, 512, 2048)


def rate(rows: int, size: int, seconds: float) -> float:
    """GFLOP/s of the fastest repetition; three at least."""
    x, weight = torch.randn(rows, size), torch.randn(size, size)
    out, best, end = torch.empty(rows, size), float("inf"), time.perf_counter() + seconds
    done = 0
    while done < 3 or time.perf_counter() < end:
        began = time.perf_counter()
        torch.mm(x, weight, out=out)
        best, done = min(best, time.perf_counter() - began), done + 1
    return 2 * rows * size * size / best / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="per shape")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rates = {str(n): {str(m): round(rate(m, n, options.seconds), 1) for m in ROWS} for n in SIZES}
    best = {n: max(of.values()) for n, of in rates.items()}
    print(json.dumps({"gflops": best, "by_rows": rates, "threads": options.threads, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
