// The description of a wgmma operand in shared memory: 64 packed bits, the same on the emulator
// (PTX ISA, "Shared Memory Matrix Layout", "Matrix Descriptor Format").
//
// A tile is made of 8-row atoms. With swizzle S (32, 64 or 128 bytes) an atom's row has S bytes:
//   k-major    stride: bytes from 8 rows of m or n to the next 8; leading unused (give 16);
//              16 elements further in k: add 32 to the address
//   mn-major   leading: bytes from S / 2 elements of m or n to the next S / 2; stride: bytes from 8
//              rows of k to the next 8
// Swizzled tiles lie on multiples of 8 S bytes, as TMA writes them.
#pragma once
#include <ptx/language.cuh>

namespace ptx {

enum class Swizzle : uint64_t { None = 0, B128 = 1, B64 = 2, B32 = 3 };

__host__ __device__ __forceinline__ uint64_t matrix_descriptor(uint32_t address, uint32_t leading,
                                                               uint32_t stride, Swizzle swizzle) {
    auto field = [](uint32_t bytes) { return static_cast<uint64_t>((bytes & 0x3ffff) >> 4); };
    return field(address) | field(leading) << 16 | field(stride) << 32 |
           static_cast<uint64_t>(swizzle) << 62;
}

}  // namespace ptx
