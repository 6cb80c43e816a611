#pragma once

#include <stdexcept>
#include <string>

namespace trainyard::collective {

// What went wrong, split by what a caller can do about it. `invalid` is the
// caller's mistake and leaves the group usable; every other kind ends the
// group, because its ranks no longer agree on where they are.
enum class ErrorKind {
  invalid,
  timeout,
  peerLost,
  mismatch,
  aborted,
  transport,
};

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message)
      : std::runtime_error(message), kind_(kind) {}

  ErrorKind kind() const {
    return kind_;
  }

 private:
  ErrorKind kind_;
};

} // namespace trainyard::collective
