#pragma once

#include <ATen/ATen.h>

#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace trainyard::collective {

// The last operations of this process, over all groups, in the form that
// torch's own analyser reads (torchfrtrace): who called what, and how far it
// came. Entries are numbered; the oldest are overwritten
// (TORCH_FR_BUFFER_SIZE, default 2000).
class FlightRecord {
 public:
  static FlightRecord& instance();

  void addGroup(
      const std::string& name,
      const std::string& description,
      const std::vector<int>& globalRanks);

  // Returns the entry's number.
  uint64_t scheduled(
      const std::string& group,
      const std::string& description,
      const char* name,
      uint64_t sequence,
      bool isP2p,
      const std::string& peers,
      const std::vector<at::Tensor>& inputs,
      const std::vector<at::Tensor>& outputs,
      int64_t timeoutMs);
  void started(uint64_t number);
  void finished(uint64_t number, bool success);

  // A pickle of the whole record.
  std::string dump();

  // Writes the pickle to `prefix` + `rank`. Returns the path.
  std::string dumpTo(const std::string& prefix, int rank);

  // From now on the signal makes the record be written to `prefix` + `rank`,
  // by the thread that watches signalDescriptor(): also while every thread of
  // Python is blocked in an operation.
  void dumpOnSignal(int signal, const std::string& prefix, int rank);

  // Readable after the signal; −1 if none was chosen.
  int signalDescriptor() const;
  // Serves it.
  void answerSignal();

 private:
  FlightRecord();

  struct Shape {
    std::vector<std::vector<int64_t>> sizes;
    std::vector<at::ScalarType> types;
  };
  struct Entry {
    uint64_t number;
    std::string group;
    std::string description;
    std::string name;
    uint64_t sequence;
    bool isP2p;
    Shape inputs;
    Shape outputs;
    int64_t timeoutMs;
    int64_t createdNs;
    int64_t startedNs;
    int64_t finishedNs;
    bool success;
  };
  struct GroupInfo {
    std::string description;
    std::string ranks;
  };

  std::mutex mutex_;
  std::vector<Entry> entries_;
  std::map<std::string, GroupInfo> groups_;
  uint64_t next_ = 0;
  std::string prefix_;
  int rank_ = 0;
};

} // namespace trainyard::collective
