#pragma once

#include <sys/epoll.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "csrc/common/sha256.h"
#include "csrc/transport/file_descriptor.h"
#include "csrc/transport/group_state.h"

namespace trainyard::collective {

// Where one process can be reached and how it calls itself; what ranks put
// into the store for each other.
struct Address {
  std::string process; // unique for every process that ever lived
  std::string host; // name for messages
  std::string hostId; // ranks with different ids never try to share memory
  std::string unixName;
  std::vector<std::string> addresses;
  std::string token; // a caller proves that it could read this
  int port = 0;
  int pid = 0;

  std::string encode() const;
  static Address decode(const std::string& text);
};

// What a new connection is for.
enum class Purpose : uint8_t { host, control, link, mail };

// The process's door to other processes: one TCP and one Unix listener, and
// one thread that accepts connections, checks who calls, and watches the
// control links. It lives while any group lives.
//
// Who calls: the listener sends a nonce; the caller answers with its purpose,
// group, rank and an HMAC over both under a key made of the launcher's secret
// (TRAINYARD_COLLECTIVE_SECRET) and the listener's token from the store; the
// listener proves the same to the caller. Whoever fails is dropped.
class Fabric {
 public:
  static std::shared_ptr<Fabric> instance();
  ~Fabric();

  const Address& address() const {
    return address_;
  }

  // Connects to `peer` as `rank` of `group`. Returns an invalid descriptor if
  // `overUnix` and the peer's Unix socket cannot be reached from here; throws
  // Error(peerLost) if it cannot be reached by TCP.
  FileDescriptor connect(
      const Address& peer,
      int peerRank,
      bool overUnix,
      Purpose purpose,
      const std::string& group,
      int rank,
      int stripe,
      Wait& wait);

  // Waits for the connection that `rank` makes for this purpose.
  FileDescriptor await(
      const Address& peer,
      Purpose purpose,
      const std::string& group,
      int rank,
      int stripe,
      Wait& wait);

  // Calls `fn` on the fabric's thread for every mail connection of the group,
  // those that came before included.
  using MailFn = std::function<void(int rank, FileDescriptor)>;
  void acceptMail(const std::string& group, MailFn fn);

  // Calls `fn` on the fabric's thread when fd is readable, until it returns
  // false. After unwatch returned, fn is not running and will not run.
  void watch(int fd, std::function<bool()> fn);
  void unwatch(int fd);

  // Forgets connections of the group that nobody asked for.
  void forget(const std::string& group);

 private:
  struct Greeting;
  using Key = std::tuple<std::string, Purpose, int, int>;

  Fabric();
  void run();
  void greet(int listener);
  bool hear(Greeting& greeting);
  std::string keyFor(const std::string& token) const;

  Address address_;
  std::string secret_;
  FileDescriptor tcp_;
  FileDescriptor unix_;
  FileDescriptor epoll_;
  FileDescriptor wake_;

  std::mutex mutex_; // arrivals and mail
  std::condition_variable arrived_;
  std::map<Key, FileDescriptor> arrivals_;
  std::map<std::string, MailFn> mail_;

  std::mutex watchMutex_; // held while a watcher runs
  std::map<int, std::function<bool()>> watchers_;

  std::map<int, std::unique_ptr<Greeting>> greetings_; // thread only
  std::thread thread_;
  std::atomic<bool> stop_{false};
};

} // namespace trainyard::collective
