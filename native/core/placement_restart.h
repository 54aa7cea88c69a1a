// A search that restarts and learns: sections where children failed weigh more from run to run.
//
// A depth-first search never repairs a bad early choice. Runs of Luby's lengths (Luby, Sinclair, Zuckerman, 1993) give
// each choice a second chance; what is kept from run to run is where failures happened, as in Boussemart et al.,
// "Boosting systematic search by weighting constraints" (ECAI 2004). The weights lead the order of the buffers (the
// ones that cross a failing section come first) and the choice of the section (fewest children per weight).
// Complete only in the limit, as the longest run grows without bound; the lanes beside it are complete as they are.
#pragma once
#include "placement_search.h"

namespace memfit {

struct RestartOptions {
  int64_t base = 500;   // nodes of the shortest run
  double learning = 1;  // weight of the worst section beside its load
  double decay = 0.95;  // of what was learned, a run
};

class RestartingSearch : public PlacementSearch {
 public:
  // Begins anew under another limit with what was learned so far.
  virtual void aim(int64_t limit) = 0;
};

std::unique_ptr<RestartingSearch> make_restarting(const PlacementShape& shape, int64_t limit,
                                                  const SearchOptions& options, const RestartOptions& restart);

}  // namespace memfit
