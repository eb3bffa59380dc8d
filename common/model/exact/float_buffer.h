#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace atod::model {

// Puts buffers on cache lines: the kernels read 32 bytes at a time.
template <typename T>
struct CacheLineAllocator {
  using value_type = T;
  CacheLineAllocator() = default;
  template <typename U>
  CacheLineAllocator(const CacheLineAllocator<U>&) {}
  T* allocate(size_t n) {
    return static_cast<T*>(
        ::operator new (n * sizeof(T), std::align_val_t{64}));
  }
  void deallocate(T* p, size_t) { ::operator delete (p, std::align_val_t{64}); }
  friend bool operator==(CacheLineAllocator, CacheLineAllocator) {
    return true;
  }
};

using FloatBuffer = std::vector<float, CacheLineAllocator<float>>;

}  // namespace atod::model
