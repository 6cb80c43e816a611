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

// Sizes at which staging and reading are compared: each stands for a band of
// sizes around it, the first from 64 KiB, the last up to 32 MiB.
constexpr size_t kBands = 3;
constexpr size_t kBandBytes[kBands] = {256 << 10, 2 << 20, 8 << 20};
constexpr size_t kBandEnds[kBands] = {724 << 10, 6 << 20, 32 << 20};
// And for what: AllGather (also for ReduceScatter), AllReduce, Broadcast.
constexpr size_t kReadKinds = 3;

// What moving one byte took a rank lately, in seconds; 0 where not tried.
struct Paces {
  double staged = 0;
  double oneCopy = 0;
};

// What a short probe has measured, in seconds; the slowest rank's, so that all
// ranks have the same. Only doubles: ranks agree by an AllReduce of the whole.
struct Findings {
  double meeting = 0; // of all ranks of a host
  double readable = 1; // 0 if ranks may read each other's memory
  double staged[kReadKinds][kBands] = {}; // of kBandBytes
  double oneCopy[kReadKinds][kBands] = {};
  double linkLatency = 0; // of a barrier over links
  double linkSecondsPerByte = 0; // of one rank's link while all are busy
  double linkDirect = 0; // an AllGather, everyone with everyone
  double linkRing = 0; // the same in a ring; 0 for two members
};

// Chooses schedules from a table of sizes and the topology, refined by what a
// probe, and for large operations those before, have found. The choice must be
// the same on all ranks, so it depends on what all ranks know alike only: not on
// time, load or what this rank alone has seen.
//
// TRAINYARD_COLLECTIVE_PLAN overrides entries of the table, for measurements:
// "oneshot=65536,flat=0"; what it names is not refined. With
// TRAINYARD_COLLECTIVE_LOG=plan rank 0 writes the findings and every rank each
// new choice to standard error, once per operation and power of two of its size.
class Planner {
 public:
  explicit Planner(int rank) : rank_(rank) {}

  // Largest operation that goes over the desk, in bytes per member.
  size_t oneShotBytes() const {
    return oneShot_;
  }
  // Whether ranks of a host read each other's ordinary memory for an operation
  // of so many bytes.
  bool readsPeers(OpKind op, size_t bytes) const;
  // Whether an operation of so many bytes is itself the measurement of that,
  // being too large for a probe. Ranks then tell each other their paces at
  // every arrival: from the slowest rank's follows the way of the next such
  // operation, on all ranks alike.
  bool tries(size_t bytes) const {
    return bytes > kBandEnds[kBands - 1] && readable_ && !readsFixed_;
  }
  const Paces& paces(OpKind op) const {
    return trials_[size_t(op)].paces;
  }
  void settle(OpKind op, const Paces& slowest);
  void took(OpKind op, bool reading, double secondsPerByte);
  // Largest AllReduce between hosts in which everyone sends everything.
  size_t railOneShotBytes() const {
    return railOneShot_.value;
  }
  // Largest AllReduce that is first reduced whole inside the host.
  size_t smallHierarchyBytes() const {
    return smallHierarchy_.value;
  }
  // In how many slices an operation of `bytes` goes over links.
  size_t slices(size_t bytes, size_t ranks) const;
  // Whether `members` joined by links form a ring. Of reductions the table
  // alone decides: a ring folds in another order, and the same job shall give
  // the same bits in every run.
  bool ring(OpKind op, size_t members) const {
    return members > 2 &&
        members >= (op == OpKind::allgather ? moversRingFrom_ : ringFrom_).value;
  }

  WorldSchedule world(const Topology& topology) const;

  // False if the environment forbids the probe.
  bool probes() const {
    return probes_;
  }
  void refine(const Findings& findings, const Topology& topology);
  void setProbing(bool probing) { // nothing is logged then
    probing_ = probing;
  }
  // While the probe compares schedules.
  void setReads(bool reads);
  void setRing(bool ring);

  void readOverrides(const std::string& text);
  void log(const char* where, OpKind op, size_t bytes, const char* choice,
           const std::string& reason);

 private:
  struct Entry {
    size_t value;
    bool fixed = false; // by the environment
    void refine(size_t found) {
      value = fixed ? value : found;
    }
  };

  const int rank_;
  // Measured on one host with 2 cores (benchmarks/collectives): beyond these
  // sizes the copy through the desk costs more than the meetings it saves.
  size_t oneShot_ = 32 * 1024;
  Entry railOneShot_{16 * 1024};
  Entry smallHierarchy_{32 * 1024};
  Entry slice_{512 * 1024}; // the smallest that is cut
  // Where the direct schedules' many flows are too many.
  Entry ringFrom_{33};
  Entry moversRingFrom_{33};
  bool probing_ = false;
  bool reads_[kReadKinds][kBands] = {};
  bool readable_ = false;
  struct Trial {
    Paces paces; // of this rank
    uint32_t settled = 0;
    bool reads = false;
  };
  Trial trials_[size_t(OpKind::barrier) + 1];
  bool readsFixed_ = false;
  bool probes_ = true;
  bool forceFlat_ = false;

  std::mutex mutex_;
  std::map<std::tuple<std::string, int, int, std::string>, bool> logged_;
};

} // namespace trainyard::collective
