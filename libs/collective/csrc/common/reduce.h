#pragma once

#include <cstddef>

#include "csrc/common/types.h"

namespace trainyard::collective {

// How elements are combined.
//
// `factor` multiplies every input before the fold (PREMUL_SUM); `divisor`
// divides the result once, after the last input was added (AVG). A composed
// operation applies the factor only where a rank's own input is first read and
// the divisor only in its last fold; both are 1 elsewhere.
struct Reduction {
  DataType type = DataType::bytes;
  ReduceKind kind = ReduceKind::none;
  double factor = 1;
  double divisor = 1;
};

// out[i] = ((inputs[0][i] op inputs[1][i]) op inputs[2][i]) … / divisor
//
// The order of the inputs is the order of the fold, so that ranks that pass
// them in rank order get the same bits. float16 and bfloat16 are folded in
// float32 and rounded once. Sums of integers wrap. MIN and MAX of a NaN and a
// number are NaN. SUM of bools is OR and PRODUCT is AND. `out` may be one of
// the inputs. Types, operations and lengths must have been checked before (see
// checkReduction).
void reduce(
    const Reduction& reduction,
    void* out,
    const void* const* inputs,
    size_t nInputs,
    size_t count);

// Throws Error(invalid) where the operation has no meaning for the type.
void checkReduction(DataType type, ReduceKind kind);

} // namespace trainyard::collective
