// What the process held of the system's memory at its fullest moment, as far as the allocator's events let us see it.
//
// When the live bytes have grown by 2 % over the last sample, the next event (by then the new block has been written)
// reads the resident size and malloc's own account; so does one event in 32 while live bytes are within an eighth of
// their peak, not more often than every 10 ms. The fullest sample is kept.
#include <fcntl.h>
#if __has_include(<malloc.h>)
#include <malloc.h>
#endif
#include <unistd.h>

#include <cstdio>

#include "recording.h"

namespace memfit {
namespace {

constexpr int64_t kStep = 256 << 10;
Resident fullest;
int64_t sampled_at = 0;
std::atomic<int64_t> sampled_when{0};
std::mutex sample_lock;
constexpr int64_t kPause = 10'000'000;  // ns

void hand_over(const Resident& from, int64_t* to) {
  to[0] = from.live;
  to[1] = from.resident;
  to[2] = from.shared;
  to[3] = from.arena;
  to[4] = from.mapped;
  to[5] = from.used;
  to[6] = from.free;
}

}  // namespace

std::atomic<int64_t> sample_above{INT64_MAX};

Resident read_resident() {
  Resident now;
  char text[128];
  const int file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  if (file >= 0) {
    const ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    text[length > 0 ? length : 0] = 0;
    long long total = 0, resident = 0, shared = 0;
    if (std::sscanf(text, "%lld %lld %lld", &total, &resident, &shared) == 3) {
      const long page = sysconf(_SC_PAGESIZE);
      now.resident = resident * page;
      now.shared = shared * page;
    }
  }
#if defined(__GLIBC__) && (__GLIBC__ > 2 || (__GLIBC__ == 2 && __GLIBC_MINOR__ >= 33))
  const struct mallinfo2 info = mallinfo2();
  now.arena = static_cast<int64_t>(info.arena);
  now.mapped = static_cast<int64_t>(info.hblkhd);
  now.used = static_cast<int64_t>(info.uordblks);
  now.free = static_cast<int64_t>(info.fordblks);
#endif
  return now;
}

// Called without the lock, when live bytes went over sample_above at the event before.
void sample_resident(int64_t live) {
  std::lock_guard<std::mutex> guard(sample_lock);
  if (live < sample_above.load() && sampled_at != 0) return;
  sampled_at = live;
  sample_above.store(live + std::max(live / 50, kStep));
  Resident now = read_resident();
  now.live = live;
  if (now.resident > fullest.resident) fullest = now;
}

void sample_resident_if_due(int64_t live) {
  if (sample_above.load() == INT64_MAX || now() - sampled_when.load() < kPause) return;
  sampled_when.store(now());
  Resident seen = read_resident();
  seen.live = live;
  std::lock_guard<std::mutex> guard(sample_lock);
  if (seen.resident > fullest.resident) fullest = seen;
}

void start_samples(int64_t live) {
  std::lock_guard<std::mutex> guard(sample_lock);
  fullest = {};
  sampled_at = 0;
  sample_above.store(live + kStep);
}

}  // namespace memfit

using namespace memfit;

extern "C" {

// Take samples from now on (1), or no longer (0).
void memfit_sample(int on) {
  if (on != 0) start_samples(memfit_live());
  else sample_above.store(INT64_MAX);
}

// A sample of this very moment joins the others.
void memfit_sample_now() {
  Resident now = read_resident();
  now.live = memfit_live();
  std::lock_guard<std::mutex> guard(sample_lock);
  if (now.resident > fullest.resident) fullest = now;
}

void memfit_fullest(int64_t* to) {
  std::lock_guard<std::mutex> guard(sample_lock);
  hand_over(fullest, to);
}

void memfit_resident(int64_t* to) {
  Resident now = read_resident();
  now.live = memfit_live();
  hand_over(now, to);
}

}  // extern "C"
