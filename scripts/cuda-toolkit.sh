#!/usr/bin/env bash
# Puts nvcc and the disassemblers into .cuda/, where build.rs finds them.
#
#     scripts/cuda-toolkit.sh
#
# Needs python3 with pip, and neither root nor a GPU. NVIDIA publishes the parts of its toolkit as
# Python wheels; all are pinned to one release, 13.4 (cccl has numbers of its own). Run again, it
# does nothing. `rm -r .cuda` undoes it.
set -euo pipefail
cd "$(dirname "$0")/.."

wheels=(
  nvidia-cuda-nvcc==13.4.92       # nvcc, ptxas, fatbinary
  nvidia-nvvm==13.4.92            # the compiler between the two
  nvidia-cuda-crt==13.4.92        # headers that nvcc includes by itself
  nvidia-cuda-runtime==13.4.92    # cuda.h, cuda_bf16.h
  nvidia-cuda-cccl==13.3.4.3.1    # nv/target, which cuda_bf16.h includes
  nvidia-cuda-cuobjdump==13.4.92  # what is in a fatbin
  nvidia-cuda-nvdisasm==13.4.92   # its machine code, as text
)
installed=.cuda/installed
if [ -f "$installed" ] && [ "$(cat "$installed")" = "${wheels[*]}" ]; then
  echo "CUDA 13.4 is in .cuda/ already"
  exit 0
fi

echo "CUDA 13.4: downloading ${#wheels[@]} wheels into .cuda/"
rm -rf .cuda/part && mkdir -p .cuda/part
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
  --no-deps --no-compile --only-binary=:all: --target .cuda/part "${wheels[@]}"
rm -rf .cuda/nvidia "$installed"
mv .cuda/part/nvidia .cuda/nvidia
rm -rf .cuda/part
.cuda/nvidia/cu13/bin/nvcc --version | tail -2
echo "${wheels[*]}" > "$installed"

# cargo runs build.rs again when it is younger than the last build.
touch build.rs
echo "$(du -sh .cuda | cut -f1) in .cuda/; cargo build compiles the kernels for GPUs now"
