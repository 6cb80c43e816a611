#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "csrc/common/types.h"
#include "csrc/transport/group.h"

namespace trainyard::collective {

// Point to point messages of one group.
//
// Messages from one rank to another travel in order over one connection that
// the sender makes. A receive takes the first message of its source (or of any
// source) with its tag. A message that nobody has asked for yet stays in the
// connection, which stops its sender after a while; only when a receive waits
// for a later message of the same connection is the earlier one copied aside.
//
// One thread, started with the first message, moves everything: sends and
// receives progress together and never block each other.
class Mailbox {
 public:
  // Called on the mailbox's thread, with no error or with one.
  using Done = std::function<void(std::exception_ptr, int source)>;
  static constexpr int kAnySource = -1;

  explicit Mailbox(Group& group) : group_(group) {}
  ~Mailbox();

  // Both return at once. The memory belongs to the mailbox until `done`.
  void send(int rank, int64_t tag, Piece data, DataType type, Wait wait, Done done);
  void recv(int rank, int64_t tag, Piece data, DataType type, Wait wait, Done done);

  // Waits until all is delivered or the limit is over, then stops.
  void close(Milliseconds limit);

 private:
  struct Envelope {
    int64_t tag;
    uint64_t size;
    DataType type;
    uint8_t reserved[7];
  };
  struct Request {
    int rank;
    int64_t tag;
    Piece data;
    DataType type;
    Wait wait;
    Done done;
  };
  struct Outgoing {
    FileDescriptor fd;
    std::deque<Request> queue;
    size_t moved = 0; // of the first request, its envelope included
  };
  struct Letter {
    Envelope envelope;
    std::vector<char> data;
  };
  struct Incoming {
    FileDescriptor fd;
    Envelope envelope;
    size_t envelopeDone = 0;
    size_t dataDone = 0;
    bool matched = false;
    std::list<Request>::iterator request; // if matched
    bool aside = false; // being copied into `letter`
    std::vector<char> letter;
    std::deque<Letter> letters; // copied aside, complete
    std::string broken; // why nothing more will come
  };

  void start();
  void run();
  void openConnections(std::unique_lock<std::mutex>& lock);
  bool progressSend(int rank, Outgoing& out);
  bool progressRecv(int rank, Incoming& in);
  bool takeLetters(std::list<Request>::iterator request);
  bool matches(const Request& request, int rank, int64_t tag) const;
  void checkSize(const Request& request, const Envelope& envelope, int rank);
  void failAll(std::exception_ptr error);
  void checkWaits();

  Group& group_;
  std::mutex mutex_;
  std::condition_variable idle_;
  std::map<int, Outgoing> outgoing_;
  std::map<int, Incoming> incoming_;
  std::list<Request> requests_;
  FileDescriptor wake_;
  std::thread thread_;
  bool started_ = false;
  bool joined_ = false;
  bool stop_ = false;
};

} // namespace trainyard::collective
