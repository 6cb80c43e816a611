#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "csrc/common/deadline.h"

namespace trainyard::collective {

// Carries out a group's collectives one after another, in the order in which
// they were issued.
//
// A job whose caller will wait at once runs on the caller's own thread if
// nothing is ahead of it, which saves two thread switches; everything else
// runs on the lane's thread, started with the first such job. Each group has
// its own lane, so groups may be used in different orders on different ranks.
//
// Callbacks of a job's future run on the thread that ran the job, and may wait
// for jobs that they submit (DDP's PowerSGD hook does). A lane's thread that
// submits a job therefore hands the lane over to a fresh thread and ends when
// the callback has returned.
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

  // Ends the threads after the jobs that are queued.
  void close();

 private:
  void start();
  void run();
  void reap();

  std::mutex mutex_;
  std::condition_variable cv_;
  std::deque<std::function<void()>> queue_;
  bool busy_ = false;
  bool closed_ = false;
  bool watched_ = false; // somebody waits for the lane to become free
  std::thread thread_;
  std::thread::id owner_; // of the thread that takes jobs from the queue
  std::vector<std::thread> retired_; // have handed the lane over
  std::vector<std::thread::id> ended_; // retired ones that can be joined
};

} // namespace trainyard::collective
