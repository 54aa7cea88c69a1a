// The wrapping allocator: asks the allocator that it found for every block, counts the bytes, and notes the event.
//
// Requested bytes are counted. The wrapped allocator still does the work and still reports to torch's own profiler.
// The table keeps the deleter that really frees a block, so blocks alive after uninstall are freed right, also after
// another install over another allocator. Nothing of this library may be unloaded while such a block lives; it never is.
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <exception>

#include "block_table.h"
#include "recording.h"
#include "stacked_allocator.h"

namespace memfit {

std::mutex lock;
std::atomic<bool> recording{false};
std::atomic<bool> watching{false};
Column<Event> events;
Column<Operation> operations;
Column<Mark> marks;

namespace {

BlockTable& table() {
  static BlockTable* blocks = new BlockTable();  // never destroyed: blocks are freed after static destructors ran
  return *blocks;
}
std::atomic<bool> counting{false};
bool beneath = false;  // another allocator was put over ours and may call it: do not wrap that one, it would be a loop
int64_t next_number = 0;
int64_t first_number = 0;  // blocks of this installation have numbers from here on
int64_t live = 0;
std::atomic<int64_t> live_now{0};  // the same, read without the lock
int64_t peak = 0;
uint64_t digest = 0;  // of the deltas since the last step mark, in order

void record(int64_t number, int64_t delta, int32_t operation, int32_t stack) {
  events.push({number, delta, now(), operation, stack});
  digest = (digest + static_cast<uint64_t>(delta)) * 0x9E3779B97F4A7C15ull;
  digest ^= digest >> 32;
}

class CountingAllocator final : public c10::Allocator {
 public:
  c10::Allocator* inner = nullptr;

  c10::DataPtr allocate(size_t bytes) override;
  c10::DeleterFnPtr raw_deleter() const override;
  bool is_simple_data_ptr(const c10::DataPtr& data) const override { return inner->is_simple_data_ptr(data); }
  void copy_data(void* to, const void* from, std::size_t count) const override { inner->copy_data(to, from, count); }
};

CountingAllocator& allocator() {
  static CountingAllocator* instance = new CountingAllocator();  // storages keep a pointer to it: lives for ever
  return *instance;
}

// Live bytes after the event before this one: when they are new ground, the process is looked at.
void look() {
  const int64_t before = live_now.load(std::memory_order_relaxed);
  if (before >= sample_above.load(std::memory_order_relaxed)) sample_resident(before);
}

void release(void* address) {
  if (address == nullptr) return;
  look();
  const int32_t operation = watching.load(std::memory_order_relaxed) ? current_operation(false) : -1;
  Block block;
  {
    std::lock_guard<std::mutex> guard(lock);
    if (!table().remove(address, block)) std::terminate();  // cannot happen: only blocks in the table have this deleter
    if (block.number >= first_number) {
      live -= block.bytes;
      live_now.store(live, std::memory_order_relaxed);
      if (recording.load(std::memory_order_relaxed)) record(block.number, -block.bytes, operation, -1);
    }
  }
  block.deleter(address);
}

thread_local bool reached = false;  // an allocation of this thread came here

// Whether the allocator that was put over ours still asks it.
bool is_asked() {
  reached = false;
  try {
    c10::GetCPUAllocator()->allocate(64);
  } catch (const std::exception&) {
    return false;
  }
  return reached;
}

c10::DataPtr CountingAllocator::allocate(size_t bytes) {
  reached = true;
  look();
  c10::DataPtr data = inner->allocate(bytes);
  void* address = data.get();
  const auto deleter = inner->raw_deleter();
  if (address == nullptr || deleter == nullptr || data.get_context() != address) return data;  // not a plain block
  const bool counted = counting.load(std::memory_order_relaxed);
  int32_t operation = -1;
  Position position;
  if (counted && watching.load(std::memory_order_relaxed)) {
    operation = current_operation(true);
    if (operation < 0) position = python_position();
  }
  std::lock_guard<std::mutex> guard(lock);
  const auto size = static_cast<int64_t>(bytes);
  const int64_t number = counted ? next_number++ : -1;  // -1: reached after uninstall, through a storage that is resized
  table().insert({address, size, number, deleter});
  if (!data.compare_exchange_deleter(deleter, &release)) {  // not the deleter that raw_deleter promises
    Block removed;
    table().remove(address, removed);
    return data;
  }
  if (!counted) return data;
  live += size;
  live_now.store(live, std::memory_order_relaxed);
  peak = std::max(peak, live);
  if (recording.load(std::memory_order_relaxed)) record(number, size, operation, position.stack);
  return data;
}

c10::DeleterFnPtr CountingAllocator::raw_deleter() const { return inner->raw_deleter() == nullptr ? nullptr : &release; }

}  // namespace

int64_t now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<int64_t>(time.tv_sec) * 1000000000 + time.tv_nsec;
}

int64_t recording_bytes() {
  std::lock_guard<std::mutex> guard(lock);
  return static_cast<int64_t>(events.size() * sizeof(Event) + operations.size() * sizeof(Operation) + marks.size() * sizeof(Mark));
}

// Between two steps: the peak and the digest of the events since the last call, and the live bytes; peak and digest start
// anew. Two steps with equal digests allocate and free the same sizes in the same order.
StepFigures turn_step() {
  std::lock_guard<std::mutex> guard(lock);
  const StepFigures figures{peak, live, static_cast<int64_t>(digest)};
  peak = live;
  digest = 0;
  return figures;
}

}  // namespace memfit

using namespace memfit;

extern "C" {

// 0: installed; 1: was already; 2: torch did not take the allocator; 3: another allocator stands over an earlier install.
int memfit_install() {
  static bool fork_safe = false;
  if (counting.load()) return 1;
  {
    std::lock_guard<std::mutex> guard(lock);
    if (!fork_safe) pthread_atfork([] { lock.lock(); }, [] { lock.unlock(); }, [] { lock.unlock(); });
    fork_safe = true;
    live = peak = 0;
    live_now.store(0);
    first_number = next_number;
  }
  if (c10::GetCPUAllocator() != &allocator()) {  // ours may still be there, as a passage
    if (beneath) {
      if (!is_asked()) return 3;
    } else {
      allocator().inner = c10::GetCPUAllocator();
      if (!replace_cpu_allocator(&allocator())) return 2;
    }
  } else {
    beneath = false;
  }
  counting.store(true);
  return 0;
}

// 0: the allocator found at install is back; 1: another one was put over ours, which stays as a plain passage.
int memfit_uninstall() {
  if (!counting.exchange(false)) return 0;
  beneath = c10::GetCPUAllocator() != &allocator();
  if (beneath) return 1;
  replace_cpu_allocator(allocator().inner);
  return 0;
}

int64_t memfit_live() {
  std::lock_guard<std::mutex> guard(lock);
  return live;
}

int64_t memfit_peak() {
  std::lock_guard<std::mutex> guard(lock);
  return peak;
}

void memfit_reset_peak() {
  std::lock_guard<std::mutex> guard(lock);
  peak = live;
}

// The number of the living block at an address, -1: none of ours.
int64_t memfit_block_of(const void* address) {
  std::lock_guard<std::mutex> guard(lock);
  const Block* block = address == nullptr ? nullptr : table().find(address);
  return block != nullptr && block->number >= first_number ? block->number : -1;
}

// Starts with one event for every block that is alive already.
void memfit_start(int with_operations, int with_stacks) {
  gather_stacks(with_stacks != 0);
  {
    std::lock_guard<std::mutex> guard(lock);
    events.clear();
    operations.clear();
    marks.clear();
    clear_texts();
    std::vector<Block> alive;
    for (const Block& block : table().slots())
      if (block.address != nullptr && block.number >= first_number) alive.push_back(block);
    std::sort(alive.begin(), alive.end(), [](const Block& a, const Block& b) { return a.number < b.number; });
    for (const Block& block : alive) record(block.number, block.bytes, -1, -1);
    digest = 0;
    recording.store(true);
  }
  watch_operations(with_operations != 0);
}

void memfit_stop() {
  watch_operations(false);
  std::lock_guard<std::mutex> guard(lock);
  recording.store(false);
}

void memfit_turn_step(int64_t* to) {
  const StepFigures figures = turn_step();
  to[0] = figures.peak;
  to[1] = figures.live;
  to[2] = figures.digest;
}

// Bytes that the recorder itself holds.
int64_t memfit_recorder_bytes() {
  std::lock_guard<std::mutex> guard(lock);
  return static_cast<int64_t>(events.bytes() + operations.bytes() + marks.bytes() + table().bytes() + stack_bytes());
}

void memfit_copy_events(int64_t* block, int64_t* delta, int64_t* nanoseconds, int32_t* operation, int32_t* stack) {
  std::lock_guard<std::mutex> guard(lock);
  for (size_t row = 0; row < events.size(); ++row) {
    const Event& event = events[row];
    block[row] = event.block;
    delta[row] = event.delta;
    nanoseconds[row] = event.nanoseconds;
    operation[row] = event.operation;
    stack[row] = event.stack;
  }
}

}  // extern "C"
