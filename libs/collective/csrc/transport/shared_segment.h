#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "csrc/transport/file_descriptor.h"
#include "csrc/transport/group_state.h"

namespace trainyard::collective {

// Memory that the ranks of one group on one host share to meet and to pass
// blocks of data.
//
// Every rank has a seat. A seat has a *clock*, two *desks* and a *ring* of
// kSlots slots:
//
//   clock  counts the steps its owner has finished. Only the owner advances
//          it (post); the others wait until it has reached a value. It never
//          goes back, so no flag is ever reset.
//   desk   where the owner lays what others must see when an operation
//          starts: its descriptor, sizes and, if small, the data itself.
//          Two, used in turn.
//   slots  blocks of the owner's data, for operations that stream.
//
// All ranks of the segment make the same sequence of posts, so "rank r has
// reached t" means the same to everyone.
class SharedSegment {
 public:
  static constexpr int kSlots = 3;
  static constexpr size_t kDeskBytes = 80 * 1024;

  // Bytes that a segment for `seats` ranks with slots of `slotBytes` needs.
  static size_t sizeFor(int seats, size_t slotBytes);

  // Creates the memory; the returned descriptor is passed to the other ranks.
  static FileDescriptor create(
      int seats,
      size_t slotBytes,
      const uint8_t nonce[16]);

  // Maps the memory of `fd`. Throws Error(transport) if its content is not a
  // segment of this library version with this nonce. `ranks` are the group
  // ranks of the seats, for messages.
  SharedSegment(
      int fd,
      int seat,
      std::vector<int> ranks,
      size_t slotBytes,
      const uint8_t nonce[16]);
  ~SharedSegment();
  SharedSegment(const SharedSegment&) = delete;

  int seat() const {
    return seat_;
  }
  int seats() const {
    return int(ranks_.size());
  }
  int rankOf(int seat) const {
    return ranks_[seat];
  }
  size_t slotBytes() const {
    return slotBytes_;
  }

  char* desk(int seat, uint64_t turn) const;
  char* slot(int seat, uint64_t chunk) const;

  // Marks one more step as finished and wakes those who wait for it.
  void post();

  // Blocks until every seat (or one) has finished as many steps as this one.
  void waitForAll(Wait& wait);
  void waitFor(int seat, Wait& wait);

  // Says that this rank will post no more.
  void leave();
  bool hasLeft(int seat) const;

 private:
  struct alignas(128) Seat {
    std::atomic<uint32_t> clock;
    std::atomic<uint32_t> sleepers;
    std::atomic<uint32_t> left;
    std::atomic<int32_t> core; // on which its owner ran when it last posted
  };
  struct Header;

  bool reached(int seat, uint32_t value) const;
  // Whether a rank that has yet to reach `value` ran on this core last: it may
  // be waiting for the core.
  bool coreIsWanted(uint32_t value) const;
  // Moves this thread to a core with fewer ranks if this one has too many; its
  // affinity is afterwards as before.
  void spread();
  void waitUntil(int seat, uint32_t value, Wait& wait);

  int seat_;
  std::vector<int> ranks_;
  size_t slotBytes_;
  size_t size_;
  Clock::time_point spreadAt_; // the next look
  char* base_ = nullptr;
  Seat* seats_ = nullptr;
};

} // namespace trainyard::collective
