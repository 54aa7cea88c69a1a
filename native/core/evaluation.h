// Evaluation of a sequence against a budget, and the facts about it that a search asks for.
//
// One forward sweep: an instance of a storage is the interval from its creation to its last read; live bytes are the
// prefix sum of interval ends. `measure` costs O(length x fan-in + storages); `describe` also lists every gap between
// two consecutive events of an instance and, by storage, every event, so that a search can ask "is it alive there".
// Same figures as simulate() of liveness.h, which is the judge of every final plan; a test runs both.
#pragma once
#include <cstdint>
#include <vector>

#include "core/problem.h"

namespace memfit {

using Sequence = std::vector<int32_t>;

struct Figures {
  Bytes peak = 0;
  int32_t peak_position = -1;
  Bytes excess = 0;  // sum over positions of max(0, live - budget): 0 means that the budget is kept
  double seconds = 0;
};

// Between two consecutive events of one instance: it lies idle at the positions from + 1 .. to - 1.
// `to` equals the length of the sequence for an output that waits for the end.
struct Gap {
  int32_t storage;
  int32_t from;
  int32_t to;
};

class Evaluation {
 public:
  explicit Evaluation(const Problem& problem);

  // Live bytes per position in `during`, and the sums.
  Figures measure(const Sequence& sequence, Bytes budget);
  // The same and the gaps, the events, the excess prefix sums and the first positions.
  Figures describe(const Sequence& sequence, Bytes budget);

  // After describe(): is the newest instance of s before position q still wanted at q or later?
  bool alive(int32_t s, int32_t q) const;
  // After describe(): the last event of s before position q, or -1.
  int32_t last_event(int32_t s, int32_t q) const;
  // After describe(): the last position, at most q, before which op v may run (again) under the order rules; -1: none.
  int32_t latest(int32_t v, int32_t q) const;
  bool may_repeat(int32_t v, int32_t q) const { return latest(v, q) == q; }
  // After describe(): number of over-budget positions, and sum of excess, at positions from + 1 .. to - 1.
  int32_t over_count(int32_t from, int32_t to) const { return over_[to] - over_[from + 1]; }
  Bytes over_sum(int32_t from, int32_t to) const { return over_bytes_[to] - over_bytes_[from + 1]; }

  std::vector<Bytes> during;
  std::vector<Gap> gaps;
  std::vector<int32_t> first;  // op -> position of its first run
  // Per position, 1 where nobody reads anything that the run made, and it is no first run: it may be deleted for free.
  std::vector<uint8_t> idle;

 private:
  template <bool Full>
  Figures sweep(const Sequence& sequence, Bytes budget);

  const Problem& problem_;
  std::vector<int32_t> last_;
  std::vector<int64_t> event_start_;
  std::vector<int32_t> events_;  // position x 2 + (1 for a creation), ascending by storage
  std::vector<int32_t> over_;
  std::vector<Bytes> over_bytes_;
};

}  // namespace memfit
