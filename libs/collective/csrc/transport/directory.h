#pragma once

#include <cstdint>
#include <string>

namespace trainyard::collective {

// The few things that the transport needs of the job's key-value store.
class Directory {
 public:
  virtual ~Directory() = default;
  virtual void set(const std::string& key, const std::string& value) = 0;
  virtual bool has(const std::string& key) = 0;
  virtual std::string get(const std::string& key) = 0;
  // Adds to a counter and returns the new value.
  virtual int64_t add(const std::string& key, int64_t amount) = 0;
};

} // namespace trainyard::collective
