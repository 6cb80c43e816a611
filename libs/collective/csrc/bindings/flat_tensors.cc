#include "csrc/bindings/flat_tensors.h"

#include <ATen/MemoryOverlap.h>

namespace trainyard::collective {

Piece FlatTensors::input(const at::Tensor& tensor) {
  if (tensor.is_contiguous()) {
    return {static_cast<char*>(tensor.data_ptr()), tensor.nbytes()};
  }
  packed_.push_back(tensor.contiguous());
  return {static_cast<char*>(packed_.back().data_ptr()), tensor.nbytes()};
}

Piece FlatTensors::output(const at::Tensor& tensor, bool keep) {
  if (tensor.is_contiguous()) {
    return {static_cast<char*>(tensor.data_ptr()), tensor.nbytes()};
  }
  at::Tensor flat = keep
      ? tensor.contiguous()
      : at::empty(tensor.sizes(), tensor.options(), at::MemoryFormat::Contiguous);
  copyBacks_.push_back({tensor, flat});
  return {static_cast<char*>(flat.data_ptr()), flat.nbytes()};
}

void FlatTensors::finish() {
  for (auto& copy : copyBacks_) {
    copy.original.detach().copy_(copy.flat);
  }
}

DataType dataTypeOf(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
    case at::kComplexDouble:
      return DataType::float64;
    case at::kFloat:
    case at::kComplexFloat:
      return DataType::float32;
    case at::kHalf:
    case at::kComplexHalf:
      return DataType::float16;
    case at::kBFloat16:
      return DataType::bfloat16;
    case at::kLong:
      return DataType::int64;
    case at::kInt:
      return DataType::int32;
    case at::kShort:
      return DataType::int16;
    case at::kChar:
      return DataType::int8;
    case at::kByte:
      return DataType::uint8;
    case at::kBool:
      return DataType::boolean;
    default:
      return DataType::bytes;
  }
}

void checkTensor(const at::Tensor& tensor, const char* op, bool isOutput) {
  TORCH_CHECK_VALUE(
      tensor.layout() == at::kStrided, op, ": the tensor has layout ",
      tensor.layout(),
      " but only strided (dense) tensors can be communicated; call .to_dense()");
  TORCH_CHECK_VALUE(
      tensor.device().is_cpu(), op, ": the tensor is on ", tensor.device(),
      " but this group serves only cpu tensors; move it with .cpu()");
  if (isOutput && tensor.numel() > 1) {
    TORCH_CHECK_VALUE(
        at::has_internal_overlap(tensor) != at::MemOverlap::Yes, op,
        ": several elements of the output share one memory location (strides ",
        tensor.strides(), " for sizes ", tensor.sizes(),
        "); call .contiguous() or .clone() before");
  }
}

void checkSameType(const std::vector<at::Tensor>& tensors, const char* op) {
  for (const auto& tensor : tensors) {
    TORCH_CHECK_VALUE(
        tensor.scalar_type() == tensors[0].scalar_type(), op,
        ": tensors of types ", tensors[0].scalar_type(), " and ",
        tensor.scalar_type(), " were passed; all must have one type");
  }
}

} // namespace trainyard::collective
