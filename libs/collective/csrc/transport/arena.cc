#include "csrc/transport/arena.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <string>

#include "csrc/common/error.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

namespace trainyard::collective {

namespace {

constexpr size_t kPage = 4096;

size_t capacityFromEnvironment() {
  if (const char* text = getenv("TRAINYARD_COLLECTIVE_ARENA_BYTES")) {
    return (strtoull(text, nullptr, 10) + kPage - 1) / kPage * kPage;
  }
  struct sysinfo info;
  sysinfo(&info);
  return size_t(info.totalram) * info.mem_unit / 2 / kPage * kPage;
}

} // namespace

std::shared_ptr<Arena> Arena::instance() {
  // Never destroyed: tensors may outlive every other static object.
  static auto* arena = new std::shared_ptr<Arena>(new Arena());
  return *arena;
}

Arena::Arena() : capacity_(capacityFromEnvironment()) {
  if (capacity_ == 0) {
    return; // switched off by the user
  }
  fd_ = FileDescriptor(memfd_create("trainyard-arena", MFD_CLOEXEC));
  if (!fd_ || ftruncate(fd_.get(), off_t(capacity_)) != 0) {
    capacity_ = 0;
    return;
  }
  void* base = mmap(
      nullptr, capacity_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
      fd_.get(), 0);
  if (base == MAP_FAILED) {
    capacity_ = 0;
    return;
  }
  // A child would share these pages instead of getting a copy of them.
  madvise(base, capacity_, MADV_DONTFORK);
  base_ = static_cast<char*>(base);
}

Arena::~Arena() {
  if (base_ && !forkedChild()) {
    munmap(base_, capacity_);
  }
}

void* Arena::allocate(size_t size) {
  size = (std::max(size, size_t(1)) + kPage - 1) / kPage * kPage;
  std::lock_guard<std::mutex> lock(mutex_);
  if (base_ == nullptr) {
    return nullptr;
  }
  // Best fit among freed blocks.
  auto best = freeByOffset_.end();
  for (auto it = freeByOffset_.begin(); it != freeByOffset_.end(); ++it) {
    if (it->second >= size &&
        (best == freeByOffset_.end() || it->second < best->second)) {
      best = it;
    }
  }
  size_t offset;
  if (best != freeByOffset_.end()) {
    offset = best->first;
    const size_t rest = best->second - size;
    freeByOffset_.erase(best);
    if (rest > 0) {
      freeByOffset_[offset + size] = rest;
    }
  } else {
    if (top_ + size > capacity_) {
      return nullptr;
    }
    // fallocate reports a lack of memory; a mere touch would be SIGBUS.
    if (fallocate(fd_.get(), 0, off_t(top_), off_t(size)) != 0) {
      return nullptr;
    }
    madvise(base_ + top_, size, MADV_POPULATE_WRITE);
    offset = top_;
    top_ += size;
  }
  usedByOffset_[offset] = size;
  used_ += size;
  return base_ + offset;
}

void Arena::free(void* block) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto it = usedByOffset_.find(size_t(static_cast<char*>(block) - base_));
  if (it == usedByOffset_.end()) {
    return;
  }
  size_t offset = it->first;
  size_t size = it->second;
  used_ -= size;
  usedByOffset_.erase(it);
  auto next = freeByOffset_.lower_bound(offset);
  if (next != freeByOffset_.end() && offset + size == next->first) {
    size += next->second;
    next = freeByOffset_.erase(next);
  }
  if (next != freeByOffset_.begin()) {
    auto before = std::prev(next);
    if (before->first + before->second == offset) {
      before->second += size;
      return;
    }
  }
  freeByOffset_[offset] = size;
}

size_t Arena::usedBytes() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return used_;
}

size_t Arena::backedBytes() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return top_;
}

PeerArena::PeerArena(int fd, size_t capacity) : capacity_(capacity) {
  if (capacity == 0) {
    return;
  }
  void* base = mmap(
      nullptr, capacity, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
      0);
  if (base == MAP_FAILED) {
    throw Error(
        ErrorKind::transport,
        "Cannot map a peer's arena of " + std::to_string(capacity) +
            " bytes; lower TRAINYARD_COLLECTIVE_ARENA_BYTES on all ranks");
  }
  madvise(base, capacity, MADV_DONTFORK);
  base_ = static_cast<char*>(base);
}

PeerArena::~PeerArena() {
  if (base_ && !forkedChild()) {
    munmap(base_, capacity_);
  }
}

} // namespace trainyard::collective
