#pragma once

#include <torch/csrc/distributed/c10d/Work.hpp>

#include <functional>
#include <memory>
#include <vector>

namespace trainyard::collective {

// One operation that a caller may wait for. Keeps the tensors alive until it
// is over, whatever the caller does with the handle.
class CollectiveWork : public c10d::Work {
 public:
  CollectiveWork(
      int rank,
      c10d::OpType type,
      uint64_t sequence,
      std::vector<at::Tensor> outputs);

  // Called once, by the thread that carried the operation out. Waiters wake
  // and the future completes.
  void complete(std::exception_ptr error, int source = -1);

  std::vector<at::Tensor> result() override;
  int sourceRank() const override;
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override;
  c10::intrusive_ptr<c10::ivalue::Future> getFutureResult() override;
  uint64_t getSequencenumber() const override;
  float getDuration() const override;
  void abort() override;

  // What abort() calls: the group's abort.
  std::function<void()> onAbort;

 private:
  const uint64_t sequence_;
  std::vector<at::Tensor> outputs_;
  int source_ = -1;
  // Made on demand: most works are only waited for.
  c10::intrusive_ptr<c10::ivalue::Future> future_;
  c10::intrusive_ptr<c10::ivalue::Future> futureResult_;
  std::chrono::steady_clock::time_point created_;
  std::chrono::steady_clock::time_point completedAt_;
};

// Several works as one: what endCoalescing returns.
class CombinedWork : public c10d::Work {
 public:
  explicit CombinedWork(
      int rank,
      std::vector<c10::intrusive_ptr<c10d::Work>> works);

  bool isCompleted() override;
  bool isSuccess() const override;
  std::exception_ptr exception() const override;
  bool wait(std::chrono::milliseconds timeout) override;
  void synchronize() override;
  std::vector<at::Tensor> result() override;
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override;
  void abort() override;

 private:
  std::vector<c10::intrusive_ptr<c10d::Work>> works_;
};

} // namespace trainyard::collective
