// Covering the excess: which storages to drop and compute again until a sequence keeps its budget, and which of the
// repeated runs turn out to be unneeded.
//
// A drop is "run the producer of s again right before its next use": one gap of s becomes free memory. Dropping covers
// part of the excess (bytes over budget, summed over positions) at a price in seconds, so choosing drops is a weighted
// covering problem; `cover` is its greedy (best excess removed per second first, Chvatal 1979), every choice judged by
// exact evaluation. Inputs of the producer that are dead by then either live on until then or are computed again too.
// `prune` deletes repeated runs, dearest first, while the budget is kept. Both always leave a valid sequence.
#pragma once
#include <cstdint>
#include <vector>

#include "core/evaluation.h"
#include "core/random.h"

namespace memfit {

struct CoverOptions {
  double noise = 0;           // 0: pure greedy; else every score is multiplied by exp(noise x uniform(-1, 1))
  int32_t tries = 6;          // candidates evaluated exactly per choice
  int32_t batch = 1;          // drops taken per choice (large graphs)
  double seconds_limit = 1e300;  // give up beyond this cost
  int64_t length_limit = 0;   // give up beyond this many runs
};

class Cover {
 public:
  explicit Cover(const Problem& problem);

  // Adds repeated runs until the excess is 0. True when it got there; the sequence is valid either way.
  bool cover(Sequence& sequence, Bytes budget, const CoverOptions& options, Random& random);
  // Deletes repeated runs that the budget does not need. The sequence must keep the budget.
  void prune(Sequence& sequence, Bytes budget, Random& random);
  // Deletes repeated runs that nobody reads.
  void sweep_idle(Sequence& sequence);
  // Runs to insert before q so that storage s need not be held over the gap before q.
  // eagerness: 0: dead inputs live on; 1: dead inputs that cost excess are computed again; between: where that pays.
  void drop_list(int32_t s, int32_t q, double eagerness, double ratio, std::vector<int32_t>& list);

  Evaluation evaluation;
  int64_t work = 0;  // runs evaluated so far: the measure of effort, the same on every machine

 private:
  struct Candidate {
    double score;
    int32_t gap, place;  // what is made again goes before this position
  };
  void add_with_inputs(int32_t v, int32_t q, double eagerness, double ratio, int32_t depth, std::vector<int32_t>& list);
  bool take_batch(Sequence& sequence, Bytes budget, const CoverOptions& options, Figures& figures);
  Figures describe(const Sequence& sequence, Bytes budget);
  Figures measure(const Sequence& sequence, Bytes budget);

  const Problem& problem_;
  Evaluation trial_;
  std::vector<Candidate> candidates_;
  std::vector<uint8_t> listed_;
};

}  // namespace memfit
