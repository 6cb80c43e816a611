#include "csrc/transport/exchange.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstring>

#include "csrc/transport/settings.h"
#include "csrc/transport/socket.h"

namespace trainyard::collective {

namespace {

// Below this size one connection is faster than several.
constexpr size_t kStripeFrom = 256 * 1024;
constexpr int kMaxParts = 16;

} // namespace

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
    flow.fd = connections[stripe];
    flow.rank = rank;
    flow.sending = sending;
    flow.hasHeader = stripe == 0;
    flow.header = {descriptor_, size};
    flow.size = size;
    const size_t end = size * (stripe + 1) / stripes;
    forRange(data, offset, end - offset, [&](char* part, size_t partSize) {
      flow.data.push_back({part, partSize});
    });
    offset = end;
    (sending ? sends_ : recvs_).push_back(std::move(flow));
  }
}

bool Exchange::progress(Flow& flow) {
  while (true) {
    if (flow.hasHeader && flow.headerDone < sizeof(Header)) {
      // The header travels with the first bytes of data when sending.
      iovec parts[kMaxParts];
      int n = 0;
      parts[n++] = {
          reinterpret_cast<char*>(&flow.header) + flow.headerDone,
          sizeof(Header) - flow.headerDone};
      if (flow.sending) {
        for (size_t i = flow.next; i < flow.data.size() && n < kMaxParts; i++) {
          parts[n++] = {flow.data[i].data, flow.data[i].size};
        }
      }
      msghdr message = {};
      message.msg_iov = parts;
      message.msg_iovlen = size_t(n);
      ssize_t moved = flow.sending
          ? sendmsg(flow.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT)
          : recvmsg(flow.fd, &message, MSG_DONTWAIT);
      if (moved < 0 && (errno == EAGAIN || errno == EINTR)) {
        return false;
      }
      if (moved <= 0) {
        throwPeerLost(
            flow.rank, wait_, moved == 0 ? "connection closed" : strerror(errno));
      }
      const size_t head =
          std::min(size_t(moved), sizeof(Header) - flow.headerDone);
      flow.headerDone += head;
      advance(flow, size_t(moved) - head);
      if (!flow.sending && flow.headerDone == sizeof(Header)) {
        verify(flow);
      }
      continue;
    }
    while (flow.next < flow.data.size() && flow.data[flow.next].size == 0) {
      flow.next++;
    }
    if (flow.next == flow.data.size()) {
      return true;
    }
    iovec parts[kMaxParts];
    int n = 0;
    for (size_t i = flow.next; i < flow.data.size() && n < kMaxParts; i++) {
      parts[n++] = {flow.data[i].data, flow.data[i].size};
    }
    msghdr message = {};
    message.msg_iov = parts;
    message.msg_iovlen = size_t(n);
    ssize_t moved = flow.sending
        ? sendmsg(flow.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT)
        : recvmsg(flow.fd, &message, MSG_DONTWAIT);
    if (moved < 0 && (errno == EAGAIN || errno == EINTR)) {
      return false;
    }
    if (moved <= 0) {
      throwPeerLost(
          flow.rank, wait_, moved == 0 ? "connection closed" : strerror(errno));
    }
    advance(flow, size_t(moved));
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
  if (got.descriptor == descriptor_ && got.size == flow.size) {
    return;
  }
  auto& state = group_.state();
  std::string message = "Ranks of group " + state.group() +
      " disagree: " + state.nameOf(group_.rank()) + " is in " +
      descriptor_.toString();
  if (got.descriptor == descriptor_) {
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

void Exchange::run() {
  std::vector<pollfd> entries;
  size_t firstSend = 0;
  std::vector<bool> sent(sends_.size(), false);
  std::vector<bool> received(recvs_.size(), false);
  const int window = settings().sendWindow;
  while (true) {
    entries.clear();
    for (size_t i = 0; i < recvs_.size(); i++) {
      if (!received[i] && !(received[i] = progress(recvs_[i]))) {
        entries.push_back({recvs_[i].fd, POLLIN, 0});
      }
    }
    int peers = 0;
    int lastRank = -1;
    for (size_t i = firstSend; i < sends_.size(); i++) {
      if (sent[i]) {
        firstSend += i == firstSend;
        continue;
      }
      if (sends_[i].rank != lastRank) {
        lastRank = sends_[i].rank;
        if (++peers > window) {
          break;
        }
      }
      if (!(sent[i] = progress(sends_[i]))) {
        entries.push_back({sends_[i].fd, POLLOUT, 0});
      } else {
        // A finished peer makes room for the next one at once.
        peers -= 1;
        lastRank = -1;
      }
    }
    if (entries.empty()) {
      bool done = true;
      for (size_t i = 0; i < sends_.size(); i++) {
        done = done && sent[i];
      }
      if (done) {
        return;
      }
      continue;
    }
    if (poll(entries.data(), entries.size(), Wait::kSliceMs) == 0) {
      wait_.check([&] {
        std::string missing;
        for (size_t i = 0; i < recvs_.size(); i++) {
          if (!received[i]) {
            missing += (missing.empty() ? "nothing more from " : ", ") +
                group_.state().nameOf(recvs_[i].rank);
          }
        }
        return missing.empty() ? std::string("peers do not read") : missing;
      });
    }
  }
}

} // namespace trainyard::collective
