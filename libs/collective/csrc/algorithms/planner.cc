#include "csrc/algorithms/planner.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "csrc/common/error.h"
#include "csrc/transport/settings.h"

namespace trainyard::collective {

WorldSchedule Planner::world(const Topology& topology) const {
  if (topology.hosts.size() == 1) {
    return WorldSchedule::host;
  }
  return topology.even() && !forceFlat_ ? WorldSchedule::hierarchical
                                        : WorldSchedule::flat;
}

size_t Planner::slices(size_t bytes, size_t ranks) const {
  // A slice's share for one rank should fill a few packets at least.
  const size_t smallest = std::max(size_t(512) << 10, ranks * (64 << 10));
  size_t slice = std::max(bytes / 8, smallest);
  if (slice_ > 0) {
    slice = slice_;
  }
  slice = std::min(slice, settings().sliceBytes);
  return std::max((bytes + slice - 1) / slice, size_t(1));
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
      railOneShot_ = value;
    } else if (name == "smallhierarchy") {
      smallHierarchy_ = value;
    } else if (name == "slice") {
      slice_ = value;
    } else if (name == "ring") {
      ringFrom_ = value;
    } else if (name == "flat") {
      forceFlat_ = value != 0;
    } else {
      throw Error(
          ErrorKind::invalid,
          "TRAINYARD_COLLECTIVE_PLAN has \"" + entry +
              "\" but knows only oneshot=BYTES, railoneshot=BYTES, "
              "smallhierarchy=BYTES, slice=BYTES, ring=MEMBERS and flat=0|1");
    }
  }
}

void Planner::log(
    const char* where,
    OpKind op,
    size_t bytes,
    const char* choice,
    const std::string& reason) {
  if (!settings().logPlans) {
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
