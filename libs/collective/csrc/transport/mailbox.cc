#include "csrc/transport/mailbox.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstring>

#include "csrc/transport/socket.h"

namespace trainyard::collective {

Mailbox::~Mailbox() {
  close(Milliseconds(0));
}

// With the mutex held.
void Mailbox::start() {
  if (started_) {
    const uint64_t one = 1;
    (void)!write(wake_.get(), &one, sizeof one);
    return;
  }
  started_ = true;
  wake_ = FileDescriptor(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Mailbox::send(
    int rank,
    int64_t tag,
    Piece data,
    DataType type,
    Wait wait,
    Done done) {
  std::lock_guard<std::mutex> lock(mutex_);
  outgoing_[rank].queue.push_back(
      {rank, tag, data, type, std::move(wait), std::move(done)});
  start();
}

void Mailbox::recv(
    int rank,
    int64_t tag,
    Piece data,
    DataType type,
    Wait wait,
    Done done) {
  std::lock_guard<std::mutex> lock(mutex_);
  requests_.push_back(
      {rank, tag, data, type, std::move(wait), std::move(done)});
  start();
}

bool Mailbox::matches(const Request& request, int rank, int64_t tag) const {
  return request.tag == tag &&
      (request.rank == rank || request.rank == kAnySource);
}

void Mailbox::checkSize(
    const Request& request,
    const Envelope& envelope,
    int rank) {
  if (request.data.size == envelope.size && request.type == envelope.type) {
    return;
  }
  const std::string message = "Message with tag " +
      std::to_string(envelope.tag) + " on group " + group_.state().group() +
      ": " + group_.state().nameOf(rank) + " sends " +
      std::to_string(envelope.size) + " bytes of " + toString(envelope.type) +
      " but " + group_.state().nameOf(group_.rank()) + " receives into " +
      std::to_string(request.data.size) + " bytes of " +
      toString(request.type) + "; make both tensors alike";
  group_.state().fail(ErrorKind::mismatch, message);
  throw Error(ErrorKind::mismatch, message);
}

// Serves a receive from the letters that were copied aside before.
bool Mailbox::takeLetters(std::list<Request>::iterator request) {
  for (auto& [rank, in] : incoming_) {
    for (auto it = in.letters.begin(); it != in.letters.end(); ++it) {
      if (matches(*request, rank, it->envelope.tag)) {
        checkSize(*request, it->envelope, rank);
        memcpy(request->data.data, it->data.data(), it->data.size());
        in.letters.erase(it);
        request->done(nullptr, rank);
        requests_.erase(request);
        return true;
      }
    }
  }
  return false;
}

// Returns true if anything moved.
bool Mailbox::progressSend(int rank, Outgoing& out) {
  bool any = false;
  // Without a connection the request came while others were being opened.
  while (out.fd && !out.queue.empty()) {
    Request& request = out.queue.front();
    Envelope envelope = {request.tag, request.data.size, request.type, {}};
    iovec parts[2];
    int n = 0;
    size_t skip = out.moved;
    if (skip < sizeof envelope) {
      parts[n++] = {
          reinterpret_cast<char*>(&envelope) + skip, sizeof envelope - skip};
      skip = 0;
    } else {
      skip -= sizeof envelope;
    }
    if (request.data.size > skip) {
      parts[n++] = {request.data.data + skip, request.data.size - skip};
    }
    msghdr message = {};
    message.msg_iov = parts;
    message.msg_iovlen = size_t(n);
    const ssize_t moved =
        sendmsg(out.fd.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (moved < 0 && (errno == EAGAIN || errno == EINTR)) {
      return any;
    }
    if (moved < 0) {
      throwPeerLost(rank, request.wait, strerror(errno));
    }
    any = true;
    out.moved += size_t(moved);
    if (out.moved == sizeof envelope + request.data.size) {
      out.moved = 0;
      request.done(nullptr, rank);
      out.queue.pop_front();
    }
  }
  return any;
}

bool Mailbox::progressRecv(int rank, Incoming& in) {
  bool any = false;
  auto receive = [&](char* data, size_t size, size_t& done) -> bool {
    while (done < size) {
      const ssize_t n = ::recv(in.fd.get(), data + done, size - done, 0);
      if (n > 0) {
        done += size_t(n);
        any = true;
      } else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return false;
      } else {
        in.broken = n == 0 ? "connection closed" : strerror(errno);
        return false;
      }
    }
    return true;
  };
  while (in.fd && in.broken.empty()) {
    if (!receive(
            reinterpret_cast<char*>(&in.envelope), sizeof(Envelope),
            in.envelopeDone)) {
      return any;
    }
    if (!in.matched && !in.aside) {
      bool wanted = false; // by a receive for another message from there
      for (auto it = requests_.begin(); it != requests_.end(); ++it) {
        if (matches(*it, rank, in.envelope.tag)) {
          bool taken = false;
          for (auto& [other, peer] : incoming_) {
            taken = taken || (peer.matched && peer.request == it);
          }
          if (!taken) {
            checkSize(*it, in.envelope, rank);
            in.matched = true;
            in.request = it;
            break;
          }
        }
        wanted = wanted || it->rank == rank || it->rank == kAnySource;
      }
      if (!in.matched && !wanted) {
        return any;
      }
      if (!in.matched) {
        in.aside = true;
        in.letter.resize(in.envelope.size);
      }
    }
    char* to = in.matched ? in.request->data.data : in.letter.data();
    if (!receive(to, in.envelope.size, in.dataDone)) {
      return any;
    }
    if (in.matched) {
      Request request = std::move(*in.request);
      requests_.erase(in.request);
      in.matched = false;
      request.done(nullptr, rank);
    } else {
      in.letters.push_back({in.envelope, std::move(in.letter)});
      in.letter.clear();
      in.aside = false;
    }
    in.envelopeDone = 0;
    in.dataDone = 0;
  }
  return any;
}

void Mailbox::failAll(std::exception_ptr error) {
  for (auto& [rank, out] : outgoing_) {
    for (auto& request : out.queue) {
      request.done(error, rank);
    }
    out.queue.clear();
  }
  for (auto& request : requests_) {
    request.done(error, request.rank);
  }
  requests_.clear();
  for (auto& [rank, in] : incoming_) {
    in.matched = false;
    in.broken = "the group has failed";
  }
}

void Mailbox::checkWaits() {
  auto& state = group_.state();
  for (auto& [rank, out] : outgoing_) {
    for (auto& request : out.queue) {
      request.wait.check(
          [&, rank = rank] { return state.nameOf(rank) + " takes no message"; });
    }
  }
  for (auto& request : requests_) {
    const int rank = request.rank;
    if (rank != kAnySource) {
      auto in = incoming_.find(rank);
      if (in != incoming_.end() && !in->second.broken.empty()) {
        throwPeerLost(rank, request.wait, in->second.broken);
      }
      if (in == incoming_.end() && state.hasLeft(rank)) {
        request.wait.peerLeft(rank);
      }
    }
    request.wait.check([&] {
      return "no message with tag " + std::to_string(request.tag) + " from " +
          (rank == kAnySource ? "any rank" : state.nameOf(rank));
    });
  }
}

// Joins the members and opens connections that are needed, without the lock:
// the peers' doors must be able to hand over theirs meanwhile.
void Mailbox::openConnections(std::unique_lock<std::mutex>& lock) {
  // Copies: close() may empty the queues while the lock is released.
  std::vector<std::pair<int, Wait>> first;
  for (auto& [rank, out] : outgoing_) {
    if (!out.fd && !out.queue.empty()) {
      first.emplace_back(rank, out.queue.front().wait);
    }
  }
  if (!joined_ && (!first.empty() || !requests_.empty())) {
    Wait wait = first.empty() ? requests_.front().wait : first[0].second;
    lock.unlock();
    group_.awaitConnected(wait);
    group_.acceptMail([this](int rank, FileDescriptor fd) {
      std::lock_guard<std::mutex> lock(mutex_);
      incoming_[rank].fd = std::move(fd);
      const uint64_t one = 1;
      (void)!write(wake_.get(), &one, sizeof one);
    });
    lock.lock();
    joined_ = true;
  }
  for (auto& [rank, wait] : first) {
    lock.unlock();
    FileDescriptor fd = group_.openMail(rank, wait);
    lock.lock();
    outgoing_[rank].fd = std::move(fd);
  }
}

void Mailbox::run() {
  pthread_setname_np(pthread_self(), "trainyard-mail");
  std::vector<pollfd> entries;
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    bool any = false;
    try {
      openConnections(lock);
      for (auto it = requests_.begin(); it != requests_.end();) {
        auto request = it++;
        bool matched = false;
        for (auto& [rank, in] : incoming_) {
          matched = matched || (in.matched && in.request == request);
        }
        any = (!matched && takeLetters(request)) || any;
      }
      for (auto& [rank, out] : outgoing_) {
        any = progressSend(rank, out) || any;
      }
      for (auto& [rank, in] : incoming_) {
        any = progressRecv(rank, in) || any;
      }
      if (!any) {
        checkWaits();
      }
    } catch (...) {
      if (!lock.owns_lock()) {
        lock.lock();
      }
      failAll(std::current_exception());
    }
    bool pending = false;
    for (auto& [rank, out] : outgoing_) {
      pending = pending || !out.queue.empty();
    }
    if (!pending) {
      idle_.notify_all();
    }
    pending = pending || !requests_.empty();
    if (!pending && stop_) {
      return;
    }
    bool unopened = false;
    for (auto& [rank, out] : outgoing_) {
      unopened = unopened || (!out.fd && !out.queue.empty());
    }
    if (any || unopened) {
      continue;
    }
    entries.clear();
    entries.push_back({wake_.get(), POLLIN, 0});
    for (auto& [rank, out] : outgoing_) {
      if (out.fd && !out.queue.empty()) {
        entries.push_back({out.fd.get(), POLLOUT, 0});
      }
    }
    for (auto& [rank, in] : incoming_) {
      // A connection whose first message nobody wants is left alone: it stays
      // readable and would keep this thread busy.
      const bool resting = in.envelopeDone == sizeof(Envelope) &&
          !in.matched && !in.aside;
      if (in.fd && in.broken.empty() && !resting) {
        entries.push_back({in.fd.get(), POLLIN, 0});
      }
    }
    const int limit = pending ? Wait::kSliceMs : 1000;
    lock.unlock();
    poll(entries.data(), entries.size(), limit);
    lock.lock();
    uint64_t count;
    (void)!read(wake_.get(), &count, sizeof count);
  }
}

void Mailbox::close(Milliseconds limit) {
  if (!started_) {
    return;
  }
  if (forkedChild()) {
    if (thread_.joinable()) {
      thread_.detach();
    }
    return;
  }
  {
    std::unique_lock<std::mutex> lock(mutex_);
    auto delivered = [&] {
      for (auto& [rank, out] : outgoing_) {
        if (!out.queue.empty()) {
          return false;
        }
      }
      return true;
    };
    idle_.wait_for(lock, limit, delivered);
    failAll(std::make_exception_ptr(Error(
        ErrorKind::aborted,
        "Group " + group_.state().group() +
            " was destroyed while a message was on its way")));
    stop_ = true;
    const uint64_t one = 1;
    (void)!write(wake_.get(), &one, sizeof one);
  }
  if (thread_.joinable()) {
    thread_.join();
  }
  started_ = false;
}

} // namespace trainyard::collective
