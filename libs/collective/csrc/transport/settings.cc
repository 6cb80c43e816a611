#include "csrc/transport/settings.h"

#include <algorithm>
#include <cstdlib>

#include "csrc/common/error.h"

namespace trainyard::collective {

namespace {

int64_t number(const char* name, int64_t fallback, int64_t low, int64_t high) {
  const char* text = getenv(name);
  if (text == nullptr || *text == 0) {
    return fallback;
  }
  char* end = nullptr;
  const int64_t value = strtoll(text, &end, 10);
  if (*end != 0 || value < low || value > high) {
    throw Error(
        ErrorKind::invalid,
        std::string(name) + " is \"" + text + "\" but must be a number from " +
            std::to_string(low) + " to " + std::to_string(high) +
            "; correct or unset it on every rank");
  }
  return value;
}

std::string text(const char* name) {
  const char* value = getenv(name);
  return value ? value : "";
}

} // namespace

const Settings& settings() {
  static const Settings settings = [] {
    Settings s;
    // A multiple of 4096 keeps every slot on its own pages.
    s.slotBytes = size_t(number(
                      "TRAINYARD_COLLECTIVE_SLOT_BYTES", 512 * 1024, 65536,
                      int64_t(1) << 28)) /
        4096 * 4096;
    s.linkStripes =
        int(number("TRAINYARD_COLLECTIVE_CONNECTIONS", 4, 1, 64));
    s.sendWindow =
        int(number("TRAINYARD_COLLECTIVE_SEND_WINDOW", 4, 1, 4096));
    s.sliceBytes = size_t(number(
        "TRAINYARD_COLLECTIVE_SLICE_BYTES", 4 << 20, 1 << 16,
        int64_t(1) << 32));
    s.closeLimitMs =
        1000 * number("TRAINYARD_COLLECTIVE_CLOSE_SECONDS", 10, 0, 86400);
    s.logPlans = text("TRAINYARD_COLLECTIVE_LOG").find("plan") !=
        std::string::npos;
    s.plan = text("TRAINYARD_COLLECTIVE_PLAN");
    return s;
  }();
  return settings;
}

} // namespace trainyard::collective
