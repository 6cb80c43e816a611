#pragma once

#include <algorithm>
#include <chrono>

namespace trainyard::collective {

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;

// The moment at which one operation gives up, and the limit it was given.
class Deadline {
 public:
  explicit Deadline(Milliseconds limit)
      : limit_(limit), at_(Clock::now() + limit) {}

  bool passed() const {
    return Clock::now() >= at_;
  }

  Milliseconds limit() const {
    return limit_;
  }

  Milliseconds remaining() const {
    const auto left =
        std::chrono::duration_cast<Milliseconds>(at_ - Clock::now());
    return std::max(left, Milliseconds(0));
  }

 private:
  Milliseconds limit_;
  Clock::time_point at_;
};

} // namespace trainyard::collective
