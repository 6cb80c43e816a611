#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "csrc/common/deadline.h"

namespace trainyard::collective {

// Carries out a group's collectives one after another, in the order in which
// they were issued.
//
// A job whose caller will wait at once runs on the caller's own thread if
// nothing is ahead of it, which saves two thread switches; everything else
// runs on the lane's thread, started with the first such job. Each group has
// its own lane, so groups may be used in different orders on different ranks.
class Lane {
 public:
  ~Lane();

  // True if the lane is free: the caller must now do its work on its own
  // thread and then call finish().
  bool tryStart();
  void finish();

  // Leaves the job to the lane's thread. It must not throw.
  void submit(std::function<void()> job);

  // Waits until nothing is queued or running; false when the limit is over.
  bool drain(Milliseconds limit);

  // Ends the thread after the jobs that are queued.
  void close();

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable cv_;
  std::deque<std::function<void()>> queue_;
  bool busy_ = false;
  bool closed_ = false;
  bool watched_ = false; // somebody waits for the lane to become free
  std::thread thread_;
};

} // namespace trainyard::collective
