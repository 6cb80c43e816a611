#include "csrc/algorithms/link_collectives.h"

#include <cstring>

#include "csrc/transport/settings.h"

namespace trainyard::collective {

namespace {

void move(const Pieces& from, const Pieces& to) {
  size_t offset = 0;
  for (const auto& piece : from) {
    size_t at = 0;
    forRange(to, offset, piece.size, [&](char* data, size_t part) {
      if (data != piece.data + at) {
        memmove(data, piece.data + at, part);
      }
      at += part;
    });
    offset += piece.size;
  }
}

Pieces range(const Pieces& pieces, size_t offset, size_t size) {
  Pieces part;
  forRange(pieces, offset, size, [&](char* data, size_t length) {
    part.push_back({data, length});
  });
  return part;
}

} // namespace

LinkCollectives::LinkCollectives(
    Group& group,
    Planner& planner,
    std::vector<int> ranks)
    : group_(group), planner_(planner), ranks_(std::move(ranks)) {
  while (ranks_[size_t(member_)] != group.rank()) {
    member_++;
  }
}

char* LinkCollectives::scratch(size_t bytes) {
  if (scratch_.size() < bytes) {
    scratch_ = std::vector<char>(); // do not copy what is to be overwritten
    scratch_.resize(bytes);
  }
  return scratch_.data();
}

// Sends in[m] to every other member m and receives out[m] from it.
void LinkCollectives::exchange(
    Operation& op,
    const std::vector<Pieces>& in,
    const std::vector<Pieces>& out) {
  Exchange exchange(group_, op.descriptor, op.wait);
  const int n = members();
  for (int step = 1; step < n; step++) {
    const int from = (member_ + n - step) % n;
    exchange.recv(ranks_[size_t(from)], out[size_t(from)]);
  }
  for (int step = 1; step < n; step++) {
    const int to = (member_ + step) % n;
    exchange.send(ranks_[size_t(to)], in[size_t(to)]);
  }
  exchange.run();
  op.traffic.payloadBytes += exchange.traffic().payloadBytes;
  op.traffic.messages += exchange.traffic().messages;
}

// out = fold in member order; `others` holds one block of `bytes` for every
// member (the own one unused).
void LinkCollectives::fold(
    Operation& op,
    const Pieces& mine,
    const char* others,
    size_t bytes,
    const Pieces& out) {
  const size_t size = sizeOf(op.reduction.type);
  const size_t n = size_t(members());
  size_t offset = 0;
  // Both may be cut into pieces: go by the common parts.
  for (const auto& piece : out) {
    size_t at = 0;
    forRange(mine, offset, piece.size, [&](char* own, size_t part) {
      std::vector<const void*> inputs(n);
      for (size_t m = 0; m < n; m++) {
        inputs[m] = m == size_t(member_)
            ? own
            : others + m * bytes + offset + at;
      }
      reduce(op.reduction, piece.data + at, inputs.data(), n, part / size);
      at += part;
    });
    offset += piece.size;
  }
}

void LinkCollectives::barrier(Operation& op) {
  char byte = 0;
  const size_t n = size_t(members());
  std::vector<char> bytes(n);
  std::vector<Pieces> in(n, Pieces{{&byte, 1}});
  std::vector<Pieces> out(n);
  for (size_t m = 0; m < n; m++) {
    out[m] = {{&bytes[m], 1}};
  }
  exchange(op, in, out);
}

// AllReduce
//
// Large: the vector is cut evenly. Everyone sends part m to member m, which
// folds what it gets in member order and sends the result to everyone. Long
// vectors go slice by slice, which bounds the memory for what comes in.
// Small: everyone sends everything and folds it, all in the same order.
void LinkCollectives::allreduce(Operation& op, char* buffer, size_t count) {
  const size_t size = sizeOf(op.reduction.type);
  const size_t n = size_t(members());
  const size_t bytes = count * size;
  if (bytes <= planner_.railOneShotBytes()) {
    planner_.log("links", op.descriptor.kind, bytes, "all-to-all", "small");
    char* others = scratch(n * bytes + 1);
    std::vector<Pieces> in(n, Pieces{{buffer, bytes}});
    std::vector<Pieces> out(n);
    for (size_t m = 0; m < n; m++) {
      out[m] = {{others + m * bytes, bytes}};
    }
    exchange(op, in, out);
    const Pieces whole = {{buffer, bytes}};
    fold(op, whole, others, bytes, whole);
    return;
  }
  planner_.log(
      "links", op.descriptor.kind, bytes, "direct",
      "reduce-scatter, then all-gather");
  const size_t perSlice = settings().sliceBytes / size;
  for (size_t first = 0; first < count; first += perSlice) {
    const size_t length = std::min(perSlice, count - first);
    char* slice = buffer + first * size;
    std::vector<Pieces> parts(n);
    for (size_t m = 0; m < n; m++) {
      const size_t begin = cut(length, n, m) * size;
      parts[m] = {{slice + begin, cut(length, n, m + 1) * size - begin}};
    }
    const Pieces& mine = parts[size_t(member_)];
    const size_t block = mine[0].size;
    char* others = scratch(n * block + 1);
    std::vector<Pieces> incoming(n);
    for (size_t m = 0; m < n; m++) {
      incoming[m] = {{others + m * block, block}};
    }
    exchange(op, parts, incoming);
    fold(op, mine, others, block, mine);
    exchange(op, std::vector<Pieces>(n, mine), parts);
  }
}

void LinkCollectives::allgather(
    Operation& op,
    const Pieces& in,
    const std::vector<Pieces>& out) {
  move(in, out[size_t(member_)]);
  exchange(op, std::vector<Pieces>(size_t(members()), in), out);
}

// ReduceScatter, slice by slice.
void LinkCollectives::reduceScatter(
    Operation& op,
    const std::vector<Pieces>& in,
    const Pieces& out) {
  const size_t n = size_t(members());
  size_t largest = 0;
  for (const auto& pieces : in) {
    largest = std::max(largest, totalSize(pieces));
  }
  const size_t mine = totalSize(out);
  const size_t block = std::max(settings().sliceBytes / n / 64 * 64, size_t(64));
  size_t first = 0;
  do {
    auto lengthOf = [&](size_t total) {
      return first < total ? std::min(block, total - first) : size_t(0);
    };
    const size_t own = lengthOf(mine);
    char* others = scratch(n * own + 1);
    std::vector<Pieces> outgoing(n);
    std::vector<Pieces> incoming(n);
    for (size_t m = 0; m < n; m++) {
      outgoing[m] = range(in[m], first, lengthOf(totalSize(in[m])));
      incoming[m] = {{others + m * own, own}};
    }
    exchange(op, outgoing, incoming);
    fold(
        op, range(in[size_t(member_)], first, own), others, own,
        range(out, first, own));
    first += block;
  } while (first < largest);
}

// Broadcast
//
// Large: the root sends a different part to every other member, and these
// exchange their parts; the root's link carries every byte once. Small, or
// with two members: the root sends everything to everyone.
void LinkCollectives::broadcast(Operation& op, int root, const Pieces& data) {
  const size_t n = size_t(members());
  const size_t bytes = totalSize(data);
  const bool source = root == member_;
  const Pieces nothing;
  std::vector<Pieces> in(n);
  std::vector<Pieces> out(n);
  if (n == 2 || bytes <= planner_.railOneShotBytes()) {
    for (size_t m = 0; m < n; m++) {
      in[m] = source ? data : nothing;
    }
    out[size_t(root)] = source ? nothing : data;
    exchange(op, in, out);
    return;
  }
  std::vector<Pieces> parts(n);
  for (size_t m = 0, p = 0; m < n; m++) {
    if (m == size_t(root)) {
      continue;
    }
    const size_t begin = cut(bytes, n - 1, p);
    parts[m] = range(data, begin, cut(bytes, n - 1, p + 1) - begin);
    p++;
  }
  if (source) {
    in = parts;
  } else {
    out[size_t(root)] = parts[size_t(member_)];
  }
  exchange(op, in, out);
  in.assign(n, source ? nothing : parts[size_t(member_)]);
  in[size_t(root)] = nothing;
  out = parts;
  if (source) {
    out.assign(n, nothing);
  }
  exchange(op, in, out);
}

void LinkCollectives::alltoall(
    Operation& op,
    const std::vector<Pieces>& in,
    const std::vector<Pieces>& out) {
  if (totalSize(in[size_t(member_)]) != totalSize(out[size_t(member_)])) {
    throw Error(
        ErrorKind::mismatch,
        std::string(toString(op.descriptor.kind)) + ": this rank sends " +
            std::to_string(totalSize(in[size_t(member_)])) +
            " bytes to itself but expects " +
            std::to_string(totalSize(out[size_t(member_)])) +
            "; make the split sizes of both agree");
  }
  move(in[size_t(member_)], out[size_t(member_)]);
  exchange(op, in, out);
}

} // namespace trainyard::collective
