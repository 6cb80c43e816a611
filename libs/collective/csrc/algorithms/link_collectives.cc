#include "csrc/algorithms/link_collectives.h"

#include <cstring>

namespace trainyard::collective {

namespace {

Pieces range(const Pieces& pieces, size_t offset, size_t size) {
  Pieces part;
  forRange(pieces, offset, size, [&](char* data, size_t length) {
    part.push_back({data, length});
  });
  return part;
}

constexpr size_t kProbeBytes = 1 << 20;
constexpr double kSlowSeconds = 0.02; // for a sixteenth of it

// Runs every slice through the stages, several slices at once: stage s of
// slice k in step k + s · ahead. In a step the youngest slice comes first, so
// that links have new data before this rank waits for older ones.
template <typename Fn>
void pipeline(size_t slices, size_t stages, size_t ahead, Fn fn) {
  const size_t steps = slices + (stages - 1) * ahead;
  for (size_t step = 0; step < steps; step++) {
    for (size_t stage = 0; stage < stages; stage++) {
      if (step >= stage * ahead && step - stage * ahead < slices) {
        fn(stage, step - stage * ahead);
      }
    }
  }
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

// Memory for what comes in, by use; kept for the next call.
char* LinkCollectives::scratch(size_t use, size_t bytes) {
  if (scratch_.size() <= use) {
    scratch_.resize(use + 1);
  }
  auto& memory = scratch_[use];
  if (memory.size() < bytes) {
    memory = std::vector<char>(); // do not copy what is to be overwritten
    memory.resize(bytes);
  }
  return memory.data();
}

// Begins a batch in which in[m] goes to every other member m and out[m] comes
// from it.
size_t LinkCollectives::post(
    Exchange& exchange,
    const Descriptor& descriptor,
    const std::vector<Pieces>& in,
    const std::vector<Pieces>& out) {
  const size_t batch = exchange.begin(descriptor);
  const int n = members();
  for (int step = 1; step < n; step++) {
    const int from = (member_ + n - step) % n;
    exchange.recv(ranks_[size_t(from)], out[size_t(from)]);
  }
  for (int step = 1; step < n; step++) {
    const int to = (member_ + step) % n;
    exchange.send(ranks_[size_t(to)], in[size_t(to)]);
  }
  exchange.progress();
  return batch;
}

// The same in the ring: to the next member and from the one before.
size_t LinkCollectives::postRing(
    Exchange& exchange,
    const Descriptor& descriptor,
    const Pieces& in,
    const Pieces& out) {
  const size_t batch = exchange.begin(descriptor);
  exchange.recv(ranks_[before(1)], out);
  exchange.send(ranks_[before(size_t(members()) - 1)], in);
  exchange.progress();
  return batch;
}

void LinkCollectives::finish(Operation& op, Exchange& exchange) {
  exchange.finishAll();
  op.traffic.payloadBytes += exchange.traffic().payloadBytes;
  op.traffic.messages += exchange.traffic().messages;
}

// One batch at once.
void LinkCollectives::exchange(
    Operation& op,
    const std::vector<Pieces>& in,
    const std::vector<Pieces>& out) {
  Exchange exchange(group_, op.wait);
  post(exchange, op.descriptor, in, out);
  finish(op, exchange);
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

// Adds own data to a sum that came around the ring. The divisor belongs to the
// last fold of a part.
void LinkCollectives::foldRing(
    Operation& op,
    char* sum,
    const Pieces& own,
    bool last,
    const Pieces& out) {
  Reduction reduction = op.reduction;
  if (!last) {
    reduction.divisor = 1;
  }
  const size_t size = sizeOf(reduction.type);
  size_t offset = 0;
  for (const auto& piece : out) {
    size_t at = 0;
    forRange(own, offset, piece.size, [&](char* mine, size_t part) {
      const void* inputs[] = {sum + offset + at, mine};
      reduce(reduction, piece.data + at, inputs, 2, part / size);
      at += part;
    });
    offset += piece.size;
  }
}

// A ring folds own data into sums, of which only the former may take a factor.
bool LinkCollectives::usesRing(const Operation& op) const {
  return planner_.ring(op.descriptor.kind, ranks_.size()) && op.reduction.factor == 1;
}

void LinkCollectives::log(const Operation& op, size_t slices) {
  planner_.log(
      "links", op.descriptor.kind, op.descriptor.bytes,
      usesRing(op) ? "ring" : "direct",
      std::to_string(ranks_.size()) + " members, " + std::to_string(slices) +
          (slices == 1 ? " slice" : " slices"));
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

// Latency by barriers, rate by AllGathers of two sizes: their difference does
// not hold the latency. The larger one is left out on slow links.
void LinkCollectives::measure(Operation& op, Findings& findings) {
  const size_t n = size_t(members());
  op.descriptor.kind = OpKind::allgather;
  findings.linkLatency = bestOf(5, [&] { barrier(op); });
  std::vector<char> whole(kProbeBytes);
  auto gather = [&](size_t bytes, bool ring) {
    planner_.setRing(ring);
    const size_t each = bytes / n;
    std::vector<Pieces> out;
    for (size_t m = 0; m < n; m++) {
      out.push_back({{whole.data() + m * each, each}});
    }
    const Pieces in = out[size_t(member_)];
    const double seconds = bestOf(3, [&] { allgather(op, in, out); });
    planner_.setRing(false);
    return seconds;
  };
  double small = gather(kProbeBytes / 16, false);
  Operation agreeing = op;
  agreeing.descriptor.kind = OpKind::allreduce;
  agreeing.reduction = {DataType::float64, ReduceKind::max, 1, 1};
  allreduce(agreeing, reinterpret_cast<char*>(&small), 1);
  if (small > kSlowSeconds) {
    findings.linkSecondsPerByte = small / double(kProbeBytes / 16);
    return;
  }
  findings.linkDirect = gather(kProbeBytes, false);
  findings.linkSecondsPerByte =
      std::max(findings.linkDirect - small, small * 0.01) /
      (double(kProbeBytes) * 15 / 16 * double(n - 1) / double(n));
  if (n > 2) {
    findings.linkRing = gather(kProbeBytes, true);
  }
}

// AllReduce
//
// Small: everyone sends everything and folds it, all in the same order. Large:
// in slices.
void LinkCollectives::allreduce(Operation& op, char* buffer, size_t count) {
  const size_t size = sizeOf(op.reduction.type);
  const size_t n = size_t(members());
  const size_t bytes = count * size;
  if (bytes <= planner_.railOneShotBytes()) {
    planner_.log("links", op.descriptor.kind, bytes, "all-to-all", "small");
    char* others = scratch(0, n * bytes + 1);
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
  const size_t slices = planner_.slices(bytes, n);
  allreduceSlices(
      op, slices,
      [&](size_t k) {
        const size_t begin = sliceBegin(count, size, n, slices, k);
        const size_t end = sliceBegin(count, size, n, slices, k + 1);
        return Piece{buffer + begin * size, (end - begin) * size};
      },
      [](size_t) {});
}

void LinkCollectives::allreduceSlices(
    Operation& op,
    size_t slices,
    const ProduceVector& produce,
    const Consume& consume) {
  log(op, slices);
  if (usesRing(op)) {
    allreduceRing(op, slices, produce, consume);
  } else {
    allreduceDirect(op, slices, produce, consume);
  }
}

std::vector<Pieces> LinkCollectives::partsOf(
    const Piece& whole,
    size_t elementSize) const {
  const size_t n = ranks_.size();
  const size_t count = whole.size / elementSize;
  std::vector<Pieces> parts(n);
  for (size_t m = 0; m < n; m++) {
    const size_t begin = cut(count, n, m) * elementSize;
    parts[m] = {
        {whole.data + begin, cut(count, n, m + 1) * elementSize - begin}};
  }
  return parts;
}

// Direct: a slice is cut evenly. Stage 0: everyone sends part m to member m.
// Stage 1: which folds what it got in member order and sends the sum to
// everyone. Stage 2: the slice is complete.
void LinkCollectives::allreduceDirect(
    Operation& op,
    size_t slices,
    const ProduceVector& produce,
    const Consume& consume) {
  struct Slice {
    std::vector<Pieces> parts;
    char* incoming;
    size_t batch;
  };
  const size_t n = size_t(members());
  std::vector<Slice> flight(2 * kAhead + 1);
  Exchange exchange(group_, op.wait);
  pipeline(slices, 3, kAhead, [&](size_t stage, size_t k) {
    Slice& slice = flight[k % flight.size()];
    const Descriptor descriptor = op.stage(3 * k + stage);
    if (stage == 0) {
      slice.parts = partsOf(produce(k), sizeOf(op.reduction.type));
      const size_t block = slice.parts[size_t(member_)][0].size;
      // Until stage 1, kAhead slices later.
      slice.incoming = scratch(k % (kAhead + 1), n * block + 1);
      std::vector<Pieces> out(n);
      for (size_t m = 0; m < n; m++) {
        out[m] = {{slice.incoming + m * block, block}};
      }
      slice.batch = post(exchange, descriptor, slice.parts, out);
    } else if (stage == 1) {
      exchange.finishReceives(slice.batch);
      const Pieces& mine = slice.parts[size_t(member_)];
      fold(op, mine, slice.incoming, mine[0].size, mine);
      slice.batch = post(
          exchange, descriptor, std::vector<Pieces>(n, mine), slice.parts);
    } else {
      exchange.finishReceives(slice.batch);
      consume(k);
    }
  });
  finish(op, exchange);
}

// Ring: a slice is cut evenly. In stage s < n member m sends the sum of part
// m − 1 − s so far, to which the next member adds its own data: in stage n − 1
// member m has the whole sum of part m. In n − 1 more stages the sums go
// around. A part is folded in the order of the ring, by one member after the
// other, so all get the same bits.
void LinkCollectives::allreduceRing(
    Operation& op,
    size_t slices,
    const ProduceVector& produce,
    const Consume& consume) {
  struct Slice {
    std::vector<Pieces> parts;
    char* incoming;
    size_t batch;
  };
  const size_t n = size_t(members());
  const size_t stages = 2 * n - 1;
  std::vector<Slice> flight(stages);
  Exchange exchange(group_, op.wait);
  pipeline(slices, stages, 1, [&](size_t stage, size_t k) {
    Slice& slice = flight[k % flight.size()];
    if (stage == 0) {
      slice.parts = partsOf(produce(k), sizeOf(op.reduction.type));
      slice.incoming = scratch(k % n, slice.parts[0][0].size + 1);
    } else {
      exchange.finishReceives(slice.batch);
      if (stage < n) {
        const Pieces& part = slice.parts[before(1 + stage)];
        foldRing(op, slice.incoming, part, stage == n - 1, part);
      }
    }
    if (stage == stages - 1) {
      consume(k);
      return;
    }
    const Pieces& next = slice.parts[before(2 + stage)];
    slice.batch = postRing(
        exchange, op.stage(stages * k + stage), slice.parts[before(1 + stage)],
        stage < n - 1 ? Pieces{{slice.incoming, next[0].size}} : next);
  });
  finish(op, exchange);
}

void LinkCollectives::allgather(
    Operation& op,
    const Pieces& in,
    const std::vector<Pieces>& out) {
  copyPieces(in, out[size_t(member_)]);
  size_t total = 0;
  for (const auto& pieces : out) {
    total += totalSize(pieces);
  }
  const size_t slices = planner_.slices(total, ranks_.size());
  allgatherSlices(
      op, slices, [&](size_t k) { return sliceOf(in, 1, slices, k); },
      [&](size_t k) { return slicesOf(out, 1, slices, k); },
      [](size_t) {});
}

// Direct: everyone sends its part to everyone. Ring: in stage s member m passes
// on the part of member m − s.
void LinkCollectives::allgatherSlices(
    Operation& op,
    size_t slices,
    const PiecesOf& in,
    const StreamsOf& out,
    const Consume& consume) {
  log(op, slices);
  const size_t n = size_t(members());
  const bool ring = usesRing(op);
  const size_t stages = ring ? n : 2;
  struct Slice {
    std::vector<Pieces> out;
    size_t batch;
  };
  std::vector<Slice> flight((stages - 1) * kAhead + 1);
  Exchange exchange(group_, op.wait);
  pipeline(slices, stages, kAhead, [&](size_t stage, size_t k) {
    Slice& slice = flight[k % flight.size()];
    if (stage == 0) {
      slice.out = out(k);
    } else {
      exchange.finishReceives(slice.batch);
    }
    if (stage == stages - 1) {
      consume(k);
      return;
    }
    const Descriptor descriptor = op.stage(stages * k + stage);
    slice.batch = ring
        ? postRing(
              exchange, descriptor,
              stage == 0 ? in(k) : slice.out[before(stage)],
              slice.out[before(stage + 1)])
        : post(exchange, descriptor, std::vector<Pieces>(n, in(k)), slice.out);
  });
  finish(op, exchange);
}

void LinkCollectives::reduceScatter(
    Operation& op,
    const std::vector<Pieces>& in,
    const Pieces& out) {
  const size_t size = sizeOf(op.reduction.type);
  size_t total = 0;
  for (const auto& pieces : in) {
    total += totalSize(pieces);
  }
  const size_t slices = planner_.slices(total, ranks_.size());
  reduceScatterSlices(
      op, slices,
      [&](size_t k) { return slicesOf(in, size, slices, k); },
      [&](size_t k) { return sliceOf(out, size, slices, k); });
}

// Direct: everyone sends part m to member m, which folds in member order. Ring:
// as the first half of AllReduce, but sums stay in memory of ours, as inputs
// must not change: one piece of memory receives while the other is sent.
void LinkCollectives::reduceScatterSlices(
    Operation& op,
    size_t slices,
    const StreamsOf& produce,
    const PiecesOf& out) {
  log(op, slices);
  const size_t n = size_t(members());
  const bool ring = usesRing(op);
  const size_t stages = ring ? n : 2;
  struct Slice {
    std::vector<Pieces> in;
    char* incoming[2];
    size_t batch;
  };
  std::vector<Slice> flight((stages - 1) * kAhead + 1);
  Exchange exchange(group_, op.wait);
  pipeline(slices, stages, kAhead, [&](size_t stage, size_t k) {
    Slice& slice = flight[k % flight.size()];
    const Descriptor descriptor = op.stage(stages * k + stage);
    if (stage == 0) {
      slice.in = produce(k);
    }
    const size_t mine = totalSize(slice.in[size_t(member_)]);
    if (!ring) {
      if (stage == 0) {
        slice.incoming[0] = scratch(k % flight.size(), n * mine + 1);
        std::vector<Pieces> incoming(n);
        for (size_t m = 0; m < n; m++) {
          incoming[m] = {{slice.incoming[0] + m * mine, mine}};
        }
        slice.batch = post(exchange, descriptor, slice.in, incoming);
      } else {
        exchange.finish(slice.batch);
        fold(op, slice.in[size_t(member_)], slice.incoming[0], mine, out(k));
      }
      return;
    }
    if (stage == 0) {
      size_t largest = 0;
      for (const auto& pieces : slice.in) {
        largest = std::max(largest, totalSize(pieces));
      }
      for (size_t i : {0, 1}) {
        slice.incoming[i] =
            scratch(2 * (k % flight.size()) + i, largest + 1);
      }
    } else {
      exchange.finish(slice.batch);
    }
    const Pieces& part = slice.in[before(1 + stage)];
    char* sum = slice.incoming[(stage + 1) % 2]; // of `part`, so far
    Pieces outgoing = part;
    if (stage > 0) {
      outgoing = stage == n - 1 ? out(k) : Pieces{{sum, totalSize(part)}};
      foldRing(op, sum, part, stage == n - 1, outgoing);
    }
    if (stage < n - 1) {
      slice.batch = postRing(
          exchange, descriptor, outgoing,
          {{slice.incoming[stage % 2],
            totalSize(slice.in[before(2 + stage)])}});
    }
  });
  finish(op, exchange);
}

void LinkCollectives::broadcast(Operation& op, int root, const Pieces& data) {
  const size_t slices = planner_.slices(totalSize(data), ranks_.size());
  broadcastSlices(
      op, root, slices, [&](size_t k) { return sliceOf(data, 1, slices, k); },
      [](size_t) {});
}

// Broadcast
//
// Small, or with two members: the root sends everything to everyone. Large:
// stage 0: the root sends a different part to every other member; stage 1:
// these send theirs to each other; the root's link carries every byte once.
void LinkCollectives::broadcastSlices(
    Operation& op,
    int root,
    size_t slices,
    const PiecesOf& produce,
    const Consume& consume) {
  const size_t n = size_t(members());
  const bool source = root == member_;
  const bool whole = n == 2 ||
      op.descriptor.bytes <= planner_.railOneShotBytes();
  planner_.log(
      "links", op.descriptor.kind, op.descriptor.bytes,
      whole ? "whole" : "in parts",
      std::to_string(n) + " members, " + std::to_string(slices) +
          (slices == 1 ? " slice" : " slices"));
  struct Slice {
    std::vector<Pieces> parts;
    size_t batch;
  };
  std::vector<Slice> flight(2 * kAhead + 1);
  Exchange exchange(group_, op.wait);
  pipeline(slices, 3, kAhead, [&](size_t stage, size_t k) {
    Slice& slice = flight[k % flight.size()];
    std::vector<Pieces> in(n);
    std::vector<Pieces> out(n);
    if (stage == 0) {
      const Pieces data = produce(k);
      const size_t bytes = totalSize(data);
      slice.parts.assign(n, Pieces());
      for (size_t m = 0, p = 0; m < n; m++) {
        if (m == size_t(root)) {
          continue;
        }
        const size_t begin = whole ? 0 : cut(bytes, n - 1, p);
        const size_t end = whole ? bytes : cut(bytes, n - 1, p + 1);
        slice.parts[m] = range(data, begin, end - begin);
        p++;
      }
      if (source) {
        in = slice.parts;
      } else {
        out[size_t(root)] = slice.parts[size_t(member_)];
      }
    } else {
      // The root does not run away from those who read.
      exchange.finish(slice.batch);
    }
    if (stage == 1 && !whole && !source) {
      in.assign(n, slice.parts[size_t(member_)]);
      in[size_t(root)].clear();
      out = slice.parts;
    }
    if (stage < 2 && (stage == 0 || !whole)) {
      slice.batch = post(exchange, op.stage(3 * k + stage), in, out);
    }
    if (stage == 2) {
      consume(k);
    }
  });
  finish(op, exchange);
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
  copyPieces(in[size_t(member_)], out[size_t(member_)]);
  exchange(op, in, out);
}

} // namespace trainyard::collective
