#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace trainyard::collective {

// Element types that can be reduced. `bytes` stands for every type that is
// only moved (the 8-bit floats, quantised types).
enum class DataType : uint8_t {
  float64,
  float32,
  float16,
  bfloat16,
  int64,
  int32,
  int16,
  int8,
  uint8,
  boolean,
  bytes,
};

enum class ReduceKind : uint8_t {
  none,
  sum,
  avg,
  product,
  min,
  max,
  band,
  bor,
  bxor,
  premulSum,
};

enum class OpKind : uint8_t {
  allreduce,
  allgather,
  reduceScatter,
  broadcast,
  reduce,
  alltoall,
  gather,
  scatter,
  barrier,
};

inline const char* toString(DataType type) {
  static const char* names[] = {
      "float64", "float32", "float16", "bfloat16", "int64", "int32",
      "int16",   "int8",    "uint8",   "bool",     "bytes"};
  return names[static_cast<int>(type)];
}

inline const char* toString(ReduceKind kind) {
  static const char* names[] = {"none", "SUM",  "AVG", "PRODUCT", "MIN",
                                "MAX",  "BAND", "BOR", "BXOR",    "PREMUL_SUM"};
  return names[static_cast<int>(kind)];
}

inline const char* toString(OpKind kind) {
  static const char* names[] = {
      "all_reduce", "all_gather", "reduce_scatter", "broadcast", "reduce",
      "all_to_all", "gather",     "scatter",        "barrier"};
  return names[static_cast<int>(kind)];
}

inline size_t sizeOf(DataType type) {
  static const size_t sizes[] = {8, 4, 2, 2, 8, 4, 2, 1, 1, 1, 1};
  return sizes[static_cast<int>(type)];
}

// What every rank must agree on before data of one collective may move. Ranks
// compare descriptors whenever they meet; `bytes` is zero where ranks may
// rightly differ (all_to_all with splits, gathers of unequal parts).
struct Descriptor {
  uint64_t sequence = 0;
  uint64_t bytes = 0;
  int32_t root = -1;
  OpKind kind = OpKind::barrier;
  DataType type = DataType::bytes;
  ReduceKind reduce = ReduceKind::none;
  uint8_t step = 0; // which exchange inside a composed operation

  bool operator==(const Descriptor& other) const {
    return sequence == other.sequence && bytes == other.bytes &&
        root == other.root && kind == other.kind && type == other.type &&
        reduce == other.reduce && step == other.step;
  }

  std::string toString() const {
    std::string text = collective::toString(kind);
    text += " #" + std::to_string(sequence) + " (";
    if (bytes > 0 || kind != OpKind::barrier) {
      text += std::to_string(bytes) + " bytes of ";
      text += collective::toString(type);
    }
    if (reduce != ReduceKind::none) {
      text += std::string(", ") + collective::toString(reduce);
    }
    if (root >= 0) {
      text += ", root " + std::to_string(root);
    }
    return text + ")";
  }
};

// A piece of somebody's tensor. A logical stream of bytes is a list of pieces:
// the list form of all_gather writes straight into each output tensor.
struct Piece {
  char* data = nullptr;
  size_t size = 0;
};

using Pieces = std::vector<Piece>;

inline size_t totalSize(const Pieces& pieces) {
  size_t total = 0;
  for (const auto& piece : pieces) {
    total += piece.size;
  }
  return total;
}

// Calls fn(data, size) for the parts of `pieces` that make up the stream's
// bytes [offset, offset + size).
template <typename Fn>
void forRange(const Pieces& pieces, size_t offset, size_t size, Fn fn) {
  for (const auto& piece : pieces) {
    if (size == 0) {
      return;
    }
    if (offset >= piece.size) {
      offset -= piece.size;
      continue;
    }
    const size_t part = std::min(size, piece.size - offset);
    fn(piece.data + offset, part);
    size -= part;
    offset = 0;
  }
}

} // namespace trainyard::collective
