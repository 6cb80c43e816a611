#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace trainyard::collective {

// What the environment says, read once when the first group is made. The table
// in README.md documents the variables; all ranks must agree on them.
struct Settings {
  size_t slotBytes; // TRAINYARD_COLLECTIVE_SLOT_BYTES
  int linkStripes; // TRAINYARD_COLLECTIVE_CONNECTIONS
  int sendWindow; // TRAINYARD_COLLECTIVE_SEND_WINDOW, peers served at once
  size_t sliceBytes; // TRAINYARD_COLLECTIVE_SLICE_BYTES
  int64_t closeLimitMs; // TRAINYARD_COLLECTIVE_CLOSE_SECONDS
  bool logPlans; // TRAINYARD_COLLECTIVE_LOG contains "plan"
  std::string plan; // TRAINYARD_COLLECTIVE_PLAN, overrides of the table
};

const Settings& settings();

} // namespace trainyard::collective
