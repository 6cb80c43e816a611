#include "csrc/bindings/flight_record.h"

#include <torch/csrc/jit/serialization/pickler.h>
#include <torch/version.h>

#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <fstream>

namespace trainyard::collective {

namespace {

// The analyser accepts only names of backends that it knows; before 2.13 Gloo
// was not among them.
constexpr const char* kNamePrefix =
    TORCH_VERSION_MINOR < 13 ? "nccl:" : "gloo:";
constexpr const char* kFormatVersion = "2.10";

int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

c10::Dict<c10::IValue, c10::IValue> newDict() {
  return c10::Dict<c10::IValue, c10::IValue>(
      c10::AnyType::get(), c10::AnyType::get());
}

// Written by the signal handler, which may do little else.
std::atomic<int> signalEvent{-1};

void onSignal(int) {
  const int saved = errno;
  const uint64_t one = 1;
  (void)!write(signalEvent.load(), &one, sizeof one);
  errno = saved;
}

c10::List<c10::IValue> newList() {
  return c10::List<c10::IValue>(c10::AnyType::get());
}

} // namespace

FlightRecord& FlightRecord::instance() {
  static auto* record = new FlightRecord();
  return *record;
}

FlightRecord::FlightRecord() {
  size_t size = 2000;
  for (const char* name :
       {"TORCH_NCCL_TRACE_BUFFER_SIZE", "TORCH_FR_BUFFER_SIZE"}) {
    if (const char* text = getenv(name)) {
      size = size_t(strtoull(text, nullptr, 10));
    }
  }
  entries_.resize(size);
}

void FlightRecord::addGroup(
    const std::string& name,
    const std::string& description,
    const std::vector<int>& globalRanks) {
  std::string ranks = "[";
  for (size_t i = 0; i < globalRanks.size(); i++) {
    ranks += (i > 0 ? ", " : "") + std::to_string(globalRanks[i]);
  }
  std::lock_guard<std::mutex> lock(mutex_);
  groups_[name] = {description, ranks + "]"};
}

uint64_t FlightRecord::scheduled(
    const std::string& group,
    const std::string& description,
    const char* name,
    uint64_t sequence,
    bool isP2p,
    const std::string& peers,
    const std::vector<at::Tensor>& inputs,
    const std::vector<at::Tensor>& outputs,
    int64_t timeoutMs) {
  std::lock_guard<std::mutex> lock(mutex_);
  const uint64_t number = next_++;
  if (entries_.empty()) {
    return number;
  }
  // Reuses the strings and vectors of the entry that it replaces.
  Entry& entry = entries_[number % entries_.size()];
  entry.number = number;
  entry.group = group;
  entry.description = description;
  entry.name = name;
  entry.name += peers;
  entry.sequence = sequence;
  entry.isP2p = isP2p;
  auto note = [](Shape& shape, const std::vector<at::Tensor>& tensors) {
    shape.sizes.clear();
    shape.types.clear();
    for (const auto& tensor : tensors) {
      shape.sizes.push_back(tensor.sizes().vec());
      shape.types.push_back(tensor.scalar_type());
    }
  };
  note(entry.inputs, inputs);
  note(entry.outputs, outputs);
  entry.timeoutMs = timeoutMs;
  entry.createdNs = now();
  entry.startedNs = 0;
  entry.finishedNs = 0;
  entry.success = false;
  return number;
}

void FlightRecord::started(uint64_t number) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!entries_.empty() && entries_[number % entries_.size()].number == number) {
    entries_[number % entries_.size()].startedNs = now();
  }
}

void FlightRecord::finished(uint64_t number, bool success) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!entries_.empty() && entries_[number % entries_.size()].number == number) {
    entries_[number % entries_.size()].finishedNs = now();
    entries_[number % entries_.size()].success = success;
  }
}

std::string FlightRecord::dump() {
  std::lock_guard<std::mutex> lock(mutex_);
  auto sizesOf = [](const Shape& shape) {
    auto list = newList();
    for (const auto& sizes : shape.sizes) {
      auto one = newList();
      for (int64_t size : sizes) {
        one.push_back(size);
      }
      list.push_back(one);
    }
    return list;
  };
  auto typesOf = [](const Shape& shape) {
    auto list = newList();
    for (auto type : shape.types) {
      list.push_back(std::string(c10::toString(type)));
    }
    return list;
  };
  auto entries = newList();
  const uint64_t size = entries_.size();
  for (uint64_t i = next_ > size ? next_ - size : 0; i < next_ && size > 0;
       i++) {
    const Entry& entry = entries_[i % size];
    auto dict = newDict();
    dict.insert("record_id", int64_t(entry.number));
    dict.insert("pg_id", int64_t(0));
    dict.insert(
        "process_group",
        c10::ivalue::Tuple::create({entry.group, entry.description}));
    dict.insert("collective_seq_id", int64_t(entry.isP2p ? 0 : entry.sequence));
    dict.insert("p2p_seq_id", int64_t(entry.isP2p ? entry.sequence : 0));
    dict.insert("op_id", int64_t(entry.number));
    dict.insert("profiling_name", kNamePrefix + entry.name);
    dict.insert("time_created_ns", entry.createdNs);
    dict.insert("input_sizes", sizesOf(entry.inputs));
    dict.insert("input_dtypes", typesOf(entry.inputs));
    dict.insert("output_sizes", sizesOf(entry.outputs));
    dict.insert("output_dtypes", typesOf(entry.outputs));
    const bool completed = entry.finishedNs > 0 && entry.success;
    dict.insert(
        "state",
        completed                ? "completed"
            : entry.startedNs > 0 ? "started"
                                  : "scheduled");
    dict.insert(
        "time_discovered_started_ns",
        entry.startedNs > 0 ? c10::IValue(entry.startedNs) : c10::IValue());
    dict.insert(
        "time_discovered_completed_ns",
        completed ? c10::IValue(entry.finishedNs) : c10::IValue());
    if (completed) {
      dict.insert(
          "duration_ms", double(entry.finishedNs - entry.startedNs) / 1e6);
    }
    dict.insert("retired", entry.finishedNs > 0);
    dict.insert("timeout_ms", entry.timeoutMs);
    dict.insert("is_p2p", entry.isP2p);
    dict.insert("frames", newList());
    entries.push_back(dict);
  }
  auto groups = newDict();
  for (const auto& [name, info] : groups_) {
    auto dict = newDict();
    dict.insert("name", name);
    dict.insert("desc", info.description);
    dict.insert("ranks", info.ranks);
    groups.insert(name, dict);
  }
  auto result = newDict();
  result.insert("version", kFormatVersion);
  result.insert("pg_config", groups);
  result.insert("pg_status", newDict());
  result.insert("comm_lib_version", "trainyard_collective");
  result.insert("entries", entries);
  std::string bytes;
  torch::jit::Pickler pickler(
      [&](const char* data, size_t size) { bytes.append(data, size); }, nullptr,
      nullptr, nullptr, nullptr, false);
  pickler.protocol();
  pickler.pushIValue(result);
  pickler.stop();
  return bytes;
}

std::string FlightRecord::dumpTo(const std::string& prefix, int rank) {
  const std::string path = prefix + std::to_string(rank);
  // Renamed into place, so that a reader never sees half of it.
  const std::string part = path + ".part";
  {
    std::ofstream out(part, std::ios::binary);
    const std::string bytes = dump();
    out.write(bytes.data(), std::streamsize(bytes.size()));
    if (!out.flush()) {
      TORCH_CHECK(
          false, "Cannot write the flight record to ", path,
          "; name a writable place in TRAINYARD_COLLECTIVE_DUMP_FILE");
    }
  }
  TORCH_CHECK(
      rename(part.c_str(), path.c_str()) == 0, "Cannot rename ", part, " to ",
      path);
  return path;
}

void FlightRecord::dumpOnSignal(
    int signal,
    const std::string& prefix,
    int rank) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    prefix_ = prefix;
    rank_ = rank;
  }
  if (signalEvent < 0) {
    signalEvent = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  }
  struct sigaction action = {};
  action.sa_handler = onSignal;
  action.sa_flags = SA_RESTART;
  TORCH_CHECK_VALUE(
      sigaction(signal, &action, nullptr) == 0,
      "TRAINYARD_COLLECTIVE_DUMP_SIGNAL names signal ", signal,
      ", which cannot be caught; choose another, for instance SIGUSR2");
}

int FlightRecord::signalDescriptor() const {
  return signalEvent;
}

void FlightRecord::answerSignal() {
  uint64_t count;
  (void)!read(signalEvent, &count, sizeof count);
  std::string prefix;
  int rank;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    prefix = prefix_;
    rank = rank_;
  }
  try {
    const std::string path = dumpTo(prefix, rank);
    fprintf(
        stderr, "trainyard_collective: flight record written to %s\n",
        path.c_str());
  } catch (const std::exception& error) {
    fprintf(stderr, "trainyard_collective: %s\n", error.what());
  }
}

} // namespace trainyard::collective
