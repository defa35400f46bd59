// The registry of kernels: EXPORT_KERNEL gives a kernel its name and a thunk that unpacks the array
// of argument pointers, as the driver does.
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

namespace emu {

struct Kernel {
    const char* name;
    void (*run)(void** arguments);
    uint32_t parameters;
    const uint32_t* sizes;  // [parameters], in bytes
};
void add_kernel(const Kernel& kernel);

template <auto F>
struct Thunk;
template <class... A, void (*F)(A...)>
struct Thunk<F> {
    static constexpr uint32_t sizes[sizeof...(A) + 1] = {sizeof(A)..., 0};
    template <size_t... I>
    static void call(void** arguments, std::index_sequence<I...>) {
        (void)arguments;
        F(*static_cast<std::remove_cv_t<A>*>(arguments[I])...);
    }
    static void run(void** arguments) { call(arguments, std::index_sequence_for<A...>{}); }
    static Kernel kernel(const char* name) { return {name, &run, sizeof...(A), sizes}; }
};

struct Exported {
    explicit Exported(const Kernel& kernel) { add_kernel(kernel); }
};

}  // namespace emu
