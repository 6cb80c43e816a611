#pragma once

#include <string>
#include <vector>

#include "csrc/algorithms/collectives.h"
#include "csrc/algorithms/planner.h"
#include "csrc/transport/group.h"

namespace trainyard::collective {

// Collectives over links, every member with every member ("direct"): no data
// wait for a third rank, and each rank sends exactly the lower bound.
//
//   n members, S bytes      steps   bytes sent by each
//   allreduce, large        2       2 (n − 1)/n · S
//   allreduce, small        1       (n − 1) · S
//   allgather               1       (n − 1)/n · S   (S: the whole output)
//   reduceScatter           1       (n − 1)/n · S   (S: the whole input)
//   broadcast, large        2       the root S, the others (n − 2)/(n − 1) · S
//   broadcast, small        1       the root (n − 1) · S
//   alltoall                1       what is for others
//
// Members are given as ranks of the group; they need not share anything but
// links. Sends go out in rotated order: in step k member m serves m + k, so
// that no member is served by all others at once.
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

 private:
  char* scratch(size_t bytes);
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

  Group& group_;
  Planner& planner_;
  const std::vector<int> ranks_;
  int member_ = 0;
  std::vector<char> scratch_; // grows to what the largest call needed
};

} // namespace trainyard::collective
