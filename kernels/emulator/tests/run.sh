#!/bin/sh
# Builds the emulator and its own tests with a C++ compiler alone, and runs them.
# Usage: run.sh [folder for the build]        CXX chooses the compiler, g++ by default
set -eu
here=$(cd "$(dirname "$0")" && pwd)
emulator=$(dirname "$here")
kernels=$(dirname "$emulator")
cxx=${CXX:-g++}
build=${1:-${TMPDIR:-/tmp}/warpwright-emulator}
common="-std=c++17 -g -fPIC -Wall -Wextra -Wno-psabi -Wno-unknown-pragmas"
case $(uname -m) in x86_64) common="$common -march=x86-64-v3" ;; esac

# compile MODE RUNTIME-FLAGS KERNEL-FLAGS LINK-FLAGS: one shared program a mode
compile() {
    out=$build/$1
    mkdir -p "$out"
    for source in "$emulator"/*.cpp; do
        object=$out/$(basename "$source").o
        newer "$object" "$source" ||
            $cxx $common $2 -DEMU_BUILD="\"$1\"" -c "$source" -o "$object"
    done
    for source in "$here"/*.cu; do
        object=$out/$(basename "$source").o
        newer "$object" "$source" ||
            $cxx $common $3 -fno-strict-aliasing -I"$emulator" -I"$kernels" -x c++ -c "$source" \
                -o "$object"
    done
    for source in "$here/values.cpp" "$here/misuse.cpp"; do
        program=$out/$(basename "$source" .cpp)
        newer "$program" "$source" "$out"/*.o ||
            $cxx $common $2 $4 "$source" "$out"/*.o -o "$program" -lpthread -ldl
    done
}

# newer FILE SOURCES...: FILE exists and is newer than the sources and every header.
newer() {
    [ -e "$1" ] || return 1
    file=$1
    shift
    [ -z "$(find "$@" "$emulator" "$kernels/ptx" "$kernels/common.cuh" "$here/host.h" \
        \( -name '*.h' -o -name '*.cuh' -o -name '*.cu' -o -name '*.cpp' -o -name '*.o' \) \
        -newer "$file" \( -name '*.h' -o -name '*.cuh' -o -path "$1" -o -name '*.o' \) \
        2>/dev/null | head -1)" ]
}

values() {  # BUILD MODES...
    echo "$@"
    timeout 300 "$build/$1/values" $(echo "$@" | cut -s -d' ' -f2-)
}

compile plain "-O3" "-O2" "" & plain=$!
compile check "-O3" "-O1 -fsanitize=thread -fno-tree-vectorize" "" & check=$!
compile asan "-O1 -fsanitize=address" "-O1 -fsanitize=address" "-fsanitize=address" & asan=$!
wait $plain && wait $check && wait $asan

for modes in "" "lifo" "random" "lazy" "lazy lifo" "lazy random" "single"; do
    values plain $modes
done
timeout 300 "$build/plain/misuse"
[ ! -e "$here/golden.bin" ] || values plain "replay=$here/golden.bin"

values check check
values check check lazy random
values check counters >"$build/counters.txt"
grep -q "wavefronts" "$build/counters.txt"
timeout 300 "$build/check/misuse"

# Stacks are switched, so a frame's end is not where AddressSanitizer would look for it.
export ASAN_OPTIONS=detect_stack_use_after_return=0
values asan
values asan lazy lifo
timeout 300 "$build/asan/misuse"
for misuse in bad_bounds bad_read_bounds bad_shared_bounds; do
    if timeout 60 "$build/asan/misuse" $misuse >"$build/$misuse.txt" 2>&1; then
        echo "FAILED asan: $misuse was not caught" && exit 1
    fi
    grep -q "AddressSanitizer: .* address" "$build/$misuse.txt"
done
echo "the emulator's tests pass"
