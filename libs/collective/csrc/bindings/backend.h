#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "csrc/algorithms/collectives.h"
#include "csrc/algorithms/planner.h"
#include "csrc/bindings/lane.h"
#include "csrc/bindings/work.h"
#include "csrc/transport/group.h"
#include "csrc/transport/mailbox.h"

namespace trainyard::collective {

// The torch.distributed backend `smddp` (also registered as `trainyard`).
//
// CPU tensors are served here. Tensors of any other device go to the delegate
// (NCCL), if the group was made with one.
//
// Collectives are queued on the group's lane in the order of the calls; point
// to point messages go through the mailbox and do not wait for them. Tensors
// need not be contiguous: such inputs are packed and such outputs unpacked
// when the operation runs. Outputs that overlap themselves are refused.
class CollectiveBackend : public c10d::Backend {
 public:
  CollectiveBackend(
      c10::intrusive_ptr<c10d::Store> store,
      int rank,
      int size,
      std::chrono::milliseconds timeout,
      std::string groupName,
      std::vector<int64_t> globalRanks,
      c10::intrusive_ptr<c10d::Backend> delegate);
  ~CollectiveBackend() override;

  const std::string getBackendName() const override {
    return "smddp";
  }
  c10::intrusive_ptr<Options> getBackendOptions() override;
  bool supportsCoalescing() const override {
    return true;
  }
  void setTimeout(std::chrono::milliseconds timeout) override;
  void setSequenceNumberForGroup() override {}
  uint64_t getSequenceNumberForGroup() override {
    return sequence_;
  }

  c10::intrusive_ptr<c10d::Work> broadcast(
      std::vector<at::Tensor>& tensors,
      const c10d::BroadcastOptions& opts) override;
  c10::intrusive_ptr<c10d::Work> allreduce(
      std::vector<at::Tensor>& tensors,
      const c10d::AllreduceOptions& opts) override;
  c10::intrusive_ptr<c10d::Work> allreduce_coalesced(
      std::vector<at::Tensor>& tensors,
      const c10d::AllreduceCoalescedOptions& opts) override;
  c10::intrusive_ptr<c10d::Work> reduce(
      std::vector<at::Tensor>& tensors,
      const c10d::ReduceOptions& opts) override;
  c10::intrusive_ptr<c10d::Work> allgather(
      std::vector<std::vector<at::Tensor>>& outputs,
      std::vector<at::Tensor>& inputs,
      const c10d::AllgatherOptions& opts) override;
  c10::intrusive_ptr<c10d::Work> _allgather_base(
      at::Tensor& output,
      at::Tensor& input,
      const c10d::AllgatherOptions& opts) override;
  c10::intrusive_ptr<c10d::Work> allgather_coalesced(
      std::vector<std::vector<at::Tensor>>& outputs,
      std::vector<at::Tensor>& inputs,
      const c10d::AllgatherOptions& opts) override;
  c10::intrusive_ptr<c10d::Work> allgather_into_tensor_coalesced(
      std::vector<at::Tensor>& outputs,
      std::vector<at::Tensor>& inputs,
      const c10d::AllgatherOptions& opts) override;
  c10::intrusive_ptr<c10d::Work> gather(
      std::vector<std::vector<at::Tensor>>& outputs,
      std::vector<at::Tensor>& inputs,
      const c10d::GatherOptions& opts) override;
  c10::intrusive_ptr<c10d::Work> scatter(
      std::vector<at::Tensor>& outputs,
      std::vector<std::vector<at::Tensor>>& inputs,
      const c10d::ScatterOptions& opts) override;
  c10::intrusive_ptr<c10d::Work> reduce_scatter(
      std::vector<at::Tensor>& outputs,
      std::vector<std::vector<at::Tensor>>& inputs,
      const c10d::ReduceScatterOptions& opts) override;
  c10::intrusive_ptr<c10d::Work> _reduce_scatter_base(
      at::Tensor& output,
      at::Tensor& input,
      const c10d::ReduceScatterOptions& opts) override;
  c10::intrusive_ptr<c10d::Work> reduce_scatter_tensor_coalesced(
      std::vector<at::Tensor>& outputs,
      std::vector<at::Tensor>& inputs,
      const c10d::ReduceScatterOptions& opts) override;
  c10::intrusive_ptr<c10d::Work> alltoall_base(
      at::Tensor& output,
      at::Tensor& input,
      std::vector<int64_t>& outputSplits,
      std::vector<int64_t>& inputSplits,
      const c10d::AllToAllOptions& opts) override;
  c10::intrusive_ptr<c10d::Work> alltoall(
      std::vector<at::Tensor>& outputs,
      std::vector<at::Tensor>& inputs,
      const c10d::AllToAllOptions& opts) override;
  c10::intrusive_ptr<c10d::Work> barrier(
      const c10d::BarrierOptions& opts) override;
  void monitoredBarrier(const c10d::BarrierOptions& opts, bool waitAllRanks)
      override;

  c10::intrusive_ptr<c10d::Work>
  send(std::vector<at::Tensor>& tensors, int dstRank, int tag) override;
  c10::intrusive_ptr<c10d::Work>
  recv(std::vector<at::Tensor>& tensors, int srcRank, int tag) override;
  c10::intrusive_ptr<c10d::Work> recvAnysource(
      std::vector<at::Tensor>& tensors,
      int tag) override;
  void startCoalescing() override;
  c10::intrusive_ptr<c10d::Work> endCoalescing() override;

  bool supportsTensorAlloc(c10::DeviceIndex device) override;
  at::Tensor allocateTensor(long size, at::TensorOptions options) override;

  // Fails the group on all ranks; waiters throw, connections close. May be
  // called at any time, from any thread, more than once.
  void abort() override;
  // Lets what was issued finish, says goodbye and closes everything.
  void shutdown() override;
  c10d::ErrorType getError() override;

  // Shuts every live backend down, waiting at most `limit` for operations.
  // For the interpreter's exit: threads of ours must not release tensors of a
  // Python that is going away.
  static void closeAll(Milliseconds limit);

  // Payload bytes and messages sent over links so far.
  Traffic traffic() const;
  // Hosts and ranks, for tests and logs: "host,host,…" by rank.
  std::vector<int64_t> hostOfRanks();

 private:
  using Run = std::function<void(Operation&, Collectives&)>;

  void close(Milliseconds limit);

  c10::intrusive_ptr<c10d::Work> submit(
      const Descriptor& descriptor,
      const Reduction& reduction,
      c10d::OpType type,
      const char* name,
      std::vector<at::Tensor> inputs,
      std::vector<at::Tensor> outputs,
      std::chrono::milliseconds timeout,
      bool asyncOp,
      Run run);
  void execute(
      CollectiveWork& work,
      uint64_t record,
      Descriptor descriptor,
      const Reduction& reduction,
      Milliseconds limit,
      const Run& run);
  c10::intrusive_ptr<c10d::Work> post(
      bool sending,
      std::vector<at::Tensor>& tensors,
      int rank,
      int tag);
  c10d::Backend* delegateFor(const at::Tensor& tensor);
  c10d::Backend& delegateOrThrow(const at::Tensor& tensor);
  Reduction reductionFor(
      const c10d::ReduceOp& op,
      const at::Tensor& tensor,
      const char* name) const;
  c10::intrusive_ptr<c10d::Work> keep(c10::intrusive_ptr<c10d::Work> work);
  Milliseconds limitOf(std::chrono::milliseconds timeout) const;
  void checkRank(int64_t rank, const char* what) const;

  const std::string groupName_;
  std::vector<int> globalRanks_;
  std::atomic<int64_t> timeoutMs_;
  c10::intrusive_ptr<c10d::Backend> delegate_;
  std::atomic<uint64_t> sequence_{0};
  std::atomic<uint64_t> p2pSequence_{0};

  Group group_;
  Planner planner_;
  std::unique_ptr<Collectives> collectives_; // made by the lane's first job
  bool probed_ = false; // by the lane's first large job
  Lane lane_;
  Mailbox mailbox_;
  std::mutex closeMutex_;
  bool closed_ = false;

  mutable std::mutex trafficMutex_;
  Traffic traffic_;

  std::mutex coalescingMutex_;
  bool coalescing_ = false;
  std::vector<c10::intrusive_ptr<c10d::Work>> coalesced_;
};

} // namespace trainyard::collective
