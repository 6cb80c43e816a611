#include "csrc/transport/control_links.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "csrc/transport/socket.h"

namespace trainyard::collective {

namespace {

constexpr int kHub = 0;
constexpr size_t kMaxText = 3072;

enum : uint32_t { kFailure = 1, kGoodbye = 2 };

} // namespace

struct ControlLinks::Message {
  uint32_t type;
  int32_t about; // the rank that failed or leaves
  int32_t kind;
  uint32_t size;
  char text[kMaxText];
};

ControlLinks::ControlLinks(
    std::shared_ptr<Fabric> fabric,
    GroupState& state,
    const std::string& group,
    int rank,
    const std::vector<Address>& addresses,
    const std::vector<bool>& sharesHost,
    Wait& wait)
    : fabric_(std::move(fabric)), state_(state), rank_(rank) {
  if (rank == kHub) {
    for (int peer = 1; peer < int(addresses.size()); peer++) {
      fds_[peer] = fabric_->await(
          addresses[peer], Purpose::control, group, peer, 0, wait);
    }
  } else {
    fds_[kHub] = fabric_->connect(
        addresses[kHub], kHub, sharesHost[kHub], Purpose::control, group, rank,
        0, wait);
    if (!fds_[kHub]) {
      throwPeerLost(kHub, wait, "its Unix socket is gone");
    }
  }
  for (auto& [peer, fd] : fds_) {
    probeForVanishedHost(fd.get());
    fabric_->watch(fd.get(), [this, peer = peer] { return hear(peer); });
  }
  state_.setOnFailure([this](ErrorKind kind, const std::string& message) {
    report(kind, message);
  });
}

ControlLinks::~ControlLinks() {
  state_.setOnFailure(nullptr);
  for (auto& [peer, fd] : fds_) {
    fabric_->unwatch(fd.get());
  }
}

void ControlLinks::leave() {
  for (auto& [peer, fd] : fds_) {
    sendTo(peer, kGoodbye, rank_, 0, "");
  }
}

void ControlLinks::report(ErrorKind kind, const std::string& message) {
  for (auto& [peer, fd] : fds_) {
    sendTo(peer, kFailure, rank_, int(kind), message);
  }
}

void ControlLinks::sendTo(
    int rank,
    uint32_t type,
    int about,
    int kind,
    const std::string& text) {
  Message message;
  message.type = type;
  message.about = about;
  message.kind = kind;
  message.size = uint32_t(std::min(text.size(), kMaxText));
  memcpy(message.text, text.data(), message.size);
  // A few hundred bytes on an idle connection always fit; if the other side is
  // gone there is nobody to tell.
  std::lock_guard<std::mutex> lock(sendMutex_);
  (void)!::send(
      fds_.at(rank).get(), &message, offsetof(Message, text) + message.size,
      MSG_NOSIGNAL | MSG_DONTWAIT);
}

bool ControlLinks::hear(int rank) {
  const int fd = fds_.at(rank).get();
  Message message;
  const size_t head = offsetof(Message, text);
  ssize_t n = ::recv(fd, &message, head, MSG_PEEK | MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
    return true;
  }
  if (n <= 0) {
    if (state_.hasLeft(rank)) {
      return false;
    }
    const std::string text = state_.nameOf(rank) +
        (n == 0 ? " died" : std::string(" was lost: ") + strerror(errno)) +
        " (group " + state_.group() + ")";
    state_.fail(ErrorKind::peerLost, text, rank_ == kHub);
    return false;
  }
  if (size_t(n) < head || message.size > kMaxText) {
    return true;
  }
  const ssize_t whole = ssize_t(head + message.size);
  if (::recv(fd, &message, size_t(whole), MSG_PEEK | MSG_DONTWAIT) < whole) {
    return true; // the rest is on its way
  }
  (void)!::recv(fd, &message, size_t(whole), MSG_DONTWAIT);
  if (message.type == kGoodbye) {
    state_.markLeft(message.about);
    return true;
  }
  const std::string text(message.text, message.size);
  state_.fail(ErrorKind(message.kind), text, false);
  if (rank_ == kHub) {
    for (auto& [peer, other] : fds_) {
      if (peer != rank) {
        sendTo(peer, kFailure, message.about, message.kind, text);
      }
    }
  }
  return true;
}

} // namespace trainyard::collective
