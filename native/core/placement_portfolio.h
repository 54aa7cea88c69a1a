// Many orders of one complete search, interleaved: placement times have heavy tails, so no single order is bet on.
//
// Lane k is a search with the k-th order (hand-picked ones first, then random disturbances of them). Each keeps its
// state, nothing is restarted. A step goes to the lane with the least nodes x (k + 1)^0.7, so that later lanes open as
// time passes and the share of lane k falls slowly: a lane that needs N nodes is reached after O(N k^0.7) nodes in sum.
// One exhausted lane proves that nothing fits.
#pragma once
#include <memory>
#include <vector>

#include "placement_restart.h"

namespace memfit {

class PlacementPortfolio {
 public:
  // Lanes `first`, `first + stride`, ...: several portfolios share the work among threads.
  PlacementPortfolio(const PlacementShape& shape, int64_t limit, uint32_t switches, uint64_t seed, int32_t first,
                     int32_t stride);
  PlacementPortfolio(const PlacementPortfolio&) = delete;
  SearchStatus run(int64_t nodes);
  // Begins anew under another limit; lanes that learn keep what they learned.
  void aim(int64_t limit);
  int64_t nodes() const { return nodes_; }
  int64_t limit() const { return limit_; }
  int64_t unit() const { return shape_.divisor; }
  int32_t winner() const { return winner_; }            // lane that found or proved, or -1
  const std::vector<int64_t>& offsets() const { return offsets_; }  // after kFound, units of the shape

 private:
  struct Lane {
    std::unique_ptr<PlacementSearch> search;
    RestartingSearch* learning;  // the same search, where it learns
    double weight;
    int32_t number;
    int64_t before;  // nodes it had when it was aimed
  };
  void open();
  const PlacementShape& shape_;
  int64_t limit_, nodes_ = 0;
  uint32_t switches_;
  uint64_t seed_;
  int32_t first_, stride_, winner_ = -1;
  SearchStatus status_ = SearchStatus::kPaused;
  std::vector<Lane> lanes_, kept_;  // in work; learned under an earlier limit and not opened since
  std::vector<int64_t> offsets_;
};

}  // namespace memfit
