// Which events of the pool repeat, found while they happen: the period of the stream of events, if it has one.
//
// An event is "so many granules" or "frees the block of so many allocations ago", or a step mark of the user. Two equal
// windows of kWindow events name a distance; while every event equals the one so far back, the distance stands. It is a
// period when two whole periods were equal (with step marks one) and as much is alive as one period ago: the layers of a
// forward pass are alike too, but each leaves its activations behind. The offline twin is allocators/iterations.py.
// Cost: O(1) an event.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace memfit {

struct PoolEvent {
  uint64_t code;    // kAllocate: granules << 2; kFree: age << 2 | 1; kStep: 2
  int64_t start;    // where an allocation was put, in granules
  int64_t live;     // granules alive after the event
};

class PoolRepeats {
 public:
  static constexpr int64_t kRoom = 1 << 16;    // events remembered
  static constexpr int64_t kLongest = 20000;   // events of a period at most
  static constexpr int64_t kShortest = 4;
  static constexpr uint64_t kStepCode = 2;

  static uint64_t allocation(int64_t granules) { return static_cast<uint64_t>(granules) << 2; }
  static uint64_t release(uint64_t age) { return age << 2 | 1; }
  static bool allocates(uint64_t code) { return (code & 3) == 0; }

  // Adds one event; true when a period is known and a border between periods is here.
  bool add(const PoolEvent& event);
  int64_t period() const { return period_; }
  int64_t count() const { return count_; }
  const PoolEvent& back(int64_t ago) const { return ring_[static_cast<size_t>((count_ - 1 - ago) & (kRoom - 1))]; }
  // Forgets all: what comes is not compared with what was.
  void forget();

 private:
  static constexpr int kWindow = 16;
  void roll();
  bool search(int64_t before);
  bool alike(int64_t distance) const;
  bool at_step();
  void settle();

  std::vector<PoolEvent> ring_;
  struct Seen {
    uint64_t window;
    int64_t at;
  };
  std::vector<Seen> seen_;
  int64_t count_ = 0, oldest_ = 0;   // oldest_: events before it are forgotten
  int64_t distance_ = 0, equal_ = 0, judged_ = 0;
  int64_t period_ = 0, border_ = 0;  // border_: the event after which a period ends, plus whole periods
  int64_t known_ = 0, known_until_ = 0;  // the last period, and how long it is looked for
  int64_t last_step_ = -1, step_before_ = -1;
  uint64_t hash_ = 0;
  bool hash_valid_ = false;
  int64_t seen_from_ = 0;  // windows before it are not known any more
};

}  // namespace memfit
