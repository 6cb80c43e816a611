#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace trainyard::collective {

using Digest = std::array<uint8_t, 32>;

// SHA-256 (FIPS 180-4) and HMAC (RFC 2104), for the proof that a connecting
// process belongs to the job.
Digest sha256(const std::string& data);
Digest hmacSha256(const std::string& key, const std::string& data);

// Compares in a time that does not depend on the content.
bool equalDigests(const Digest& a, const Digest& b);

} // namespace trainyard::collective
