#include "csrc/common/reduce.h"

#include <cstdint>
#include <cstring>

#include "csrc/common/error.h"

// The kernels are compiled once for every processor and once for those with
// AVX2; the library picks at run time, so that one wheel serves both. All
// builds forbid fused multiply-add (-ffp-contract=off), and therefore give the
// same bits.

namespace trainyard::collective {

namespace portable {
#include "csrc/common/reduce_kernels.h"
} // namespace portable

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2")
namespace avx2 {
#include "csrc/common/reduce_kernels.h"
} // namespace avx2
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
namespace avx512 {
#include "csrc/common/reduce_kernels.h"
} // namespace avx512
#pragma GCC pop_options
#endif

void reduce(
    const Reduction& reduction,
    void* out,
    const void* const* inputs,
    size_t nInputs,
    size_t count) {
  if (count == 0) {
    return;
  }
  if (nInputs == 1 && reduction.factor == 1 && reduction.divisor == 1) {
    if (out != inputs[0]) {
      memcpy(out, inputs[0], count * sizeOf(reduction.type));
    }
    return;
  }
#if defined(__x86_64__)
  static const bool wide = __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  static const bool vectors = __builtin_cpu_supports("avx2");
  if (wide) {
    avx512::kernelFor(reduction.type, reduction.kind)(
        reduction, out, inputs, nInputs, count);
    return;
  }
  if (vectors) {
    avx2::kernelFor(reduction.type, reduction.kind)(
        reduction, out, inputs, nInputs, count);
    return;
  }
#endif
  portable::kernelFor(reduction.type, reduction.kind)(
      reduction, out, inputs, nInputs, count);
}

void checkReduction(DataType type, ReduceKind kind) {
  const bool isFloat = type <= DataType::bfloat16;
  const bool isBytes = type == DataType::bytes;
  const bool isBitwise = kind == ReduceKind::band || kind == ReduceKind::bor ||
      kind == ReduceKind::bxor;
  const bool needsFloat =
      kind == ReduceKind::avg || kind == ReduceKind::premulSum;
  if (isBytes || (isFloat && isBitwise) || (!isFloat && needsFloat)) {
    throw Error(
        ErrorKind::invalid,
        std::string("ReduceOp.") + toString(kind) +
            " is not defined for tensors of " +
            (isBytes ? "an 8-bit or quantised type" : toString(type)) +
            ": AVG and PREMUL_SUM need floating point, BAND, BOR and BXOR "
            "need integers or bool, 8-bit floats can only be moved; convert "
            "the tensor first");
  }
}

} // namespace trainyard::collective
