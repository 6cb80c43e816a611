#include "csrc/bindings/backend.h"

#include <ATen/ThreadLocalState.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/CPUAllocator.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>

#include <cstring>
#include <set>

#include "csrc/algorithms/world_collectives.h"
#include "csrc/bindings/flat_tensors.h"
#include "csrc/bindings/flight_record.h"
#include "csrc/transport/settings.h"

namespace trainyard::collective {

namespace {

class StoreDirectory : public Directory {
 public:
  explicit StoreDirectory(c10::intrusive_ptr<c10d::Store> store)
      : store_(std::move(store)) {}

  void set(const std::string& key, const std::string& value) override {
    store_->set(key, std::vector<uint8_t>(value.begin(), value.end()));
  }
  bool has(const std::string& key) override {
    return store_->check({key});
  }
  std::string get(const std::string& key) override {
    const auto value = store_->get(key);
    return std::string(value.begin(), value.end());
  }
  int64_t add(const std::string& key, int64_t amount) override {
    return store_->add(key, amount);
  }

 private:
  c10::intrusive_ptr<c10d::Store> store_;
};

// As Python sees it: ValueError for what the caller can correct at the call,
// DistBackendError for what ends the group.
std::exception_ptr translate() {
  try {
    throw;
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::invalid) {
      return std::make_exception_ptr(
          c10::ValueError({__func__, __FILE__, __LINE__}, error.what()));
    }
    return std::make_exception_ptr(
        c10::DistBackendError({__func__, __FILE__, __LINE__}, error.what()));
  } catch (...) {
    return std::current_exception();
  }
}

template <typename Fn>
auto translated(Fn fn) {
  try {
    return fn();
  } catch (const Error&) {
    std::rethrow_exception(translate());
  }
}

std::vector<int> narrow(const std::vector<int64_t>& ranks, int size) {
  std::vector<int> result(ranks.begin(), ranks.end());
  for (int rank = int(result.size()); rank < size; rank++) {
    result.push_back(rank);
  }
  return result;
}

size_t bytesOf(const std::vector<at::Tensor>& tensors) {
  size_t bytes = 0;
  for (const auto& tensor : tensors) {
    bytes += tensor.nbytes();
  }
  return bytes;
}

const at::Tensor& only(const std::vector<at::Tensor>& tensors, const char* op) {
  TORCH_CHECK_VALUE(
      tensors.size() == 1, op, ": expected one tensor per rank but got ",
      tensors.size());
  return tensors[0];
}

std::vector<Pieces> emptyStreams(int members) {
  return std::vector<Pieces>(size_t(members));
}

// Cuts the bytes of one piece over the members.
Piece shard(const Piece& piece, size_t members, size_t member) {
  const size_t size = piece.size / members;
  return {piece.data + member * size, size};
}

} // namespace

namespace {

std::mutex liveMutex;
std::set<CollectiveBackend*> live;

} // namespace

CollectiveBackend::CollectiveBackend(
    c10::intrusive_ptr<c10d::Store> store,
    int rank,
    int size,
    std::chrono::milliseconds timeout,
    std::string groupName,
    std::vector<int64_t> globalRanks,
    c10::intrusive_ptr<c10d::Backend> delegate)
    : Backend(rank, size),
      groupName_(std::move(groupName)),
      globalRanks_(narrow(globalRanks, size)),
      timeoutMs_(timeout.count()),
      delegate_(std::move(delegate)),
      group_(
          std::make_unique<StoreDirectory>(std::move(store)),
          groupName_,
          rank,
          size,
          globalRanks_,
          timeout),
      planner_(globalRanks_[size_t(rank)]),
      mailbox_(group_) {
  translated([&] { planner_.readOverrides(settings().plan); });
  auto& flightRecord = FlightRecord::instance();
  flightRecord.addGroup(groupName_, "", globalRanks_);
  if (flightRecord.signalDescriptor() >= 0) {
    group_.watch(flightRecord.signalDescriptor(), [&flightRecord] {
      flightRecord.answerSignal();
      return true;
    });
  }
  std::lock_guard<std::mutex> lock(liveMutex);
  live.insert(this);
}

CollectiveBackend::~CollectiveBackend() {
  if (!forkedChild()) {
    std::lock_guard<std::mutex> lock(liveMutex);
    live.erase(this);
  }
  try {
    shutdown();
  } catch (const std::exception& error) {
    TORCH_WARN("trainyard_collective: closing failed: ", error.what());
  }
}

c10::intrusive_ptr<c10d::Backend::Options> CollectiveBackend::
    getBackendOptions() {
  auto options = c10::make_intrusive<Options>("smddp", Milliseconds(timeoutMs_));
  options->group_name = groupName_;
  options->global_ranks_in_group.assign(
      globalRanks_.begin(), globalRanks_.end());
  return options;
}

void CollectiveBackend::setTimeout(std::chrono::milliseconds timeout) {
  timeoutMs_ = timeout.count();
  if (delegate_) {
    delegate_->setTimeout(timeout);
  }
}

Milliseconds CollectiveBackend::limitOf(
    std::chrono::milliseconds timeout) const {
  return timeout.count() > 0 ? timeout : Milliseconds(timeoutMs_);
}

void CollectiveBackend::checkRank(int64_t rank, const char* what) const {
  TORCH_CHECK_VALUE(
      rank >= 0 && rank < size_, what, " is ", rank,
      " but must be a rank of the group, 0 to ", size_ - 1);
}

c10d::Backend* CollectiveBackend::delegateFor(const at::Tensor& tensor) {
  return tensor.device().is_cpu() || !delegate_ ? nullptr : delegate_.get();
}

Reduction CollectiveBackend::reductionFor(
    const c10d::ReduceOp& op,
    const at::Tensor& tensor,
    const char* name) const {
  static const ReduceKind kinds[] = {
      ReduceKind::sum, ReduceKind::avg, ReduceKind::product,
      ReduceKind::min, ReduceKind::max, ReduceKind::band,
      ReduceKind::bor, ReduceKind::bxor, ReduceKind::premulSum};
  TORCH_CHECK_VALUE(
      int(op.op_) < 9, name, ": unknown reduce operation ", int(op.op_));
  Reduction reduction;
  reduction.type = dataTypeOf(tensor.scalar_type());
  reduction.kind = kinds[int(op.op_)];
  translated([&] { checkReduction(reduction.type, reduction.kind); });
  TORCH_CHECK_VALUE(
      !tensor.is_complex() || reduction.kind == ReduceKind::sum ||
          reduction.kind == ReduceKind::avg ||
          reduction.kind == ReduceKind::premulSum,
      name, ": ReduceOp.", toString(reduction.kind),
      " is not defined for complex tensors; use SUM or AVG");
  if (reduction.kind == ReduceKind::avg) {
    reduction.divisor = size_;
  }
  if (reduction.kind == ReduceKind::premulSum) {
    const auto* supplement = dynamic_cast<c10d::NCCLPreMulSumSupplement*>(
        op.supplement_.get());
    TORCH_CHECK_VALUE(
        supplement != nullptr, name,
        ": PREMUL_SUM came without a factor; make it with "
        "torch.distributed._make_nccl_premul_sum(factor)");
    reduction.factor = supplement->tensor_factor.defined()
        ? supplement->tensor_factor.item<double>()
        : supplement->double_factor;
  }
  return reduction;
}

c10::intrusive_ptr<c10d::Work> CollectiveBackend::keep(
    c10::intrusive_ptr<c10d::Work> work) {
  std::lock_guard<std::mutex> lock(coalescingMutex_);
  if (coalescing_) {
    coalesced_.push_back(work);
  }
  return work;
}

c10::intrusive_ptr<c10d::Work> CollectiveBackend::submit(
    const Descriptor& described,
    const Reduction& reduction,
    c10d::OpType type,
    const char* name,
    std::vector<at::Tensor> inputs,
    std::vector<at::Tensor> outputs,
    std::chrono::milliseconds timeout,
    bool asyncOp,
    Run run) {
  for (const auto& tensor : inputs) {
    checkTensor(tensor, name, false);
  }
  for (const auto& tensor : outputs) {
    checkTensor(tensor, name, true);
  }
  Descriptor descriptor = described;
  descriptor.sequence = ++sequence_;
  descriptor.reduce = reduction.kind;
  const Milliseconds limit = limitOf(timeout);
  const uint64_t record = FlightRecord::instance().scheduled(
      groupName_, pg_desc_, name, descriptor.sequence, false, "", inputs,
      outputs, limit.count());
  auto work = c10::make_intrusive<CollectiveWork>(
      rank_, type, descriptor.sequence, outputs);
  work->onAbort = [this] { abort(); };
  keep(work);
  {
    std::lock_guard<std::mutex> lock(closeMutex_);
    TORCH_CHECK(
        !closed_, name, ": group ", groupName_,
        " has been destroyed; make a new one with new_group or "
        "init_process_group");
  }
  if (!asyncOp && lane_.tryStart()) {
    execute(*work, record, descriptor, reduction, limit, run);
    lane_.finish();
    return work;
  }
  // The job holds the tensors: c10d's callers may drop theirs at once.
  lane_.submit([this, work, record, descriptor, reduction, limit,
                run = std::move(run), inputs = std::move(inputs)] {
    execute(*work, record, descriptor, reduction, limit, run);
  });
  return work;
}

void CollectiveBackend::execute(
    CollectiveWork& work,
    uint64_t record,
    Descriptor descriptor,
    const Reduction& reduction,
    Milliseconds limit,
    const Run& run) {
  std::exception_ptr failure;
  FlightRecord::instance().started(record);
  try {
    at::NoGradGuard noGrad;
    Wait wait(
        group_.state(), limit, toString(descriptor.kind), descriptor.sequence);
    group_.state().check();
    if (!collectives_) {
      group_.awaitConnected(wait);
      collectives_ = makeCollectives(group_, planner_);
    }
    Operation op{descriptor, reduction, wait, {}};
    if (!probed_ && size_ > 1 && descriptor.bytes >= kProbeFrom) {
      probed_ = true;
      if (planner_.probes()) {
        probe(group_, planner_, *collectives_, op);
      }
    }
    run(op, *collectives_);
    std::lock_guard<std::mutex> lock(trafficMutex_);
    traffic_.payloadBytes += op.traffic.payloadBytes;
    traffic_.messages += op.traffic.messages;
  } catch (...) {
    failure = translate();
    // Whatever went wrong half-way, the ranks are out of step now.
    try {
      std::rethrow_exception(failure);
    } catch (const std::exception& error) {
      if (!group_.state().failed()) {
        const auto* known = dynamic_cast<const c10::Error*>(&error);
        group_.state().fail(
            ErrorKind::transport,
            group_.state().nameOf(rank_) + " failed in " +
                descriptor.toString() + ": " +
                (known ? known->what_without_backtrace() : error.what()));
      }
    }
  }
  FlightRecord::instance().finished(record, !failure);
  work.complete(failure);
}

c10::intrusive_ptr<c10d::Work> CollectiveBackend::broadcast(
    std::vector<at::Tensor>& tensors,
    const c10d::BroadcastOptions& opts) {
  const at::Tensor tensor = only(tensors, "broadcast");
  if (auto* delegate = delegateFor(tensor)) {
    return delegate->broadcast(tensors, opts);
  }
  checkRank(opts.rootRank, "broadcast: src");
  Descriptor descriptor;
  descriptor.kind = OpKind::broadcast;
  descriptor.bytes = tensor.nbytes();
  descriptor.type = dataTypeOf(tensor.scalar_type());
  descriptor.root = int32_t(opts.rootRank);
  const int root = int(opts.rootRank);
  return submit(
      descriptor, {}, c10d::OpType::BROADCAST, "broadcast", {tensor}, {tensor},
      opts.timeout, opts.asyncOp,
      [tensor, root, this](Operation& op, Collectives& collectives) {
        FlatTensors flat;
        const Piece data = root == rank_ ? flat.input(tensor)
                                         : flat.output(tensor, false);
        collectives.broadcast(op, root, {data});
        flat.finish();
      });
}

c10::intrusive_ptr<c10d::Work> CollectiveBackend::allreduce(
    std::vector<at::Tensor>& tensors,
    const c10d::AllreduceOptions& opts) {
  const at::Tensor tensor = only(tensors, "all_reduce");
  if (auto* delegate = delegateFor(tensor)) {
    return delegate->allreduce(tensors, opts);
  }
  const Reduction reduction = reductionFor(opts.reduceOp, tensor, "all_reduce");
  Descriptor descriptor;
  descriptor.kind = OpKind::allreduce;
  descriptor.bytes = tensor.nbytes();
  descriptor.type = reduction.type;
  return submit(
      descriptor, reduction, c10d::OpType::ALLREDUCE, "all_reduce", {tensor},
      {tensor}, opts.timeout, opts.asyncOp,
      [tensor](Operation& op, Collectives& collectives) {
        FlatTensors flat;
        const Piece data = flat.output(tensor, true);
        collectives.allreduce(
            op, data.data, data.size / sizeOf(op.reduction.type));
        flat.finish();
      });
}

c10::intrusive_ptr<c10d::Work> CollectiveBackend::allreduce_coalesced(
    std::vector<at::Tensor>& tensors,
    const c10d::AllreduceCoalescedOptions& opts) {
  TORCH_CHECK_VALUE(
      !tensors.empty(), "all_reduce_coalesced: no tensors were passed");
  if (auto* delegate = delegateFor(tensors[0])) {
    return delegate->allreduce_coalesced(tensors, opts);
  }
  checkSameType(tensors, "all_reduce_coalesced");
  const Reduction reduction =
      reductionFor(opts.reduceOp, tensors[0], "all_reduce_coalesced");
  Descriptor descriptor;
  descriptor.kind = OpKind::allreduce;
  descriptor.bytes = bytesOf(tensors);
  descriptor.type = reduction.type;
  return submit(
      descriptor, reduction, c10d::OpType::ALLREDUCE_COALESCED,
      "allreduce_coalesced", tensors, tensors, opts.timeout, opts.asyncOp,
      [tensors](Operation& op, Collectives& collectives) {
        // One message instead of many: packed, reduced, unpacked.
        std::vector<at::Tensor> parts;
        for (const auto& tensor : tensors) {
          parts.push_back(tensor.detach().reshape({-1}));
        }
        at::Tensor packed = at::cat(parts);
        collectives.allreduce(
            op, static_cast<char*>(packed.data_ptr()),
            packed.nbytes() / sizeOf(op.reduction.type));
        int64_t offset = 0;
        for (const auto& tensor : tensors) {
          tensor.detach().copy_(
              packed.narrow(0, offset, tensor.numel()).view(tensor.sizes()));
          offset += tensor.numel();
        }
      });
}

c10::intrusive_ptr<c10d::Work> CollectiveBackend::reduce(
    std::vector<at::Tensor>& tensors,
    const c10d::ReduceOptions& opts) {
  const at::Tensor tensor = only(tensors, "reduce");
  if (auto* delegate = delegateFor(tensor)) {
    return delegate->reduce(tensors, opts);
  }
  checkRank(opts.rootRank, "reduce: dst");
  const Reduction reduction = reductionFor(opts.reduceOp, tensor, "reduce");
  Descriptor descriptor;
  descriptor.kind = OpKind::reduce;
  descriptor.bytes = tensor.nbytes();
  descriptor.type = reduction.type;
  descriptor.root = int32_t(opts.rootRank);
  const size_t root = size_t(opts.rootRank);
  return submit(
      descriptor, reduction, c10d::OpType::REDUCE, "reduce", {tensor}, {tensor},
      opts.timeout, opts.asyncOp,
      [tensor, root, this](Operation& op, Collectives& collectives) {
        // A reduce-scatter, then a gather of the parts at the root. Only the
        // root's tensor changes.
        FlatTensors flat;
        const bool atRoot = root == size_t(rank_);
        const Piece data =
            atRoot ? flat.output(tensor, true) : flat.input(tensor);
        const size_t size = sizeOf(op.reduction.type);
        const size_t count = data.size / size;
        const size_t n = size_t(size_);
        std::vector<Pieces> parts(n);
        for (size_t m = 0; m < n; m++) {
          const size_t begin = cut(count, n, m) * size;
          parts[m] = {{data.data + begin, cut(count, n, m + 1) * size - begin}};
        }
        Piece mine = parts[size_t(rank_)][0];
        std::vector<char> scratch;
        if (!atRoot) {
          scratch.resize(mine.size + 1);
          mine.data = scratch.data();
        }
        const Descriptor whole = op.descriptor;
        collectives.reduceScatter(op, parts, {mine});
        // A mark of its own: ranks in the first half are not in the second.
        op.descriptor.step = 100;
        std::vector<Pieces> in(n);
        std::vector<Pieces> out(n);
        in[root] = {mine};
        if (atRoot) {
          out = parts;
        }
        collectives.alltoall(op, in, out);
        op.descriptor = whole;
        flat.finish();
      });
}

// The common body of all gathers into equal or unequal outputs: `inputs` are
// sent, outputs[m] are filled with what rank m sends.
c10::intrusive_ptr<c10d::Work> CollectiveBackend::allgather(
    std::vector<std::vector<at::Tensor>>& outputs,
    std::vector<at::Tensor>& inputs,
    const c10d::AllgatherOptions& opts) {
  const at::Tensor input = only(inputs, "all_gather");
  if (auto* delegate = delegateFor(input)) {
    return delegate->allgather(outputs, inputs, opts);
  }
  TORCH_CHECK_VALUE(
      outputs.size() == 1 && outputs[0].size() == size_t(size_),
      "all_gather: the output list has ",
      outputs.empty() ? 0 : outputs[0].size(),
      " tensors but the group has ", size_, " ranks; pass one for each");
  const auto list = outputs[0];
  TORCH_CHECK_VALUE(
      list[size_t(rank_)].nbytes() == input.nbytes(),
      "all_gather: output ", rank_, " has ", list[size_t(rank_)].nbytes(),
      " bytes but this rank's input has ", input.nbytes());
  for (const auto& tensor : list) {
    TORCH_CHECK_VALUE(
        tensor.scalar_type() == input.scalar_type(),
        "all_gather: the input is ", input.scalar_type(),
        " but an output is ", tensor.scalar_type(), "; use one type");
  }
  Descriptor descriptor;
  descriptor.kind = OpKind::allgather;
  // Ranks may contribute unequal parts, but all see the same total.
  descriptor.bytes = bytesOf(list);
  descriptor.type = dataTypeOf(input.scalar_type());
  return submit(
      descriptor, {}, c10d::OpType::ALLGATHER, "all_gather", {input}, list,
      opts.timeout, opts.asyncOp,
      [input, list](Operation& op, Collectives& collectives) {
        FlatTensors flat;
        std::vector<Pieces> out;
        for (const auto& tensor : list) {
          out.push_back({flat.output(tensor, false)});
        }
        collectives.allgather(op, {flat.input(input)}, out);
        flat.finish();
      });
}

c10::intrusive_ptr<c10d::Work> CollectiveBackend::_allgather_base(
    at::Tensor& output,
    at::Tensor& input,
    const c10d::AllgatherOptions& opts) {
  if (auto* delegate = delegateFor(input)) {
    return delegate->_allgather_base(output, input, opts);
  }
  std::vector<at::Tensor> outputs = {output};
  std::vector<at::Tensor> inputs = {input};
  return allgather_into_tensor_coalesced(outputs, inputs, opts);
}

c10::intrusive_ptr<c10d::Work> CollectiveBackend::allgather_coalesced(
    std::vector<std::vector<at::Tensor>>& outputs,
    std::vector<at::Tensor>& inputs,
    const c10d::AllgatherOptions& opts) {
  TORCH_CHECK_VALUE(
      !inputs.empty(), "all_gather_coalesced: no tensors were passed");
  if (auto* delegate = delegateFor(inputs[0])) {
    return delegate->allgather_coalesced(outputs, inputs, opts);
  }
  TORCH_CHECK_VALUE(
      outputs.size() == size_t(size_),
      "all_gather_coalesced: ", outputs.size(),
      " output lists were passed but the group has ", size_, " ranks");
  std::vector<at::Tensor> all;
  for (const auto& list : outputs) {
    TORCH_CHECK_VALUE(
        list.size() == inputs.size(), "all_gather_coalesced: an output list "
        "has ", list.size(), " tensors but there are ", inputs.size(),
        " inputs");
    all.insert(all.end(), list.begin(), list.end());
  }
  Descriptor descriptor;
  descriptor.kind = OpKind::allgather;
  descriptor.bytes = bytesOf(all);
  descriptor.type = dataTypeOf(inputs[0].scalar_type());
  return submit(
      descriptor, {}, c10d::OpType::ALLGATHER_COALESCED, "ALLGATHER_coalesced",
      inputs, all, opts.timeout, opts.asyncOp,
      [inputs, outputs](Operation& op, Collectives& collectives) {
        FlatTensors flat;
        Pieces in;
        for (const auto& tensor : inputs) {
          in.push_back(flat.input(tensor));
        }
        std::vector<Pieces> out;
        for (const auto& list : outputs) {
          out.emplace_back();
          for (const auto& tensor : list) {
            out.back().push_back(flat.output(tensor, false));
          }
        }
        collectives.allgather(op, in, out);
        flat.finish();
      });
}

c10::intrusive_ptr<c10d::Work> CollectiveBackend::
    allgather_into_tensor_coalesced(
        std::vector<at::Tensor>& outputs,
        std::vector<at::Tensor>& inputs,
        const c10d::AllgatherOptions& opts) {
  TORCH_CHECK_VALUE(
      !inputs.empty() && inputs.size() == outputs.size(),
      "all_gather_into_tensor: ", outputs.size(), " outputs for ",
      inputs.size(), " inputs; pass one for each");
  if (auto* delegate = delegateFor(inputs[0])) {
    return delegate->allgather_into_tensor_coalesced(outputs, inputs, opts);
  }
  for (size_t i = 0; i < inputs.size(); i++) {
    TORCH_CHECK_VALUE(
        outputs[i].numel() == inputs[i].numel() * size_ &&
            outputs[i].scalar_type() == inputs[i].scalar_type(),
        "all_gather_into_tensor: the output has ", outputs[i].numel(),
        " elements of ", outputs[i].scalar_type(), " but must have ",
        inputs[i].numel(), " (input) x ", size_, " (ranks) of ",
        inputs[i].scalar_type());
  }
  Descriptor descriptor;
  descriptor.kind = OpKind::allgather;
  descriptor.bytes = bytesOf(outputs);
  descriptor.type = dataTypeOf(inputs[0].scalar_type());
  return submit(
      descriptor, {}, c10d::OpType::_ALLGATHER_BASE, "_all_gather_base", inputs,
      outputs, opts.timeout, opts.asyncOp,
      [inputs, outputs, this](Operation& op, Collectives& collectives) {
        FlatTensors flat;
        Pieces in;
        std::vector<Pieces> out = emptyStreams(size_);
        for (size_t i = 0; i < inputs.size(); i++) {
          in.push_back(flat.input(inputs[i]));
          const Piece whole = flat.output(outputs[i], false);
          for (size_t m = 0; m < size_t(size_); m++) {
            out[m].push_back(shard(whole, size_t(size_), m));
          }
        }
        collectives.allgather(op, in, out);
        flat.finish();
      });
}

c10::intrusive_ptr<c10d::Work> CollectiveBackend::reduce_scatter(
    std::vector<at::Tensor>& outputs,
    std::vector<std::vector<at::Tensor>>& inputs,
    const c10d::ReduceScatterOptions& opts) {
  const at::Tensor output = only(outputs, "reduce_scatter");
  if (auto* delegate = delegateFor(output)) {
    return delegate->reduce_scatter(outputs, inputs, opts);
  }
  TORCH_CHECK_VALUE(
      inputs.size() == 1 && inputs[0].size() == size_t(size_),
      "reduce_scatter: the input list has ",
      inputs.empty() ? 0 : inputs[0].size(),
      " tensors but the group has ", size_, " ranks; pass one for each");
  auto list = inputs[0];
  TORCH_CHECK_VALUE(
      list[size_t(rank_)].numel() == output.numel(),
      "reduce_scatter: the output has ", output.numel(),
      " elements but input ", rank_, " has ", list[size_t(rank_)].numel());
  list.push_back(output);
  checkSameType(list, "reduce_scatter");
  list.pop_back();
  const Reduction reduction =
      reductionFor(opts.reduceOp, output, "reduce_scatter");
  Descriptor descriptor;
  descriptor.kind = OpKind::reduceScatter;
  descriptor.bytes = bytesOf(list);
  descriptor.type = reduction.type;
  return submit(
      descriptor, reduction, c10d::OpType::REDUCE_SCATTER, "reduce_scatter",
      list, {output}, opts.timeout, opts.asyncOp,
      [output, list](Operation& op, Collectives& collectives) {
        FlatTensors flat;
        std::vector<Pieces> in;
        for (const auto& tensor : list) {
          in.push_back({flat.input(tensor)});
        }
        collectives.reduceScatter(op, in, {flat.output(output, true)});
        flat.finish();
      });
}

c10::intrusive_ptr<c10d::Work> CollectiveBackend::_reduce_scatter_base(
    at::Tensor& output,
    at::Tensor& input,
    const c10d::ReduceScatterOptions& opts) {
  if (auto* delegate = delegateFor(input)) {
    return delegate->_reduce_scatter_base(output, input, opts);
  }
  std::vector<at::Tensor> outputs = {output};
  std::vector<at::Tensor> inputs = {input};
  return reduce_scatter_tensor_coalesced(outputs, inputs, opts);
}

c10::intrusive_ptr<c10d::Work> CollectiveBackend::
    reduce_scatter_tensor_coalesced(
        std::vector<at::Tensor>& outputs,
        std::vector<at::Tensor>& inputs,
        const c10d::ReduceScatterOptions& opts) {
  TORCH_CHECK_VALUE(
      !inputs.empty() && inputs.size() == outputs.size(),
      "reduce_scatter_tensor: ", outputs.size(), " outputs for ",
      inputs.size(), " inputs; pass one for each");
  if (auto* delegate = delegateFor(inputs[0])) {
    return delegate->reduce_scatter_tensor_coalesced(outputs, inputs, opts);
  }
  for (size_t i = 0; i < inputs.size(); i++) {
    TORCH_CHECK_VALUE(
        inputs[i].numel() == outputs[i].numel() * size_ &&
            outputs[i].scalar_type() == inputs[i].scalar_type(),
        "reduce_scatter_tensor: the input has ", inputs[i].numel(),
        " elements of ", inputs[i].scalar_type(), " but must have ",
        outputs[i].numel(), " (output) x ", size_, " (ranks) of ",
        outputs[i].scalar_type());
  }
  checkSameType(inputs, "reduce_scatter_tensor");
  const Reduction reduction =
      reductionFor(opts.reduceOp, inputs[0], "reduce_scatter_tensor");
  Descriptor descriptor;
  descriptor.kind = OpKind::reduceScatter;
  descriptor.bytes = bytesOf(inputs);
  descriptor.type = reduction.type;
  return submit(
      descriptor, reduction, c10d::OpType::_REDUCE_SCATTER_BASE,
      "_reduce_scatter_base", inputs, outputs, opts.timeout, opts.asyncOp,
      [inputs, outputs, this](Operation& op, Collectives& collectives) {
        FlatTensors flat;
        std::vector<Pieces> in = emptyStreams(size_);
        Pieces out;
        for (size_t i = 0; i < inputs.size(); i++) {
          const Piece whole = flat.input(inputs[i]);
          for (size_t m = 0; m < size_t(size_); m++) {
            in[m].push_back(shard(whole, size_t(size_), m));
          }
          out.push_back(flat.output(outputs[i], true));
        }
        collectives.reduceScatter(op, in, out);
        flat.finish();
      });
}

c10::intrusive_ptr<c10d::Work> CollectiveBackend::gather(
    std::vector<std::vector<at::Tensor>>& outputs,
    std::vector<at::Tensor>& inputs,
    const c10d::GatherOptions& opts) {
  const at::Tensor input = only(inputs, "gather");
  if (auto* delegate = delegateFor(input)) {
    return delegate->gather(outputs, inputs, opts);
  }
  checkRank(opts.rootRank, "gather: dst");
  const size_t root = size_t(opts.rootRank);
  std::vector<at::Tensor> list;
  if (root == size_t(rank_)) {
    TORCH_CHECK_VALUE(
        outputs.size() == 1 && outputs[0].size() == size_t(size_),
        "gather: the output list of the root has ",
        outputs.empty() ? 0 : outputs[0].size(),
        " tensors but the group has ", size_, " ranks; pass one for each");
    list = outputs[0];
    list.push_back(input);
    checkSameType(list, "gather");
    list.pop_back();
  } else {
    TORCH_CHECK_VALUE(
        outputs.empty() || outputs[0].empty(),
        "gather: only the root (rank ", root, ") may pass outputs");
  }
  Descriptor descriptor;
  descriptor.kind = OpKind::gather;
  descriptor.type = dataTypeOf(input.scalar_type());
  descriptor.root = int32_t(root);
  return submit(
      descriptor, {}, c10d::OpType::GATHER, "gather", {input}, list,
      opts.timeout, opts.asyncOp,
      [input, list, root, this](Operation& op, Collectives& collectives) {
        FlatTensors flat;
        std::vector<Pieces> in = emptyStreams(size_);
        std::vector<Pieces> out = emptyStreams(size_);
        in[root] = {flat.input(input)};
        for (size_t m = 0; m < list.size(); m++) {
          out[m] = {flat.output(list[m], false)};
        }
        collectives.alltoall(op, in, out);
        flat.finish();
      });
}

c10::intrusive_ptr<c10d::Work> CollectiveBackend::scatter(
    std::vector<at::Tensor>& outputs,
    std::vector<std::vector<at::Tensor>>& inputs,
    const c10d::ScatterOptions& opts) {
  const at::Tensor output = only(outputs, "scatter");
  if (auto* delegate = delegateFor(output)) {
    return delegate->scatter(outputs, inputs, opts);
  }
  checkRank(opts.rootRank, "scatter: src");
  const size_t root = size_t(opts.rootRank);
  std::vector<at::Tensor> list;
  if (root == size_t(rank_)) {
    TORCH_CHECK_VALUE(
        inputs.size() == 1 && inputs[0].size() == size_t(size_),
        "scatter: the input list of the root has ",
        inputs.empty() ? 0 : inputs[0].size(),
        " tensors but the group has ", size_, " ranks; pass one for each");
    list = inputs[0];
    list.push_back(output);
    checkSameType(list, "scatter");
    list.pop_back();
  } else {
    TORCH_CHECK_VALUE(
        inputs.empty() || inputs[0].empty(),
        "scatter: only the root (rank ", root, ") may pass inputs");
  }
  Descriptor descriptor;
  descriptor.kind = OpKind::scatter;
  descriptor.type = dataTypeOf(output.scalar_type());
  descriptor.root = int32_t(root);
  return submit(
      descriptor, {}, c10d::OpType::SCATTER, "scatter", list, {output},
      opts.timeout, opts.asyncOp,
      [output, list, root, this](Operation& op, Collectives& collectives) {
        FlatTensors flat;
        std::vector<Pieces> in = emptyStreams(size_);
        std::vector<Pieces> out = emptyStreams(size_);
        for (size_t m = 0; m < list.size(); m++) {
          in[m] = {flat.input(list[m])};
        }
        out[root] = {flat.output(output, false)};
        collectives.alltoall(op, in, out);
        flat.finish();
      });
}

c10::intrusive_ptr<c10d::Work> CollectiveBackend::alltoall_base(
    at::Tensor& output,
    at::Tensor& input,
    std::vector<int64_t>& outputSplits,
    std::vector<int64_t>& inputSplits,
    const c10d::AllToAllOptions& opts) {
  if (auto* delegate = delegateFor(input)) {
    return delegate->alltoall_base(
        output, input, outputSplits, inputSplits, opts);
  }
  TORCH_CHECK_VALUE(
      output.scalar_type() == input.scalar_type(),
      "all_to_all_single: the input is ", input.scalar_type(),
      " but the output is ", output.scalar_type(), "; use one type");
  auto splitsOf = [&](const at::Tensor& tensor, std::vector<int64_t> splits,
                      const char* which) {
    const int64_t rows = tensor.dim() == 0 ? 1 : tensor.size(0);
    if (splits.empty()) {
      TORCH_CHECK_VALUE(
          rows % size_ == 0, "all_to_all_single: dimension 0 of the ", which,
          " is ", rows, " but must be a multiple of the ", size_,
          " ranks when no split sizes are given");
      splits.assign(size_t(size_), rows / size_);
    }
    int64_t sum = 0;
    for (int64_t split : splits) {
      TORCH_CHECK_VALUE(
          split >= 0, "all_to_all_single: a split size of the ", which, " is ",
          split, "; it must not be negative");
      sum += split;
    }
    TORCH_CHECK_VALUE(
        splits.size() == size_t(size_) && sum == rows,
        "all_to_all_single: the ", which, " split sizes ", splits,
        " must be ", size_, " numbers that add up to ", rows,
        " (its dimension 0)");
    return splits;
  };
  const auto inSplits = splitsOf(input, inputSplits, "input");
  const auto outSplits = splitsOf(output, outputSplits, "output");
  Descriptor descriptor;
  descriptor.kind = OpKind::alltoall;
  descriptor.type = dataTypeOf(input.scalar_type());
  const at::Tensor from = input;
  const at::Tensor to = output;
  return submit(
      descriptor, {}, c10d::OpType::ALLTOALL_BASE, "all_to_all", {input},
      {output}, opts.timeout, opts.asyncOp,
      [from, to, inSplits, outSplits](Operation& op, Collectives& collectives) {
        FlatTensors flat;
        auto parts = [](const Piece& whole, const std::vector<int64_t>& splits) {
          int64_t rows = 0;
          for (int64_t split : splits) {
            rows += split;
          }
          const size_t rowBytes = rows == 0 ? 0 : whole.size / size_t(rows);
          std::vector<Pieces> pieces;
          char* at = whole.data;
          for (int64_t split : splits) {
            pieces.push_back({{at, size_t(split) * rowBytes}});
            at += size_t(split) * rowBytes;
          }
          return pieces;
        };
        collectives.alltoall(
            op, parts(flat.input(from), inSplits),
            parts(flat.output(to, false), outSplits));
        flat.finish();
      });
}

c10::intrusive_ptr<c10d::Work> CollectiveBackend::alltoall(
    std::vector<at::Tensor>& outputs,
    std::vector<at::Tensor>& inputs,
    const c10d::AllToAllOptions& opts) {
  TORCH_CHECK_VALUE(
      inputs.size() == size_t(size_) && outputs.size() == size_t(size_),
      "all_to_all: ", inputs.size(), " inputs and ", outputs.size(),
      " outputs were passed but the group has ", size_,
      " ranks; pass one of each for every rank");
  if (auto* delegate = delegateFor(inputs[0])) {
    return delegate->alltoall(outputs, inputs, opts);
  }
  checkSameType(inputs, "all_to_all");
  checkSameType(outputs, "all_to_all");
  Descriptor descriptor;
  descriptor.kind = OpKind::alltoall;
  descriptor.type = dataTypeOf(inputs[0].scalar_type());
  const auto from = inputs;
  const auto to = outputs;
  return submit(
      descriptor, {}, c10d::OpType::ALLTOALL, "all_to_all", inputs, outputs,
      opts.timeout, opts.asyncOp,
      [from, to](Operation& op, Collectives& collectives) {
        FlatTensors flat;
        std::vector<Pieces> in;
        std::vector<Pieces> out;
        for (size_t m = 0; m < from.size(); m++) {
          in.push_back({flat.input(from[m])});
          out.push_back({flat.output(to[m], false)});
        }
        collectives.alltoall(op, in, out);
        flat.finish();
      });
}

c10::intrusive_ptr<c10d::Work> CollectiveBackend::barrier(
    const c10d::BarrierOptions& opts) {
  Descriptor descriptor;
  descriptor.kind = OpKind::barrier;
  return submit(
      descriptor, {}, c10d::OpType::BARRIER, "all_reduce_barrier", {}, {},
      opts.timeout, opts.asyncOp,
      [](Operation& op, Collectives& collectives) { collectives.barrier(op); });
}

void CollectiveBackend::monitoredBarrier(
    const c10d::BarrierOptions& opts,
    bool /* waitAllRanks: the message names all that are missing anyway */) {
  c10d::BarrierOptions sync = opts;
  sync.asyncOp = false;
  barrier(sync)->wait();
}

c10::intrusive_ptr<c10d::Work> CollectiveBackend::post(
    bool sending,
    std::vector<at::Tensor>& tensors,
    int rank,
    int tag) {
  const char* name = sending ? "send" : "recv";
  const at::Tensor tensor = only(tensors, name);
  const bool anySource = rank == Mailbox::kAnySource;
  if (!anySource) {
    checkRank(rank, sending ? "send: dst" : "recv: src");
    TORCH_CHECK_VALUE(
        rank != rank_, name, ": rank ", rank,
        " cannot exchange messages with itself");
  }
  checkTensor(tensor, name, !sending);
  const uint64_t sequence = ++p2pSequence_;
  const Milliseconds limit = limitOf(c10d::kUnsetTimeout);
  const std::string peers = sending
      ? " " + std::to_string(rank_) + "->" + std::to_string(rank)
      : " " + std::to_string(rank_) + "<-" + std::to_string(rank);
  const uint64_t record = FlightRecord::instance().scheduled(
      groupName_, pg_desc_, name, sequence, true, peers, {tensor}, {tensor},
      limit.count());
  auto work = c10::make_intrusive<CollectiveWork>(
      rank_,
      sending         ? c10d::OpType::SEND
          : anySource ? c10d::OpType::RECVANYSOURCE
                      : c10d::OpType::RECV,
      sequence, std::vector<at::Tensor>{tensor});
  work->onAbort = [this] { abort(); };
  keep(work);
  {
    std::lock_guard<std::mutex> lock(closeMutex_);
    TORCH_CHECK(
        !closed_, name, ": group ", groupName_, " has been destroyed");
  }
  auto flat = std::make_shared<FlatTensors>();
  at::NoGradGuard noGrad;
  const Piece piece =
      sending ? flat->input(tensor) : flat->output(tensor, false);
  Wait wait(group_.state(), limit, name, sequence);
  auto done = [work, flat, tensor, record](
                  std::exception_ptr error, int source) {
    try {
      if (error) {
        std::rethrow_exception(error);
      }
      at::NoGradGuard noGrad;
      flat->finish();
    } catch (...) {
      error = translate();
    }
    FlightRecord::instance().finished(record, !error);
    work->complete(error, source);
  };
  FlightRecord::instance().started(record);
  const DataType type = dataTypeOf(tensor.scalar_type());
  if (sending) {
    mailbox_.send(rank, tag, piece, type, std::move(wait), std::move(done));
  } else {
    mailbox_.recv(rank, tag, piece, type, std::move(wait), std::move(done));
  }
  return work;
}

c10::intrusive_ptr<c10d::Work> CollectiveBackend::send(
    std::vector<at::Tensor>& tensors,
    int dstRank,
    int tag) {
  if (auto* delegate = delegateFor(only(tensors, "send"))) {
    return delegate->send(tensors, dstRank, tag);
  }
  return post(true, tensors, dstRank, tag);
}

c10::intrusive_ptr<c10d::Work> CollectiveBackend::recv(
    std::vector<at::Tensor>& tensors,
    int srcRank,
    int tag) {
  if (auto* delegate = delegateFor(only(tensors, "recv"))) {
    return delegate->recv(tensors, srcRank, tag);
  }
  return post(false, tensors, srcRank, tag);
}

c10::intrusive_ptr<c10d::Work> CollectiveBackend::recvAnysource(
    std::vector<at::Tensor>& tensors,
    int tag) {
  if (auto* delegate = delegateFor(only(tensors, "recv"))) {
    return delegate->recvAnysource(tensors, tag);
  }
  return post(false, tensors, Mailbox::kAnySource, tag);
}

void CollectiveBackend::startCoalescing() {
  std::lock_guard<std::mutex> lock(coalescingMutex_);
  coalescing_ = true;
  coalesced_.clear();
  if (delegate_ && delegate_->supportsCoalescing()) {
    delegate_->startCoalescing();
  }
}

c10::intrusive_ptr<c10d::Work> CollectiveBackend::endCoalescing() {
  std::lock_guard<std::mutex> lock(coalescingMutex_);
  coalescing_ = false;
  if (delegate_ && delegate_->supportsCoalescing()) {
    if (auto work = delegate_->endCoalescing()) {
      coalesced_.push_back(work);
    }
  }
  return c10::make_intrusive<CombinedWork>(rank_, std::move(coalesced_));
}

bool CollectiveBackend::supportsTensorAlloc(c10::DeviceIndex device) {
  // The CPU comes as index −1.
  return device < 0 ? Arena::instance()->capacity() > 0
                    : delegate_ && delegate_->supportsTensorAlloc(device);
}

at::Tensor CollectiveBackend::allocateTensor(
    long size,
    at::TensorOptions options) {
  if (options.device().type() != at::kCPU && delegate_) {
    return delegate_->allocateTensor(size, options);
  }
  auto arena = Arena::instance();
  void* block = arena->allocate(size_t(size) * options.dtype().itemsize());
  if (block == nullptr) {
    // Slower, but right: the tensor then takes the staged path.
    TORCH_WARN_ONCE(
        "trainyard_collective: the communication arena of ", arena->capacity(),
        " bytes is exhausted; ordinary memory is used instead. Raise "
        "TRAINYARD_COLLECTIVE_ARENA_BYTES on all ranks");
    return at::empty({size}, options);
  }
  // Resizable, as DDP's hooks resize buckets; a longer one is ordinary memory.
  return at::for_blob(block, {size})
      .deleter([arena](void* data) { arena->free(data); })
      .options(options)
      .resizeable_storage()
      .allocator(c10::GetCPUAllocator())
      .make_tensor();
}

void CollectiveBackend::abort() {
  group_.state().fail(
      ErrorKind::aborted,
      group_.state().nameOf(rank_) + " aborted group " + groupName_);
  if (delegate_) {
    delegate_->abort();
  }
}

void CollectiveBackend::closeAll(Milliseconds limit) {
  if (forkedChild()) {
    return;
  }
  std::lock_guard<std::mutex> lock(liveMutex);
  for (auto* backend : live) {
    backend->close(limit);
  }
}

void CollectiveBackend::shutdown() {
  close(Milliseconds(settings().closeLimitMs));
}

void CollectiveBackend::close(Milliseconds limit) {
  {
    std::lock_guard<std::mutex> lock(closeMutex_);
    if (closed_) {
      return;
    }
    closed_ = true;
  }
  if (forkedChild()) {
    lane_.close();
    mailbox_.close(Milliseconds(0));
    group_.close(false);
    return;
  }
  const bool drained = lane_.drain(limit);
  mailbox_.close(drained ? limit : Milliseconds(0));
  if (!drained) {
    group_.state().fail(
        ErrorKind::aborted,
        group_.state().nameOf(rank_) + " destroyed group " + groupName_ +
            " while an operation was still waiting for its peers");
  }
  lane_.close();
  collectives_.reset();
  group_.close(!group_.state().failed());
  if (delegate_) {
    delegate_->shutdown();
  }
}

c10d::ErrorType CollectiveBackend::getError() {
  if (!group_.state().failed()) {
    return c10d::ErrorType::SUCCESS;
  }
  switch (group_.state().kind()) {
    case ErrorKind::timeout:
      return c10d::ErrorType::TIMEOUT;
    case ErrorKind::peerLost:
      return c10d::ErrorType::REMOTE_ERROR;
    default:
      return c10d::ErrorType::COMM_ERROR;
  }
}

Traffic CollectiveBackend::traffic() const {
  std::lock_guard<std::mutex> lock(trafficMutex_);
  return traffic_;
}

std::vector<int64_t> CollectiveBackend::hostOfRanks() {
  return translated([&] {
    Wait wait(group_.state(), Milliseconds(timeoutMs_), "the ranks to meet");
    group_.awaitConnected(wait);
    std::vector<int64_t> result(size_t(size_), 0);
    const auto& hosts = group_.topology().hosts;
    for (size_t host = 0; host < hosts.size(); host++) {
      for (int rank : hosts[host]) {
        result[size_t(rank)] = int64_t(host);
      }
    }
    return result;
  });
}

} // namespace trainyard::collective
