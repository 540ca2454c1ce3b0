"""Serves a GGUF file over llama.cpp's OpenAI-compatible API (through xllamacpp), until its stdin ends.

    python gguf_serve.py FILE.gguf

The first line on stdout is the address. One thread, plain attention and an f32 cache, so that its numbers can be compared.
"""

import sys

import xllamacpp


def server(path: str) -> "xllamacpp.Server":
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.port = 0
    params.n_ctx = 4096
    params.n_parallel = 2
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.warmup = False
    params.use_jinja = True
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cache_type_k = xllamacpp.ggml_type.GGML_TYPE_F32
    params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    return xllamacpp.Server(params)


def main() -> None:
    llama = server(sys.argv[1])
    print(llama.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
