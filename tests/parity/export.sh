#!/usr/bin/env bash
# Independent proof of the 4-bit writers on the nano student, heavy (PyTorch): exports it, then compares first-token logits
#   GPTQ  ours · plain f32 PyTorch on weights expanded in numpy · transformers with gptqmodel's kernels
#   GGUF  ours · llama.cpp, once on the same weights as F32 (any mistake in names, rows, rotation or metadata shows),
#         once on the 4-bit file as it ships, where llama.cpp rounds activations to 8 bits: hence rms, not worst
# and our GPTQ against gptqmodel's own quantiser on the same calibration. Prints one JSON object a line; exits with the
# first comparison that fails.
#
# What the 4-bit GGUF file's gap is (x86-64 with AVX-512, 8 prompts, all relative to the largest logit): on the same
# weights as F32 llama.cpp is 1.2e-6 away from us at worst, on the file as it ships 1.4e-2 at worst, 3.2e-3 rms. A plain
# f32 PyTorch model with those weights, whose linears' inputs are rounded as Q8_0 (blocks of 32, scale = largest / 127
# kept as f16), agrees with llama.cpp to 5e-7 where only the Q8_0 head is kept quantised (1.5e-3 rms away from us), and
# where only the last layer's seven Q4_0 linears are (1.9e-3 rms). With all layers quantised the two are as far apart as
# either is from us (1.6e-2 worst, 4.0e-3 rms), and so is that model from itself once its inputs are changed by 1e-7
# (1.5e-2 worst, 4 to 5e-3 rms; without the rounding the same noise gives 1e-6): a value near a tie rounds the other way,
# and the layers above pass it on. So where it was isolated the gap is the rounding of activations; on the whole file its
# exact size was not reproduced value for value, and the bound is on rms, and on the token chosen.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
torch="$("$here/venv.sh")/bin/python"
"$here/../tools/venv.sh"
light="$root/.tools/venv-test/bin/python"
student="$root/cli/assets/nano/student"
prompts="$root/cli/assets/prompts"

profile="${USPX_PARITY_PROFILE:-release}"
(cd "$root" && cargo build --profile "$profile" --quiet -p uspx-export --example parity)
parity="${CARGO_TARGET_DIR:-$root/target}/${profile/#dev/debug}/examples/parity"

"$parity" ids "$student" "$prompts/cli-heldout.jsonl" 8 >"$work/ids.json"
for format in gptq gguf; do
    "$parity" export "$student" "$prompts/cli-train.jsonl" 128 "$format" "$work/$format" >"$work/$format.json"
done
"$parity" logits "$work/gptq" "$work/ids.json" >"$work/ours-gptq.json"
"$parity" logits "$work/gguf/student.gguf" "$work/ids.json" >"$work/ours-gguf.json"
"$parity" expand "$work/gguf/student.gguf" "$student" "$work/f32.gguf"

"$torch" "$here/gptq_logits.py" "$work/gptq" "$work/ids.json" >"$work/gptq-hf.json" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
for file in gguf/student f32; do
    "$light" "$here/gguf_logits.py" "$work/$file.gguf" "$work/ids.json" >"$work/$(basename "$file")-llama.json" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
done

compare() { "$light" "$here/compare.py" "$@"; }
compare "$work/ours-gptq.json" "$work/gptq-hf.json:expanded" --bound 1e-4
compare "$work/ours-gptq.json" "$work/gptq-hf.json:quantised" --bound 1e-2
compare "$work/ours-gguf.json" "$work/f32-llama.json:values" --up-to-a-constant --bound 1e-4
compare "$work/ours-gguf.json" "$work/student-llama.json:values" --up-to-a-constant --statistic rms --bound 1e-2

"$parity" sequences "$student" "$prompts/cli-train.jsonl" 128 >"$work/calibration.json"
"$parity" sequences "$student" "$prompts/cli-heldout.jsonl" 200 >"$work/heldout.json"
"$torch" "$here/gptqmodel_peer.py" "$student" "$work/gptq" "$work/calibration.json" "$work/heldout.json" "$work" 2>"$work/log" | tail -n 1
