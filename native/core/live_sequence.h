// A sequence under change: live bytes per position kept up to date, an edit judged without making it.
//
// An edit deletes at most one run and inserts a list of runs at one place; a move is both. Only the storages that those
// runs read or write change their lifetimes, so an edit is a few ranges of positions whose live bytes rise or fall by a
// constant. `judge` adds those to per-block maxima and excesses, opening only blocks that stand over the budget, and
// takes what lies before and after all ranges from sums: O(touched storages x their events + span of the ranges / 64)
// typically, against O(length x fan-in) for evaluation from scratch.
// `apply` makes the edit that was judged last. Figures equal Evaluation::measure; Search::walk_check compares them.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

#include "core/evaluation.h"
#include "core/random.h"

namespace memfit {

struct Edit {
  int32_t remove = -1;          // position of the run to delete, or -1
  int32_t at = 0;               // the new runs go before this position (of the sequence as it is)
  std::vector<int32_t> insert;  // ops, in order
};

class LiveSequence {
 public:
  LiveSequence(const Problem& problem, Bytes budget);

  void load(const Sequence& sequence);
  void set_budget(Bytes budget);
  Sequence sequence() const;
  int32_t length() const { return static_cast<int32_t>(order_.size()); }
  int32_t op_at(int32_t position) const { return op_[order_[position]]; }
  bool repeated(int32_t position) const { return first_[op_at(position)] != order_[position]; }
  int32_t first_position(int32_t op) const { return position_[first_[op]]; }
  // Nodes name runs for as long as they are there.
  int32_t node_at(int32_t position) const { return order_[position]; }
  int32_t position_of(int32_t node) const { return position_[node]; }
  bool is_repeat(int32_t node) const { return repeat_place_[node] >= 0; }
  const Figures& figures() const { return figures_; }
  int32_t repeats() const { return static_cast<int32_t>(repeats_.size()); }
  int32_t repeat_position(int32_t k) const { return position_[repeats_[k]]; }

  // What the edit would make of it.
  Figures judge(const Edit& edit);
  // Makes the edit that judge() saw last, then deletes repeated runs that nobody reads any more.
  void apply(const Edit& edit);

  // Is the newest instance of s before position q still wanted at q or later?
  bool alive(int32_t s, int32_t q) const;
  // The last position, at most q, before which op v may run again under the order rules; -1: none.
  int32_t latest(int32_t v, int32_t q) const;
  bool may_repeat(int32_t v, int32_t q) const { return latest(v, q) == q; }
  // A gap of storage s around position p (strictly inside), or the gap that ends with the k-th event of s.
  bool gap_around(int32_t s, int32_t p, Gap& gap) const;
  bool gap_before_event(int32_t s, int32_t k, Gap& gap) const;
  int32_t event_count(int32_t s) const { return static_cast<int32_t>(events_[s].size()); }
  // Runs that make s again at q; `again`: 0 dead inputs live on, 1 all are made again, between: each with that chance.
  // About `most` runs at most. Returns q, or where a dead input may no longer be made again there, and so would live on
  // instead, the last position at which it may.
  int32_t again_list(int32_t s, int32_t q, double again, int32_t most, Random& random, std::vector<int32_t>& list);
  // Positions that the run at `at` may take, looking at most `reach` away. False when it cannot move.
  bool window(int32_t at, int32_t reach, int32_t& low, int32_t& high) const;

  int64_t work = 0;

 private:
  static constexpr int32_t kBlock = 64;  // positions whose peak and excess are summed up together
  struct Instance {
    int64_t from, to;  // stretched coordinates, see live_sequence_edit.cc
    int32_t taker;     // op that takes the bytes over at `to`, or -1
  };
  int32_t index_at_or_after(int32_t s, int32_t q) const;
  bool dies_at(int32_t s, int32_t node) const;
  bool idle(int32_t node) const;
  void touch(int32_t op, int32_t rank);
  void instances(int32_t s, const Edit* edit, std::vector<Instance>& out) const;
  void add_again(int32_t v, int32_t q, double again, Random& random, int32_t most, std::vector<int32_t>& list);
  void rebuild_blocks(int32_t from, int32_t to);
  void sum_blocks();

  const Problem& problem_;
  Bytes budget_;
  std::vector<int32_t> op_;        // node -> op
  std::vector<int32_t> position_;  // node -> position
  std::vector<int32_t> order_;     // position -> node
  std::vector<int32_t> free_;      // nodes to use again
  std::vector<int32_t> first_;     // op -> node of its first run
  std::vector<int32_t> repeats_;   // nodes of repeated runs, any order
  std::vector<int32_t> repeat_place_;
  std::vector<std::vector<int32_t>> events_;  // storage -> nodes that create or read it, by position
  std::vector<Bytes> during_;
  std::vector<Bytes> block_peak_, block_excess_;
  std::vector<Bytes> peak_before_, excess_before_, peak_from_;  // over all blocks before, before, from a block on
  Figures figures_;
  // The judged edit.
  std::vector<std::pair<int32_t, Bytes>> steps_;
  std::vector<Bytes> inserted_;
  std::vector<Bytes> shift_;
  std::vector<int32_t> touched_;
  struct Newcomer {
    int32_t rank, next;  // rank among the inserted runs; next entry of the same storage, or -1
  };
  std::vector<Newcomer> newcomers_;
  std::vector<int32_t> newcomer_, newcomer_last_;
  int32_t listing_ = 0, earlier_ = 0;
  std::vector<uint8_t> is_touched_, listed_;
  mutable std::vector<Instance> old_, new_;
  int64_t stretch_ = 1;
  Figures judged_;
};

}  // namespace memfit
