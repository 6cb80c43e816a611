#pragma once

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "csrc/algorithms/planner.h"
#include "csrc/common/reduce.h"
#include "csrc/common/types.h"
#include "csrc/transport/exchange.h"
#include "csrc/transport/group_state.h"

namespace trainyard::collective {

// One call of one collective, as the algorithms see it.
struct Operation {
  Descriptor descriptor; // must be equal on all ranks
  Reduction reduction;
  Wait& wait;
  Traffic traffic; // to other hosts; summed up by the algorithms

  // A composed operation numbers its parts and the slices in them, so that
  // ranks that differ in how far they are notice it.
  Operation part(uint8_t step, uint64_t bytes, size_t slice = 0) const {
    Operation other = *this;
    other.descriptor.step = uint8_t(step + 4 * slice); // may wrap
    other.descriptor.bytes = bytes;
    other.traffic = Traffic();
    return other;
  }

  // The descriptor of one of the batches of an operation over links.
  Descriptor stage(size_t number) const {
    Descriptor other = descriptor;
    other.step = uint8_t(descriptor.step + number); // may wrap
    return other;
  }
};

// The collectives over some set of ranks, here called members and numbered
// from 0. All members call the same function with equal descriptors; memory is
// the caller's until the function returns. Every function is also a meeting
// point: none returns before all members have called it.
//
// Streams: `in[m]` and `out[m]` are the pieces that go to and come from member
// m; sizes must agree pairwise, or Error(mismatch) is thrown on both sides.
class Collectives {
 public:
  virtual ~Collectives() = default;

  virtual int member() const = 0;
  virtual int members() const = 0;

  // buffer[i] = fold over members of buffer[i]; the same bits everywhere.
  virtual void allreduce(Operation& op, char* buffer, size_t count) = 0;

  // out[m] = in of member m. `in` may be out[member()].
  virtual void allgather(
      Operation& op,
      const Pieces& in,
      const std::vector<Pieces>& out) = 0;

  // out = fold over members of their in[member()]. `out` may be
  // in[member()]. All in[m] on all members have whole elements.
  virtual void reduceScatter(
      Operation& op,
      const std::vector<Pieces>& in,
      const Pieces& out) = 0;

  // data of `root` to everyone.
  virtual void broadcast(Operation& op, int root, const Pieces& data) = 0;

  // out[m] = in[member()] of member m. Gathers and scatters are all-to-alls
  // in which most streams are empty.
  virtual void alltoall(
      Operation& op,
      const std::vector<Pieces>& in,
      const std::vector<Pieces>& out) = 0;

  virtual void barrier(Operation& op) = 0;

  // Measures what the planner wants to know of these members. `op` sums floats.
  virtual void measure(Operation& op, Findings& findings) = 0;
};

// Seconds of the fastest of some calls: a busy machine disturbs single ones.
template <typename Fn>
double bestOf(int tries, Fn fn) {
  double best = 0;
  for (int i = 0; i < tries; i++) {
    const auto start = std::chrono::steady_clock::now();
    fn();
    const double seconds = std::chrono::duration<double>(
                               std::chrono::steady_clock::now() - start)
                               .count();
    best = i == 0 ? seconds : std::min(best, seconds);
  }
  return best;
}

// The even cut of `count` elements over `parts`: part p is
// [cut(p), cut(p + 1)).
inline size_t cut(size_t count, size_t parts, size_t p) {
  return count / parts * p + std::min(p, count % parts);
}

// The cut of a vector of `count` elements into slices: as even as possible, but
// so that every slice (but the last) can be cut evenly over `ranks` in whole
// cache lines. Slice k is [sliceBegin(k), sliceBegin(k + 1)).
inline size_t sliceBegin(
    size_t count,
    size_t elementSize,
    size_t ranks,
    size_t slices,
    size_t k) {
  const size_t unit = ranks * (64 / elementSize);
  return k == slices ? count : cut(count / unit, slices, k) * unit;
}

// Copies one stream into another of the same size.
inline void copyPieces(const Pieces& from, const Pieces& to) {
  size_t offset = 0;
  for (const auto& piece : from) {
    size_t at = 0;
    forRange(to, offset, piece.size, [&](char* data, size_t part) {
      if (data != piece.data + at) {
        memmove(data, piece.data + at, part);
      }
      at += part;
    });
    offset += piece.size;
  }
}

// Slice k of the even cut of a stream of elements.
inline Pieces sliceOf(
    const Pieces& pieces,
    size_t elementSize,
    size_t slices,
    size_t k) {
  const size_t count = totalSize(pieces) / elementSize;
  const size_t begin = cut(count, slices, k) * elementSize;
  const size_t end = cut(count, slices, k + 1) * elementSize;
  Pieces slice;
  forRange(pieces, begin, end - begin, [&](char* data, size_t length) {
    slice.push_back({data, length});
  });
  return slice;
}

inline std::vector<Pieces> slicesOf(
    const std::vector<Pieces>& streams,
    size_t elementSize,
    size_t slices,
    size_t k) {
  std::vector<Pieces> parts;
  for (const auto& pieces : streams) {
    parts.push_back(sliceOf(pieces, elementSize, slices, k));
  }
  return parts;
}

} // namespace trainyard::collective
