// Beam search over what is done and what is live: nearly complete for small graphs.
//
// A state is the set of ops that ran and the set of storages that live; a step runs one op, for the first time or again.
// Storages leave only when an op needs room, by smallest sets that make enough of it: dropping later is never worse.
// The bound of a state is what was spent, every op still to come once, and once more every op without which something
// still wanted, and gone, cannot be made again (reached through inputs that are gone too). It never overestimates and
// never falls along a path, so states are taken in its order (A*, Hart, Nilsson and Raphael 1968), at most `width` of
// them per number of ops done. When no state was cut off, no schedule of the searched kind is below the answer. Not of
// that kind: those that make a thing again before the other thing that it is needed for is dropped.
// Up to 64 ops and 128 storages, as bit sets. Cost: O(ops x width x (choices + log width)).
#include <algorithm>
#include <cmath>
#include <queue>
#include <unordered_map>

#include "core/search.h"

namespace memfit {

namespace {

constexpr int32_t kSubsets = 96;         // sets of drops tried per run
constexpr size_t kStates = 200'000;      // states made, about: each layer has its share, at most twice that in all
constexpr int32_t kFewest = 50;          // states taken per layer even so

struct Set {
  uint64_t low = 0, high = 0;
  bool has(int32_t s) const { return (s < 64 ? low >> s : high >> (s - 64)) & 1; }
  void add(int32_t s) { (s < 64 ? low : high) |= 1ull << (s & 63); }
  bool empty() const { return (low | high) == 0; }
  int32_t take() {
    const int32_t s = low ? __builtin_ctzll(low) : 64 + __builtin_ctzll(high);
    if (low) low &= low - 1;
    else high &= high - 1;
    return s;
  }
  friend Set operator|(Set a, Set b) { return {a.low | b.low, a.high | b.high}; }
  friend Set operator&(Set a, Set b) { return {a.low & b.low, a.high & b.high}; }
  Set without(Set b) const { return {low & ~b.low, high & ~b.high}; }
  bool operator==(const Set& b) const { return low == b.low && high == b.high; }
};

struct State {
  uint64_t done = 0, again = 0;  // ops that ran; ops that must run again for what is wanted
  Set live;
  double seconds = 0, bound = 0;
  Bytes bytes = 0;
  int32_t parent = -1, op = -1;
};

struct Key {
  uint64_t done;
  Set live;
  bool operator==(const Key& other) const { return done == other.done && live == other.live; }
};

struct Hash {
  size_t operator()(const Key& key) const {
    uint64_t z = key.done * 0x9E3779B97F4A7C15ull ^ (key.live.low + 0x632BE59BD9B4E019ull) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 31) ^ key.live.high) * 0x94D049BB133111EBull;
    return static_cast<size_t>(z ^ (z >> 29));
  }
};

class Beam {
 public:
  Beam(const Problem& problem, Bytes budget, double below, int32_t width)
      : g_(problem), budget_(budget - problem.base), below_(below), width_(width) {
    const int32_t count = g_.op_count;
    all_ = count == 64 ? ~0ull : (1ull << count) - 1;
    reads_.resize(count);
    writes_.resize(count);
    before_.assign(count, 0);
    after_.assign(count, 0);
    std::vector<std::pair<int32_t, int32_t>> chain;
    for (int32_t v = 0; v < count; ++v) {
      for (int64_t j = g_.reads_start[v]; j < g_.reads_start[v + 1]; ++j)
        if (g_.pinned[g_.reads[j]] != 1) reads_[v].add(g_.reads[j]);
      for (int64_t j = g_.writes_start[v]; j < g_.writes_start[v + 1]; ++j) writes_[v].add(g_.writes[j]);
      for (int64_t j = g_.before_start[v]; j < g_.before_start[v + 1]; ++j) before_[v] |= 1ull << g_.before[j];
      for (int64_t j = g_.after_start[v]; j < g_.after_start[v + 1]; ++j) after_[v] |= 1ull << g_.after[j];
      if (g_.chain_rank[v] >= 0) chain.push_back({g_.chain_rank[v], v});
    }
    std::sort(chain.begin(), chain.end());
    for (size_t k = 1; k < chain.size(); ++k) before_[chain[k].second] |= 1ull << chain[k - 1].second;
    for (int32_t s = 0; s < g_.storage_count; ++s)
      if (g_.pinned[s] == 2) outputs_.add(s);
    layers_.resize(count + 1);
  }

  Sequence run(bool& complete, int64_t& work) {
    State root;
    for (double s : g_.seconds) root.bound += s;
    scale_ = root.bound > 0 ? 1e10 / root.bound : 1;
    if (root.bound < below_) push(root, 0);
    for (int32_t layer = 0; layer <= g_.op_count; ++layer) {
      auto& queue = layers_[layer];
      const size_t share = kStates * static_cast<size_t>(layer + 1) / static_cast<size_t>(g_.op_count + 1);
      for (int32_t taken = 0; !queue.empty() && taken < width_; ++taken) {
        if (taken >= kFewest && states_.size() > share) break;
        const int32_t at = queue.top().second;
        queue.pop();
        const State state = states_[at];
        if (best_.at({state.done, state.live}) != at) continue;
        work += 40;
        if (state.done == all_ && state.again == 0) {
          complete = !cut_;
          return path(at);
        }
        expand(state, at, layer);
      }
      cut_ = cut_ || !queue.empty();
      queue = {};
    }
    complete = !cut_;
    return {};
  }

 private:
  struct Facts {
    Set useful, wanted;  // worth keeping for some run to come; read by a first run to come, or an output
  };

  const Facts& facts(uint64_t done) {
    const auto [place, fresh] = facts_.try_emplace(done);
    if (!fresh) return place->second;
    Facts& f = place->second;
    f.useful = f.wanted = outputs_;
    for (int32_t v = g_.op_count - 1; v >= 0; --v) {
      const bool undone = !(done >> v & 1);
      if (undone) f.wanted = f.wanted | reads_[v];
      if (undone || (repeats(v, done) && !(writes_[v] & f.useful).empty())) f.useful = f.useful | reads_[v];
    }
    return f;
  }

  bool repeats(int32_t v, uint64_t done) const { return g_.repeatable[v] && (after_[v] & done) == 0; }

  // Fills `again` and `bound`; false when something wanted can never be made again.
  bool look_ahead(State& state) {
    Set missing = facts(state.done).wanted.without(state.live);
    state.again = 0;
    state.bound = state.seconds;
    for (uint64_t left = all_ & ~state.done; left; left &= left - 1) state.bound += g_.seconds[__builtin_ctzll(left)];
    while (!missing.empty()) {
      const int32_t u = g_.producer[missing.take()];
      if (!(state.done >> u & 1) || (state.again >> u & 1)) continue;
      if (!repeats(u, state.done)) return false;
      state.again |= 1ull << u;
      state.bound += g_.seconds[u];
      missing = missing | reads_[u].without(state.live);
    }
    return true;
  }

  void push(const State& state, int32_t layer) {
    if (states_.size() >= 2 * kStates) {
      cut_ = true;
      return;
    }
    const int32_t at = static_cast<int32_t>(states_.size());
    const auto [place, fresh] = best_.try_emplace({state.done, state.live}, at);
    if (!fresh) {
      if (states_[place->second].seconds <= state.seconds) return;
      place->second = at;
    }
    states_.push_back(state);
    // Sums in another order differ in their last digits: equal bounds are compared as equal.
    layers_[layer].push({{-std::round(state.bound * scale_), -state.bytes}, at});
  }

  void expand(const State& state, int32_t at, int32_t layer) {
    for (int32_t v = 0; v < g_.op_count; ++v) {
      const bool first = !(state.done >> v & 1);
      if (first ? (before_[v] & ~state.done) != 0 : !(state.again >> v & 1)) continue;
      if (!reads_[v].without(state.live).empty()) continue;
      Set fresh = writes_[v].without(state.live);
      Bytes during = state.bytes + g_.workspace[v];
      for (Set left = fresh; !left.empty();) during += g_.nbytes[left.take()];
      const uint64_t done = state.done | 1ull << v;
      const int32_t taken = g_.reuse[v] >= 0 && reads_[v].has(g_.reuse[v]) ? g_.reuse[v] : -1;
      Set gone;
      if (taken >= 0) gone.add(taken);
      const bool dies = taken >= 0 && !facts(done).useful.has(taken);
      const Bytes room = budget_ - during;
      if (taken >= 0 && (dies || room < 0)) make_room(state, at, layer, v, done, room + g_.nbytes[taken], gone);
      if (!dies) make_room(state, at, layer, v, done, room, {});
    }
  }

  // Children that run v after dropping each smallest set that brings `room` to 0 or more.
  void make_room(const State& state, int32_t at, int32_t layer, int32_t v, uint64_t done, Bytes room, Set gone) {
    if (room >= 0) return child(state, at, layer, v, done, gone);
    candidates_.clear();
    const Set wanted = facts(done).wanted;
    for (Set left = state.live.without(reads_[v] | writes_[v]); !left.empty();) {
      const int32_t s = left.take();
      if (g_.nbytes[s] == 0 || (wanted.has(s) && !repeats(g_.producer[s], done))) continue;
      candidates_.push_back({g_.seconds[g_.producer[s]] / static_cast<double>(g_.nbytes[s]), s});
    }
    std::sort(candidates_.begin(), candidates_.end());
    rest_.assign(candidates_.size() + 1, 0);
    for (size_t k = candidates_.size(); k-- > 0;) rest_[k] = rest_[k + 1] + g_.nbytes[candidates_[k].second];
    subsets_ = 0;
    choose(state, at, layer, v, done, -room, 0, gone, INT64_MAX);
  }

  void choose(const State& state, int32_t at, int32_t layer, int32_t v, uint64_t done, Bytes need, size_t k, Set gone,
              Bytes smallest) {
    if (need <= 0) {
      if (-need >= smallest) return;  // the smallest of the set was not needed: a smaller set does it
      ++subsets_;
      return child(state, at, layer, v, done, gone);
    }
    if (rest_[k] < need) return;
    if (subsets_ >= kSubsets) {
      cut_ = true;
      return;
    }
    const int32_t s = candidates_[k].second;
    Set with = gone;
    with.add(s);
    choose(state, at, layer, v, done, need - g_.nbytes[s], k + 1, with, std::min(smallest, g_.nbytes[s]));
    choose(state, at, layer, v, done, need, k + 1, gone, smallest);
  }

  void child(const State& state, int32_t at, int32_t layer, int32_t v, uint64_t done, Set gone) {
    State next;
    next.done = done;
    next.live = (state.live | writes_[v]).without(gone) & facts(done).useful;
    next.seconds = state.seconds + g_.seconds[v];
    if (!look_ahead(next) || next.bound >= below_) return;
    for (Set left = next.live; !left.empty();) next.bytes += g_.nbytes[left.take()];
    next.parent = at;
    next.op = v;
    push(next, layer + (done != state.done));
  }

  Sequence path(int32_t at) const {
    Sequence out;
    for (; states_[at].op >= 0; at = states_[at].parent) out.push_back(states_[at].op);
    std::reverse(out.begin(), out.end());
    return out;
  }

  const Problem& g_;
  Bytes budget_;
  double below_, scale_ = 1;
  int32_t width_;
  uint64_t all_ = 0;
  bool cut_ = false;
  std::vector<Set> reads_, writes_;
  std::vector<uint64_t> before_, after_;
  Set outputs_;
  std::vector<State> states_;
  std::unordered_map<Key, int32_t, Hash> best_;
  std::unordered_map<uint64_t, Facts> facts_;
  std::vector<std::priority_queue<std::pair<std::pair<double, Bytes>, int32_t>>> layers_;
  std::vector<std::pair<double, int32_t>> candidates_;
  std::vector<Bytes> rest_;
  int32_t subsets_ = 0;
};

}  // namespace

Plan Search::beam(Bytes budget, double below, int32_t width, bool& complete) {
  complete = false;
  if (problem_.op_count > 64 || problem_.storage_count > 128) return {};
  Beam beam(problem_, budget, below, width);
  const Sequence sequence = beam.run(complete, cover_.work);
  return sequence.empty() ? Plan{} : figures(sequence);
}

}  // namespace memfit
