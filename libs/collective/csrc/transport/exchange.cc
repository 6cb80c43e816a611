#include "csrc/transport/exchange.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstring>
#include <set>

#include "csrc/transport/settings.h"
#include "csrc/transport/socket.h"

namespace trainyard::collective {

namespace {

// Below this size one connection is faster than several.
constexpr size_t kStripeFrom = 256 * 1024;
constexpr int kMaxParts = 16;

} // namespace

Exchange::Exchange(Group& group, Wait& wait) : group_(group), wait_(wait) {
  wait_.setBackground([this] {
    progress();
    return !waiting_.empty();
  });
}

Exchange::~Exchange() {
  wait_.setBackground(nullptr);
}

size_t Exchange::begin(const Descriptor& descriptor) {
  batches_.push_back({descriptor});
  return batches_.size() - 1;
}

void Exchange::send(int rank, const Pieces& data) {
  add(rank, data, true);
  traffic_.payloadBytes += totalSize(data);
  traffic_.messages++;
}

void Exchange::recv(int rank, const Pieces& data) {
  add(rank, data, false);
}

void Exchange::add(int rank, const Pieces& data, bool sending) {
  const auto& connections = group_.link(rank, wait_);
  const size_t size = totalSize(data);
  const size_t stripes = size >= kStripeFrom ? connections.size() : 1;
  size_t offset = 0;
  for (size_t stripe = 0; stripe < stripes; stripe++) {
    Flow flow;
    flow.batch = batches_.size() - 1;
    flow.fd = connections[stripe];
    flow.rank = rank;
    flow.sending = sending;
    flow.hasHeader = stripe == 0;
    flow.size = size;
    flow.header = {batches_.back().descriptor, size};
    const size_t end = size * (stripe + 1) / stripes;
    forRange(data, offset, end - offset, [&](char* part, size_t partSize) {
      flow.data.push_back({part, partSize});
    });
    offset = end;
    if (size_t(flow.fd) >= channels_.size()) {
      channels_.resize(size_t(flow.fd) + 1);
    }
    (sending ? sends_ : recvs_).push_back(std::move(flow));
    (sending ? batches_.back().sends : batches_.back().recvs)++;
  }
}

bool Exchange::move(Flow& flow) {
  const size_t head = flow.hasHeader ? sizeof(Header) : 0;
  while (true) {
    while (flow.next < flow.data.size() && flow.data[flow.next].size == 0) {
      flow.next++;
    }
    const bool inHeader = flow.headerDone < head;
    if (!inHeader && flow.next == flow.data.size()) {
      return true;
    }
    iovec parts[kMaxParts];
    int n = 0;
    if (inHeader) {
      parts[n++] = {
          reinterpret_cast<char*>(&flow.header) + flow.headerDone,
          head - flow.headerDone};
    }
    // When sending, the header travels with the first bytes of data; a
    // receiver looks at it before it lets data into the caller's memory.
    for (size_t i = flow.next;
         (flow.sending || !inHeader) && i < flow.data.size() && n < kMaxParts;
         i++) {
      parts[n++] = {flow.data[i].data, flow.data[i].size};
    }
    msghdr message = {};
    message.msg_iov = parts;
    message.msg_iovlen = size_t(n);
    const ssize_t moved = flow.sending
        ? sendmsg(flow.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT)
        : recvmsg(flow.fd, &message, MSG_DONTWAIT);
    if (moved < 0 && (errno == EAGAIN || errno == EINTR)) {
      return false;
    }
    if (moved <= 0) {
      throwPeerLost(
          flow.rank, wait_, moved == 0 ? "connection closed" : strerror(errno));
    }
    const size_t ofHead = std::min(size_t(moved), head - flow.headerDone);
    flow.headerDone += ofHead;
    advance(flow, size_t(moved) - ofHead);
    if (!flow.sending && inHeader && flow.headerDone == head) {
      verify(flow);
    }
  }
}

void Exchange::advance(Flow& flow, size_t moved) {
  while (moved > 0) {
    Piece& piece = flow.data[flow.next];
    const size_t part = std::min(moved, piece.size);
    piece.data += part;
    piece.size -= part;
    moved -= part;
    flow.next += piece.size == 0;
  }
}

// Compares the header that came in with what this rank expects.
void Exchange::verify(const Flow& flow) {
  const Header& got = flow.header;
  const Descriptor& expected = batches_[flow.batch].descriptor;
  if (got.descriptor == expected && got.size == flow.size) {
    return;
  }
  auto& state = group_.state();
  std::string message = "Ranks of group " + state.group() +
      " disagree: " + state.nameOf(group_.rank()) + " is in " +
      expected.toString();
  if (got.descriptor == expected) {
    message += " and expects " + std::to_string(flow.size) + " bytes from " +
        state.nameOf(flow.rank) + ", which sends " + std::to_string(got.size);
  } else {
    message += " but " + state.nameOf(flow.rank) + " is in " +
        got.descriptor.toString();
  }
  message += "; every rank must issue the same operations in the same order";
  state.fail(ErrorKind::mismatch, message);
  throw Error(ErrorKind::mismatch, message);
}

// Moves a flow unless an earlier one of the same direction still has the
// connection, or the connection is known not to be ready.
bool Exchange::moveIfReady(Flow& flow) {
  Direction& way = channels_[size_t(flow.fd)][flow.sending];
  if (way.takenIn == pass_) {
    return false;
  }
  if (way.ready && move(flow)) {
    return true;
  }
  way.ready = false;
  way.takenIn = pass_;
  waiting_.push_back({flow.fd, short(flow.sending ? POLLOUT : POLLIN), 0});
  return false;
}

void Exchange::moveAll() {
  pass_++;
  waiting_.clear();
  for (auto& flow : recvs_) {
    if (!flow.done && moveIfReady(flow)) {
      flow.done = true;
      batches_[flow.batch].recvs--;
    }
  }
  int peers = 0;
  int lastRank = -1;
  for (auto& flow : sends_) {
    if (flow.done) {
      continue;
    }
    if (flow.rank != lastRank && ++peers > settings().sendWindow) {
      break;
    }
    lastRank = flow.rank;
    if (moveIfReady(flow)) {
      flow.done = true;
      batches_[flow.batch].sends--;
      // A finished peer makes room for the next one at once.
      peers--;
      lastRank = -1;
    }
  }
  while (!recvs_.empty() && recvs_.front().done) {
    recvs_.pop_front();
  }
  while (!sends_.empty() && sends_.front().done) {
    sends_.pop_front();
  }
}

// Waits at most `limitMs` for connections to become ready; false if none did.
bool Exchange::awaitReady(int limitMs) {
  if (poll(waiting_.data(), waiting_.size(), limitMs) == 0) {
    return false;
  }
  for (const auto& entry : waiting_) {
    if (entry.revents != 0) {
      channels_[size_t(entry.fd)][entry.events == POLLOUT].ready = true;
    }
  }
  return true;
}

void Exchange::progress() {
  moveAll();
  if (!waiting_.empty() && awaitReady(0)) {
    moveAll();
  }
}

template <typename Done>
void Exchange::waitUntil(Done done) {
  while (!done()) {
    moveAll();
    if (done()) {
      return;
    }
    if (!waiting_.empty() && !awaitReady(Wait::kSliceMs)) {
      wait_.check([&] {
        std::set<int> missing;
        for (const auto& flow : recvs_) {
          if (!flow.done) {
            missing.insert(flow.rank);
          }
        }
        std::string text;
        for (int rank : missing) {
          text += (text.empty() ? "nothing more from " : ", ") +
              group_.state().nameOf(rank);
        }
        return text.empty() ? std::string("peers do not read") : text;
      });
    }
  }
}

void Exchange::finishReceives(size_t batch) {
  waitUntil([&] { return batches_[batch].recvs == 0; });
}

void Exchange::finish(size_t batch) {
  waitUntil([&] {
    return batches_[batch].recvs == 0 && batches_[batch].sends == 0;
  });
}

void Exchange::finishAll() {
  waitUntil([&] { return recvs_.empty() && sends_.empty(); });
}

} // namespace trainyard::collective
