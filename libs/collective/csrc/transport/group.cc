#include "csrc/transport/group.h"

#include <pthread.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <cstdlib>
#include <cstring>
#include <thread>

#include "csrc/transport/settings.h"
#include "csrc/transport/socket.h"

namespace trainyard::collective {

namespace {

std::vector<std::string> initialNames(const std::vector<int>& globalRanks) {
  std::vector<std::string> names;
  for (size_t rank = 0; rank < globalRanks.size(); rank++) {
    names.push_back("rank " + std::to_string(globalRanks[rank]));
  }
  return names;
}

// What the leader of a host sends to each member, followed by the memory's
// descriptors.
struct Invitation {
  uint8_t nonce[16];
  uint64_t slotBytes;
  uint64_t arenaBytes[64];
};

} // namespace

bool Topology::even() const {
  for (const auto& host : hosts) {
    if (host.size() != hosts[0].size()) {
      return false;
    }
  }
  return true;
}

Group::Group(
    std::unique_ptr<Directory> directory,
    std::string name,
    int rank,
    int size,
    std::vector<int> globalRanks,
    Milliseconds connectLimit)
    : fabric_(Fabric::instance()),
      directory_(std::move(directory)),
      name_(std::move(name)),
      rank_(rank),
      size_(size),
      state_(name_, initialNames(globalRanks)),
      arena_(Arena::instance()),
      sharesHost_(size, false),
      links_(size) {
  // A store may outlive a group and hold the keys of one with the same name
  // that was destroyed: each life of a rank has a number.
  life_ = std::to_string(
      directory_->add("life/" + std::to_string(rank_), 1));
  directory_->set(
      "address/" + life_ + "/" + std::to_string(rank_),
      fabric_->address().encode());
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  connector_ = std::thread([this, connectLimit] {
    pthread_setname_np(pthread_self(), "trainyard-join");
    Wait wait(state_, connectLimit, "the ranks to meet");
    try {
      connect(wait);
    } catch (const Error& error) {
      state_.fail(error.kind(), error.what());
    } catch (const std::exception& error) {
      state_.fail(ErrorKind::transport, error.what());
    }
    connectedCv_.notify_all();
  });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Group::~Group() {
  close(false);
}

std::string Group::read(const std::string& key, int rank, Wait& wait) {
  auto pause = std::chrono::microseconds(200);
  while (!directory_->has(key)) {
    {
      std::lock_guard<std::mutex> lock(connectMutex_);
      waitingFor_ = "waiting for " + state_.nameOf(rank);
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, std::chrono::microseconds(20000));
    wait.check([&] {
      return state_.nameOf(rank) + " has not joined the group (no " + key +
          " in the store)";
    });
  }
  return directory_->get(key);
}

void Group::connect(Wait& wait) {
  readAddresses(wait);
  findHosts(wait);
  shareMemory(wait);
  control_ = std::make_unique<ControlLinks>(
      fabric_, state_, id_, rank_, addresses_, sharesHost_, wait);
  state_.setOnSever([this] { sever(); });
  std::lock_guard<std::mutex> lock(connectMutex_);
  connected_.store(true, std::memory_order_release);
}

// After a failure: whoever waits for this rank shall not wait on, even if the
// hub is no longer there to pass the reason on.
void Group::sever() {
  if (segment_) {
    segment_->leave();
  }
  std::lock_guard<std::mutex> lock(linksMutex_);
  severed_ = true;
  for (auto& link : links_) {
    for (int fd : link.numbers) {
      ::shutdown(fd, SHUT_RDWR);
    }
  }
}

void Group::awaitConnected(Wait& wait) {
  if (connected_.load(std::memory_order_acquire)) {
    return;
  }
  std::unique_lock<std::mutex> lock(connectMutex_);
  while (!connected_.load(std::memory_order_relaxed)) {
    connectedCv_.wait_for(lock, Milliseconds(Wait::kSliceMs));
    if (!connected_) {
      wait.check([&] { return "not all ranks have joined; " + waitingFor_; });
    }
  }
}

void Group::readAddresses(Wait& wait) {
  for (int rank = 0; rank < size_; rank++) {
    addresses_.push_back(Address::decode(
        read("address/" + life_ + "/" + std::to_string(rank), rank, wait)));
    const Address& address = addresses_.back();
    state_.setName(
        rank, state_.nameOf(rank) + " (host " + address.host + ", pid " +
            std::to_string(address.pid) + ")");
  }
  id_ = name_ + "/" + life_ + "/" + addresses_[0].process;
}

// Ranks share memory where a Unix socket of one can be reached by the other,
// which is tried, not inferred: containers share boot ids, and abstract
// sockets end at the network namespace. The lowest rank that a rank can reach
// leads its host; everyone publishes its leader, so that all see the same map.
void Group::findHosts(Wait& wait) {
  int leader = rank_;
  for (int rank = 0; rank < rank_; rank++) {
    if (addresses_[rank].hostId != addresses_[rank_].hostId) {
      continue;
    }
    FileDescriptor fd = fabric_->connect(
        addresses_[rank], rank, true, Purpose::host, id_, rank_, 0, wait);
    if (fd) {
      leader = rank;
      toLeader_.push_back(std::move(fd));
      break;
    }
  }
  const std::string prefix = "leader/" + life_ + "/";
  directory_->set(prefix + std::to_string(rank_), std::to_string(leader));
  std::vector<int> hostOf(size_, -1);
  for (int rank = 0; rank < size_; rank++) {
    const int lead =
        atoi(read(prefix + std::to_string(rank), rank, wait).c_str());
    if (lead == rank) {
      hostOf[rank] = int(topology_.hosts.size());
      topology_.hosts.emplace_back();
    }
    if (lead < 0 || lead > rank || hostOf[lead] < 0) {
      throw Error(
          ErrorKind::transport,
          state_.nameOf(rank) + " shares memory with " + state_.nameOf(lead) +
              ", which shares memory with a third rank that it cannot reach; "
              "set TRAINYARD_COLLECTIVE_HOST_ID per container");
    }
    hostOf[rank] = hostOf[lead];
    if (rank == rank_) {
      topology_.host = hostOf[rank];
      topology_.seat = int(topology_.hosts[hostOf[rank]].size());
    }
    topology_.hosts[hostOf[rank]].push_back(rank);
  }
  for (int rank : topology_.hosts[topology_.host]) {
    sharesHost_[rank] = true;
  }
}

void Group::shareMemory(Wait& wait) {
  const auto& members = topology_.hosts[topology_.host];
  const int seats = int(members.size());
  peerArenas_.resize(members.size());
  if (seats == 1) {
    return;
  }
  Invitation invitation = {};
  if (members.size() > 64) {
    throw Error(
        ErrorKind::transport,
        "A host has " + std::to_string(seats) +
            " ranks of group " + name_ +
            "; at most 64 can share memory: set TRAINYARD_COLLECTIVE_HOST_ID "
            "to split them into several emulated hosts");
  }
  std::vector<FileDescriptor> memory; // segment, then the arena of each seat
  std::vector<int> numbers;
  if (topology_.seat == 0) {
    if (getrandom(invitation.nonce, 16, 0) != 16) {
      throw Error(ErrorKind::transport, "getrandom failed");
    }
    invitation.slotBytes = settings().slotBytes;
    memory.push_back(
        SharedSegment::create(seats, invitation.slotBytes, invitation.nonce));
    numbers.push_back(memory[0].get());
    std::vector<FileDescriptor> callers(members.size());
    for (int seat = 0; seat < seats; seat++) {
      if (seat == 0) {
        invitation.arenaBytes[0] = arena_->capacity();
        numbers.push_back(arena_->fd() >= 0 ? arena_->fd() : numbers[0]);
        continue;
      }
      const int rank = members[seat];
      callers[seat] = fabric_->await(
          addresses_[rank], Purpose::host, id_, rank, 0, wait);
      recvAll(callers[seat].get(), &invitation.arenaBytes[seat], 8, rank, wait);
      memory.push_back(std::move(
          recvDescriptors(callers[seat].get(), 1, rank, wait).front()));
      numbers.push_back(memory.back().get());
    }
    for (int seat = 1; seat < seats; seat++) {
      sendAll(
          callers[seat].get(), &invitation, sizeof invitation, members[seat],
          wait);
      sendDescriptors(callers[seat].get(), numbers, members[seat], wait);
    }
    // Each member confirms that it has taken everything.
    for (int seat = 1; seat < seats; seat++) {
      char done;
      recvAll(callers[seat].get(), &done, 1, members[seat], wait);
    }
  } else {
    const int leader = members[0];
    const int fd = toLeader_[0].get();
    const uint64_t capacity = arena_->capacity();
    sendAll(fd, &capacity, 8, leader, wait);
    // Without an arena anything may be sent: its capacity of 0 says so.
    sendDescriptors(fd, {arena_->fd() >= 0 ? arena_->fd() : 0}, leader, wait);
    recvAll(fd, &invitation, sizeof invitation, leader, wait);
    memory = recvDescriptors(fd, size_t(seats) + 1, leader, wait);
    for (auto& descriptor : memory) {
      numbers.push_back(descriptor.get());
    }
    const char done = 1;
    sendAll(fd, &done, 1, leader, wait);
  }
  segment_ = std::make_unique<SharedSegment>(
      numbers[0], topology_.seat, members, invitation.slotBytes,
      invitation.nonce);
  for (int seat = 0; seat < seats; seat++) {
    if (seat != topology_.seat) {
      peerArenas_[seat] = std::make_unique<PeerArena>(
          numbers[1 + seat], invitation.arenaBytes[seat]);
    }
  }
  toLeader_.clear();
}

const std::vector<int>& Group::link(int rank, Wait& wait) {
  Link& link = links_[rank];
  if (link.fds.empty()) {
    // Only the thread that carries operations out changes links.
    const int stripes = sharesHost_[rank] ? 1 : settings().linkStripes;
    for (int stripe = 0; stripe < stripes; stripe++) {
      // The higher rank calls, the lower one answers.
      FileDescriptor fd = rank_ > rank
          ? fabric_->connect(
                addresses_[rank], rank, sharesHost_[rank], Purpose::link, id_,
                rank_, stripe, wait)
          : fabric_->await(
                addresses_[rank], Purpose::link, id_, rank, stripe, wait);
      if (!fd) {
        throwPeerLost(rank, wait, "its Unix socket is gone");
      }
      std::lock_guard<std::mutex> lock(linksMutex_);
      if (severed_) {
        ::shutdown(fd.get(), SHUT_RDWR);
      }
      link.numbers.push_back(fd.get());
      link.fds.push_back(std::move(fd));
    }
  }
  return link.numbers;
}

FileDescriptor Group::openMail(int rank, Wait& wait) {
  FileDescriptor fd = fabric_->connect(
      addresses_[rank], rank, sharesHost_[rank], Purpose::mail, id_, rank_, 0,
      wait);
  if (!fd) {
    throwPeerLost(rank, wait, "its Unix socket is gone");
  }
  return fd;
}

std::string Group::processes() const {
  std::string text;
  for (const auto& address : addresses_) {
    text += address.process + " ";
  }
  return text;
}

void Group::acceptMail(Fabric::MailFn fn) {
  fabric_->acceptMail(id_, std::move(fn));
}

void Group::close(bool orderly) {
  if (!fabric_) {
    return;
  }
  if (forkedChild()) {
    // Threads do not exist here and locks may be held for ever.
    if (connector_.joinable()) {
      connector_.detach();
    }
    (void)control_.release();
    fabric_.reset();
    return;
  }
  if (connector_.joinable()) {
    if (!connected_) {
      state_.fail(
          ErrorKind::aborted,
          "Group " + name_ + " was destroyed before its ranks had met", false);
    }
    connector_.join();
  }
  if (segment_) {
    segment_->leave();
  }
  if (control_ && orderly) {
    control_->leave();
  }
  control_.reset();
  state_.setOnSever(nullptr);
  fabric_->forget(id_);
  links_.clear();
  links_.resize(size_t(size_));
  segment_.reset();
  peerArenas_.clear();
  fabric_.reset();
}

} // namespace trainyard::collective
