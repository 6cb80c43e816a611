#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "csrc/transport/file_descriptor.h"
#include "csrc/transport/group_state.h"

namespace trainyard::collective {

// Stream sockets, non-blocking and close-on-exec. Functions that take a Wait
// block, in slices, until done; they throw Error(peerLost) when the other side
// has closed and what Wait throws otherwise. `peer` is the other side's group
// rank, for messages.

FileDescriptor listenTcp(uint16_t* port);

// Listens under an abstract name, which exists only in this network namespace
// and vanishes with the socket.
FileDescriptor listenUnix(const std::string& name);

// Invalid if nobody listens there (or not within `limit`).
FileDescriptor connectTcp(
    const std::string& address,
    uint16_t port,
    Milliseconds limit);
FileDescriptor connectUnix(const std::string& name);

// Accepts one pending connection; invalid if there is none.
FileDescriptor acceptFrom(int listener);

void sendAll(int fd, const void* data, size_t size, int peer, Wait& wait);
void recvAll(int fd, void* data, size_t size, int peer, Wait& wait);

// Passes descriptors over a Unix socket, with one byte of data.
void sendDescriptors(int fd, const std::vector<int>& fds, int peer, Wait& wait);
std::vector<FileDescriptor>
recvDescriptors(int fd, size_t count, int peer, Wait& wait);

// Waits until the socket is ready for `events` (POLLIN, POLLOUT) or a slice
// has passed.
void awaitReady(int fd, short events);

// A vanished host answers nothing: the kernel probes an idle connection every
// second and gives it up within 4 s. A stopped process's kernel answers.
void probeForVanishedHost(int fd);

// This machine's addresses that peers may try, best first.
std::vector<std::string> localAddresses();

// The failure that a broken connection to `peer` means.
[[noreturn]] void throwPeerLost(int peer, Wait& wait, const std::string& detail);

} // namespace trainyard::collective
