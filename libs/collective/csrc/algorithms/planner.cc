#include "csrc/algorithms/planner.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <sstream>

#include "csrc/common/error.h"
#include "csrc/transport/settings.h"

namespace trainyard::collective {

namespace {

// How often the slower way is tried again: seldom enough to cost nothing, often
// enough to notice that other work, or a hypervisor that moves cores from one
// cache to another, has changed which it is.
constexpr uint32_t kRetry = 32;
// Staging is left for what is clearly faster only, not for noise.
constexpr double kClearly = 0.8;

} // namespace

WorldSchedule Planner::world(const Topology& topology) const {
  if (topology.hosts.size() == 1) {
    return WorldSchedule::host;
  }
  return topology.even() && !forceFlat_ ? WorldSchedule::hierarchical
                                        : WorldSchedule::flat;
}

size_t Planner::slices(size_t bytes, size_t ranks) const {
  // A slice's share for one rank should fill a few packets at least.
  const size_t smallest = std::max(slice_.value, ranks * (64 << 10));
  size_t slice = slice_.fixed ? slice_.value : std::max(bytes / 8, smallest);
  slice = std::min(slice, settings().sliceBytes);
  return std::max((bytes + slice - 1) / slice, size_t(1));
}

bool Planner::readsPeers(OpKind op, size_t bytes) const {
  if (bytes < 64 << 10) {
    return false;
  }
  for (size_t band = 0; band < kBands; band++) {
    if (bytes <= kBandEnds[band]) {
      const size_t kind = op == OpKind::allreduce ? 1
          : op == OpKind::broadcast               ? 2
                                                  : 0;
      return reads_[kind][band];
    }
  }
  return readsFixed_ ? reads_[0][0]
                     : readable_ && trials_[size_t(op)].reads;
}

void Planner::settle(OpKind op, const Paces& slowest) {
  Trial& trial = trials_[size_t(op)];
  if (slowest.staged == 0 || slowest.oneCopy == 0) {
    trial.reads = slowest.staged > 0;
    return;
  }
  const bool faster = slowest.oneCopy < kClearly * slowest.staged;
  trial.reads = ++trial.settled % kRetry == 0 ? !faster : faster;
}

// Gains count at once, losses by a quarter: a single slow call, such as the
// first one into fresh memory, shall not decide for long.
void Planner::took(OpKind op, bool reading, double secondsPerByte) {
  Paces& paces = trials_[size_t(op)].paces;
  double& pace = reading ? paces.oneCopy : paces.staged;
  pace = pace == 0 ? secondsPerByte
                   : std::min(secondsPerByte, (3 * pace + secondsPerByte) / 4);
}

void Planner::setReads(bool reads) {
  if (readsFixed_) {
    return;
  }
  for (auto& row : reads_) {
    std::fill(std::begin(row), std::end(row), reads);
  }
}

void Planner::setRing(bool ring) {
  moversRingFrom_.refine(ring ? 3 : SIZE_MAX);
}

// The sizes follow from the time of a schedule as steps × latency + bytes × the
// inverse rate (α and β): two schedules are equally fast where the steps that
// one saves cost as much as the bytes that it sends more.
void Planner::refine(const Findings& found, const Topology& topology) {
  const double members = double(topology.hosts.size());
  // Of the largest host: every rank must come to the same sizes, also where
  // hosts have different numbers of ranks.
  double seats = 1;
  for (const auto& host : topology.hosts) {
    seats = std::max(seats, double(host.size()));
  }
  auto within = [](double value, double low, double high) {
    return size_t(std::min(std::max(value, low), high));
  };
  readable_ = found.readable == 0;
  for (size_t kind = 0; kind < kReadKinds && !readsFixed_; kind++) {
    for (size_t band = 0; band < kBands; band++) {
      reads_[kind][band] = found.readable == 0 &&
          found.oneCopy[kind][band] < kClearly * found.staged[kind][band];
    }
  }
  if (topology.hosts.size() > 1 && found.linkSecondsPerByte > 0) {
    // Bytes that a link carries during one latency.
    const double pipe = found.linkLatency / found.linkSecondsPerByte;
    // One step instead of two, (n − 1) S instead of 2 (n − 1)/n S.
    const double more = (members - 1) * (members - 2) / members;
    railOneShot_.refine(
        within(more > 0 ? pipe / more : 65536, 4096, 65536));
    // One step less between hosts, but every rail carries all.
    smallHierarchy_.refine(
        within(seats > 1 ? pipe / (seats - 1) : 32768, 4096, 131072));
    // A slice should take much longer than the latency between its stages.
    slice_.refine(
        within(4 * pipe * members * seats, 512 << 10, 16 << 20));
    moversRingFrom_.refine(
        found.linkRing > 0 && found.linkRing < 0.7 * found.linkDirect ? 3 : 33);
  }
  if (settings().logPlans && rank_ == 0) {
    std::string reads;
    for (size_t kind = 0; kind < kReadKinds; kind++) {
      reads += kind == 0 ? "" : " |";
      for (size_t band = 0; band < kBands; band++) {
        reads += reads_[kind][band] ? " one-copy" : " staged";
      }
    }
    fprintf(
        stderr,
        "trainyard_collective: measured: meeting %.1f us; peers' memory %s; "
        "moving | reducing | broadcasting 256 KiB, 2 MiB, 8 MiB:%s; links %.1f us, "
        "%.0f MB/s per rank%s; all-to-all up to %zu bytes, whole hierarchy up "
        "to %zu, slices from %zu\n",
        found.meeting * 1e6, found.readable == 0 ? "readable" : "closed",
        reads.c_str(), found.linkLatency * 1e6,
        found.linkSecondsPerByte > 0 ? 1e-6 / found.linkSecondsPerByte : 0,
        ring(OpKind::allgather, size_t(members)) ? ", gathers in a ring" : "", railOneShot_.value,
        smallHierarchy_.value, slice_.value);
  }
}

void Planner::readOverrides(const std::string& text) {
  std::istringstream in(text);
  std::string entry;
  while (std::getline(in, entry, ',')) {
    const size_t equals = entry.find('=');
    const std::string name = entry.substr(0, equals);
    const size_t value = equals == std::string::npos
        ? 0
        : strtoull(entry.c_str() + equals + 1, nullptr, 10);
    if (name == "oneshot") {
      oneShot_ = std::min(value, size_t(64) * 1024); // a desk holds no more
    } else if (name == "railoneshot") {
      railOneShot_ = {value, true};
    } else if (name == "smallhierarchy") {
      smallHierarchy_ = {value, true};
    } else if (name == "slice") {
      slice_ = {std::max(value, size_t(1)), true};
    } else if (name == "ring") {
      ringFrom_ = moversRingFrom_ = {value, true};
    } else if (name == "reads") {
      setReads(value != 0);
      readsFixed_ = true;
    } else if (name == "probe") {
      probes_ = value != 0;
    } else if (name == "flat") {
      forceFlat_ = value != 0;
    } else {
      throw Error(
          ErrorKind::invalid,
          "TRAINYARD_COLLECTIVE_PLAN has \"" + entry +
              "\" but knows only oneshot=BYTES, railoneshot=BYTES, "
              "smallhierarchy=BYTES, slice=BYTES, ring=MEMBERS, reads=0|1, "
              "probe=0|1 and flat=0|1");
    }
  }
}

void Planner::log(
    const char* where,
    OpKind op,
    size_t bytes,
    const char* choice,
    const std::string& reason) {
  if (!settings().logPlans || probing_) {
    return;
  }
  int power = 0;
  while ((size_t(1) << power) < bytes) {
    power++;
  }
  std::lock_guard<std::mutex> lock(mutex_);
  if (logged_.emplace(std::make_tuple(where, int(op), power, choice), true)
          .second) {
    fprintf(
        stderr, "trainyard_collective: rank %d %s %s of %zu bytes: %s (%s)\n",
        rank_, where, toString(op), bytes, choice, reason.c_str());
  }
}

} // namespace trainyard::collective
