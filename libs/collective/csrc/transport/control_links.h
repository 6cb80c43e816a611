#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "csrc/transport/fabric.h"

namespace trainyard::collective {

// How the ranks of a group learn of each other's end and failures.
//
// Rank 0 is the hub: every other rank keeps one connection to it, which
// carries nothing while all is well. A process that ends, however it ends,
// closes it: the hub tells everyone who ended, and if the hub itself ends
// everyone sees that. A rank whose operation fails (time-out, mismatch, abort)
// sends the reason to the hub, which passes it on, so that all ranks raise the
// same cause. A rank that leaves in order says goodbye first.
class ControlLinks {
 public:
  // Connects; blocks until all ranks have.
  ControlLinks(
      std::shared_ptr<Fabric> fabric,
      GroupState& state,
      const std::string& group,
      int rank,
      const std::vector<Address>& addresses,
      const std::vector<bool>& sharesHost,
      Wait& wait);
  ~ControlLinks();

  // Says goodbye, so that the end of this process is no failure.
  void leave();

 private:
  struct Message;

  void report(ErrorKind kind, const std::string& message);
  void sendTo(int rank, uint32_t type, int about, int kind, const std::string& text);
  bool hear(int rank);

  std::shared_ptr<Fabric> fabric_;
  GroupState& state_;
  const int rank_;
  std::mutex sendMutex_;
  std::map<int, FileDescriptor> fds_; // by rank; fixed after construction
};

} // namespace trainyard::collective
