#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "csrc/transport/arena.h"
#include "csrc/transport/control_links.h"
#include "csrc/transport/directory.h"
#include "csrc/transport/fabric.h"
#include "csrc/transport/group_state.h"
#include "csrc/transport/shared_segment.h"

namespace trainyard::collective {

// Which ranks share memory. Hosts are ordered by their lowest rank, seats by
// rank.
struct Topology {
  std::vector<std::vector<int>> hosts; // group ranks
  int host = 0; // of this rank
  int seat = 0; // of this rank on its host

  int localSize() const {
    return int(hosts[host].size());
  }
  bool even() const;
};

// One process group's connections: who its members are, the memory it shares
// with those on this host, and links to the others.
//
// A rank announces itself when the group is made and connects on a thread of
// its own: ranks may make their groups in different orders, and some may never
// use one.
class Group {
 public:
  Group(
      std::unique_ptr<Directory> directory,
      std::string name,
      int rank,
      int size,
      std::vector<int> globalRanks,
      Milliseconds connectLimit);
  ~Group();

  // Blocks until all members are connected. Every operation begins with it.
  void awaitConnected(Wait& wait);

  // Says goodbye (if `orderly`) and closes everything. No operation may run.
  void close(bool orderly);

  int rank() const {
    return rank_;
  }
  int size() const {
    return size_;
  }
  GroupState& state() {
    return state_;
  }

  // Valid after awaitConnected.
  const Topology& topology() const {
    return topology_;
  }
  SharedSegment* segment() {
    return segment_.get();
  }
  Arena& arena() {
    return *arena_;
  }
  // Where a block at `offset` of the arena of `seat` is mapped here.
  char* inArena(int seat, int64_t offset) const {
    return peerArenas_[seat]->at(offset);
  }
  bool sharesHost(int rank) const {
    return sharesHost_[rank];
  }
  // In the process namespace of that rank.
  int pidOf(int rank) const {
    return int(addresses_[size_t(rank)].pid);
  }
  // Names the processes of all ranks, for what holds as long as they live.
  std::string processes() const;

  // The connections to `rank` for collectives; made on first use by both.
  // There are `linkStripes` of them to other hosts.
  const std::vector<int>& link(int rank, Wait& wait);

  // Calls `fn` on the fabric's thread when fd is readable, while it returns
  // true.
  void watch(int fd, std::function<bool()> fn) {
    fabric_->watch(fd, std::move(fn));
  }

  // Connections that carry messages one way, from this rank to `rank`; and
  // those that others make to this one.
  FileDescriptor openMail(int rank, Wait& wait);
  void acceptMail(Fabric::MailFn fn);

 private:
  void connect(Wait& wait);
  void readAddresses(Wait& wait);
  void findHosts(Wait& wait);
  void shareMemory(Wait& wait);
  std::string read(const std::string& key, int rank, Wait& wait);
  void sever();

  std::shared_ptr<Fabric> fabric_;
  std::unique_ptr<Directory> directory_;
  const std::string name_;
  std::string id_; // unlike the name, unique over re-creations
  const int rank_;
  const int size_;
  std::string life_;
  GroupState state_;
  std::shared_ptr<Arena> arena_;

  std::thread connector_;
  std::mutex connectMutex_;
  std::condition_variable connectedCv_;
  std::atomic<bool> connected_{false};
  std::string waitingFor_;
  std::vector<Address> addresses_;
  std::vector<FileDescriptor> toLeader_; // this rank's, if it leads none
  std::vector<bool> sharesHost_;
  Topology topology_;
  std::unique_ptr<SharedSegment> segment_;
  std::vector<std::unique_ptr<PeerArena>> peerArenas_; // by seat
  std::unique_ptr<ControlLinks> control_;

  struct Link {
    std::vector<FileDescriptor> fds;
    std::vector<int> numbers;
  };
  std::mutex linksMutex_;
  std::vector<Link> links_; // by rank
  bool severed_ = false;
};

} // namespace trainyard::collective
