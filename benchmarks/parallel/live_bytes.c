/* Live bytes of CPU tensors: PyTorch's CPU allocator calls posix_memalign with an alignment of 64 for each of them, on
 * any thread, and free. Preloaded into a rank; read through ctypes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

enum { ALIGNMENT = 64, SLOTS = 1 << 20 };
static struct { void *at; size_t bytes; } table[SLOTS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static size_t live, peak;
static void (*real_free)(void *);
static int (*real_memalign)(void **, size_t, size_t);

static size_t slot_of(void *at) { return ((uintptr_t)at * 0x9E3779B97F4A7C15ull) >> 44; }

static size_t find(void *at) {
  size_t slot = slot_of(at);
  while (table[slot].at && table[slot].at != at) slot = (slot + 1) % SLOTS;
  return slot;
}

int posix_memalign(void **out, size_t alignment, size_t bytes) {
  if (!real_memalign) real_memalign = dlsym(RTLD_NEXT, "posix_memalign");
  int code = real_memalign(out, alignment, bytes);
  if (code == 0 && alignment == ALIGNMENT && *out) {
    pthread_mutex_lock(&lock);
    size_t slot = find(*out);
    table[slot].at = *out;
    table[slot].bytes = bytes;
    live += bytes;
    if (live > peak) peak = live;
    pthread_mutex_unlock(&lock);
  }
  return code;
}

void free(void *at) {
  if (!real_free) real_free = dlsym(RTLD_NEXT, "free");
  if (at && (uintptr_t)at % ALIGNMENT == 0) {
    pthread_mutex_lock(&lock);
    size_t slot = find(at);
    if (table[slot].at) {
      live -= table[slot].bytes;
      table[slot].at = NULL;
      /* Entries that probed past this slot move up. */
      for (size_t next = (slot + 1) % SLOTS; table[next].at; next = (next + 1) % SLOTS) {
        size_t home = slot_of(table[next].at);
        if ((next - home) % SLOTS >= (next - slot) % SLOTS) {
          table[slot] = table[next];
          table[next].at = NULL;
          slot = next;
        }
      }
    }
    pthread_mutex_unlock(&lock);
  }
  real_free(at);
}

size_t live_bytes(void) { return live; }
size_t peak_bytes(void) { return peak; }
void forget_peak(void) { peak = live; }
