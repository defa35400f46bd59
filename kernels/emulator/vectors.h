// CUDA's small vector types.
//
// Copies go through one raw word, so that an instrumented build sees the one wide access that the
// GPU would make. That makes them non-trivial: do not put them into a union.
#pragma once
#include <cstdint>

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace emu {
__extension__ typedef unsigned __int128 Word128;
}

#define EMU_VECTOR2(NAME, T, WORD)                               \
    struct alignas(sizeof(WORD)) NAME {                          \
        union {                                                  \
            __extension__ struct {                               \
                T x, y;                                          \
            };                                                   \
            WORD raw;                                            \
        };                                                       \
        NAME() = default;                                        \
        constexpr NAME(T x, T y) : x(x), y(y) {}                 \
        NAME(const NAME& other) : raw(other.raw) {}              \
        NAME& operator=(const NAME& other) {                     \
            raw = other.raw;                                     \
            return *this;                                        \
        }                                                        \
    };                                                           \
    static_assert(sizeof(NAME) == sizeof(WORD), "one wide word")

#define EMU_VECTOR4(NAME, T, WORD)                                              \
    struct alignas(sizeof(WORD)) NAME {                                         \
        union {                                                                 \
            __extension__ struct {                                              \
                T x, y, z, w;                                                   \
            };                                                                  \
            WORD raw;                                                           \
        };                                                                      \
        NAME() = default;                                                       \
        constexpr NAME(T x, T y, T z, T w) : x(x), y(y), z(z), w(w) {}          \
        NAME(const NAME& other) : raw(other.raw) {}                             \
        NAME& operator=(const NAME& other) {                                    \
            raw = other.raw;                                                    \
            return *this;                                                       \
        }                                                                       \
    };                                                                          \
    static_assert(sizeof(NAME) == sizeof(WORD), "one wide word")

EMU_VECTOR2(float2, float, uint64_t);
EMU_VECTOR2(int2, int, uint64_t);
EMU_VECTOR2(uint2, unsigned, uint64_t);
EMU_VECTOR2(ushort2, unsigned short, uint32_t);
EMU_VECTOR2(ulonglong2, unsigned long long, emu::Word128);
EMU_VECTOR4(float4, float, emu::Word128);
EMU_VECTOR4(int4, int, emu::Word128);
EMU_VECTOR4(uint4, unsigned, emu::Word128);
EMU_VECTOR4(ushort4, unsigned short, uint64_t);
EMU_VECTOR4(uchar4, unsigned char, uint32_t);

inline float2 make_float2(float x, float y) { return {x, y}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
