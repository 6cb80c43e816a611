#include "csrc/algorithms/world_collectives.h"

#include <cstring>

#include "csrc/transport/settings.h"

namespace trainyard::collective {

namespace {

// A group of one rank.
class LoneCollectives : public Collectives {
 public:
  int member() const override {
    return 0;
  }
  int members() const override {
    return 1;
  }
  void allreduce(Operation& op, char* buffer, size_t count) override {
    const void* input = buffer;
    reduce(op.reduction, buffer, &input, 1, count);
  }
  void allgather(
      Operation& op,
      const Pieces& in,
      const std::vector<Pieces>& out) override {
    move(op, in, out[0]);
  }
  void reduceScatter(
      Operation& op,
      const std::vector<Pieces>& in,
      const Pieces& out) override {
    move(op, in[0], out);
    for (const auto& piece : out) {
      const void* input = piece.data;
      reduce(
          op.reduction, piece.data, &input, 1,
          piece.size / sizeOf(op.reduction.type));
    }
  }
  void broadcast(Operation&, int, const Pieces&) override {}
  void alltoall(
      Operation& op,
      const std::vector<Pieces>& in,
      const std::vector<Pieces>& out) override {
    move(op, in[0], out[0]);
  }
  void barrier(Operation&) override {}

 private:
  static void move(Operation& op, const Pieces& from, const Pieces& to) {
    if (totalSize(from) != totalSize(to)) {
      throw Error(
          ErrorKind::mismatch,
          std::string(toString(op.descriptor.kind)) + ": the input has " +
              std::to_string(totalSize(from)) + " bytes but the output " +
              std::to_string(totalSize(to)) + "; make them equal");
    }
    size_t offset = 0;
    for (const auto& piece : from) {
      size_t at = 0;
      forRange(to, offset, piece.size, [&](char* data, size_t part) {
        memmove(data, piece.data + at, part);
        at += part;
      });
      offset += piece.size;
    }
  }
};

} // namespace

HierarchicalCollectives::HierarchicalCollectives(Group& group, Planner& planner)
    : group_(group), planner_(planner) {
  const Topology& topology = group.topology();
  if (topology.localSize() > 1) {
    host_ = std::make_unique<HostCollectives>(group, planner);
  }
  std::vector<int> rail;
  for (const auto& host : topology.hosts) {
    rail.push_back(host[size_t(topology.seat)]);
  }
  rail_ = std::make_unique<LinkCollectives>(group, planner, std::move(rail));
}

void HierarchicalCollectives::barrier(Operation& op) {
  if (host_) {
    run(op, op.part(1, 0), [&](Operation& p) { host_->barrier(p); });
  }
  run(op, op.part(2, 0), [&](Operation& p) { rail_->barrier(p); });
  if (host_) {
    run(op, op.part(3, 0), [&](Operation& p) { host_->barrier(p); });
  }
}

void HierarchicalCollectives::allreduce(
    Operation& op,
    char* buffer,
    size_t count) {
  const uint64_t bytes = op.descriptor.bytes;
  // The factor belongs to the first fold of an input, the divisor to the last.
  Reduction first = op.reduction;
  Reduction last = op.reduction;
  first.divisor = 1;
  last.factor = 1;
  if (!host_) {
    // One seat per host: the rail does both.
    run(op, op.part(2, bytes), [&](Operation& p) {
      rail_->allreduce(p, buffer, count);
    });
    return;
  }
  const size_t size = sizeOf(op.reduction.type);
  if (bytes <= planner_.smallHierarchyBytes()) {
    planner_.log(
        "world", op.descriptor.kind, bytes, "hierarchical, whole",
        "few steps matter");
    run(op, op.part(1, bytes), [&](Operation& p) {
      p.reduction = first;
      host_->allreduce(p, buffer, count);
    });
    run(op, op.part(2, bytes), [&](Operation& p) {
      p.reduction = last;
      rail_->allreduce(p, buffer, count);
    });
    return;
  }
  planner_.log(
      "world", op.descriptor.kind, bytes, "hierarchical, in parts",
      "few bytes matter");
  std::vector<Pieces> parts(seats());
  for (size_t seat = 0; seat < seats(); seat++) {
    const size_t begin = cut(count, seats(), seat) * size;
    parts[seat] = {
        {buffer + begin, cut(count, seats(), seat + 1) * size - begin}};
  }
  const Pieces& mine = parts[size_t(group_.topology().seat)];
  run(op, op.part(1, bytes), [&](Operation& p) {
    p.reduction = first;
    host_->reduceScatter(p, parts, mine);
  });
  run(op, op.part(2, bytes), [&](Operation& p) {
    p.reduction = last;
    rail_->allreduce(p, mine[0].data, mine[0].size / size);
  });
  run(op, op.part(3, bytes), [&](Operation& p) {
    host_->allgather(p, mine, parts);
  });
}

void HierarchicalCollectives::allgather(
    Operation& op,
    const Pieces& in,
    const std::vector<Pieces>& out) {
  const size_t seat = size_t(group_.topology().seat);
  std::vector<Pieces> rail(hosts());
  for (size_t host = 0; host < hosts(); host++) {
    rail[host] = out[rankAt(host, seat)];
  }
  run(op, op.part(1, op.descriptor.bytes), [&](Operation& p) {
    rail_->allgather(p, in, rail);
  });
  if (!host_) {
    return;
  }
  std::vector<Pieces> local(seats());
  for (size_t other = 0; other < seats(); other++) {
    for (size_t host = 0; host < hosts(); host++) {
      const auto& pieces = out[rankAt(host, other)];
      local[other].insert(local[other].end(), pieces.begin(), pieces.end());
    }
  }
  run(op, op.part(2, op.descriptor.bytes), [&](Operation& p) {
    host_->allgather(p, local[seat], local);
  });
}

void HierarchicalCollectives::reduceScatter(
    Operation& op,
    const std::vector<Pieces>& in,
    const Pieces& out) {
  Reduction first = op.reduction;
  Reduction last = op.reduction;
  first.divisor = 1;
  last.factor = 1;
  const size_t seat = size_t(group_.topology().seat);
  std::vector<Pieces> rail(hosts());
  if (!host_) {
    for (size_t host = 0; host < hosts(); host++) {
      rail[host] = in[rankAt(host, seat)];
    }
    run(op, op.part(2, op.descriptor.bytes), [&](Operation& p) {
      rail_->reduceScatter(p, rail, out);
    });
    return;
  }
  std::vector<Pieces> local(seats());
  for (size_t other = 0; other < seats(); other++) {
    for (size_t host = 0; host < hosts(); host++) {
      const auto& pieces = in[rankAt(host, other)];
      local[other].insert(local[other].end(), pieces.begin(), pieces.end());
    }
  }
  const size_t bytes = totalSize(local[seat]);
  if (scratch_.size() < bytes) {
    scratch_ = std::vector<char>();
    scratch_.resize(bytes);
  }
  run(op, op.part(1, op.descriptor.bytes), [&](Operation& p) {
    p.reduction = first;
    host_->reduceScatter(p, local, {{scratch_.data(), bytes}});
  });
  size_t offset = 0;
  for (size_t host = 0; host < hosts(); host++) {
    const size_t size = totalSize(in[rankAt(host, seat)]);
    rail[host] = {{scratch_.data() + offset, size}};
    offset += size;
  }
  run(op, op.part(2, op.descriptor.bytes), [&](Operation& p) {
    p.reduction = last;
    rail_->reduceScatter(p, rail, out);
  });
}

void HierarchicalCollectives::broadcast(
    Operation& op,
    int root,
    const Pieces& data) {
  const Topology& topology = group_.topology();
  size_t rootHost = 0;
  size_t rootSeat = 0;
  for (size_t host = 0; host < hosts(); host++) {
    for (size_t seat = 0; seat < seats(); seat++) {
      if (rankAt(host, seat) == size_t(root)) {
        rootHost = host;
        rootSeat = seat;
      }
    }
  }
  const uint64_t bytes = op.descriptor.bytes;
  const bool atRootHost = topology.host == int(rootHost);
  if (!host_) {
    run(op, op.part(2, bytes), [&](Operation& p) {
      rail_->broadcast(p, int(rootHost), data);
    });
    return;
  }
  if (atRootHost) {
    run(op, op.part(1, bytes), [&](Operation& p) {
      host_->broadcast(p, int(rootSeat), data);
    });
  }
  const size_t total = totalSize(data);
  std::vector<Pieces> parts(seats());
  for (size_t seat = 0; seat < seats(); seat++) {
    const size_t begin = cut(total, seats(), seat);
    forRange(
        data, begin, cut(total, seats(), seat + 1) - begin,
        [&](char* part, size_t size) { parts[seat].push_back({part, size}); });
  }
  const Pieces& mine = parts[size_t(topology.seat)];
  run(op, op.part(2, bytes), [&](Operation& p) {
    rail_->broadcast(p, int(rootHost), mine);
  });
  if (atRootHost) {
    // Nothing more to do, but all members leave together.
    run(op, op.part(4, bytes), [&](Operation& p) { host_->barrier(p); });
  } else {
    run(op, op.part(3, bytes), [&](Operation& p) {
      host_->allgather(p, mine, parts);
    });
  }
}

void HierarchicalCollectives::alltoall(
    Operation& op,
    const std::vector<Pieces>& in,
    const std::vector<Pieces>& out) {
  const Topology& topology = group_.topology();
  const size_t host = size_t(topology.host);
  if (host_) {
    std::vector<Pieces> localIn(seats());
    std::vector<Pieces> localOut(seats());
    for (size_t seat = 0; seat < seats(); seat++) {
      localIn[seat] = in[rankAt(host, seat)];
      localOut[seat] = out[rankAt(host, seat)];
    }
    run(op, op.part(1, op.descriptor.bytes), [&](Operation& p) {
      host_->alltoall(p, localIn, localOut);
    });
  } else if (totalSize(in[rankAt(host, 0)]) != totalSize(out[rankAt(host, 0)])) {
    throw Error(
        ErrorKind::mismatch,
        std::string(toString(op.descriptor.kind)) + ": this rank sends " +
            std::to_string(totalSize(in[rankAt(host, 0)])) +
            " bytes to itself but expects " +
            std::to_string(totalSize(out[rankAt(host, 0)])) +
            "; make the split sizes of both agree");
  } else {
    const auto& from = in[rankAt(host, 0)];
    size_t offset = 0;
    for (const auto& piece : from) {
      size_t at = 0;
      forRange(
          out[rankAt(host, 0)], offset, piece.size,
          [&](char* data, size_t part) {
            memmove(data, piece.data + at, part);
            at += part;
          });
      offset += piece.size;
    }
  }
  Operation part = op.part(2, op.descriptor.bytes);
  Exchange exchange(group_, part.descriptor, op.wait);
  const int n = members();
  for (int step = 1; step < n; step++) {
    const int from = (member() + n - step) % n;
    if (!group_.sharesHost(from)) {
      exchange.recv(from, out[size_t(from)]);
    }
  }
  for (int step = 1; step < n; step++) {
    const int to = (member() + step) % n;
    if (!group_.sharesHost(to)) {
      exchange.send(to, in[size_t(to)]);
    }
  }
  exchange.run();
  op.traffic.payloadBytes += exchange.traffic().payloadBytes;
  op.traffic.messages += exchange.traffic().messages;
}

std::unique_ptr<Collectives> makeCollectives(Group& group, Planner& planner) {
  if (group.size() == 1) {
    return std::make_unique<LoneCollectives>();
  }
  switch (planner.world(group.topology())) {
    case WorldSchedule::host:
      return std::make_unique<HostCollectives>(group, planner);
    case WorldSchedule::hierarchical:
      return std::make_unique<HierarchicalCollectives>(group, planner);
    default: {
      std::vector<int> all;
      for (int rank = 0; rank < group.size(); rank++) {
        all.push_back(rank);
      }
      return std::make_unique<LinkCollectives>(group, planner, std::move(all));
    }
  }
}

} // namespace trainyard::collective
