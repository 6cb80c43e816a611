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
  if (owner_ == std::this_thread::get_id()) {
    // A callback of the job that has just ended, which may wait for this one.
    reap();
    if (thread_.joinable()) {
      retired_.push_back(std::move(thread_));
    }
    busy_ = false;
    start();
  } else if (!thread_.joinable()) {
    start();
  }
  cv_.notify_all();
}

void Lane::start() {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  owner_ = thread_.get_id();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

// Joins retired threads that have ended; they no longer need the lock.
void Lane::reap() {
  for (const auto id : ended_) {
    for (auto thread = retired_.begin(); thread != retired_.end(); ++thread) {
      if (thread->get_id() == id) {
        thread->join();
        retired_.erase(thread);
        break;
      }
    }
  }
  ended_.clear();
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
    if (owner_ != std::this_thread::get_id()) {
      ended_.push_back(std::this_thread::get_id());
      cv_.notify_all();
      return;
    }
    busy_ = false;
    cv_.notify_all();
  }
}

bool Lane::drain(Milliseconds limit) {
  std::unique_lock<std::mutex> lock(mutex_);
  watched_ = true;
  return cv_.wait_for(lock, limit, [this] {
    return !busy_ && queue_.empty() && ended_.size() == retired_.size();
  });
}

void Lane::close() {
  if (forkedChild()) {
    if (thread_.joinable()) {
      thread_.detach();
    }
    for (auto& thread : retired_) {
      thread.detach();
    }
    retired_.clear();
    return;
  }
  while (true) {
    std::vector<std::thread> threads;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      watched_ = true;
      closed_ = true;
      cv_.notify_all();
      threads.swap(retired_);
      ended_.clear();
      if (thread_.joinable()) {
        threads.push_back(std::move(thread_));
      }
    }
    if (threads.empty()) {
      return;
    }
    for (auto& thread : threads) {
      thread.join();
    }
  }
}

} // namespace trainyard::collective
