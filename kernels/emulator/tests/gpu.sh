#!/bin/sh
# Builds values.cpp for a GPU of compute capability 9.0: one program, the kernels inside, that needs
# a driver and nothing else. It can be built without a GPU and taken to one, and there
#
#     values-gpu record=golden.bin
#
# holds every wrapper of ptx/ to its answer, and records what the emulator is then held to: put
# golden.bin beside this file, and run.sh replays it.
# Usage: gpu.sh [folder for the build]        NVCC chooses nvcc, .cuda/ or PATH by default
set -eu
here=$(cd "$(dirname "$0")" && pwd)
kernels=$(dirname "$(dirname "$here")")
wheels=$(dirname "$kernels")/.cuda/nvidia/cu13
nvcc=${NVCC:-$([ -x "$wheels/bin/nvcc" ] && echo "$wheels/bin/nvcc" || echo nvcc)}
build=${1:-${TMPDIR:-/tmp}/warpwright-gpu}
mkdir -p "$build"
for name in micro product wrappers; do
    "$nvcc" -fatbin -O3 -std=c++17 -gencode=arch=compute_90a,code=sm_90a -Xptxas -warn-spills \
        -I"$kernels" "$here/$name.cu" -o "$build/$name.fatbin"
done
cd "$build"
includes=$(dirname "$(dirname "$(command -v "$nvcc")")")/include
${CXX:-g++} -std=c++17 -O2 -Wall -Wextra -Wno-psabi -I"$includes" "$here/values.cpp" "$here/gpu.cpp" -ldl \
    -o values-gpu
echo "$build/values-gpu"
