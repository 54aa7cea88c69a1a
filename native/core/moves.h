// Random edits for the annealing searches: delete a repeated run, drop a storage and make it again, both, or move a run.
//
// What is made again comes right before its next use; where something that it is made from is changed in place before
// that, right before the change (half of the time, where that is so of one of its dead inputs only). Half of the insertions aim at gaps that span the peak. One draw costs O(fan-in + length of the window looked at).
#pragma once
#include <algorithm>
#include <vector>

#include "core/live_sequence.h"

namespace memfit {

class Moves {
 public:
  Moves(const Problem& problem, Random& random) : g_(problem), random_(random) {
    for (int32_t s = 0; s < g_.storage_count; ++s)
      if (g_.pinned[s] != 1 && g_.nbytes[s] > 0 && g_.repeatable[g_.producer[s]]) storages_.push_back(s);
  }

  bool draw(LiveSequence& state, Edit& edit) {
    edit.remove = -1;
    edit.insert.clear();
    const int32_t kind = random_.below(20);
    if (kind >= 18) return move(state, edit);
    if (kind < 12 && state.repeats() > 0) edit.remove = state.repeat_position(random_.below(state.repeats()));
    if (kind < 6) return edit.remove >= 0;
    return insert(state, edit);
  }

  bool move(LiveSequence& state, Edit& edit) {
    const int32_t at = random_.below(state.length());
    int32_t low, high;
    const bool moves = state.window(at, 4 << random_.below(8), low, high);
    state.work += (high - low) / 2;
    if (!moves) return false;
    const int32_t way = random_.below(3);
    const int32_t to = way == 0 ? low : way == 1 ? high : low + random_.below(high - low + 1);
    if (to == at) return false;
    edit.remove = at;
    edit.at = to < at ? to : to + 1;
    edit.insert.assign(1, state.op_at(at));
    return true;
  }

 private:
  bool insert(LiveSequence& state, Edit& edit) {
    if (storages_.empty()) return false;
    Gap gap{-1, 0, 0};
    int32_t place = -1;
    bool found = false;
    const bool at_peak = random_.below(2) == 0;
    for (int32_t attempt = 0; attempt < 12 && !found; ++attempt) {
      const int32_t s = storages_[random_.below(static_cast<int32_t>(storages_.size()))];
      const int32_t peak = state.figures().peak_position;
      found = at_peak ? state.gap_around(s, peak, gap)
                      : state.gap_before_event(s, 1 + random_.below(state.event_count(s)), gap);
      if (!found) continue;
      place = state.latest(g_.producer[s], gap.to);
      found = at_peak ? place > peak : place > gap.from + 1;
    }
    if (!found) return false;
    const double again[4] = {0.0, 1.0, 1.0, 0.6};
    const double share = again[random_.below(4)];
    const int32_t most = 4 << (2 * random_.below(4));
    for (;;) {
      const int32_t earlier = state.again_list(gap.storage, place, share, most, random_, edit.insert);
      const bool spans = at_peak ? earlier > state.figures().peak_position : earlier > gap.from + 1;
      if (earlier == place || !spans || random_.below(2)) break;
      place = earlier;
    }
    edit.at = place;
    return edit.remove < 0 ||
           std::find(edit.insert.begin(), edit.insert.end(), state.op_at(edit.remove)) == edit.insert.end();
  }

  const Problem& g_;
  Random& random_;
  std::vector<int32_t> storages_;
};

}  // namespace memfit
