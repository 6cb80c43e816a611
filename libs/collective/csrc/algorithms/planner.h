#pragma once

#include <map>
#include <mutex>
#include <string>
#include <tuple>

#include "csrc/common/types.h"
#include "csrc/transport/group.h"

namespace trainyard::collective {

// Which schedule an operation takes. Inside a host:
enum class HostSchedule { oneShot, direct, staged };

// Between hosts, and over all ranks:
enum class WorldSchedule {
  host, // all ranks share memory
  hierarchical, // reduce or gather inside the host, one rail per seat between
  flat, // every rank with every rank, where hosts have unequal ranks
};

// Chooses schedules from a table of sizes and the topology. The choice must be
// the same on all ranks, so it depends on nothing else: not on time, load or
// what this rank alone has seen.
//
// TRAINYARD_COLLECTIVE_PLAN overrides entries of the table, for measurements:
// "oneshot=65536,flat=0". TRAINYARD_COLLECTIVE_LOG=plan writes every new choice
// to standard error, once per operation and power of two of its size.
class Planner {
 public:
  explicit Planner(int rank) : rank_(rank) {}

  // Largest operation that goes over the desk, in bytes per member.
  size_t oneShotBytes() const {
    return oneShot_;
  }
  // Largest AllReduce between hosts in which everyone sends everything.
  size_t railOneShotBytes() const {
    return railOneShot_;
  }
  // Largest AllReduce that is first reduced whole inside the host.
  size_t smallHierarchyBytes() const {
    return smallHierarchy_;
  }

  // In how many slices an operation of `bytes` goes over links.
  size_t slices(size_t bytes, size_t ranks) const;
  // Whether `members` joined by links form a ring.
  bool ring(size_t members) const {
    return members >= ringFrom_;
  }

  WorldSchedule world(const Topology& topology) const;

  void readOverrides(const std::string& text);
  void log(const char* where, OpKind op, size_t bytes, const char* choice,
           const std::string& reason);

 private:
  const int rank_;
  // Measured on one host with 2 cores (benchmarks/collectives): beyond these
  // sizes the copy through the desk costs more than the meetings it saves.
  size_t oneShot_ = 32 * 1024;
  size_t railOneShot_ = 16 * 1024;
  size_t smallHierarchy_ = 32 * 1024;
  size_t ringFrom_ = 33;
  size_t slice_ = 0;
  bool forceFlat_ = false;

  std::mutex mutex_;
  std::map<std::tuple<std::string, int, int, std::string>, bool> logged_;
};

} // namespace trainyard::collective
