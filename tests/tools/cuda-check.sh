#!/usr/bin/env bash
# Type-checks the `cuda` feature on a machine without CUDA.
#
# candle's build script wants nvcc for its kernels. The check needs only their names, so a stand-in
# writes empty files where nvcc would write machine code. Nothing is linked, so nothing can run.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cuda="$root/.tools/cuda-check"
mkdir -p "$cuda/bin" "$cuda/include" "$cuda/lib64"
touch "$cuda/include/cuda.h"
cat >"$cuda/bin/nvcc" <<'NVCC'
#!/usr/bin/env bash
# Answers as nvcc does where candle's build script asks, and writes empty outputs.
out= folder= kind=o
last=${!#}
while [ $# -gt 0 ]; do
  case $1 in
    --version) echo "Cuda compilation tools, release 13.0, V13.0.88"; exit 0 ;;
    --list-gpu-code) printf 'sm_80\nsm_86\nsm_89\nsm_90\n'; exit 0 ;;
    -o) out=$2; shift ;;
    --output-directory) folder=$2; shift ;;
    --ptx) kind=ptx ;;
  esac
  shift
done
name=$(basename "${last%.cu}").$kind
: >"${out:-${folder:-.}/$name}"
NVCC
chmod +x "$cuda/bin/nvcc"

export CUDA_HOME=$cuda CUDA_PATH=$cuda NVCC=$cuda/bin/nvcc PATH=$cuda/bin:$PATH
export CUDARC_CUDA_VERSION=13000 CUDA_COMPUTE_CAP=90 CARGO_TARGET_DIR=$root/target/cuda-check
cd "$root"
cargo clippy --locked --package uspx --features cuda --bins -- -D warnings
