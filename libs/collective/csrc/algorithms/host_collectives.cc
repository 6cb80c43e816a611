#include "csrc/algorithms/host_collectives.h"

#include <sys/random.h>
#include <sys/uio.h>

#include <cstring>

#include "csrc/common/copy.h"
#include "csrc/transport/socket.h"

namespace trainyard::collective {

namespace {

// Work inside a step goes in pieces that stay in the second-level cache.
constexpr size_t kPieceBytes = 64 * 1024;
// What is read from another member's memory at once to be folded.
constexpr size_t kReadBytes = 128 * 1024;
// And of what is only moved: a failure shall not have to wait for gigabytes.
constexpr size_t kReadAtOnce = 64 << 20;

void copy(void* to, const void* from, size_t size, bool streaming = false) {
  if (to == from || size == 0) {
    return;
  }
  if (streaming) {
    copyStreaming(to, from, size);
  } else {
    copyCached(to, from, size);
  }
}

void gatherFrom(const Pieces& pieces, size_t offset, size_t size, char* to) {
  forRange(pieces, offset, size, [&](char* data, size_t part) {
    copy(to, data, part);
    to += part;
  });
}

void scatterTo(
    const Pieces& pieces,
    size_t offset,
    size_t size,
    const char* from,
    bool streaming = false) {
  forRange(pieces, offset, size, [&](char* data, size_t part) {
    copy(data, from, part, streaming);
    from += part;
  });
}

size_t divideUp(size_t a, size_t b) {
  return (a + b - 1) / b;
}

} // namespace

HostCollectives::HostCollectives(Group& group, Planner& planner)
    : group_(group), segment_(*group.segment()), planner_(planner) {
  static_assert(sizeof(Arrival) <= kDataOffset, "the desk's head is too small");
}

HostCollectives::Arrival& HostCollectives::myArrival() {
  return *reinterpret_cast<Arrival*>(segment_.desk(member(), turn_));
}

const HostCollectives::Arrival& HostCollectives::arrivalOf(int seat) const {
  return *reinterpret_cast<const Arrival*>(segment_.desk(seat, turn_));
}

char* HostCollectives::deskData(int seat) const {
  return segment_.desk(seat, turn_) + kDataOffset;
}

void HostCollectives::begin(Operation& op) {
  // Two desks in turn: everyone who read the desk of the operation before the
  // last has since arrived at the last one.
  turn_++;
  Arrival& arrival = myArrival();
  arrival.descriptor = op.descriptor;
  arrival.arenaOffset = -1;
  arrival.address = 0;
  arrival.laidOut = 0;
  arrival.onDesk = 0;
}

void HostCollectives::arrive(Operation& op) {
  segment_.post();
  segment_.waitForAll(op.wait);
  for (int seat = 0; seat < members(); seat++) {
    if (seat != member()) {
      verify(op, seat);
    }
  }
}

void HostCollectives::arriveTimed(Operation& op, size_t bytes) {
  const OpKind kind = op.descriptor.kind;
  myArrival().paces = planner_.paces(kind);
  arrive(op);
  if (planner_.tries(bytes)) {
    Paces slowest;
    for (int seat = 0; seat < members(); seat++) {
      const Paces& theirs = arrivalOf(seat).paces;
      slowest.staged = std::max(slowest.staged, theirs.staged);
      slowest.oneCopy = std::max(slowest.oneCopy, theirs.oneCopy);
    }
    planner_.settle(kind, slowest);
    arrivedAt_ = Clock::now();
  }
}

void HostCollectives::endTimed(const Operation& op, size_t bytes, bool reading) {
  if (planner_.tries(bytes)) {
    const std::chrono::duration<double> seconds = Clock::now() - arrivedAt_;
    planner_.took(op.descriptor.kind, reading, seconds.count() / double(bytes));
  }
}

void HostCollectives::meet(Operation& op) {
  segment_.post();
  segment_.waitForAll(op.wait);
}

void HostCollectives::verify(Operation& op, int seat) {
  const Descriptor& theirs = arrivalOf(seat).descriptor;
  if (theirs == op.descriptor) {
    return;
  }
  auto& state = group_.state();
  const std::string message = "Ranks of group " + state.group() +
      " disagree: " + state.nameOf(segment_.rankOf(member())) + " is in " +
      op.descriptor.toString() + " but " +
      state.nameOf(segment_.rankOf(seat)) + " is in " + theirs.toString() +
      "; every rank must issue the same operations in the same order";
  state.fail(ErrorKind::mismatch, message);
  throw Error(ErrorKind::mismatch, message);
}

bool HostCollectives::allInArenas() const {
  for (int seat = 0; seat < members(); seat++) {
    if (arrivalOf(seat).arenaOffset < 0) {
      return false;
    }
  }
  return true;
}

bool HostCollectives::allReadable() const {
  for (int seat = 0; seat < members(); seat++) {
    if (arrivalOf(seat).address == 0) {
      return false;
    }
  }
  return true;
}

bool HostCollectives::offer(OpKind op, size_t bytes, const Pieces& input) {
  Arrival& arrival = myArrival();
  arrival.arenaOffset = arenaOffsetOf(input);
  size_t size = 0;
  bool whole = planner_.readsPeers(op, bytes);
  for (const auto& piece : input) {
    whole = whole && piece.data == input[0].data + size;
    size += piece.size;
  }
  if (whole && size > 0) {
    arrival.address = reinterpret_cast<uint64_t>(input[0].data);
  }
  return arrival.arenaOffset >= 0 || arrival.address != 0;
}

void HostCollectives::read(
    Operation& op,
    int seat,
    size_t offset,
    const Pieces& to) {
  const int rank = segment_.rankOf(seat);
  uint64_t at = arrivalOf(seat).address + offset;
  for (const auto& piece : to) {
    for (size_t done = 0; done < piece.size;) {
      const size_t size = std::min(kReadAtOnce, piece.size - done);
      const iovec here = {piece.data + done, size};
      const iovec there = {reinterpret_cast<void*>(at), size};
      const ssize_t n =
          process_vm_readv(group_.pidOf(rank), &here, 1, &there, 1, 0);
      if (n <= 0) {
        throwPeerLost(rank, op.wait, "its memory cannot be read");
      }
      done += size_t(n);
      at += size_t(n);
      group_.state().check();
    }
  }
}

// Whether all members can read the memory of all others. A nonce is compared,
// since a process id may mean another process in another namespace.
bool HostCollectives::readable(Operation& op) {
  char nonce[16];
  char copy[16];
  if (getrandom(nonce, sizeof nonce, 0) != sizeof nonce) {
    throw Error(ErrorKind::transport, "getrandom failed");
  }
  begin(op);
  myArrival().address = reinterpret_cast<uint64_t>(nonce);
  memcpy(deskData(member()), nonce, sizeof nonce);
  arrive(op);
  bool all = true;
  for (int seat = 0; seat < members(); seat++) {
    const iovec here = {copy, sizeof copy};
    const iovec there = {
        reinterpret_cast<void*>(arrivalOf(seat).address), sizeof copy};
    const pid_t pid = group_.pidOf(segment_.rankOf(seat));
    all = all &&
        process_vm_readv(pid, &here, 1, &there, 1, 0) == sizeof copy &&
        memcmp(copy, deskData(seat), sizeof copy) == 0;
  }
  // The answer of each is for all; the nonces stay until all have arrived.
  begin(op);
  *deskData(member()) = all;
  arrive(op);
  for (int seat = 0; seat < members(); seat++) {
    all = all && *deskData(seat) != 0;
  }
  return all;
}

void HostCollectives::measure(Operation& op, Findings& findings) {
  findings.readable = readable(op) ? 0 : 1;
  findings.meeting = bestOf(5, [&] { barrier(op); });
  for (size_t band = 0; findings.readable == 0 && band < kBands; band++) {
    const size_t bytes = kBandBytes[band];
    std::vector<char> whole(bytes);
    std::vector<char> part(bytes / size_t(members()));
    std::vector<Pieces> out;
    for (int seat = 0; seat < members(); seat++) {
      out.push_back({{whole.data() + size_t(seat) * part.size(), part.size()}});
    }
    const std::function<void()> kinds[kReadKinds] = {
        [&] { allgather(op, {{part.data(), part.size()}}, out); },
        [&] {
          allreduce(op, whole.data(), bytes / sizeOf(op.reduction.type));
        },
        [&] { broadcast(op, 0, {{whole.data(), bytes}}); },
    };
    // The first ones do not count: slots and bounce buffers get their pages in
    // them. Both ways take turns, so that other work disturbs both.
    const int warmUps = SharedSegment::kSlots;
    const int tries = band == 0 ? 12 : band == 1 ? 6 : 4;
    for (size_t kind = 0; kind < kReadKinds; kind++) {
      for (int i = band == 0 ? -warmUps : -1; i < tries; i++) {
        for (bool reads : {false, true}) {
          planner_.setReads(reads);
          const double seconds = bestOf(1, kinds[kind]);
          double& best = (reads ? findings.oneCopy : findings.staged)[kind][band];
          best = i <= 0 ? seconds : std::min(best, seconds);
        }
      }
    }
  }
  planner_.setReads(false);
}

// Of a stream that is one block of the own arena; −1 for any other.
int64_t HostCollectives::arenaOffsetOf(const Pieces& pieces) const {
  size_t size = 0;
  for (const auto& piece : pieces) {
    if (piece.data != pieces[0].data + size) {
      return -1;
    }
    size += piece.size;
  }
  return size == 0 ? -1 : group_.arena().offsetOf(pieces[0].data, size);
}

// Step k: write chunk k, and read chunk k − 1, which was written in the step
// before. One meeting per step.
void HostCollectives::stream(
    Operation& op,
    size_t chunks,
    bool laidOut,
    const std::function<void(char*, size_t)>& write,
    const std::function<void(size_t)>& read) {
  for (size_t k = 0; k < chunks; k++) {
    if (k > 0 || !laidOut) {
      write(segment_.slot(member(), chunk_ + k), k);
      meet(op);
    }
    read(k);
  }
  chunk_ += chunks;
}

void HostCollectives::barrier(Operation& op) {
  begin(op);
  arrive(op);
}

// AllReduce
//
// One-shot: everyone folds all desks, in seat order.
// Direct: the vector is cut evenly; each member folds its part of all vectors
// and writes the result into its part of all vectors. Nobody else touches that
// part, so one meeting at the end is enough.
// Staged: see reduceStaged.
void HostCollectives::allreduce(Operation& op, char* buffer, size_t count) {
  const size_t bytes = count * sizeOf(op.reduction.type);
  begin(op);
  if (bytes <= planner_.oneShotBytes()) {
    planner_.log("host", op.descriptor.kind, bytes, "one-shot", "fits a desk");
    memcpy(deskData(member()), buffer, bytes);
    arrive(op);
    const void* inputs[64];
    for (int seat = 0; seat < members(); seat++) {
      inputs[seat] = deskData(seat);
    }
    reduce(op.reduction, buffer, inputs, size_t(members()), count);
    return;
  }
  if (!offer(op.descriptor.kind, bytes, {{buffer, bytes}})) {
    layOut(op, buffer, count, 0);
    myArrival().laidOut = 1;
  }
  arriveTimed(op, bytes);
  if (allInArenas()) {
    planner_.log("host", op.descriptor.kind, bytes, "direct", "all in arenas");
    reduceDirect(op, buffer, count);
  } else if (allReadable()) {
    planner_.log("host", op.descriptor.kind, bytes, "one-copy", "readable");
    reduceByReading(op, buffer, count);
    endTimed(op, bytes, true);
  } else {
    planner_.log("host", op.descriptor.kind, bytes, "staged", "private memory");
    reduceStaged(op, buffer, count);
    endTimed(op, bytes, false);
  }
}

void HostCollectives::reduceDirect(Operation& op, char* buffer, size_t count) {
  const size_t size = sizeOf(op.reduction.type);
  const size_t n = size_t(members());
  char* vectors[64];
  for (int seat = 0; seat < members(); seat++) {
    vectors[seat] = seat == member()
        ? buffer
        : group_.inArena(seat, arrivalOf(seat).arenaOffset);
  }
  const size_t begin = cut(count, n, size_t(member())) * size;
  const size_t end = cut(count, n, size_t(member()) + 1) * size;
  // Piece by piece, so that the result is copied while it is in the cache.
  for (size_t at = begin; at < end; at += kPieceBytes) {
    const size_t part = std::min(kPieceBytes, end - at);
    const void* inputs[64];
    for (size_t seat = 0; seat < n; seat++) {
      inputs[seat] = vectors[seat] + at;
    }
    reduce(op.reduction, buffer + at, inputs, n, part / size);
    for (size_t seat = 0; seat < n; seat++) {
      copy(vectors[seat] + at, buffer + at, part);
    }
  }
  meet(op);
}

// One-copy AllReduce: every member reads its part of the others' vectors and
// folds it into its own; when all have, it reads the other parts from their
// owners. A part is written by its owner alone until all are folded.
void HostCollectives::reduceByReading(
    Operation& op,
    char* buffer,
    size_t count) {
  const size_t size = sizeOf(op.reduction.type);
  const size_t n = size_t(members());
  const size_t begin = cut(count, n, size_t(member())) * size;
  const size_t end = cut(count, n, size_t(member()) + 1) * size;
  bounce_.resize(n * kReadBytes);
  for (size_t at = begin; at < end; at += kReadBytes) {
    const size_t part = std::min(kReadBytes, end - at);
    const void* inputs[64];
    for (size_t seat = 0; seat < n; seat++) {
      char* copied = bounce_.data() + seat * kReadBytes;
      if (int(seat) != member()) {
        read(op, int(seat), at, {{copied, part}});
      }
      inputs[seat] = int(seat) == member() ? buffer + at : copied;
    }
    reduce(op.reduction, buffer + at, inputs, n, part / size);
  }
  meet(op);
  for (size_t step = 1; step < n; step++) {
    const size_t owner = (size_t(member()) + step) % n;
    const size_t first = cut(count, n, owner) * size;
    const size_t last = cut(count, n, owner + 1) * size;
    read(op, int(owner), first, {{buffer + first, last - first}});
  }
  meet(op);
}

// Writes chunk k of the vector into the own slot, but for the own part, which
// only this member reads.
void HostCollectives::layOut(
    Operation& op,
    const char* buffer,
    size_t count,
    size_t k) {
  const size_t size = sizeOf(op.reduction.type);
  const size_t n = size_t(members());
  const size_t perChunk = segment_.slotBytes() / size;
  const size_t length = std::min(perChunk, count - k * perChunk);
  const size_t begin = cut(length, n, size_t(member())) * size;
  const size_t end = cut(length, n, size_t(member()) + 1) * size;
  char* slot = segment_.slot(member(), chunk_ + k);
  const char* chunk = buffer + k * perChunk * size;
  copy(slot, chunk, begin);
  copy(slot + end, chunk + end, length * size - end);
}

// Staged AllReduce. In step k every member
//   writes chunk k of its vector into its slot,
//   folds its part of chunk k − 1 from all slots into its own vector and its
//     own slot, where the others find it,
//   copies the other parts of chunk k − 2 from their owners' slots (through
//     the cache: the vector's lines are still there from step k − 2).
// Each of the three uses what was finished before the last meeting. The slot
// of chunk k was last used by chunk k − 3, whose copies ended in step k − 1.
void HostCollectives::reduceStaged(Operation& op, char* buffer, size_t count) {
  const size_t size = sizeOf(op.reduction.type);
  const size_t n = size_t(members());
  const size_t perChunk = segment_.slotBytes() / size;
  const size_t chunks = divideUp(count, perChunk);
  bool allLaidOut = true;
  for (int seat = 0; seat < members(); seat++) {
    allLaidOut = allLaidOut && arrivalOf(seat).laidOut;
  }
  const bool laidOut = myArrival().laidOut;
  auto countOf = [&](size_t k) {
    return std::min(perChunk, count - k * perChunk);
  };
  for (size_t k = 0; k < chunks + 2; k++) {
    if (k >= 2) {
      char* base = buffer + (k - 2) * perChunk * size;
      for (size_t step = 1; step < n; step++) {
        const size_t owner = (size_t(member()) + step) % n;
        const size_t begin = cut(countOf(k - 2), n, owner) * size;
        const size_t end = cut(countOf(k - 2), n, owner + 1) * size;
        copy(
            base + begin, segment_.slot(int(owner), chunk_ + k - 2) + begin,
            end - begin);
      }
    }
    if (k < chunks && (k > 0 || !laidOut)) {
      layOut(op, buffer, count, k);
    }
    if (k >= 1 && k - 1 < chunks) {
      char* mine = segment_.slot(member(), chunk_ + k - 1);
      const size_t begin = cut(countOf(k - 1), n, size_t(member())) * size;
      const size_t end = cut(countOf(k - 1), n, size_t(member()) + 1) * size;
      for (size_t at = begin; at < end; at += kPieceBytes) {
        const size_t part = std::min(kPieceBytes, end - at);
        const void* inputs[64];
        char* own = buffer + (k - 1) * perChunk * size + at;
        for (int seat = 0; seat < members(); seat++) {
          inputs[seat] = seat == member()
              ? own
              : segment_.slot(seat, chunk_ + k - 1) + at;
        }
        reduce(op.reduction, own, inputs, n, part / size);
        copy(mine + at, own, part);
      }
    }
    // The arrival was the meeting of step 0 if all chunks 0 were there.
    if (k < chunks + 1 && (k > 0 || !allLaidOut)) {
      meet(op);
    }
  }
  chunk_ += chunks;
}

// AllGather
//
// One-shot: everyone copies from all desks. Direct: from all arenas, then a
// meeting, after which the inputs may change. Staged: chunk by chunk through
// the slots.
void HostCollectives::allgather(
    Operation& op,
    const Pieces& in,
    const std::vector<Pieces>& out) {
  const size_t mine = totalSize(in);
  size_t largest = 0;
  size_t all = 0;
  for (const auto& pieces : out) {
    largest = std::max(largest, totalSize(pieces));
    all += totalSize(pieces);
  }
  begin(op);
  myArrival().sizes[0] = mine;
  auto checkSizes = [&] {
    for (int seat = 0; seat < members(); seat++) {
      if (arrivalOf(seat).sizes[0] != totalSize(out[size_t(seat)])) {
        auto& state = group_.state();
        const std::string message = "all_gather on group " + state.group() +
            ": " + state.nameOf(segment_.rankOf(seat)) + " sends " +
            std::to_string(arrivalOf(seat).sizes[0]) + " bytes but " +
            state.nameOf(segment_.rankOf(member())) + " has room for " +
            std::to_string(totalSize(out[size_t(seat)])) +
            "; make the output as large as the input of that rank";
        state.fail(ErrorKind::mismatch, message);
        throw Error(ErrorKind::mismatch, message);
      }
    }
  };
  const bool streaming = all >= kStreamFrom;
  const Pieces& ownPlace = out[size_t(member())];
  auto copyOwn = [&](size_t offset, size_t size) {
    size_t done = 0;
    forRange(in, offset, size, [&](char* data, size_t part) {
      scatterTo(ownPlace, offset + done, part, data, streaming);
      done += part;
    });
  };
  if (largest <= planner_.oneShotBytes()) {
    planner_.log("host", op.descriptor.kind, all, "one-shot", "fits a desk");
    gatherFrom(in, 0, std::min(mine, kDeskData), deskData(member()));
    arrive(op);
    checkSizes();
    copyOwn(0, mine);
    for (int seat = 0; seat < members(); seat++) {
      if (seat != member()) {
        const auto& to = out[size_t(seat)];
        scatterTo(to, 0, totalSize(to), deskData(seat));
      }
    }
    return;
  }
  const size_t block = segment_.slotBytes();
  // The own place in the output is filled while the input is in the cache.
  auto layOutChunk = [&](char* slot, size_t k) {
    const size_t end = std::min((k + 1) * block, mine);
    for (size_t at = k * block; at < end; at += kPieceBytes) {
      const size_t part = std::min(kPieceBytes, end - at);
      gatherFrom(in, at, part, slot + (at - k * block));
      copyOwn(at, part);
    }
  };
  const bool offered = offer(op.descriptor.kind, all, in);
  if (!offered) {
    layOutChunk(segment_.slot(member(), chunk_), 0);
    myArrival().laidOut = 1;
  }
  arriveTimed(op, all);
  checkSizes();
  if (offered && (allInArenas() || allReadable())) {
    const bool direct = allInArenas();
    planner_.log(
        "host", op.descriptor.kind, all, direct ? "direct" : "one-copy",
        direct ? "all in arenas" : "readable");
    copyOwn(0, mine);
    for (int step = 1; step < members(); step++) {
      const int seat = (member() + step) % members();
      const auto& to = out[size_t(seat)];
      if (direct) {
        scatterTo(
            to, 0, totalSize(to),
            group_.inArena(seat, arrivalOf(seat).arenaOffset), streaming);
      } else {
        read(op, seat, 0, to);
      }
    }
    meet(op);
    if (!direct) {
      endTimed(op, all, true);
    }
    return;
  }
  planner_.log("host", op.descriptor.kind, all, "staged", "private memory");
  bool allLaidOut = true;
  for (int seat = 0; seat < members(); seat++) {
    allLaidOut = allLaidOut && arrivalOf(seat).laidOut;
  }
  if (offered) {
    layOutChunk(segment_.slot(member(), chunk_), 0);
  }
  if (!allLaidOut) {
    meet(op);
  }
  stream(
      op, divideUp(largest, block), true, layOutChunk,
      [&](size_t k) {
        for (int step = 1; step < members(); step++) {
          const int seat = (member() + step) % members();
          const auto& to = out[size_t(seat)];
          const size_t size = totalSize(to);
          if (k * block < size) {
            scatterTo(
                to, k * block, std::min(block, size - k * block),
                segment_.slot(seat, chunk_ + k), streaming);
          }
        }
      });
  endTimed(op, all, false);
}

// ReduceScatter
//
// One-shot: the parts lie on the desks one after another. Direct: everyone
// folds its part from all inputs in their arenas. Staged: a slot holds one
// block for every member.
void HostCollectives::reduceScatter(
    Operation& op,
    const std::vector<Pieces>& in,
    const Pieces& out) {
  const size_t size = sizeOf(op.reduction.type);
  const size_t n = size_t(members());
  const size_t mine = totalSize(out);
  Pieces all;
  size_t largest = 0;
  std::vector<size_t> starts;
  size_t total = 0;
  for (const auto& pieces : in) {
    all.insert(all.end(), pieces.begin(), pieces.end());
    starts.push_back(total);
    largest = std::max(largest, totalSize(pieces));
    total += totalSize(pieces);
  }
  begin(op);
  const size_t start = starts[size_t(member())];
  // Folds bytes [offset, offset + length) of the own part, of which every
  // other seat s has a copy at from(s).
  const Pieces& own = in[size_t(member())];
  auto foldInto = [&](size_t offset, size_t length, auto from) {
    size_t done = 0;
    forRange(out, offset, length, [&](char* data, size_t piece) {
      const size_t start = done;
      forRange(own, offset + start, piece, [&](char* mine, size_t part) {
        const void* inputs[64];
        for (size_t seat = 0; seat < n; seat++) {
          inputs[seat] =
              int(seat) == member() ? mine : from(int(seat)) + done;
        }
        reduce(op.reduction, data + (done - start), inputs, n, part / size);
        done += part;
      });
    });
  };
  if (total <= planner_.oneShotBytes()) {
    planner_.log("host", op.descriptor.kind, total, "one-shot", "fits a desk");
    gatherFrom(all, 0, total, deskData(member()));
    arrive(op);
    foldInto(0, mine, [&](int seat) { return deskData(seat) + start; });
    return;
  }
  const bool offered = offer(op.descriptor.kind, total, all);
  const size_t block = segment_.slotBytes() / n / 64 * 64;
  auto write = [&](char* slot, size_t k) {
    for (size_t to = 0; to < n; to++) {
      const size_t length = totalSize(in[to]);
      if (to != size_t(member()) && k * block < length) {
        gatherFrom(
            in[to], k * block, std::min(block, length - k * block),
            slot + to * block);
      }
    }
  };
  if (!offered) {
    write(segment_.slot(member(), chunk_), 0);
    myArrival().laidOut = 1;
  }
  arriveTimed(op, total);
  if (allInArenas()) {
    planner_.log("host", op.descriptor.kind, total, "direct", "all in arenas");
    for (size_t at = 0; at < mine; at += kPieceBytes) {
      foldInto(at, std::min(kPieceBytes, mine - at), [&](int seat) {
        return group_.inArena(seat, arrivalOf(seat).arenaOffset) + start + at;
      });
    }
    meet(op);
    return;
  }
  if (allReadable()) {
    planner_.log("host", op.descriptor.kind, total, "one-copy", "readable");
    bounce_.resize(n * kReadBytes);
    for (size_t at = 0; at < mine; at += kReadBytes) {
      const size_t length = std::min(kReadBytes, mine - at);
      for (int seat = 0; seat < members(); seat++) {
        if (seat != member()) {
          read(
              op, seat, start + at,
              {{bounce_.data() + size_t(seat) * kReadBytes, length}});
        }
      }
      foldInto(at, length, [&](int seat) {
        return bounce_.data() + size_t(seat) * kReadBytes;
      });
    }
    meet(op);
    endTimed(op, total, true);
    return;
  }
  planner_.log("host", op.descriptor.kind, total, "staged", "private memory");
  bool allLaidOut = true;
  for (int seat = 0; seat < members(); seat++) {
    allLaidOut = allLaidOut && arrivalOf(seat).laidOut;
  }
  if (offered) {
    write(segment_.slot(member(), chunk_), 0);
  }
  if (!allLaidOut) {
    meet(op);
  }
  stream(op, divideUp(largest, block), true, write, [&](size_t k) {
    if (k * block < mine) {
      foldInto(k * block, std::min(block, mine - k * block), [&](int seat) {
        return segment_.slot(seat, chunk_ + k) + size_t(member()) * block;
      });
    }
  });
  endTimed(op, total, false);
}

// Broadcast
//
// As AllGather with one source.
void HostCollectives::broadcast(Operation& op, int root, const Pieces& data) {
  const size_t bytes = totalSize(data);
  const bool source = root == member();
  const bool streaming = bytes >= kStreamFrom;
  begin(op);
  if (bytes <= planner_.oneShotBytes()) {
    planner_.log("host", op.descriptor.kind, bytes, "one-shot", "fits a desk");
    if (source) {
      gatherFrom(data, 0, bytes, deskData(member()));
    }
    arrive(op);
    if (!source) {
      scatterTo(data, 0, bytes, deskData(root));
    }
    return;
  }
  const size_t block = segment_.slotBytes();
  if (source && !offer(op.descriptor.kind, bytes, data)) {
    gatherFrom(data, 0, std::min(bytes, block), segment_.slot(root, chunk_));
  }
  arriveTimed(op, bytes);
  if (arrivalOf(root).arenaOffset >= 0) {
    planner_.log("host", op.descriptor.kind, bytes, "direct", "root in arena");
    if (!source) {
      scatterTo(
          data, 0, bytes, group_.inArena(root, arrivalOf(root).arenaOffset),
          streaming);
    }
    meet(op);
    return;
  }
  if (arrivalOf(root).address != 0) {
    planner_.log("host", op.descriptor.kind, bytes, "one-copy", "readable");
    if (!source) {
      read(op, root, 0, data);
    }
    meet(op);
    endTimed(op, bytes, true);
    return;
  }
  planner_.log("host", op.descriptor.kind, bytes, "staged", "private memory");
  stream(
      op, divideUp(bytes, block), true,
      [&](char* slot, size_t k) {
        if (source) {
          gatherFrom(
              data, k * block, std::min(block, bytes - k * block), slot);
        }
      },
      [&](size_t k) {
        if (!source) {
          scatterTo(
              data, k * block, std::min(block, bytes - k * block),
              segment_.slot(root, chunk_ + k), streaming);
        }
      });
  endTimed(op, bytes, false);
}

// AllToAll
//
// Each member decides for its own data whether they lie on the desk, in its
// arena or come through its slots; its desk tells the others, with the size
// for each of them.
void HostCollectives::alltoall(
    Operation& op,
    const std::vector<Pieces>& in,
    const std::vector<Pieces>& out) {
  const size_t n = size_t(members());
  Pieces all;
  size_t total = 0;
  begin(op);
  Arrival& arrival = myArrival();
  for (size_t to = 0; to < n; to++) {
    all.insert(all.end(), in[to].begin(), in[to].end());
    arrival.sizes[to] = totalSize(in[to]);
    total += arrival.sizes[to];
  }
  if (total <= planner_.oneShotBytes()) {
    planner_.log("host", op.descriptor.kind, total, "one-shot", "fits a desk");
    gatherFrom(all, 0, total, deskData(member()));
    arrival.onDesk = 1;
  } else {
    arrival.arenaOffset = arenaOffsetOf(all);
    planner_.log(
        "host", op.descriptor.kind, total,
        arrival.arenaOffset < 0 ? "staged" : "direct",
        arrival.arenaOffset < 0 ? "private memory" : "in the arena");
  }
  arrive(op);
  const size_t block = segment_.slotBytes() / n / 64 * 64;
  size_t chunks = 0;
  bool anyDirect = false;
  for (size_t from = 0; from < n; from++) {
    const Arrival& theirs = arrivalOf(int(from));
    if (theirs.sizes[member()] != totalSize(out[from])) {
      auto& state = group_.state();
      const std::string message = std::string(toString(op.descriptor.kind)) +
          " on group " + state.group() + ": " +
          state.nameOf(segment_.rankOf(int(from))) + " sends " +
          std::to_string(theirs.sizes[member()]) + " bytes to " +
          state.nameOf(segment_.rankOf(member())) + ", which expects " +
          std::to_string(totalSize(out[from])) +
          "; make the split sizes of both agree";
      state.fail(ErrorKind::mismatch, message);
      throw Error(ErrorKind::mismatch, message);
    }
    if (theirs.onDesk == 0 && theirs.arenaOffset < 0) {
      for (size_t to = 0; to < n; to++) {
        if (to != from) {
          chunks = std::max(chunks, divideUp(theirs.sizes[to], block));
        }
      }
    }
    anyDirect = anyDirect || theirs.arenaOffset >= 0;
  }
  // The own part, then the parts that need no slots.
  {
    size_t offset = 0;
    for (const auto& piece : in[size_t(member())]) {
      scatterTo(out[size_t(member())], offset, piece.size, piece.data);
      offset += piece.size;
    }
  }
  for (size_t step = 1; step < n; step++) {
    const int seat = int((size_t(member()) + step) % n);
    const Arrival& theirs = arrivalOf(seat);
    if (theirs.onDesk == 0 && theirs.arenaOffset < 0) {
      continue;
    }
    size_t start = 0;
    for (int to = 0; to < member(); to++) {
      start += theirs.sizes[to];
    }
    const char* base = theirs.onDesk != 0
        ? deskData(seat)
        : group_.inArena(seat, theirs.arenaOffset);
    const auto& to = out[size_t(seat)];
    scatterTo(to, 0, totalSize(to), base + start);
  }
  const bool staged = arrival.onDesk == 0 && arrival.arenaOffset < 0;
  stream(
      op, chunks, false,
      [&](char* slot, size_t k) {
        for (size_t to = 0; staged && to < n; to++) {
          const size_t length = arrival.sizes[to];
          if (to != size_t(member()) && k * block < length) {
            gatherFrom(
                in[to], k * block, std::min(block, length - k * block),
                slot + to * block);
          }
        }
      },
      [&](size_t k) {
        for (size_t step = 1; step < n; step++) {
          const int seat = int((size_t(member()) + step) % n);
          const Arrival& theirs = arrivalOf(seat);
          const size_t length = theirs.sizes[member()];
          if (theirs.onDesk == 0 && theirs.arenaOffset < 0 &&
              k * block < length) {
            scatterTo(
                out[size_t(seat)], k * block,
                std::min(block, length - k * block),
                segment_.slot(seat, chunk_ + k) + size_t(member()) * block);
          }
        }
      });
  if (anyDirect) {
    meet(op);
  }
}

} // namespace trainyard::collective
