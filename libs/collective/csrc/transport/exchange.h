#pragma once

#include <poll.h>

#include <array>
#include <cstdint>
#include <deque>
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

// The messages of one operation to and from other ranks over their links.
//
// Messages come in *batches*, several of which may be on their way at once: a
// batch is posted and finished later, so that links stay busy while this rank
// folds or copies. On one link messages keep the order of their batches, so
// all ranks must begin their batches in the same order.
//
// Sends are served in the order they were added, at most `sendWindow` peers
// at a time: with many peers a rank then does not flood all of them at once.
// Receives are always served, so that no cycle of waiting ranks can arise.
// Data go straight from and to the caller's memory. What a receiver has not
// asked for stops at its window (TCP's credit), and with it the sender, who
// buffers nothing: a slow receiver costs no memory.
//
// A message is one header, which the receiver compares with what it expects,
// and its bytes, cut evenly over the link's connections.
class Exchange {
 public:
  // Until its end the exchange goes on whenever `wait` waits for anything,
  // also for ranks of this host: a rank that stopped reading while it waits
  // could close a cycle of waiting ranks.
  Exchange(Group& group, Wait& wait);
  ~Exchange();
  Exchange(const Exchange&) = delete;

  // Begins a batch, to which the messages added next belong; returns its
  // number. `descriptor` is what the receiver compares.
  size_t begin(const Descriptor& descriptor);
  void send(int rank, const Pieces& data);
  void recv(int rank, const Pieces& data);

  // Moves what can be moved without waiting.
  void progress();

  // Wait until a batch has arrived here, or has also been sent, moving other
  // batches meanwhile. Throw Error(mismatch) when a peer is in another
  // operation or has another size.
  void finishReceives(size_t batch);
  void finish(size_t batch);
  void finishAll();

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
    size_t batch;
    int fd;
    int rank;
    bool sending;
    bool hasHeader;
    Header header;
    size_t size; // of the whole message
    size_t headerDone = 0;
    Pieces data; // what is still to be moved
    size_t next = 0; // first unfinished piece
    bool done = false;
  };

  struct Batch {
    Descriptor descriptor;
    size_t sends = 0; // unfinished
    size_t recvs = 0;
  };

  void add(int rank, const Pieces& data, bool sending);
  void moveAll();
  bool moveIfReady(Flow& flow);
  bool awaitReady(int limitMs);
  // Moves what can be moved; returns true when the flow is finished.
  bool move(Flow& flow);
  static void advance(Flow& flow, size_t moved);
  void verify(const Flow& flow);
  template <typename Done>
  void waitUntil(Done done);

  Group& group_;
  Wait& wait_;
  std::vector<Batch> batches_;
  std::deque<Flow> sends_; // in order; finished ones leave at the front
  std::deque<Flow> recvs_;

  // One direction of one connection.
  struct Direction {
    uint64_t takenIn = 0; // the last pass in which a flow had to wait for it
    bool ready = true; // unless it was tried since it last became so
  };
  std::vector<std::array<Direction, 2>> channels_; // by descriptor
  uint64_t pass_ = 0;
  std::vector<pollfd> waiting_;
  Traffic traffic_;
};

} // namespace trainyard::collective
