// One order of a graph's ops, each run once: what a step costs in bytes, walked from either end.
//
// A state is the set of ops that ran (closed under predecessors); its level is the bytes of the storages that were made
// and are still to be read or kept. Both do not depend on the order in which the set was run. A walk from the back takes
// ops off the end of the order: its marked set is what runs after the state.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "core/liveness.h"

namespace memfit {

using Order = std::vector<int32_t>;
using Words = std::vector<uint64_t>;
using Stop = std::function<bool()>;  // polled by long searches: whether to give up now

struct Lists {
  std::vector<int64_t> start;
  std::vector<int32_t> items;
  const int32_t* begin(int32_t row) const { return items.data() + start[row]; }
  const int32_t* end(int32_t row) const { return items.data() + start[row + 1]; }
  int64_t count(int32_t row) const { return start[row + 1] - start[row]; }
};

struct Row {
  const int32_t *first, *last;
  const int32_t* begin() const { return first; }
  const int32_t* end() const { return last; }
};

inline Row row(const Lists& lists, int32_t index) { return {lists.begin(index), lists.end(index)}; }
inline bool has(const uint64_t* words, int32_t bit) { return (words[bit >> 6] >> (bit & 63)) & 1; }
inline void add(uint64_t* words, int32_t bit) { words[bit >> 6] |= 1ull << (bit & 63); }

// Constants are left out of every list. A storage has one producer; the caller sees to that.
struct OrderProblem {
  int32_t op_count = 0, storage_count = 0, words = 0;
  Lists reads, writes, needs, needed_by, readers;
  std::vector<Bytes> nbytes;      // storage
  std::vector<uint8_t> kept;      // storage: lives to the end
  std::vector<int32_t> producer;  // storage
  std::vector<Bytes> own, made;   // op: bytes that it adds while it runs; bytes of what it leaves behind
  std::vector<int32_t> reuse;     // op: storage whose bytes its first output takes over if it dies there, or -1

  // Fills the derived lists; `needs` holds every direct predecessor, those of reads included.
  void finish(const std::vector<Bytes>& workspace);
};

struct Step {
  Bytes during, after;
};

// Where a walk goes: forwards adds ops to the state, backwards takes them off; `marked` are those it has walked over.
struct Direction {
  const OrderProblem& g;
  bool forward;
  const Lists& next() const { return forward ? g.needed_by : g.needs; }
  const Lists& previous() const { return forward ? g.needs : g.needed_by; }
  bool ran(const uint64_t* marked, int32_t op) const { return has(marked, op) == forward; }

  // Bytes while `op`, which is not marked, runs next to the state of level `level`, and the level behind it.
  Step step(const uint64_t* marked, int32_t op, Bytes level) const {
    Bytes dying = 0, taken = 0;
    for (const int32_t s : row(g.reads, op)) {
      if (g.kept[s] || g.nbytes[s] == 0) continue;
      bool last = true;
      for (const int32_t reader : row(g.readers, s))
        if (reader != op && !ran(marked, reader)) {
          last = false;
          break;
        }
      if (!last) continue;
      dying += g.nbytes[s];
      if (s == g.reuse[op]) taken = g.nbytes[s];
    }
    if (forward) return {level + g.own[op] - taken, level + g.made[op] - dying};
    const Bytes before = level - g.made[op] + dying;
    return {before + g.own[op] - taken, before};
  }
};

// Bytes while each op of a whole order runs, without constants.
std::vector<Bytes> bytes_during(const OrderProblem& g, const Order& order);
// Bytes live when exactly the ops marked in `done` ran.
Bytes level_of(const OrderProblem& g, const uint64_t* done);
// Positions in `order` at which every order stands in the same state: what ran is forced. The ends included.
std::vector<int32_t> forced_positions(const OrderProblem& g, const Order& order);

}  // namespace memfit
