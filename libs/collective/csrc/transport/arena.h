#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>

#include "csrc/transport/file_descriptor.h"

namespace trainyard::collective {

// Memory of one process that other processes of its host have mapped too, so
// that they can read and write tensors in it directly.
//
// There is one arena per process, valid in every process group. It is one
// memfd, reserved at full size but backed by memory only where blocks have
// been handed out; freed blocks stay mapped and warm and are handed out again,
// because touching fresh pages costs ten times the copy that follows. memfd
// does not depend on /dev/shm's size and vanishes with its last user.
class Arena {
 public:
  // The arena of this process; made on first use.
  static std::shared_ptr<Arena> instance();

  // A block of at least `size` bytes, 64-byte aligned, already backed by
  // memory; nullptr when the limit (TRAINYARD_COLLECTIVE_ARENA_BYTES) or the
  // system's memory is exhausted. May be called by any thread.
  void* allocate(size_t size);
  void free(void* block);

  // Offset of [data, data + size) in the arena, or −1 if it lies elsewhere.
  int64_t offsetOf(const void* data, size_t size) const {
    const auto at = static_cast<const char*>(data) - base_;
    return at >= 0 && size_t(at) + size <= capacity_ && base_ ? at : -1;
  }

  int fd() const {
    return fd_.get();
  }
  size_t capacity() const {
    return capacity_;
  }

  // Bytes handed out, and bytes backed by memory (handed out or cached).
  size_t usedBytes() const;
  size_t backedBytes() const;

  ~Arena();

 private:
  Arena();

  mutable std::mutex mutex_;
  FileDescriptor fd_;
  char* base_ = nullptr;
  size_t capacity_ = 0;
  size_t top_ = 0; // everything below has been handed out once
  size_t used_ = 0;
  std::map<size_t, size_t> freeByOffset_; // offset → size, neighbours merged
  std::map<size_t, size_t> usedByOffset_;
};

// Another process's arena, mapped here.
class PeerArena {
 public:
  PeerArena(int fd, size_t capacity);
  ~PeerArena();

  char* at(int64_t offset) const {
    return base_ + offset;
  }

 private:
  char* base_ = nullptr;
  size_t capacity_ = 0;
};

} // namespace trainyard::collective
