// What the process held of the system's memory at its fullest moment, as far as the allocator's events let us see it.
//
// When the live bytes have grown by 2 % over the last sample, the next event (by then the new block has been written)
// reads the resident size and malloc's own account. Between events, inside a long kernel, a thread looks: every
// 5 ms while operations are watched, every 25 ms in the steady state after that. The fullest sample is kept.
//
// malloc's account walks every free chunk of its heaps with their locks held: 1.2 ms were seen after a thousand steps of
// a small model. So the thread asks for it only where the process, less what the recording itself has grown by, is
// fuller by 1/256 than the fullest sample, and never for more than 1/50 of the time.
#include <fcntl.h>
#if __has_include(<malloc.h>)
#include <malloc.h>
#endif
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <thread>

#include "recording.h"

namespace memfit {

Resident read_resident();

namespace {

constexpr int64_t kStep = 256 << 10;
constexpr int64_t kFuller = 256;     // the thread looks closer at growth by a 256th
constexpr int64_t kShareOfTime = 50;
Resident fullest;
int64_t fullest_recording = 0;       // bytes of the recording in it
int64_t account_after = 0;           // monotonic: the thread does not ask malloc before
int64_t sampled_at = 0;
std::mutex sample_lock;
std::mutex thread_lock;
std::condition_variable wake;
bool sampling = false;
std::thread* sampler = nullptr;

void read_pages(Resident& now) {
  char text[128];
  const int file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  const ssize_t length = read(file, text, sizeof text - 1);
  close(file);
  text[length > 0 ? length : 0] = 0;
  long long total = 0, resident = 0, shared = 0;
  if (std::sscanf(text, "%lld %lld %lld", &total, &resident, &shared) != 3) return;
  const long page = sysconf(_SC_PAGESIZE);
  now.resident = resident * page;
  now.shared = shared * page;
}

void keep(const Resident& seen, int64_t recording_bytes) {  // with sample_lock held
  if (seen.resident <= fullest.resident) return;
  fullest = seen;
  fullest_recording = recording_bytes;
}

void keep_if_fullest(int64_t live) {
  Resident seen = read_resident();
  seen.live = live;
  const int64_t written = recording_bytes();
  std::lock_guard<std::mutex> guard(sample_lock);
  keep(seen, written);
}

void keep_if_much_fuller() {
  const int64_t began = now(), written = recording_bytes();
  Resident pages;
  read_pages(pages);
  {
    std::lock_guard<std::mutex> guard(sample_lock);
    const int64_t ground = fullest.resident - fullest_recording;
    if (began < account_after || pages.resident - written <= ground + ground / kFuller) return;
  }
  keep_if_fullest(memfit_live());
  std::lock_guard<std::mutex> guard(sample_lock);
  const int64_t ended = now();
  account_after = ended + kShareOfTime * (ended - began);
}

void sample_until_stopped() {
  std::unique_lock<std::mutex> guard(thread_lock);
  while (sampling) {
    wake.wait_for(guard, std::chrono::milliseconds(watching.load(std::memory_order_relaxed) ? 5 : 25));
    if (sampling) keep_if_much_fuller();
  }
}

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
  read_pages(now);
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
  const int64_t written = recording_bytes();
  std::lock_guard<std::mutex> guard(sample_lock);
  if (live < sample_above.load() && sampled_at != 0) return;
  sampled_at = live;
  sample_above.store(live + std::max(live / 50, kStep));
  Resident now = read_resident();
  now.live = live;
  keep(now, written);
}

void start_samples(int64_t live) {
  std::lock_guard<std::mutex> guard(sample_lock);
  fullest = {};
  fullest_recording = account_after = 0;
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
  std::thread* finished = nullptr;
  {
    std::lock_guard<std::mutex> guard(thread_lock);
    if (sampling == (on != 0)) return;
    sampling = on != 0;
    if (sampling) sampler = new std::thread(sample_until_stopped);
    else std::swap(finished, sampler);
  }
  if (finished == nullptr) return;
  wake.notify_all();
  finished->join();
  delete finished;
}

// A sample of this very moment joins the others.
void memfit_sample_now() { keep_if_fullest(memfit_live()); }

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
