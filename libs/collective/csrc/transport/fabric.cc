#include "csrc/transport/fabric.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "csrc/transport/socket.h"

namespace trainyard::collective {

namespace {

constexpr uint64_t kMagic = 0x5459474f4f440001; // protocol version in the end
constexpr auto kGreetingLimit = Milliseconds(10000);
constexpr auto kProbeEvery = Milliseconds(500);

struct Offer {
  uint64_t magic;
  uint8_t nonce[16];
};

struct Hello {
  uint64_t magic;
  uint8_t group[32];
  uint8_t nonce[16];
  int32_t rank;
  int32_t stripe;
  Purpose purpose;
  uint8_t reserved[7];
  uint8_t proof[32];
};

std::string randomBytes(size_t size) {
  std::string bytes(size, '\0');
  if (getrandom(bytes.data(), size, 0) != ssize_t(size)) {
    throw Error(ErrorKind::transport, "getrandom failed");
  }
  return bytes;
}

std::string hex(const std::string& bytes) {
  static const char digits[] = "0123456789abcdef";
  std::string text;
  for (unsigned char byte : bytes) {
    text.push_back(digits[byte >> 4]);
    text.push_back(digits[byte & 15]);
  }
  return text;
}

Digest proveCaller(const std::string& key, const Offer& offer, Hello hello) {
  memset(hello.proof, 0, sizeof hello.proof);
  return hmacSha256(
      key,
      "caller" +
          std::string(reinterpret_cast<const char*>(offer.nonce), 16) +
          std::string(reinterpret_cast<const char*>(&hello), sizeof hello));
}

Digest
proveListener(const std::string& key, const Offer& offer, const Hello& hello) {
  return hmacSha256(
      key,
      "listener" +
          std::string(reinterpret_cast<const char*>(hello.nonce), 16) +
          std::string(reinterpret_cast<const char*>(offer.nonce), 16));
}

std::string groupKey(const std::string& group) {
  const Digest digest = sha256(group);
  return std::string(digest.begin(), digest.end());
}

std::string defaultHostId() {
  std::string id;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> id;
  return id;
}

} // namespace

std::string Address::encode() const {
  std::ostringstream out;
  out << process << '\n' << host << '\n' << hostId << '\n' << unixName << '\n'
      << token << '\n' << port << '\n' << pid << '\n';
  for (const auto& address : addresses) {
    out << address << '\n';
  }
  return out.str();
}

Address Address::decode(const std::string& text) {
  std::istringstream in(text);
  Address address;
  std::string line;
  std::getline(in, address.process);
  std::getline(in, address.host);
  std::getline(in, address.hostId);
  std::getline(in, address.unixName);
  std::getline(in, address.token);
  std::getline(in, line);
  address.port = atoi(line.c_str());
  std::getline(in, line);
  address.pid = atoi(line.c_str());
  while (std::getline(in, line)) {
    address.addresses.push_back(line);
  }
  if (address.port == 0 || address.addresses.empty()) {
    throw Error(
        ErrorKind::transport,
        "The store holds an address that this version cannot read; install "
        "the same wheel on every rank");
  }
  return address;
}

struct Fabric::Greeting {
  FileDescriptor fd;
  Offer offer;
  Hello hello;
  size_t received = 0;
  Deadline deadline{kGreetingLimit};
};

std::shared_ptr<Fabric> Fabric::instance() {
  static std::mutex mutex;
  static std::weak_ptr<Fabric> current;
  std::lock_guard<std::mutex> lock(mutex);
  auto fabric = current.lock();
  if (!fabric) {
    fabric = std::shared_ptr<Fabric>(new Fabric());
    current = fabric;
  }
  return fabric;
}

Fabric::Fabric() {
  address_.process = hex(randomBytes(16));
  address_.token = hex(randomBytes(16));
  address_.unixName = "trainyard-collective-" + address_.process;
  address_.pid = getpid();
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  address_.host = name;
  address_.hostId = defaultHostId();
  if (const char* id = getenv("TRAINYARD_COLLECTIVE_HOST_ID")) {
    address_.hostId = id;
    address_.host = id;
  }
  if (const char* secret = getenv("TRAINYARD_COLLECTIVE_SECRET")) {
    secret_ = secret;
  }
  address_.addresses = localAddresses();
  uint16_t port = 0;
  tcp_ = listenTcp(&port);
  unix_ = listenUnix(address_.unixName);
  address_.port = port;
  epoll_ = FileDescriptor(epoll_create1(EPOLL_CLOEXEC));
  wake_ = FileDescriptor(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  for (int fd : {tcp_.get(), unix_.get(), wake_.get()}) {
    epoll_event event = {};
    event.events = EPOLLIN;
    event.data.fd = fd;
    epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
  }
  // Signals are for the program's own threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Fabric::~Fabric() {
  if (forkedChild()) {
    thread_.detach();
    return;
  }
  stop_ = true;
  const uint64_t one = 1;
  (void)!write(wake_.get(), &one, sizeof one);
  thread_.join();
}

std::string Fabric::keyFor(const std::string& token) const {
  return secret_ + "/" + token;
}

FileDescriptor Fabric::connect(
    const Address& peer,
    int peerRank,
    bool overUnix,
    Purpose purpose,
    const std::string& group,
    int rank,
    int stripe,
    Wait& wait) {
  std::string tried;
  auto shake = [&](int fd) -> bool {
    auto receive = [&](void* data, size_t size) {
      auto* at = static_cast<char*>(data);
      Deadline limit{kGreetingLimit};
      while (size > 0) {
        const ssize_t n = ::recv(fd, at, size, 0);
        if (n > 0) {
          at += n;
          size -= size_t(n);
        } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
          return false;
        } else {
          awaitReady(fd, POLLIN);
          wait.check(
              [&] { return "no greeting from " + wait.state().nameOf(peerRank); });
          if (limit.passed()) {
            return false;
          }
        }
      }
      return true;
    };
    Offer offer;
    if (!receive(&offer, sizeof offer) || offer.magic != kMagic) {
      return false;
    }
    Hello hello = {};
    hello.magic = kMagic;
    memcpy(hello.group, groupKey(group).data(), 32);
    memcpy(hello.nonce, randomBytes(16).data(), 16);
    hello.rank = rank;
    hello.stripe = stripe;
    hello.purpose = purpose;
    const std::string key = keyFor(peer.token);
    const Digest proof = proveCaller(key, offer, hello);
    memcpy(hello.proof, proof.data(), 32);
    if (::send(fd, &hello, sizeof hello, MSG_NOSIGNAL) !=
        ssize_t(sizeof hello)) {
      return false;
    }
    Digest answer;
    return receive(answer.data(), answer.size()) &&
        equalDigests(answer, proveListener(key, offer, hello));
  };

  if (overUnix) {
    FileDescriptor fd = connectUnix(peer.unixName);
    return fd && shake(fd.get()) ? std::move(fd) : FileDescriptor();
  }
  for (const auto& address : peer.addresses) {
    FileDescriptor fd =
        connectTcp(address, uint16_t(peer.port), Milliseconds(3000));
    if (fd && shake(fd.get())) {
      return fd;
    }
    tried += (tried.empty() ? "" : ", ") + address + ":" +
        std::to_string(peer.port) + (fd ? " (refused our proof)" : "");
    wait.check([&] { return "cannot reach " + wait.state().nameOf(peerRank); });
  }
  throwPeerLost(
      peerRank, wait,
      "cannot be reached at " + tried +
          "; the process has ended, or a firewall is between, or "
          "TRAINYARD_COLLECTIVE_SECRET differs");
}

FileDescriptor Fabric::await(
    const Address& peer,
    Purpose purpose,
    const std::string& group,
    int rank,
    int stripe,
    Wait& wait) {
  const Key key(groupKey(group), purpose, rank, stripe);
  auto nextProbe = Clock::now() + kProbeEvery;
  while (true) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      arrived_.wait_for(lock, Milliseconds(Wait::kSliceMs), [&] {
        return arrivals_.count(key) > 0;
      });
      auto it = arrivals_.find(key);
      if (it != arrivals_.end()) {
        FileDescriptor fd = std::move(it->second);
        arrivals_.erase(it);
        return fd;
      }
    }
    wait.check([&] {
      return wait.state().nameOf(rank) + " has not connected";
    });
    // A process that has ended will never call; its listener is gone.
    if (Clock::now() >= nextProbe) {
      nextProbe = Clock::now() + kProbeEvery;
      bool alive = bool(connectUnix(peer.unixName));
      for (const auto& address : peer.addresses) {
        alive = alive ||
            bool(connectTcp(address, uint16_t(peer.port), Milliseconds(3000)));
      }
      if (!alive) {
        throwPeerLost(rank, wait, "the process has ended");
      }
    }
  }
}

void Fabric::acceptMail(const std::string& group, MailFn fn) {
  const std::string id = groupKey(group);
  std::vector<std::pair<int, FileDescriptor>> waiting;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    mail_[id] = fn;
    for (auto it = arrivals_.begin(); it != arrivals_.end();) {
      if (std::get<0>(it->first) == id &&
          std::get<1>(it->first) == Purpose::mail) {
        waiting.emplace_back(std::get<2>(it->first), std::move(it->second));
        it = arrivals_.erase(it);
      } else {
        ++it;
      }
    }
  }
  for (auto& [rank, fd] : waiting) {
    fn(rank, std::move(fd));
  }
}

void Fabric::watch(int fd, std::function<bool()> fn) {
  std::lock_guard<std::mutex> lock(watchMutex_);
  watchers_[fd] = std::move(fn);
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.fd = fd;
  epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
}

void Fabric::unwatch(int fd) {
  std::lock_guard<std::mutex> lock(watchMutex_);
  if (watchers_.erase(fd) > 0) {
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  }
}

void Fabric::forget(const std::string& group) {
  const std::string id = groupKey(group);
  std::lock_guard<std::mutex> lock(mutex_);
  mail_.erase(id);
  for (auto it = arrivals_.begin(); it != arrivals_.end();) {
    it = std::get<0>(it->first) == id ? arrivals_.erase(it) : std::next(it);
  }
}

void Fabric::greet(int listener) {
  while (FileDescriptor fd = acceptFrom(listener)) {
    auto greeting = std::make_unique<Greeting>();
    greeting->offer.magic = kMagic;
    memcpy(greeting->offer.nonce, randomBytes(16).data(), 16);
    if (::send(fd.get(), &greeting->offer, sizeof(Offer), MSG_NOSIGNAL) !=
        ssize_t(sizeof(Offer))) {
      continue;
    }
    epoll_event event = {};
    event.events = EPOLLIN;
    event.data.fd = fd.get();
    epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd.get(), &event);
    const int number = fd.get();
    greeting->fd = std::move(fd);
    greetings_[number] = std::move(greeting);
  }
}

// Returns false when the greeting is over, one way or the other.
bool Fabric::hear(Greeting& greeting) {
  const ssize_t n = ::recv(
      greeting.fd.get(),
      reinterpret_cast<char*>(&greeting.hello) + greeting.received,
      sizeof(Hello) - greeting.received, 0);
  if (n <= 0) {
    return n < 0 && (errno == EAGAIN || errno == EINTR);
  }
  greeting.received += size_t(n);
  if (greeting.received < sizeof(Hello)) {
    return true;
  }
  const Hello& hello = greeting.hello;
  const std::string key = keyFor(address_.token);
  Digest proof;
  memcpy(proof.data(), hello.proof, 32);
  if (hello.magic != kMagic ||
      !equalDigests(proof, proveCaller(key, greeting.offer, hello))) {
    return false;
  }
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, greeting.fd.get(), nullptr);
  const Digest answer = proveListener(key, greeting.offer, hello);
  if (::send(greeting.fd.get(), answer.data(), answer.size(), MSG_NOSIGNAL) !=
      ssize_t(answer.size())) {
    return false;
  }
  const std::string group(reinterpret_cast<const char*>(hello.group), 32);
  MailFn mail;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    auto it = mail_.find(group);
    if (hello.purpose == Purpose::mail && it != mail_.end()) {
      mail = it->second;
    } else {
      arrivals_[Key(group, hello.purpose, hello.rank, hello.stripe)] =
          std::move(greeting.fd);
    }
  }
  if (mail) {
    mail(hello.rank, std::move(greeting.fd));
  } else {
    arrived_.notify_all();
  }
  return false;
}

void Fabric::run() {
  pthread_setname_np(pthread_self(), "trainyard-door");
  epoll_event events[64];
  while (!stop_) {
    const int n = epoll_wait(
        epoll_.get(), events, 64, greetings_.empty() ? 1000 : 200);
    for (int i = 0; i < n && !stop_; i++) {
      const int fd = events[i].data.fd;
      if (fd == tcp_.get() || fd == unix_.get()) {
        greet(fd);
        continue;
      }
      auto greeting = greetings_.find(fd);
      if (greeting != greetings_.end()) {
        if (!hear(*greeting->second)) {
          greetings_.erase(greeting);
        }
        continue;
      }
      std::lock_guard<std::mutex> lock(watchMutex_);
      auto watcher = watchers_.find(fd);
      if (watcher != watchers_.end() && !watcher->second()) {
        epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
        watchers_.erase(watcher);
      }
    }
    for (auto it = greetings_.begin(); it != greetings_.end();) {
      it = it->second->deadline.passed() ? greetings_.erase(it) : std::next(it);
    }
  }
}

} // namespace trainyard::collective
