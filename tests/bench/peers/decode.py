"""How fast llama.cpp (through xllamacpp) reads a prompt and decodes greedily: the peer of `uspx run`.

    python decode.py MODEL.gguf [--threads T] --prompt-ids IDS.json [--tokens N] [--repeat R]

IDS.json is a list of token ids, or a list of such lists of which the first counts. The prompt goes in as ids, nothing
is kept from one run to the next, the end of a turn does not end a run, and llama.cpp's defaults hold (flash attention
where it wants, f16 cache, its own repacking of weights). After one run that warms up, the best of R counts: the
machine may be busy.

Prints one JSON line: decode_tokens_per_second and prompt_tokens_per_second as llama.cpp's own timings say, and seconds,
what the quickest whole run took from outside.
"""

import argparse
import json
import time

import xllamacpp


def server(path: str, threads: int, context: int) -> "xllamacpp.Server":
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = context
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    return xllamacpp.Server(params)


def run(llama: "xllamacpp.Server", ids: list, count: int) -> tuple[float, dict]:
    """Seconds of one run, and llama.cpp's timings of it."""
    request = {"prompt": ids, "n_predict": count, "max_tokens": count, "temperature": 0.0, "ignore_eos": True}
    began = time.perf_counter()
    answer = llama.handle_completions(request | {"cache_prompt": False, "timings_per_token": False})
    seconds = time.perf_counter() - began
    answer = json.loads(answer) if isinstance(answer, str) else answer
    if "timings" not in answer:
        raise SystemExit(f"llama.cpp gave no timings: {str(answer)[:300]}")
    return seconds, answer["timings"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompt-ids", required=True)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    with open(options.prompt_ids, encoding="utf-8") as file:
        ids = json.load(file)
    ids = ids[0] if isinstance(ids[0], list) else ids
    llama = server(options.model, options.threads, len(ids) + options.tokens + 8)
    runs = [run(llama, ids, options.tokens) for _ in range(1 + options.repeat)][1:]
    seconds = min(took for took, _ in runs)
    timings = [found for _, found in runs]
    if any(t["prompt_n"] != len(ids) or t["predicted_n"] != options.tokens for t in timings):
        raise SystemExit(f"{len(ids)} and {options.tokens} tokens were asked for, llama.cpp ran {timings}")
    result = {
        "decode_tokens_per_second": max(t["predicted_per_second"] for t in timings),
        "prompt_tokens_per_second": max(t["prompt_per_second"] for t in timings),
        "seconds": seconds,
        "prompt_tokens": len(ids),
        "decoded_tokens": options.tokens,
        "threads": options.threads,
        "all_decode": [round(t["predicted_per_second"], 2) for t in timings],
        "xllamacpp": xllamacpp.__version__,
    }
    print("\n" + json.dumps(result))


if __name__ == "__main__":
    main()
