// Included several times, each time inside another namespace and under other
// target options (see reduce.cc): no include guard, no includes.
//
// One kernel per (type, operation). Each works block by block: a block of
// accumulators stays in the first-level cache while the inputs stream through,
// so memory sees every input once and the output once. The loops are simple
// on purpose: the compiler turns them into vector code for each target.

constexpr size_t kBlock = 1024;

template <typename T>
struct Same {
  using Element = T;
  using Accumulator = T;
  static T load(T value) {
    return value;
  }
  static T store(T value) {
    return value;
  }
};

struct BFloat16 {
  using Element = uint16_t;
  using Accumulator = float;
  static float load(uint16_t bits) {
    const uint32_t wide = uint32_t(bits) << 16;
    float value;
    __builtin_memcpy(&value, &wide, 4);
    return value;
  }
  static uint16_t store(float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, 4);
    const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const uint32_t quiet = (bits >> 16) | 0x40;
    return uint16_t((bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded);
  }
};

struct Float16 {
  using Element = uint16_t;
  using Accumulator = float;
  static float load(uint16_t half) {
    // Exponent and mantissa are shifted into place and rebased by one exact
    // multiplication, which also handles subnormal numbers.
    const uint32_t sign = uint32_t(half & 0x8000) << 16;
    const uint32_t magnitude = uint32_t(half & 0x7fff) << 13;
    float value;
    __builtin_memcpy(&value, &magnitude, 4);
    value *= 0x1p112f;
    uint32_t bits;
    __builtin_memcpy(&bits, &value, 4);
    const uint32_t special = (magnitude & 0x007fffff) | 0x7f800000;
    bits = (half & 0x7c00) == 0x7c00 ? special : bits;
    bits |= sign;
    __builtin_memcpy(&value, &bits, 4);
    return value;
  }
  static uint16_t store(float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, 4);
    const uint32_t sign = (bits >> 16) & 0x8000;
    bits &= 0x7fffffff;
    // Normal results: rebase the exponent, round to nearest even.
    const uint32_t normal =
        (bits - 0x38000000 + 0xfff + ((bits >> 13) & 1)) >> 13;
    // Subnormal results: adding 0.5 lets the hardware round at the right bit.
    float magnitude;
    __builtin_memcpy(&magnitude, &bits, 4);
    magnitude += 0.5f;
    uint32_t small;
    __builtin_memcpy(&small, &magnitude, 4);
    small -= 0x3f000000;
    uint32_t half = bits < 0x38800000 ? small : normal;
    half = bits >= 0x477ff000 ? 0x7c00 : half;
    half = bits > 0x7f800000 ? 0x7e00 : half;
    return uint16_t(half | sign);
  }
};

struct Sum {
  template <typename T>
  static T fold(T a, T b) {
    return T(a + b);
  }
};
struct Product {
  template <typename T>
  static T fold(T a, T b) {
    return T(a * b);
  }
};
struct Min {
  template <typename T>
  static T fold(T a, T b) {
    return (b < a || b != b) && a == a ? b : a;
  }
};
struct Max {
  template <typename T>
  static T fold(T a, T b) {
    return (b > a || b != b) && a == a ? b : a;
  }
};
struct And {
  template <typename T>
  static T fold(T a, T b) {
    return T(a & b);
  }
};
struct Or {
  template <typename T>
  static T fold(T a, T b) {
    return T(a | b);
  }
};
struct Xor {
  template <typename T>
  static T fold(T a, T b) {
    return T(a ^ b);
  }
};

template <typename Format, typename Op>
void fold(
    const Reduction& reduction,
    void* outBytes,
    const void* const* inputs,
    size_t nInputs,
    size_t count) {
  using Element = typename Format::Element;
  using Accumulator = typename Format::Accumulator;
  auto* out = static_cast<Element*>(outBytes);
  const auto factor = Accumulator(reduction.factor);
  const auto divisor = Accumulator(reduction.divisor);
  const bool scaled = reduction.factor != 1;
  const bool divided = reduction.divisor != 1;
  if (nInputs == 2 && !scaled && !divided) {
    const auto* a = static_cast<const Element*>(inputs[0]);
    const auto* b = static_cast<const Element*>(inputs[1]);
#pragma GCC ivdep
    for (size_t i = 0; i < count; i++) {
      out[i] = Format::store(
          Op::template fold<Accumulator>(Format::load(a[i]), Format::load(b[i])));
    }
    return;
  }
  alignas(64) Accumulator block[kBlock];
  for (size_t at = 0; at < count; at += kBlock) {
    const size_t size = count - at < kBlock ? count - at : kBlock;
    for (size_t k = 0; k < nInputs; k++) {
      const auto* in = static_cast<const Element*>(inputs[k]) + at;
      if (k == 0 && scaled) {
        for (size_t i = 0; i < size; i++) {
          block[i] = Accumulator(Format::load(in[i]) * factor);
        }
      } else if (k == 0) {
        for (size_t i = 0; i < size; i++) {
          block[i] = Format::load(in[i]);
        }
      } else if (scaled) {
        for (size_t i = 0; i < size; i++) {
          block[i] = Op::template fold<Accumulator>(
              block[i], Accumulator(Format::load(in[i]) * factor));
        }
      } else {
        for (size_t i = 0; i < size; i++) {
          block[i] =
              Op::template fold<Accumulator>(block[i], Format::load(in[i]));
        }
      }
    }
    if (divided) {
      for (size_t i = 0; i < size; i++) {
        block[i] = Accumulator(block[i] / divisor);
      }
    }
    for (size_t i = 0; i < size; i++) {
      out[at + i] = Format::store(block[i]);
    }
  }
}

using Kernel =
    void (*)(const Reduction&, void*, const void* const*, size_t, size_t);

template <typename Format>
Kernel arithmetic(ReduceKind kind) {
  switch (kind) {
    case ReduceKind::product:
      return fold<Format, Product>;
    case ReduceKind::min:
      return fold<Format, Min>;
    case ReduceKind::max:
      return fold<Format, Max>;
    default:
      return fold<Format, Sum>;
  }
}

template <typename T>
Kernel integral(ReduceKind kind) {
  switch (kind) {
    case ReduceKind::band:
      return fold<Same<T>, And>;
    case ReduceKind::bor:
      return fold<Same<T>, Or>;
    case ReduceKind::bxor:
      return fold<Same<T>, Xor>;
    default:
      return arithmetic<Same<T>>(kind);
  }
}

inline Kernel boolean(ReduceKind kind) {
  switch (kind) {
    case ReduceKind::bxor:
      return fold<Same<uint8_t>, Xor>;
    case ReduceKind::product:
    case ReduceKind::min:
    case ReduceKind::band:
      return fold<Same<uint8_t>, And>;
    default:
      return fold<Same<uint8_t>, Or>;
  }
}

inline Kernel kernelFor(DataType type, ReduceKind kind) {
  switch (type) {
    case DataType::float64:
      return arithmetic<Same<double>>(kind);
    case DataType::float32:
      return arithmetic<Same<float>>(kind);
    case DataType::float16:
      return arithmetic<Float16>(kind);
    case DataType::bfloat16:
      return arithmetic<BFloat16>(kind);
    case DataType::int64:
      return integral<int64_t>(kind);
    case DataType::int32:
      return integral<int32_t>(kind);
    case DataType::int16:
      return integral<int16_t>(kind);
    case DataType::int8:
      return integral<int8_t>(kind);
    case DataType::uint8:
      return integral<uint8_t>(kind);
    default:
      return boolean(kind);
  }
}
