#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace trainyard::collective {

// Results of at least this size do not stay in any cache until they are used.
constexpr size_t kStreamFrom = 8 << 20;

#if defined(__x86_64__)
// Copies 64 bytes at a time, to whole cache lines of the target, by `store`.
template <typename Store>
inline void copyLines(void* to, const void* from, size_t size, Store store) {
  auto* out = static_cast<char*>(to);
  const auto* in = static_cast<const char*>(from);
  const size_t head = (64 - reinterpret_cast<uintptr_t>(out) % 64) % 64;
  memcpy(out, in, head);
  out += head;
  in += head;
  size -= head;
  for (; size >= 64; size -= 64, out += 64, in += 64) {
    const auto* source = reinterpret_cast<const __m128i*>(in);
    auto* target = reinterpret_cast<__m128i*>(out);
    const __m128i a = _mm_loadu_si128(source);
    const __m128i b = _mm_loadu_si128(source + 1);
    const __m128i c = _mm_loadu_si128(source + 2);
    const __m128i d = _mm_loadu_si128(source + 3);
    store(target, a);
    store(target + 1, b);
    store(target + 2, c);
    store(target + 3, d);
  }
  memcpy(out, in, size);
}
#endif

// Copies through the caches. Above 2 KiB and up to the size of a cache, glibc
// takes `rep movsb`, which on AMD's Zen 3 and 4 falls to 2 GB/s where the
// target lies less than a line after the source modulo the page.
inline void copyCached(void* to, const void* from, size_t size) {
#if defined(__x86_64__)
  if (size >= 2048) {
    copyLines(to, from, size, [](__m128i* at, __m128i value) {
      _mm_store_si128(at, value);
    });
    return;
  }
#endif
  memcpy(to, from, size);
}

// Copies around the caches: the target is written without being read first,
// which saves a third of the memory traffic of a copy. For large results only;
// what is read again soon must stay in the cache.
inline void copyStreaming(void* to, const void* from, size_t size) {
#if defined(__x86_64__)
  if (size >= 4096) {
    copyLines(to, from, size, [](__m128i* at, __m128i value) {
      _mm_stream_si128(at, value);
    });
    _mm_sfence(); // the next post must not overtake these stores
    return;
  }
#endif
  memcpy(to, from, size);
}

} // namespace trainyard::collective
