#include "csrc/bindings/lane.h"

#include <pthread.h>
#include <signal.h>

#include "csrc/transport/file_descriptor.h"

namespace trainyard::collective {

Lane::~Lane() {
  close();
}

bool Lane::tryStart() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (busy_ || !queue_.empty()) {
    return false;
  }
  busy_ = true;
  return true;
}

void Lane::finish() {
  std::lock_guard<std::mutex> lock(mutex_);
  busy_ = false;
  if (!queue_.empty() || watched_) {
    cv_.notify_all();
  }
}

void Lane::submit(std::function<void()> job) {
  std::lock_guard<std::mutex> lock(mutex_);
  queue_.push_back(std::move(job));
  if (!thread_.joinable()) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_ = std::thread([this] { run(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  cv_.notify_all();
}

void Lane::run() {
  pthread_setname_np(pthread_self(), "trainyard-lane");
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    cv_.wait(lock, [this] { return (!busy_ && !queue_.empty()) || closed_; });
    if (queue_.empty()) {
      return;
    }
    if (busy_) {
      cv_.wait(lock, [this] { return !busy_; });
    }
    auto job = std::move(queue_.front());
    queue_.pop_front();
    busy_ = true;
    lock.unlock();
    job();
    job = nullptr; // its tensors may be released, but not under the lock
    lock.lock();
    busy_ = false;
    cv_.notify_all();
  }
}

bool Lane::drain(Milliseconds limit) {
  std::unique_lock<std::mutex> lock(mutex_);
  watched_ = true;
  return cv_.wait_for(
      lock, limit, [this] { return !busy_ && queue_.empty(); });
}

void Lane::close() {
  if (forkedChild()) {
    if (thread_.joinable()) {
      thread_.detach();
    }
    return;
  }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    watched_ = true;
    closed_ = true;
    cv_.notify_all();
  }
  if (thread_.joinable()) {
    thread_.join();
  }
}

} // namespace trainyard::collective
