#include "csrc/bindings/work.h"

#include <ATen/core/ivalue_inl.h>

namespace trainyard::collective {

namespace {

c10::intrusive_ptr<c10::ivalue::Future> tensorsFuture() {
  return c10::make_intrusive<c10::ivalue::Future>(
      c10::ListType::create(c10::TensorType::get()));
}

// WorkResult as c10d's watchers read it.
int64_t resultOf(const std::exception_ptr& error) {
  return int64_t(error ? c10d::WorkResult::COMM_ERROR
                       : c10d::WorkResult::SUCCESS);
}

} // namespace

CollectiveWork::CollectiveWork(
    int rank,
    c10d::OpType type,
    uint64_t sequence,
    std::vector<at::Tensor> outputs)
    : Work(rank, type),
      sequence_(sequence),
      outputs_(std::move(outputs)),
      created_(std::chrono::steady_clock::now()) {}

void CollectiveWork::complete(std::exception_ptr error, int source) {
  c10::intrusive_ptr<c10::ivalue::Future> future;
  c10::intrusive_ptr<c10::ivalue::Future> futureResult;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    source_ = source;
    completedAt_ = std::chrono::steady_clock::now();
    completed_ = true;
    exception_ = error;
    future = future_;
    futureResult = futureResult_;
  }
  cv_.notify_all();
  // Callbacks run here, without the lock: they may ask this work anything.
  if (future && error) {
    future->setError(error);
  } else if (future) {
    future->markCompleted(c10::IValue(outputs_));
  }
  if (futureResult) {
    futureResult->markCompleted(c10::IValue(resultOf(error)));
  }
}

std::vector<at::Tensor> CollectiveWork::result() {
  return outputs_;
}

int CollectiveWork::sourceRank() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return source_;
}

c10::intrusive_ptr<c10::ivalue::Future> CollectiveWork::getFuture() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!future_) {
    future_ = tensorsFuture();
    if (completed_ && exception_) {
      future_->setError(exception_);
    } else if (completed_) {
      future_->markCompleted(c10::IValue(outputs_));
    }
  }
  return future_;
}

c10::intrusive_ptr<c10::ivalue::Future> CollectiveWork::getFutureResult() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!futureResult_) {
    futureResult_ =
        c10::make_intrusive<c10::ivalue::Future>(c10::IntType::get());
    if (completed_) {
      futureResult_->markCompleted(c10::IValue(resultOf(exception_)));
    }
  }
  return futureResult_;
}

uint64_t CollectiveWork::getSequencenumber() const {
  return sequence_;
}

float CollectiveWork::getDuration() const {
  std::lock_guard<std::mutex> lock(mutex_);
  TORCH_CHECK(completed_, "getDuration: the operation has not completed yet");
  return std::chrono::duration<float, std::milli>(completedAt_ - created_)
      .count();
}

void CollectiveWork::abort() {
  if (onAbort) {
    onAbort();
  }
}

CombinedWork::CombinedWork(
    int rank,
    std::vector<c10::intrusive_ptr<c10d::Work>> works)
    : Work(rank, c10d::OpType::COALESCED), works_(std::move(works)) {}

bool CombinedWork::isCompleted() {
  for (auto& work : works_) {
    if (!work->isCompleted()) {
      return false;
    }
  }
  return true;
}

bool CombinedWork::isSuccess() const {
  for (auto& work : works_) {
    if (!work->isSuccess()) {
      return false;
    }
  }
  return true;
}

std::exception_ptr CombinedWork::exception() const {
  for (auto& work : works_) {
    if (auto error = work->exception()) {
      return error;
    }
  }
  return nullptr;
}

bool CombinedWork::wait(std::chrono::milliseconds timeout) {
  for (auto& work : works_) {
    work->wait(timeout);
  }
  return true;
}

void CombinedWork::synchronize() {
  for (auto& work : works_) {
    work->synchronize();
  }
}

std::vector<at::Tensor> CombinedWork::result() {
  std::vector<at::Tensor> tensors;
  for (auto& work : works_) {
    auto part = work->result();
    tensors.insert(tensors.end(), part.begin(), part.end());
  }
  return tensors;
}

c10::intrusive_ptr<c10::ivalue::Future> CombinedWork::getFuture() {
  auto future = tensorsFuture();
  if (works_.empty()) {
    future->markCompleted(c10::IValue(std::vector<at::Tensor>()));
    return future;
  }
  // Completes with the last of them, or with the first error.
  auto left = std::make_shared<std::atomic<size_t>>(works_.size());
  auto outputs = result();
  for (auto& work : works_) {
    work->getFuture()->addCallback(
        [future, left, outputs](c10::ivalue::Future& part) {
          if (part.hasError()) {
            future->setErrorIfNeeded(part.exception_ptr());
            (*left)--;
          } else if (--*left == 0 && !future->completed()) {
            future->markCompleted(c10::IValue(outputs));
          }
        });
  }
  return future;
}

void CombinedWork::abort() {
  for (auto& work : works_) {
    work->abort();
  }
}

} // namespace trainyard::collective
