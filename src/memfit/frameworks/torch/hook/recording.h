// What the hook records: columns of events, operations and marks, and the one lock that orders them.
//
// An event is a block allocated (+bytes) or freed (-bytes) while an operation runs. Operations are recorded only when
// something is allocated in them, or when autograd may come back to them, so that a view costs next to nothing.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace memfit {

struct Event {
  int64_t block;        // counts up from 0 over the life of the process
  int64_t delta;        // requested bytes, negative when freed
  int64_t nanoseconds;  // monotonic
  int32_t operation;    // index, -1: outside of every operation
  int32_t stack;        // Python stack of an allocation outside of every operation, -1: none or the operation's
};

struct Operation {
  int64_t sequence;         // autograd's sequence number at its start, -1: none
  uint64_t thread;          // of torch, small numbers
  uint64_t forward_thread;  // of a backward node: the thread of its forward
  int64_t nanoseconds;
  const void* module;  // the innermost torch.nn.Module whose forward was running
  int32_t name;        // index of a text
  int32_t parent;      // the operation it runs in, -1: none
  int32_t scope;       // at::RecordScope, 64: of the autograd engine, after the last backward node
  int32_t stack;       // Python stack, -1: none
};

struct Mark {
  int64_t event;      // events before the mark
  int64_t operation;  // operations before the mark
  int64_t nanoseconds;
  int64_t step;  // that the text is a phase of, kNoStep: none
  int32_t text;
};
constexpr int64_t kNoStep = INT64_MIN;

struct StepFigures {
  int64_t peak, live;  // bytes
  int64_t digest;      // of the sizes allocated and freed
};

// Grows by chunks that never move: appending costs no copy of what is there.
template <typename Row>
class Column {
 public:
  void push(const Row& row) {
    if (size_ == chunks_.size() * kChunk) chunks_.emplace_back(new Row[kChunk]);
    chunks_[size_ / kChunk][size_ % kChunk] = row;
    ++size_;
  }
  const Row& operator[](size_t index) const { return chunks_[index / kChunk][index % kChunk]; }
  size_t size() const { return size_; }
  size_t bytes() const { return chunks_.size() * kChunk * sizeof(Row); }
  void clear() {
    chunks_.clear();
    size_ = 0;
  }

 private:
  static constexpr size_t kChunk = 1 << 14;
  std::vector<std::unique_ptr<Row[]>> chunks_;
  size_t size_ = 0;
};

extern std::mutex lock;               // guards everything below, and the table of blocks
extern std::atomic<bool> recording;   // read without the lock
extern std::atomic<bool> watching;    // operations are noted too; read without the lock
extern Column<Event> events;
extern Column<Operation> operations;
extern Column<Mark> marks;
extern std::vector<std::string> texts;

int64_t now();
int64_t recording_bytes();  // that the rows of the recording have filled; takes the lock
void push_mark(int64_t step, const char* text);
StepFigures turn_step();
int32_t intern(const char* text, const char* overload);  // with the lock held

// operations.cc
int32_t current_operation(bool materialise);  // of this thread; takes the lock
void watch_operations(bool on);
void clear_texts();

// resident.cc
struct Resident {  // bytes
  int64_t live = 0;      // of the blocks counted by the hook
  int64_t resident = 0;  // of the process
  int64_t shared = 0;    // of these, backed by files or shared: code
  int64_t arena = 0;     // malloc: asked of the system by growing
  int64_t mapped = 0;    // malloc: blocks mapped one by one
  int64_t used = 0;      // malloc: of arena, handed out
  int64_t free = 0;      // malloc: of arena, freed and kept
};
extern std::atomic<int64_t> sample_above;
void sample_resident(int64_t live);  // never call it with the lock held

// python_stack.cc
struct Position {
  const void* module = nullptr;
  int32_t stack = -1;
};
Position python_position();  // of this thread; never call it with the lock held
void gather_stacks(bool on);
size_t stack_bytes();

}  // namespace memfit

extern "C" int64_t memfit_live();
