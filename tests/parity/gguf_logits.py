"""First-token logits of a GGUF file in llama.cpp (through xllamacpp), as JSON: one list per list of token ids.

    python gguf_logits.py FILE.gguf IDS.json [VOCABULARY]

xllamacpp offers llama.cpp's server, not its raw logits: asked for as many probabilities as the vocabulary has tokens, it
gives the log-softmax of all of them. Logits mean the same up to a constant, so that is what is printed ("kind":
"log_probabilities"); whoever compares normalises both sides. The prompt goes in as token ids, so no tokenizer takes part.
"""

import json
import sys

import xllamacpp


def server(path: str) -> "xllamacpp.Server":
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = 2048
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.warmup = False
    # A flash-attention kernel and an f16 cache round differently from plain attention; ask for the plain thing.
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cache_type_k = xllamacpp.ggml_type.GGML_TYPE_F32
    params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    return xllamacpp.Server(params)


def log_probabilities(llama: "xllamacpp.Server", ids: list[int], vocabulary: int) -> list[float]:
    answer = llama.handle_completions(
        {
            "prompt": ids,
            "max_tokens": 1,
            "n_predict": 1,
            "temperature": 0.0,
            "n_probs": vocabulary,
            "logprobs": vocabulary,
            "post_sampling_probs": False,
            "cache_prompt": False,
            # Some tokens have no text of their own (half a character, the end of a turn), and nothing is told of them. The
            # choice is therefore forced; the probabilities are those before it.
            "logit_bias": [["a", 1000.0]],
        }
    )
    if isinstance(answer, str):
        answer = json.loads(answer)
    first = answer["choices"][0]["logprobs"]["content"][0]
    values = [float("nan")] * vocabulary
    for entry in first["top_logprobs"]:
        values[entry["id"]] = entry["logprob"]
    return values


def main() -> None:
    path, ids_path = sys.argv[1:3]
    with open(ids_path, encoding="utf-8") as file:
        prompts = json.load(file)
    vocabulary = int(sys.argv[3]) if len(sys.argv) > 3 else 2048
    llama = server(path)
    values = [log_probabilities(llama, ids, vocabulary) for ids in prompts]
    json.dump({"kind": "log_probabilities", "values": values}, sys.stdout)


if __name__ == "__main__":
    main()
