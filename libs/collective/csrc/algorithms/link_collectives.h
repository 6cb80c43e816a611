#pragma once

#include <functional>
#include <string>
#include <vector>

#include "csrc/algorithms/collectives.h"
#include "csrc/algorithms/planner.h"
#include "csrc/transport/group.h"

namespace trainyard::collective {

// Collectives over links.
//
//   n members, S bytes        steps      bytes sent by each
//   allreduce, small          1          (n − 1) · S
//   allreduce, direct         2          2 (n − 1)/n · S
//   allreduce, ring           2 (n − 1)  2 (n − 1)/n · S
//   allgather, direct         1          (n − 1)/n · S   (S: the whole output)
//   allgather, ring           n − 1      (n − 1)/n · S
//   reduceScatter, direct     1          (n − 1)/n · S   (S: the whole input)
//   reduceScatter, ring       n − 1      (n − 1)/n · S
//   broadcast, small          1          the root (n − 1) · S
//   broadcast, chain          n − 1      S, the last of the chain nothing
//   alltoall                  1          what is for others
//
// Direct: every member with every member, so that no data wait for a third
// rank. Sends go out in rotated order: in step k member m serves m + k, so
// that no member is served by all others at once. Ring: every member sends to
// the next one only, for many members or networks in which many senders to one
// receiver hinder each other.
//
// Long data go in *slices*, some of which are always on their way while others
// are folded or, in a composed operation, handled inside the host: the links
// do not pause. `Produce` and `Consume` are what a composed operation does with
// a slice before and after it travels. All members call them in the same order.
//
// Members are given as ranks of the group; they need not share anything but
// links.
class LinkCollectives : public Collectives {
 public:
  LinkCollectives(Group& group, Planner& planner, std::vector<int> ranks);

  int member() const override {
    return member_;
  }
  int members() const override {
    return int(ranks_.size());
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

  using Consume = std::function<void(size_t slice)>;

  // `produce(k)` returns the memory of slice k, in which the sum will be when
  // `consume(k)` is called.
  using ProduceVector = std::function<Piece(size_t slice)>;
  void allreduceSlices(
      Operation& op,
      size_t slices,
      const ProduceVector& produce,
      const Consume& consume);

  // `in(k)` is this member's part of slice k, `out(k)` where the members'
  // parts go (the own one is not touched).
  using PiecesOf = std::function<Pieces(size_t slice)>;
  using StreamsOf = std::function<std::vector<Pieces>(size_t slice)>;
  void allgatherSlices(
      Operation& op,
      size_t slices,
      const PiecesOf& in,
      const StreamsOf& out,
      const Consume& consume);

  // `produce(k)` returns the members' parts of slice k, which must stay until
  // inFlight() slices later; `out(k)` is where the own part's sum goes.
  void reduceScatterSlices(
      Operation& op,
      size_t slices,
      const StreamsOf& produce,
      const PiecesOf& out);

  // `produce(k)` returns the memory of slice k, filled at the root.
  void broadcastSlices(
      Operation& op,
      int root,
      size_t slices,
      const PiecesOf& produce,
      const Consume& consume);

  // A slice goes from one stage to the next when this many younger ones have
  // entered the stage before.
  static constexpr size_t kAhead = 1;
  // Slices between the first stage and the last.
  size_t inFlight() const {
    return std::max(size_t(3), ranks_.size()) * kAhead + 1;
  }

 private:
  char* scratch(size_t use, size_t bytes);
  size_t before(size_t steps) const { // the member `steps` before this one
    const size_t n = ranks_.size();
    return (size_t(member_) + 2 * n - steps) % n;
  }
  bool usesRing(const Operation& op) const;
  void log(const Operation& op, size_t slices);
  size_t post(
      Exchange& exchange,
      const Descriptor& descriptor,
      const std::vector<Pieces>& in,
      const std::vector<Pieces>& out);
  size_t postRing(
      Exchange& exchange,
      const Descriptor& descriptor,
      const Pieces& in,
      const Pieces& out);
  void finish(Operation& op, Exchange& exchange);
  void exchange(
      Operation& op,
      const std::vector<Pieces>& in,
      const std::vector<Pieces>& out);
  void fold(
      Operation& op,
      const Pieces& mine,
      const char* others,
      size_t bytes,
      const Pieces& out);
  void foldRing(
      Operation& op,
      char* sum,
      const Pieces& own,
      bool last,
      const Pieces& out);
  std::vector<Pieces> partsOf(const Piece& whole, size_t elementSize) const;
  void allreduceDirect(
      Operation& op,
      size_t slices,
      const ProduceVector& produce,
      const Consume& consume);
  void allreduceRing(
      Operation& op,
      size_t slices,
      const ProduceVector& produce,
      const Consume& consume);

  Group& group_;
  Planner& planner_;
  const std::vector<int> ranks_;
  int member_ = 0;
  std::vector<std::vector<char>> scratch_; // grow to what was needed
};

} // namespace trainyard::collective
