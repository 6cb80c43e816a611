#pragma once

#include <cstdint>
#include <vector>

#include "csrc/common/types.h"
#include "csrc/transport/group.h"

namespace trainyard::collective {

// Bytes that this rank has sent to others; tests compare them with the lower
// bounds of the algorithms.
struct Traffic {
  uint64_t payloadBytes = 0;
  uint64_t messages = 0;
};

// A set of messages to and from other ranks over their links, carried out
// together.
//
// Sends are served in the order they were added, at most `sendWindow` peers
// at a time: with many peers a rank then does not flood all of them at once.
// Receives are always served, so that no cycle of waiting ranks can arise. A
// message is one header, which the receiver compares with what it expects, and
// its bytes, cut evenly over the link's connections.
class Exchange {
 public:
  Exchange(Group& group, const Descriptor& descriptor, Wait& wait)
      : group_(group), descriptor_(descriptor), wait_(wait) {}

  void send(int rank, const Pieces& data);
  void recv(int rank, const Pieces& data);

  // Carries out everything added. Throws Error(mismatch) when a peer is in
  // another operation or has another size.
  void run();

  const Traffic& traffic() const {
    return traffic_;
  }

 private:
  struct Header {
    Descriptor descriptor;
    uint64_t size;
  };

  // One message's share of one connection.
  struct Flow {
    int fd;
    int rank;
    bool sending;
    bool hasHeader;
    Header header;
    size_t size; // of the whole message
    size_t headerDone = 0;
    Pieces data; // what is still to be moved
    size_t next = 0; // first unfinished piece
  };

  void add(int rank, const Pieces& data, bool sending);
  // Moves what can be moved; returns true when the flow is finished.
  bool progress(Flow& flow);
  static void advance(Flow& flow, size_t moved);
  void verify(const Flow& flow);

  Group& group_;
  const Descriptor descriptor_;
  Wait& wait_;
  std::vector<Flow> sends_;
  std::vector<Flow> recvs_;
  Traffic traffic_;
};

} // namespace trainyard::collective
