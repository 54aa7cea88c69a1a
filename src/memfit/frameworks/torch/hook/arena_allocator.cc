// The allocator of an arena's step: what an operation asks for inside its scope lies where the plan says.
//
//   begin(k)                      the calls of operation k:  256  4096  256 ...   in the order of the rehearsal
//   allocate(256) -> plan.address[start[k]]                  no allocator beneath is asked
//   allocate(4096) -> ...
//   end(k)                        0 where every call was as rehearsed
//
// It stands on top of the CPU allocator only while a step runs, and forwards whatever no plan knows: other threads, other
// sizes. Blocks of a plan have no deleter; blocks forwarded carry the deleter of who made them, so nothing of this outlives
// a step. In a rehearsal it notes every call and every free instead.
#include <algorithm>
#include <cstdint>
#include <mutex>
#include <vector>

#include "block_table.h"
#include "stacked_allocator.h"

namespace {

struct Plan {
  std::vector<int64_t> start;    // of each operation its first call; one more entry at the end
  std::vector<int64_t> bytes;    // of each call
  std::vector<void*> address;    // nullptr: not planned, forwarded
  const char* low = nullptr;     // what its addresses lie in
  const char* high = nullptr;
};

struct Note {
  int64_t index;  // of the call since the rehearsal began
  int64_t delta;  // bytes asked for, or minus those given back
  void* address;
};

struct Scope {
  const Plan* plan = nullptr;
  size_t cursor = 0, limit = 0;
  int64_t missed = 0;  // calls of this step that were forwarded
  int64_t served = 0;
  bool noting = false;
};

thread_local Scope scope;
std::mutex notes_lock;
std::vector<Note> notes;
int64_t calls = 0;


// Blocks noted in a rehearsal and still alive: their number is that of the call.
memfit::BlockTable& noted() {
  static auto* table = new memfit::BlockTable();  // never destroyed: blocks are freed after static destructors ran
  return *table;
}
int64_t first_call = 0;  // of this rehearsal

std::vector<const Plan*>& plans() {
  static auto* known = new std::vector<const Plan*>();
  return *known;
}

void keep(void*) {}  // blocks of a plan stay where they are

bool is_planned(const void* address) {
  const auto* at = static_cast<const char*>(address);
  std::lock_guard<std::mutex> guard(notes_lock);
  return std::any_of(plans().begin(), plans().end(), [&](const Plan* plan) { return plan->low <= at && at < plan->high; });
}

// Of a block noted; false where it is none.
bool release_if_noted(void* address) {
  memfit::Block block;
  {
    std::lock_guard<std::mutex> guard(notes_lock);
    if (!noted().remove(address, block)) return false;
    if (block.number >= first_call) notes.push_back({block.number, -block.bytes, address});
  }
  block.deleter(address);
  return true;
}

void release_noted(void* address) { release_if_noted(address); }

void release_raw(void* address);

class ArenaAllocator final : public memfit::StackedAllocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    asked();
    c10::Allocator* beneath = inner();
    Scope& now = scope;
    if (bytes == 0 || (now.plan == nullptr && !now.noting)) return beneath->allocate(bytes);
    if (now.noting) return note(beneath->allocate(bytes), bytes);
    if (now.cursor < now.limit && now.plan->bytes[now.cursor] == static_cast<int64_t>(bytes)) {
      void* address = now.plan->address[now.cursor++];
      if (address != nullptr) {
        ++now.served;
        return {address, address, &keep, c10::Device(c10::DeviceType::CPU)};
      }
    }
    ++now.missed;
    return beneath->allocate(bytes);
  }
  c10::DeleterFnPtr raw_deleter() const override { return inner()->raw_deleter() == nullptr ? nullptr : &release_raw; }
  void forward_free(void* address) const { inner()->raw_deleter()(address); }

 private:
  static c10::DataPtr note(c10::DataPtr data, size_t bytes) {
    void* address = data.get();
    const auto deleter = data.get_deleter();
    std::lock_guard<std::mutex> guard(notes_lock);
    const int64_t number = calls++;
    if (data.get_context() == address && data.compare_exchange_deleter(deleter, &release_noted)) {
      memfit::Block stale;  // freed through another allocator's raw_deallocate
      noted().remove(address, stale);
      noted().insert({address, static_cast<int64_t>(bytes), number, deleter});
    }
    notes.push_back({number, static_cast<int64_t>(bytes), address});
    return data;
  }
};

ArenaAllocator& allocator() {
  static ArenaAllocator* instance = new ArenaAllocator();  // storages keep a pointer to it: lives for ever
  return *instance;
}

void release_raw(void* address) {
  if (address == nullptr || is_planned(address) || release_if_noted(address)) return;
  allocator().forward_free(address);
}

}  // namespace

extern "C" {

// Columns are copied. start has operations + 1 entries, bytes and address start[operations].
void* memfit_arena_plan(int64_t operations, const int64_t* start, const int64_t* bytes, const int64_t* address) {
  auto* plan = new Plan();
  plan->start.assign(start, start + operations + 1);
  const int64_t count = start[operations];
  plan->bytes.assign(bytes, bytes + count);
  plan->address.reserve(static_cast<size_t>(count));
  for (int64_t call = 0; call < count; ++call) {
    auto* at = reinterpret_cast<char*>(address[call]);
    plan->address.push_back(at);
    if (at == nullptr) continue;
    plan->low = plan->low == nullptr ? at : std::min(plan->low, static_cast<const char*>(at));
    plan->high = std::max(plan->high, static_cast<const char*>(at) + bytes[call]);
  }
  std::lock_guard<std::mutex> guard(notes_lock);
  plans().push_back(plan);
  return plan;
}

void memfit_arena_forget(void* plan) {
  {
    std::lock_guard<std::mutex> guard(notes_lock);
    plans().erase(std::remove(plans().begin(), plans().end(), static_cast<const Plan*>(plan)), plans().end());
  }
  delete static_cast<Plan*>(plan);
}

// A step of this thread begins. 0: torch did not accept the allocator.
int memfit_arena_enter(const void* plan) {
  if (!allocator().push()) return 0;
  scope = Scope{};
  scope.plan = static_cast<const Plan*>(plan);
  return 1;
}

// The step ends; how many calls of it were forwarded.
int64_t memfit_arena_leave() {
  const int64_t missed = scope.missed;
  scope.plan = nullptr;
  allocator().pop();
  return missed;
}

int64_t memfit_arena_served() { return scope.served; }

void memfit_arena_begin(int64_t operation) {
  scope.cursor = static_cast<size_t>(scope.plan->start[static_cast<size_t>(operation)]);
  scope.limit = static_cast<size_t>(scope.plan->start[static_cast<size_t>(operation) + 1]);
}

// Calls of the operation that were not as rehearsed: 0 means that its results lie where they were planned.
int64_t memfit_arena_end(int64_t operation) {
  const auto limit = static_cast<size_t>(scope.plan->start[static_cast<size_t>(operation) + 1]);
  const auto left = static_cast<int64_t>(limit - scope.cursor);
  scope.limit = scope.cursor;
  return left;
}

// A rehearsal on this thread. 0: torch did not accept the allocator.
int memfit_arena_rehearse() {
  if (!allocator().push()) return 0;
  scope = Scope{};
  scope.noting = true;
  std::lock_guard<std::mutex> guard(notes_lock);
  first_call = calls;
  notes.clear();
  return 1;
}

void memfit_arena_note(int on) { scope.noting = on != 0; }

void memfit_arena_rehearsed() {
  scope = Scope{};
  {
    std::lock_guard<std::mutex> guard(notes_lock);
    first_call = calls;
    notes.clear();
    notes.shrink_to_fit();
  }
  allocator().pop();
}

int64_t memfit_arena_note_count() {
  std::lock_guard<std::mutex> guard(notes_lock);
  return static_cast<int64_t>(notes.size());
}

// The notes from the given one on.
void memfit_arena_copy_notes(int64_t from, int64_t* index, int64_t* delta, int64_t* address) {
  std::lock_guard<std::mutex> guard(notes_lock);
  for (auto at = static_cast<size_t>(from); at < notes.size(); ++at) {
    *index++ = notes[at].index;
    *delta++ = notes[at].delta;
    *address++ = reinterpret_cast<int64_t>(notes[at].address);
  }
}

}  // extern "C"
