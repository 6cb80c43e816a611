#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "csrc/common/deadline.h"
#include "csrc/common/error.h"

namespace trainyard::collective {

// Whether one process group is still sound, shared by everything that waits on
// its behalf.
//
// The first failure wins and ends the group: every waiter throws it, every
// later call throws it at once. Failures of this rank are told to the others
// through `onFailure`, so that all ranks raise the same root cause.
class GroupState {
 public:
  GroupState(std::string group, std::vector<std::string> members);

  // Records the failure unless there was one before. `tellOthers` is false for
  // news that came from another rank.
  void fail(ErrorKind kind, const std::string& message, bool tellOthers = true);

  bool failed() const {
    return failed_.load(std::memory_order_acquire);
  }

  // Throws the recorded failure, if there is one.
  void check() const;

  // The failure's kind; only after failed().
  ErrorKind kind() const;
  std::string message() const;

  // A rank that said goodbye: it will take part in nothing more.
  void markLeft(int rank);
  bool hasLeft(int rank) const;

  // "rank 3 (host algo-2, pid 71)", as far as known.
  std::string nameOf(int rank) const;
  void setName(int rank, std::string name);

  const std::string& group() const {
    return group_;
  }

  void setOnFailure(std::function<void(ErrorKind, const std::string&)> fn);

  // Called after any failure, when the others have been told.
  void setOnSever(std::function<void()> fn);

 private:
  const std::string group_;
  mutable std::mutex mutex_;
  std::vector<std::string> members_;
  std::vector<std::atomic<bool>> left_;
  std::atomic<bool> failed_{false};
  ErrorKind kind_ = ErrorKind::aborted;
  std::string message_;
  std::function<void(ErrorKind, const std::string&)> onFailure_;
  std::mutex hooksMutex_; // held while a hook runs, so that it can be removed
  std::function<void()> onSever_;
};

// The right to wait for peers during one operation: until its deadline, and
// only while the group is sound. Every blocking loop sleeps at most
// kSliceMs and then calls check().
class Wait {
 public:
  static constexpr int kSliceMs = 50;
  static constexpr int kBackgroundUs = 300; // between looks at the background

  // `operation` must be a literal; the number is part of its name if not 0.
  Wait(
      GroupState& state,
      Milliseconds limit,
      const char* operation,
      uint64_t number = 0)
      : state_(state),
        deadline_(limit),
        operation_(operation),
        number_(number) {}

  // Throws if the group failed or the time is up. `describe` says who is
  // being waited for; it is called only for the message.
  template <typename Describe>
  void check(Describe describe) {
    if (state_.failed()) {
      raise(describe());
    }
    if (deadline_.passed()) {
      expire(describe());
    }
  }

  // Something that must go on while this rank waits for others: with it set,
  // waits are cut into much shorter sleeps. Returns true while there is
  // anything to do.
  using Background = std::function<bool()>;
  void setBackground(Background fn) {
    background_ = std::move(fn);
  }
  bool runBackground() {
    return background_ && background_();
  }

  // A rank also stops when its group failed, and the reason may be on its way:
  // throws it if it is there or comes in a moment.
  void raiseCauseOfLoss(int rank);

  // Fails the group because a rank that is still needed has left it.
  [[noreturn]] void peerLeft(int rank);

  GroupState& state() {
    return state_;
  }

  Milliseconds remaining() const {
    return deadline_.remaining();
  }

  // "all_reduce #7"
  std::string operation() const {
    return number_ == 0
        ? std::string(operation_)
        : std::string(operation_) + " #" + std::to_string(number_);
  }

 private:
  [[noreturn]] void expire(const std::string& waitingFor);
  // Throws the group's failure. Whose time is over first may wait for a rank
  // that waits itself, so a time-out is told with what this one waits for.
  [[noreturn]] void raise(const std::string& waitingFor) const;

  GroupState& state_;
  Deadline deadline_;
  const char* operation_;
  uint64_t number_;
  Background background_;
};

} // namespace trainyard::collective
