#include "csrc/transport/group_state.h"

#include <thread>

namespace trainyard::collective {

GroupState::GroupState(std::string group, std::vector<std::string> members)
    : group_(std::move(group)),
      members_(std::move(members)),
      left_(members_.size()) {}

void GroupState::fail(
    ErrorKind kind,
    const std::string& message,
    bool tellOthers) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (failed_.load(std::memory_order_relaxed)) {
      return;
    }
    kind_ = kind;
    message_ = message;
    failed_.store(true, std::memory_order_release);
  }
  std::lock_guard<std::mutex> lock(hooksMutex_);
  if (tellOthers && onFailure_) {
    onFailure_(kind, message);
  }
  if (onSever_) {
    onSever_();
  }
}

void GroupState::check() const {
  if (failed()) {
    throw Error(kind(), message());
  }
}

ErrorKind GroupState::kind() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return kind_;
}

std::string GroupState::message() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return message_;
}

void GroupState::markLeft(int rank) {
  left_[rank].store(true, std::memory_order_release);
}

bool GroupState::hasLeft(int rank) const {
  return left_[rank].load(std::memory_order_acquire);
}

std::string GroupState::nameOf(int rank) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return members_[rank];
}

void GroupState::setName(int rank, std::string name) {
  std::lock_guard<std::mutex> lock(mutex_);
  members_[rank] = std::move(name);
}

void GroupState::setOnFailure(
    std::function<void(ErrorKind, const std::string&)> fn) {
  std::lock_guard<std::mutex> lock(hooksMutex_);
  onFailure_ = std::move(fn);
}

void GroupState::setOnSever(std::function<void()> fn) {
  std::lock_guard<std::mutex> lock(hooksMutex_);
  onSever_ = std::move(fn);
}

void Wait::expire(const std::string& waitingFor) {
  const std::string message = "Timed out waiting " +
      std::to_string(deadline_.limit().count()) + "ms for " + operation() +
      " on group " + state_.group() + ": " + waitingFor +
      ". Look for a rank that is stuck or did not call the operation, or give "
      "the group a longer timeout";
  state_.fail(ErrorKind::timeout, message);
  throw Error(ErrorKind::timeout, message);
}

void Wait::raise(const std::string& waitingFor) const {
  const ErrorKind kind = state_.kind();
  throw Error(
      kind,
      state_.message() +
          (kind == ErrorKind::timeout ? ". Meanwhile this rank waited in " +
                   operation() + ": " + waitingFor
                                      : ""));
}

void Wait::raiseCauseOfLoss(int rank) {
  for (int i = 0; i < 10 && !state_.failed(); i++) {
    std::this_thread::sleep_for(Milliseconds(20));
  }
  if (state_.failed()) {
    raise("still missing " + state_.nameOf(rank));
  }
}

void Wait::peerLeft(int rank) {
  raiseCauseOfLoss(rank);
  const std::string message = state_.nameOf(rank) + " has left group " +
      state_.group() + " (it destroyed the group or ended) but " + operation() +
      " still needs it; every rank must issue the same operations before "
      "destroy_process_group";
  state_.fail(ErrorKind::peerLost, message);
  state_.check();
  throw Error(ErrorKind::peerLost, message);
}

} // namespace trainyard::collective
