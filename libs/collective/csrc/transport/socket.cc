#include "csrc/transport/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <thread>

namespace trainyard::collective {

namespace {

FileDescriptor makeSocket(int family) {
  FileDescriptor fd(
      ::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) {
    throw Error(
        ErrorKind::transport,
        std::string("Cannot create a socket: ") + strerror(errno) +
            "; raise the limit of open files (ulimit -n)");
  }
  return fd;
}

void disableNagle(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

socklen_t unixAddress(const std::string& name, sockaddr_un* address) {
  memset(address, 0, sizeof *address);
  address->sun_family = AF_UNIX;
  memcpy(address->sun_path + 1, name.data(), name.size());
  return socklen_t(offsetof(sockaddr_un, sun_path) + 1 + name.size());
}

// Waits in slices; the group's failure counts only when the socket has
// nothing to offer, so that data sent before a failure is still read.
void block(int fd, short events, int peer, Wait& wait) {
  pollfd entry = {fd, events, 0};
  if (poll(&entry, 1, Wait::kSliceMs) == 0) {
    wait.check([&] { return "no progress with " + wait.state().nameOf(peer); });
  }
}

} // namespace

FileDescriptor listenTcp(uint16_t* port) {
  FileDescriptor fd(
      ::socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_storage storage = {};
  socklen_t size;
  if (fd) {
    const int off = 0;
    setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    auto* any = reinterpret_cast<sockaddr_in6*>(&storage);
    any->sin6_family = AF_INET6;
    any->sin6_addr = in6addr_any;
    size = sizeof *any;
  }
  if (!fd || bind(fd.get(), reinterpret_cast<sockaddr*>(&storage), size) != 0) {
    fd = makeSocket(AF_INET);
    storage = {};
    auto* any = reinterpret_cast<sockaddr_in*>(&storage);
    any->sin_family = AF_INET;
    any->sin_addr.s_addr = INADDR_ANY;
    size = sizeof *any;
    if (bind(fd.get(), reinterpret_cast<sockaddr*>(&storage), size) != 0) {
      throw Error(
          ErrorKind::transport,
          std::string("Cannot bind a TCP port: ") + strerror(errno));
    }
  }
  size = sizeof storage;
  getsockname(fd.get(), reinterpret_cast<sockaddr*>(&storage), &size);
  *port = ntohs(
      storage.ss_family == AF_INET6
          ? reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port
          : reinterpret_cast<sockaddr_in*>(&storage)->sin_port);
  if (listen(fd.get(), 1024) != 0) {
    throw Error(
        ErrorKind::transport,
        std::string("Cannot listen on a TCP port: ") + strerror(errno));
  }
  return fd;
}

FileDescriptor listenUnix(const std::string& name) {
  FileDescriptor fd = makeSocket(AF_UNIX);
  sockaddr_un address;
  const socklen_t size = unixAddress(name, &address);
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      listen(fd.get(), 1024) != 0) {
    throw Error(
        ErrorKind::transport,
        std::string("Cannot listen on a Unix socket: ") + strerror(errno));
  }
  return fd;
}

FileDescriptor connectTcp(
    const std::string& address,
    uint16_t port,
    Milliseconds limit) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (getaddrinfo(
          address.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) {
    return FileDescriptor();
  }
  FileDescriptor fd = makeSocket(found->ai_family);
  const int result = connect(fd.get(), found->ai_addr, found->ai_addrlen);
  freeaddrinfo(found);
  if (result != 0) {
    if (errno != EINPROGRESS) {
      return FileDescriptor();
    }
    pollfd entry = {fd.get(), POLLOUT, 0};
    int error = 0;
    socklen_t size = sizeof error;
    if (poll(&entry, 1, int(limit.count())) != 1 ||
        getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0 ||
        error != 0) {
      return FileDescriptor();
    }
  }
  disableNagle(fd.get());
  return fd;
}

FileDescriptor connectUnix(const std::string& name) {
  FileDescriptor fd = makeSocket(AF_UNIX);
  sockaddr_un address;
  const socklen_t size = unixAddress(name, &address);
  // EAGAIN means a full backlog: the listener lives and will catch up.
  for (int attempt = 0; attempt < 500; attempt++) {
    if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), size) == 0) {
      return fd;
    }
    if (errno != EAGAIN) {
      return FileDescriptor();
    }
    std::this_thread::sleep_for(Milliseconds(10));
  }
  return FileDescriptor();
}

FileDescriptor acceptFrom(int listener) {
  FileDescriptor fd(
      accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (fd) {
    disableNagle(fd.get());
  }
  return fd;
}

void throwPeerLost(int peer, Wait& wait, const std::string& detail) {
  wait.raiseCauseOfLoss(peer);
  wait.state().fail(
      ErrorKind::peerLost,
      wait.state().nameOf(peer) + " was lost during " + wait.operation() +
          " on group " + wait.state().group() + " (" + detail + ")");
  wait.state().check();
  throw Error(ErrorKind::peerLost, detail);
}

void sendAll(int fd, const void* data, size_t size, int peer, Wait& wait) {
  auto* at = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t n = ::send(fd, at, size, MSG_NOSIGNAL);
    if (n > 0) {
      at += n;
      size -= size_t(n);
    } else if (errno == EAGAIN || errno == EINTR) {
      block(fd, POLLOUT, peer, wait);
    } else {
      throwPeerLost(peer, wait, strerror(errno));
    }
  }
}

void recvAll(int fd, void* data, size_t size, int peer, Wait& wait) {
  auto* at = static_cast<char*>(data);
  while (size > 0) {
    const ssize_t n = ::recv(fd, at, size, 0);
    if (n > 0) {
      at += n;
      size -= size_t(n);
    } else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
      block(fd, POLLIN, peer, wait);
    } else {
      throwPeerLost(peer, wait, n == 0 ? "connection closed" : strerror(errno));
    }
  }
}

void sendDescriptors(
    int fd,
    const std::vector<int>& fds,
    int peer,
    Wait& wait) {
  char byte = 1;
  iovec part = {&byte, 1};
  std::vector<char> control(CMSG_SPACE(fds.size() * sizeof(int)));
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
  memcpy(CMSG_DATA(header), fds.data(), fds.size() * sizeof(int));
  while (sendmsg(fd, &message, MSG_NOSIGNAL) != 1) {
    if (errno != EAGAIN && errno != EINTR) {
      throwPeerLost(peer, wait, strerror(errno));
    }
    block(fd, POLLOUT, peer, wait);
  }
}

std::vector<FileDescriptor>
recvDescriptors(int fd, size_t count, int peer, Wait& wait) {
  char byte = 0;
  iovec part = {&byte, 1};
  std::vector<char> control(CMSG_SPACE(count * sizeof(int)));
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t n;
  while ((n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC)) != 1) {
    if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
      throwPeerLost(peer, wait, n == 0 ? "connection closed" : strerror(errno));
    }
    block(fd, POLLIN, peer, wait);
  }
  std::vector<FileDescriptor> received;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) {
      continue;
    }
    const size_t n = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < n; i++) {
      int passed;
      memcpy(&passed, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
      received.emplace_back(passed);
    }
  }
  if (received.size() != count) {
    throw Error(
        ErrorKind::transport,
        "Expected " + std::to_string(count) + " descriptors from " +
            wait.state().nameOf(peer) + " but got " +
            std::to_string(received.size()) +
            "; raise the limit of open files (ulimit -n)");
  }
  return received;
}

void awaitReady(int fd, short events) {
  pollfd entry = {fd, events, 0};
  poll(&entry, 1, Wait::kSliceMs);
}

void probeForVanishedHost(int fd) {
  const int on = 1, idle = 1, interval = 1, count = 3, lostMs = 4000;
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &lostMs, sizeof lostMs);
}

std::vector<std::string> localAddresses() {
  const char* chosen = nullptr;
  for (const char* name :
       {"TRAINYARD_COLLECTIVE_INTERFACE", "GLOO_SOCKET_IFNAME"}) {
    if (chosen == nullptr && getenv(name) != nullptr && *getenv(name) != 0) {
      chosen = getenv(name);
    }
  }
  std::vector<std::string> addresses;
  std::vector<std::string> loopback;
  ifaddrs* list = nullptr;
  getifaddrs(&list);
  for (ifaddrs* it = list; it != nullptr; it = it->ifa_next) {
    if (it->ifa_addr == nullptr || !(it->ifa_flags & IFF_UP) ||
        (chosen != nullptr && strcmp(chosen, it->ifa_name) != 0)) {
      continue;
    }
    char text[INET6_ADDRSTRLEN] = {};
    if (it->ifa_addr->sa_family == AF_INET) {
      inet_ntop(
          AF_INET, &reinterpret_cast<sockaddr_in*>(it->ifa_addr)->sin_addr,
          text, sizeof text);
    } else if (it->ifa_addr->sa_family == AF_INET6) {
      const auto* v6 = reinterpret_cast<sockaddr_in6*>(it->ifa_addr);
      if (IN6_IS_ADDR_LINKLOCAL(&v6->sin6_addr)) {
        continue; // meaningless without this host's interface number
      }
      inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text);
    } else {
      continue;
    }
    auto& to = (it->ifa_flags & IFF_LOOPBACK) ? loopback : addresses;
    // IPv4 first: where both exist it is the one that firewalls know.
    const bool v4 = it->ifa_addr->sa_family == AF_INET;
    to.insert(v4 ? to.begin() : to.end(), text);
  }
  freeifaddrs(list);
  addresses.insert(addresses.end(), loopback.begin(), loopback.end());
  if (addresses.empty()) {
    throw Error(
        ErrorKind::transport,
        std::string("No network address found") +
            (chosen ? std::string(" on interface ") + chosen +
                     "; correct TRAINYARD_COLLECTIVE_INTERFACE"
                    : "; bring up a network interface (loopback is enough on "
                      "one host)"));
  }
  return addresses;
}

} // namespace trainyard::collective
