#pragma once

#include <functional>

#include "csrc/algorithms/collectives.h"
#include "csrc/algorithms/planner.h"
#include "csrc/transport/group.h"

namespace trainyard::collective {

// Collectives among the ranks of one host, through shared memory. Members are
// seats.
//
// Every operation begins with an *arrival*: each member lays its descriptor on
// its desk and posts; all wait for all and compare. What happens next depends
// on the size and on where the tensors live, and all members decide alike,
// because they decide from what lies on the desks:
//
//   one-shot  the data fit on the desk: they arrived with the descriptor.
//             Everyone reads everyone's desk. One meeting in all.
//   direct    the tensors live in the members' arenas: everyone works straight
//             in them, nothing is staged. Two meetings.
//   one-copy  ordinary memory which the members may read of each other
//             (process_vm_readv; tried at the start, never assumed), and a size
//             for which that is faster than staging: as direct, but by reading.
//   staged    the data stream through the ring of slots, one block per step.
//             Between two meetings every member does the work of one step.
//
// A slot may be written again when all have read it. At an arrival everything
// but the last chunk of the operation before is known to be read (its last
// meeting came before its last copy), and three slots in turn keep a new first
// chunk clear of it. So the first chunk may be laid out before the arrival.
class HostCollectives : public Collectives {
 public:
  HostCollectives(Group& group, Planner& planner);

  int member() const override {
    return segment_.seat();
  }
  int members() const override {
    return segment_.seats();
  }

  void allreduce(Operation& op, char* buffer, size_t count) override;
  void allgather(
      Operation& op,
      const Pieces& in,
      const std::vector<Pieces>& out) override;
  void reduceScatter(
      Operation& op,
      const std::vector<Pieces>& in,
      const Pieces& out) override;
  void broadcast(Operation& op, int root, const Pieces& data) override;
  void alltoall(
      Operation& op,
      const std::vector<Pieces>& in,
      const std::vector<Pieces>& out) override;
  void barrier(Operation& op) override;

  void measure(Operation& op, Findings& findings) override;

 private:
  // What lies on a desk, before the data of a one-shot operation.
  struct Arrival {
    Descriptor descriptor;
    int64_t arenaOffset; // of the member's input, or −1
    uint64_t address; // of the member's input, where others may read it
    uint8_t laidOut; // the first chunk is in its slot already
    uint8_t onDesk; // the data follow
    Paces paces; // of the member, for this kind of operation
    uint64_t sizes[64]; // all-to-all: bytes for each member
  };
  static constexpr size_t kDataOffset = 1024;
  static constexpr size_t kDeskData = SharedSegment::kDeskBytes - kDataOffset;

  Arrival& myArrival();
  const Arrival& arrivalOf(int seat) const;
  char* deskData(int seat) const;
  void begin(Operation& op);
  void arrive(Operation& op);
  // The same for an operation whose way may depend on how long the ones before
  // took, and its end.
  void arriveTimed(Operation& op, size_t bytes);
  void endTimed(const Operation& op, size_t bytes, bool reading);
  void meet(Operation& op);
  void verify(Operation& op, int seat);
  bool allInArenas() const;
  bool allReadable() const;
  // Publishes where the own input lies: in the arena or, if the planner wants
  // others to read it there, anywhere. False if it must go through slots.
  bool offer(OpKind op, size_t bytes, const Pieces& input);
  // Reads what lies at `offset` of another member's input.
  void read(Operation& op, int seat, size_t offset, const Pieces& to);
  int64_t arenaOffsetOf(const Pieces& pieces) const;

  // The members' streams flow through the slots; `write(slot, chunk)` fills
  // the own one, `read(chunk)` uses the others'.
  void stream(
      Operation& op,
      size_t chunks,
      bool laidOut,
      const std::function<void(char*, size_t)>& write,
      const std::function<void(size_t)>& read);

  void layOut(Operation& op, const char* buffer, size_t count, size_t k);
  void reduceDirect(Operation& op, char* buffer, size_t count);
  bool readable(Operation& op);
  void reduceByReading(Operation& op, char* buffer, size_t count);
  void reduceStaged(Operation& op, char* buffer, size_t count);

  Group& group_;
  SharedSegment& segment_;
  Planner& planner_;
  uint64_t turn_ = 0; // operations begun
  Clock::time_point arrivedAt_; // all, at the operation that is timed
  uint64_t chunk_ = 0; // chunks passed through each ring
  std::vector<char> bounce_; // for what is read and folded at once
};

} // namespace trainyard::collective
