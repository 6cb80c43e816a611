#include "csrc/algorithms/world_collectives.h"

#include <cstring>
#include <map>
#include <mutex>

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
  void measure(Operation&, Findings&) override {}

 private:
  static void move(Operation& op, const Pieces& from, const Pieces& to) {
    if (totalSize(from) != totalSize(to)) {
      throw Error(
          ErrorKind::mismatch,
          std::string(toString(op.descriptor.kind)) + ": the input has " +
              std::to_string(totalSize(from)) + " bytes but the output " +
              std::to_string(totalSize(to)) + "; make them equal");
    }
    copyPieces(from, to);
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
  const uint64_t bytes = op.descriptor.bytes; // if it stands for another
  if (host_) {
    run(op, op.part(1, bytes), [&](Operation& p) { host_->barrier(p); });
  }
  run(op, op.part(2, bytes), [&](Operation& p) { rail_->barrier(p); });
  if (host_) {
    run(op, op.part(3, bytes), [&](Operation& p) { host_->barrier(p); });
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
  const size_t slices = planner_.slices(bytes, size_t(members()));
  auto partsOf = [&](size_t k) {
    const size_t ranks = size_t(members());
    const size_t begin = sliceBegin(count, size, ranks, slices, k);
    const size_t length =
        sliceBegin(count, size, ranks, slices, k + 1) - begin;
    std::vector<Pieces> parts(seats());
    for (size_t seat = 0; seat < seats(); seat++) {
      const size_t first = cut(length, seats(), seat);
      const size_t last = cut(length, seats(), seat + 1);
      parts[seat] = {{buffer + (begin + first) * size, (last - first) * size}};
    }
    return parts;
  };
  run(op, op.part(2, bytes), [&](Operation& p) {
    p.reduction = last;
    rail_->allreduceSlices(
        p, slices,
        [&](size_t k) {
          Operation inHost = op.part(1, bytes, k);
          inHost.reduction = first;
          const auto parts = partsOf(k);
          host_->reduceScatter(inHost, parts, parts[seat()]);
          return parts[seat()][0];
        },
        [&](size_t k) {
          Operation inHost = op.part(3, bytes, k);
          const auto parts = partsOf(k);
          host_->allgather(inHost, parts[seat()], parts);
        });
  });
}

// What goes to or comes from the ranks, put together by seats: for every seat
// what belongs to the ranks with this seat, host by host.
std::vector<Pieces> HierarchicalCollectives::bySeat(
    const std::vector<Pieces>& ofRanks) const {
  std::vector<Pieces> local(seats());
  for (size_t seat = 0; seat < seats(); seat++) {
    for (size_t host = 0; host < hosts(); host++) {
      const auto& pieces = ofRanks[rankAt(host, seat)];
      local[seat].insert(local[seat].end(), pieces.begin(), pieces.end());
    }
  }
  return local;
}

void HierarchicalCollectives::allgather(
    Operation& op,
    const Pieces& in,
    const std::vector<Pieces>& out) {
  const uint64_t bytes = op.descriptor.bytes;
  std::vector<Pieces> rail(hosts());
  size_t total = 0;
  for (size_t host = 0; host < hosts(); host++) {
    rail[host] = out[rankAt(host, seat())];
  }
  for (const auto& pieces : out) {
    total += totalSize(pieces);
  }
  if (!host_) {
    run(op, op.part(2, bytes), [&](Operation& p) {
      rail_->allgather(p, in, rail);
    });
    return;
  }
  copyPieces(in, rail[size_t(group_.topology().host)]);
  const size_t slices = planner_.slices(total, size_t(members()));
  run(op, op.part(2, bytes), [&](Operation& p) {
    rail_->allgatherSlices(
        p, slices, [&](size_t k) { return sliceOf(in, 1, slices, k); },
        [&](size_t k) { return slicesOf(rail, 1, slices, k); },
        [&](size_t k) {
          const auto local = bySeat(slicesOf(out, 1, slices, k));
          Operation inHost = op.part(3, bytes, k);
          host_->allgather(inHost, local[seat()], local);
        });
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
  const uint64_t bytes = op.descriptor.bytes;
  const size_t size = sizeOf(op.reduction.type);
  if (!host_) {
    std::vector<Pieces> rail(hosts());
    for (size_t host = 0; host < hosts(); host++) {
      rail[host] = in[rankAt(host, seat())];
    }
    run(op, op.part(2, bytes), [&](Operation& p) {
      rail_->reduceScatter(p, rail, out);
    });
    return;
  }
  size_t total = 0;
  for (const auto& pieces : in) {
    total += totalSize(pieces);
  }
  const size_t slices = planner_.slices(total, size_t(members()));
  scratch_.resize(rail_->inFlight());
  run(op, op.part(2, bytes), [&](Operation& p) {
    p.reduction = last;
    rail_->reduceScatterSlices(
        p, slices,
        [&](size_t k) {
          const auto parts = slicesOf(in, size, slices, k);
          const auto local = bySeat(parts);
          const size_t mine = totalSize(local[seat()]);
          auto& sums = scratch_[k % scratch_.size()];
          if (sums.size() < mine) {
            sums = std::vector<char>(mine);
          }
          Operation inHost = op.part(1, bytes, k);
          inHost.reduction = first;
          host_->reduceScatter(inHost, local, {{sums.data(), mine}});
          std::vector<Pieces> rail(hosts());
          size_t offset = 0;
          for (size_t host = 0; host < hosts(); host++) {
            const size_t part = totalSize(parts[rankAt(host, seat())]);
            rail[host] = {{sums.data() + offset, part}};
            offset += part;
          }
          return rail;
        },
        [&](size_t k) { return sliceOf(out, size, slices, k); });
  });
}

void HierarchicalCollectives::broadcast(
    Operation& op,
    int root,
    const Pieces& data) {
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
  const bool atRootHost = group_.topology().host == int(rootHost);
  if (!host_) {
    run(op, op.part(2, bytes), [&](Operation& p) {
      rail_->broadcast(p, int(rootHost), data);
    });
    return;
  }
  const size_t slices = planner_.slices(totalSize(data), size_t(members()));
  auto partsOf = [&](size_t k) {
    const Pieces slice = sliceOf(data, 1, slices, k);
    std::vector<Pieces> parts;
    for (size_t seat = 0; seat < seats(); seat++) {
      parts.push_back(sliceOf(slice, 1, seats(), seat));
    }
    return parts;
  };
  run(op, op.part(2, bytes), [&](Operation& p) {
    rail_->broadcastSlices(
        p, int(rootHost), slices,
        [&](size_t k) {
          if (atRootHost) {
            Operation inHost = op.part(1, bytes, k);
            host_->broadcast(
                inHost, int(rootSeat), sliceOf(data, 1, slices, k));
          }
          return partsOf(k)[seat()];
        },
        [&](size_t k) {
          if (!atRootHost) {
            Operation inHost = op.part(3, bytes, k);
            const auto parts = partsOf(k);
            host_->allgather(inHost, parts[seat()], parts);
          }
        });
  });
  if (atRootHost) {
    // Nothing more to do, but all members leave together.
    run(op, op.part(4, bytes), [&](Operation& p) { host_->barrier(p); });
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
    copyPieces(in[rankAt(host, 0)], out[rankAt(host, 0)]);
  }
  Operation part = op.part(2, op.descriptor.bytes);
  Exchange exchange(group_, op.wait);
  exchange.begin(part.descriptor);
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
  exchange.finishAll();
  op.traffic.payloadBytes += exchange.traffic().payloadBytes;
  op.traffic.messages += exchange.traffic().messages;
}

void HierarchicalCollectives::measure(Operation& op, Findings& findings) {
  if (host_) {
    run(op, op.part(1, 0), [&](Operation& p) { host_->measure(p, findings); });
  }
  run(op, op.part(2, 0), [&](Operation& p) { rail_->measure(p, findings); });
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

void probe(
    Group& group,
    Planner& planner,
    Collectives& collectives,
    const Operation& op) {
  // Groups of the same processes have the same findings. All their members
  // measured together, so all know them or none does.
  static std::mutex mutex;
  static std::map<std::string, Findings> known;
  const std::string key = group.processes();
  {
    std::lock_guard<std::mutex> lock(mutex);
    const auto it = known.find(key);
    if (it != known.end()) {
      planner.refine(it->second, group.topology());
      return;
    }
  }
  // With the operation's own descriptor: ranks that disagree shall say so.
  Operation first = op;
  collectives.barrier(first);
  Operation measuring = op;
  measuring.reduction = {DataType::float32, ReduceKind::sum, 1, 1};
  Findings findings;
  planner.setProbing(true);
  collectives.measure(measuring, findings);
  Operation agreeing = op;
  agreeing.reduction = {DataType::float64, ReduceKind::max, 1, 1};
  static_assert(sizeof(Findings) % sizeof(double) == 0, "doubles only");
  agreeing.descriptor.bytes = sizeof findings;
  collectives.allreduce(
      agreeing, reinterpret_cast<char*>(&findings),
      sizeof findings / sizeof(double));
  planner.setProbing(false);
  planner.refine(findings, group.topology());
  std::lock_guard<std::mutex> lock(mutex);
  known[key] = findings;
}

} // namespace trainyard::collective
