#pragma once

#include <unistd.h>

#include <utility>

namespace trainyard::collective {

// Owns one descriptor. Descriptors that lead to other processes are also
// listed, so that forked children can close them (see forkedChild).
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd);
  FileDescriptor(FileDescriptor&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  ~FileDescriptor() {
    reset();
  }

  int get() const {
    return fd_;
  }

  explicit operator bool() const {
    return fd_ >= 0;
  }

  void reset();

 private:
  int fd_ = -1;
};

// What a forked child must not keep: DataLoader workers inherit every
// descriptor and mapping of the rank. A socket that lives on in a child hides
// the rank's death from its peers, so the child closes all of them before it
// runs anything else. Mappings are marked MADV_DONTFORK where they are made.
//
// forkedChild() is true in such a child: the objects it inherited belong to
// its parent, have no threads here, and must be left alone.
bool forkedChild();

} // namespace trainyard::collective
