#include "csrc/transport/shared_segment.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#include <climits>
#include <cstring>

namespace trainyard::collective {

namespace {

constexpr uint64_t kMagic = 0x5459434f4c4c0002; // layout version in the end
constexpr size_t kHeaderBytes = 4096;
// A sleep and a wake-up cost about as much, above all where a core has halted.
constexpr auto kSpin = std::chrono::microseconds(50);
constexpr int kPauses = 16; // between looks at the clock
// Longer than a move and the caches' warming take: seldom enough for the
// scheduler to have its way in between.
constexpr auto kSpread = std::chrono::milliseconds(1);

size_t roundUp(size_t size) {
  return (size + 4095) / 4096 * 4096;
}

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

} // namespace

struct SharedSegment::Header {
  uint64_t magic;
  uint64_t slotBytes;
  uint32_t seats;
  uint8_t nonce[16];
};

size_t SharedSegment::sizeFor(int seats, size_t slotBytes) {
  return kHeaderBytes + roundUp(seats * sizeof(Seat)) +
      seats * (2 * kDeskBytes + kSlots * slotBytes);
}

FileDescriptor SharedSegment::create(
    int seats,
    size_t slotBytes,
    const uint8_t nonce[16]) {
  FileDescriptor fd(memfd_create("trainyard-segment", MFD_CLOEXEC));
  const size_t size = sizeFor(seats, slotBytes);
  if (!fd || ftruncate(fd.get(), off_t(size)) != 0) {
    throw Error(
        ErrorKind::transport,
        "Cannot create " + std::to_string(size) +
            " bytes of shared memory: " + strerror(errno));
  }
  Header header = {kMagic, slotBytes, uint32_t(seats), {}};
  memcpy(header.nonce, nonce, 16);
  if (pwrite(fd.get(), &header, sizeof header, 0) != ssize_t(sizeof header)) {
    throw Error(ErrorKind::transport, "Cannot write to shared memory");
  }
  return fd;
}

SharedSegment::SharedSegment(
    int fd,
    int seat,
    std::vector<int> ranks,
    size_t slotBytes,
    const uint8_t nonce[16])
    : seat_(seat),
      ranks_(std::move(ranks)),
      slotBytes_(slotBytes),
      size_(sizeFor(int(ranks_.size()), slotBytes)) {
  void* base =
      mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) {
    throw Error(
        ErrorKind::transport,
        "Cannot map " + std::to_string(size_) +
            " bytes of shared memory: " + strerror(errno));
  }
  base_ = static_cast<char*>(base);
  madvise(base_, size_, MADV_DONTFORK);
  const auto* header = reinterpret_cast<const Header*>(base_);
  if (header->magic != kMagic || header->slotBytes != slotBytes ||
      header->seats != ranks_.size() ||
      memcmp(header->nonce, nonce, 16) != 0) {
    munmap(base_, size_);
    throw Error(
        ErrorKind::transport,
        "The shared memory offered by " + std::to_string(ranks_[0]) +
            " belongs to another group or another version of this library; "
            "install the same wheel on every rank");
  }
  seats_ = reinterpret_cast<Seat*>(base_ + kHeaderBytes);
}

SharedSegment::~SharedSegment() {
  if (base_ && !forkedChild()) {
    munmap(base_, size_);
  }
}

char* SharedSegment::desk(int seat, uint64_t turn) const {
  return base_ + kHeaderBytes + roundUp(seats() * sizeof(Seat)) +
      (size_t(seat) * 2 + turn % 2) * kDeskBytes;
}

char* SharedSegment::slot(int seat, uint64_t chunk) const {
  return base_ + kHeaderBytes + roundUp(seats() * sizeof(Seat)) +
      size_t(seats()) * 2 * kDeskBytes +
      (size_t(seat) * kSlots + chunk % kSlots) * slotBytes_;
}

void SharedSegment::post() {
  Seat& mine = seats_[seat_];
  mine.core.store(sched_getcpu(), std::memory_order_relaxed);
  // Sequentially consistent on both sides: either the sleeper sees the new
  // clock, or this rank sees the sleeper.
  mine.clock.fetch_add(1, std::memory_order_seq_cst);
  if (mine.sleepers.load(std::memory_order_seq_cst) > 0) {
    syscall(
        SYS_futex, reinterpret_cast<uint32_t*>(&mine.clock), FUTEX_WAKE,
        INT_MAX, nullptr, nullptr, 0);
  }
}

bool SharedSegment::reached(int seat, uint32_t value) const {
  const uint32_t now = seats_[seat].clock.load(std::memory_order_acquire);
  return int32_t(now - value) >= 0;
}

void SharedSegment::waitForAll(Wait& wait) {
  const uint32_t value = seats_[seat_].clock.load(std::memory_order_relaxed);
  for (int k = 1; k < seats(); k++) {
    waitUntil((seat_ + k) % seats(), value, wait);
  }
}

void SharedSegment::waitFor(int seat, Wait& wait) {
  waitUntil(seat, seats_[seat_].clock.load(std::memory_order_relaxed), wait);
}

bool SharedSegment::coreIsWanted(uint32_t value) const {
  const int core = sched_getcpu();
  for (int seat = 0; seat < seats(); seat++) {
    if (seats_[seat].core.load(std::memory_order_relaxed) == core &&
        !reached(seat, value)) {
      return true;
    }
  }
  return false;
}

// The scheduler leaves ranks together on one core for tens of milliseconds, and
// with long waits for seconds, while another core has less to do: ranks that
// meet all the time have always just run, and are often not even queued. Only
// where ranks need all cores; with more cores, wake-ups find a free one.
void SharedSegment::spread() {
  cpu_set_t allowed;
  const int core = sched_getcpu();
  if (core < 0 || core >= CPU_SETSIZE ||
      sched_getaffinity(0, sizeof allowed, &allowed) != 0 ||
      CPU_COUNT(&allowed) < 2 || CPU_COUNT(&allowed) > seats()) {
    return;
  }
  int ranks[CPU_SETSIZE] = {};
  int last = -1; // seat on this core: one moves at a time
  for (int seat = 0; seat < seats(); seat++) {
    const int theirs = seats_[seat].core.load(std::memory_order_relaxed);
    if (theirs >= 0 && theirs < CPU_SETSIZE) {
      ranks[theirs]++;
      last = theirs == core ? seat : last;
    }
  }
  int emptiest = core;
  for (int other = 0; other < CPU_SETSIZE; other++) {
    if (CPU_ISSET(other, &allowed) && ranks[other] < ranks[emptiest]) {
      emptiest = other;
    }
  }
  if (last != seat_ || ranks[core] < ranks[emptiest] + 2) {
    return; // a move would not make it more even
  }
  cpu_set_t target;
  CPU_ZERO(&target);
  CPU_SET(emptiest, &target);
  // There at once, and free to be moved again.
  sched_setaffinity(0, sizeof target, &target);
  sched_setaffinity(0, sizeof allowed, &allowed);
  seats_[seat_].core.store(emptiest, std::memory_order_relaxed);
}

void SharedSegment::waitUntil(int seat, uint32_t value, Wait& wait) {
  if (reached(seat, value)) {
    return;
  }
  const auto now = Clock::now();
  if (now >= spreadAt_) {
    spreadAt_ = now + kSpread;
    spread();
  }
  const auto end = now + kSpin;
  do {
    if (coreIsWanted(value)) {
      sched_yield();
    } else {
      for (int i = 0; i < kPauses && !reached(seat, value); i++) {
        pause();
      }
    }
    if (reached(seat, value)) {
      return;
    }
  } while (Clock::now() < end);
  Seat& peer = seats_[seat];
  struct Sleeper {
    explicit Sleeper(Seat& seat) : seat(seat) {
      seat.sleepers.fetch_add(1, std::memory_order_seq_cst);
    }
    ~Sleeper() {
      seat.sleepers.fetch_sub(1, std::memory_order_relaxed);
    }
    Seat& seat;
  } sleeper(peer);
  while (true) {
    const uint32_t now = peer.clock.load(std::memory_order_seq_cst);
    if (int32_t(now - value) >= 0) {
      return;
    }
    const bool busy = wait.runBackground();
    const timespec slice = {
        0, busy ? Wait::kBackgroundUs * 1000L : Wait::kSliceMs * 1000000L};
    syscall(
        SYS_futex, reinterpret_cast<uint32_t*>(&peer.clock), FUTEX_WAIT, now,
        &slice, nullptr, 0);
    // The condition first: what a rank did before it ended or the group
    // failed still counts.
    if (reached(seat, value)) {
      return;
    }
    if (hasLeft(seat) && !reached(seat, value)) {
      wait.peerLeft(ranks_[seat]);
    }
    wait.check([&] {
      std::string missing;
      for (int other = 0; other < seats(); other++) {
        if (!reached(other, value)) {
          missing += (missing.empty() ? "" : ", ") +
              wait.state().nameOf(ranks_[other]);
        }
      }
      return "still missing " + missing;
    });
  }
}

void SharedSegment::leave() {
  Seat& mine = seats_[seat_];
  mine.left.store(1, std::memory_order_seq_cst);
}

bool SharedSegment::hasLeft(int seat) const {
  return seats_[seat].left.load(std::memory_order_seq_cst) != 0;
}

} // namespace trainyard::collective
