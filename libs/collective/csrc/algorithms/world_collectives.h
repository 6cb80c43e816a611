#pragma once

#include <memory>

#include "csrc/algorithms/collectives.h"
#include "csrc/algorithms/host_collectives.h"
#include "csrc/algorithms/link_collectives.h"

namespace trainyard::collective {

// Collectives over all ranks of a group on several hosts with equally many
// ranks each, composed of collectives inside the host and collectives on
// *rails*: rail g joins the ranks with seat g of all hosts.
//
// Notation: M hosts × G seats, S bytes. Every byte crosses the network once
// per host that needs it, spread over all rails.
//
//   AllReduce      host reduceScatter, rail allreduce of S/G, host allgather.
//                  A host sends 2 (M − 1)/M · S, the lower bound.
//                  Small: host allreduce, then rail allreduce of everything.
//   AllGather      rail allgather of the own shard, host allgather of M shards.
//                  A host sends (M − 1)/M · S: bound.
//   ReduceScatter  the reverse: host reduceScatter of M shards, rail
//                  reduceScatter. Bound.
//   Broadcast      host broadcast at the root's host; each rail carries S/G
//                  to the other hosts, which gather them. The root's host
//                  sends S to each other host in parts.
//   AllToAll       inside the host through memory, between hosts by links.
//
// The fold order is fixed by seats and hosts, so all ranks get the same bits.
class HierarchicalCollectives : public Collectives {
 public:
  HierarchicalCollectives(Group& group, Planner& planner);

  int member() const override {
    return group_.rank();
  }
  int members() const override {
    return group_.size();
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
  size_t hosts() const {
    return group_.topology().hosts.size();
  }
  size_t seats() const {
    return size_t(group_.topology().localSize());
  }
  size_t seat() const {
    return size_t(group_.topology().seat);
  }
  size_t rankAt(size_t host, size_t seat) const {
    return size_t(group_.topology().hosts[host][seat]);
  }
  // Runs a part of the operation and adds up its traffic.
  template <typename Fn>
  void run(Operation& op, Operation part, Fn fn) {
    fn(part);
    op.traffic.payloadBytes += part.traffic.payloadBytes;
    op.traffic.messages += part.traffic.messages;
  }

  std::vector<Pieces> bySeat(const std::vector<Pieces>& ofRanks) const;

  Group& group_;
  Planner& planner_;
  std::unique_ptr<HostCollectives> host_; // null with one seat per host
  std::unique_ptr<LinkCollectives> rail_;
  std::vector<std::vector<char>> scratch_; // of slices on their way
};

// The collectives that fit the group's topology.
std::unique_ptr<Collectives> makeCollectives(Group& group, Planner& planner);

// Operations of less do without findings.
constexpr uint64_t kProbeFrom = 64 * 1024;

// Lets the planner choose by what is measured, once for every set of processes
// and in some tens of milliseconds. All ranks call it together before their
// first large operation, `op`, and agree on what they have found.
void probe(
    Group& group,
    Planner& planner,
    Collectives& collectives,
    const Operation& op);

} // namespace trainyard::collective
