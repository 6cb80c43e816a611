#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "csrc/common/types.h"

namespace trainyard::collective {

// The memory of tensors as the algorithms see it: packed bytes.
//
// A contiguous tensor is used in place. Any other is packed into a contiguous
// one, and what was written to it is copied back by `finish`, so that strides
// never matter to the result. Lives while the operation runs.
class FlatTensors {
 public:
  Piece input(const at::Tensor& tensor);
  // `keep`: the old content matters (it is read or not wholly overwritten).
  Piece output(const at::Tensor& tensor, bool keep);
  void finish();

 private:
  struct CopyBack {
    at::Tensor original;
    at::Tensor flat;
  };
  std::vector<at::Tensor> packed_;
  std::vector<CopyBack> copyBacks_;
};

// The element type for messages and for reductions. Complex numbers are pairs
// of real ones, which SUM, AVG and PREMUL_SUM allow.
DataType dataTypeOf(at::ScalarType type);

// Throws ValueError where a tensor cannot take part: wrong layout or device,
// or (as output) elements that share memory.
void checkTensor(const at::Tensor& tensor, const char* op, bool isOutput);

// Throws ValueError unless all tensors have the first one's type.
void checkSameType(const std::vector<at::Tensor>& tensors, const char* op);

} // namespace trainyard::collective
