#include "csrc/transport/file_descriptor.h"

#include <pthread.h>

#include <atomic>
#include <cstdint>

namespace trainyard::collective {

namespace {

// Bits of the descriptors to close in a child. Plain atomics in static
// storage: the handler may run while another thread holds any lock.
constexpr int kMaxDescriptors = 1 << 16;
std::atomic<uint64_t> listed[kMaxDescriptors / 64];
std::atomic<bool> isChild{false};

void inChild() {
  isChild.store(true);
  for (int word = 0; word < kMaxDescriptors / 64; word++) {
    uint64_t bits = listed[word].exchange(0);
    while (bits != 0) {
      const int bit = __builtin_ctzll(bits);
      bits &= bits - 1;
      ::close(word * 64 + bit);
    }
  }
}

void list(int fd, bool on) {
  static const int registered = pthread_atfork(nullptr, nullptr, inChild);
  (void)registered;
  if (fd < 0 || fd >= kMaxDescriptors) {
    return;
  }
  const uint64_t bit = uint64_t(1) << (fd % 64);
  if (on) {
    listed[fd / 64].fetch_or(bit);
  } else {
    listed[fd / 64].fetch_and(~bit);
  }
}

} // namespace

FileDescriptor::FileDescriptor(int fd) : fd_(fd) {
  list(fd, true);
}

void FileDescriptor::reset() {
  const int fd = std::exchange(fd_, -1);
  // In a child the number was closed at fork and may now be somebody else's.
  if (fd >= 0 && !forkedChild()) {
    list(fd, false);
    ::close(fd);
  }
}

bool forkedChild() {
  return isChild.load();
}

} // namespace trainyard::collective
