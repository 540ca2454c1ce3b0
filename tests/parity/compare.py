"""Compares two lists of logits: their difference over the largest logit, worst prompt. No dependency.

    python compare.py A.json[:KEY] B.json[:KEY] [--up-to-a-constant] [--statistic worst|rms] [--bound 1e-2]

A file is a list of lists, or an object holding one under KEY; of a file of several lines the last counts. With
--up-to-a-constant each list is first brought to mean 0, for readers that give log-probabilities. The bound is relative to
the largest magnitude of A's (centred) list; `worst` is the largest difference over all tokens, `rms` the root of the mean
square. Prints one JSON object; exits with 6 where the bound is exceeded.
"""

import argparse
import json
import math
import sys


def read(spec: str) -> list[list[float]]:
    path, _, key = spec.partition(":")
    with open(path, encoding="utf-8") as file:
        value = json.loads(file.read().strip().splitlines()[-1])
    return value[key] if key else value


def centred(values: list[float]) -> list[float]:
    mean = sum(values) / len(values)
    return [v - mean for v in values]


def differences(a: list[float], b: list[float]) -> dict[str, float]:
    if len(a) != len(b):
        raise SystemExit(f"{len(a)} logits against {len(b)}")
    gaps = [abs(x - y) for x, y in zip(a, b)]
    if not all(math.isfinite(gap) for gap in gaps):
        raise SystemExit("a logit is not a number: the reader gave no value for some token")
    top = max(abs(x) for x in a)
    return {"worst": max(gaps) / top, "rms": math.sqrt(sum(g * g for g in gaps) / len(gaps)) / top}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("a")
    parser.add_argument("b")
    parser.add_argument("--up-to-a-constant", action="store_true")
    parser.add_argument("--statistic", choices=["worst", "rms"], default="worst")
    parser.add_argument("--bound", type=float, default=1e-2)
    options = parser.parse_args()
    first, second = read(options.a), read(options.b)
    if len(first) != len(second) or not first:
        raise SystemExit(f"{len(first)} prompts against {len(second)}")
    prepare = centred if options.up_to_a_constant else list
    pairs = [(prepare(a), prepare(b)) for a, b in zip(first, second)]
    each = [differences(a, b) for a, b in pairs]
    result = {name: max(e[name] for e in each) for name in ("worst", "rms")}
    result["same_first_token"] = sum(a.index(max(a)) == b.index(max(b)) for a, b in pairs)
    result |= {"prompts": len(pairs), "statistic": options.statistic, "bound": options.bound}
    result["pass"] = result[options.statistic] <= options.bound
    print(json.dumps(result))
    sys.exit(0 if result["pass"] else 6)


if __name__ == "__main__":
    main()
