#include "core/order_exact.h"

#include <algorithm>
#include <array>
#include <list>
#include <memory>

#include "core/order_cut.h"
#include "core/order_hill.h"

namespace memfit {

namespace {

constexpr int64_t kFirst = 2000;  // states of the first attempt at a walk; eightfold at each further one

// The part of a walk's path that leads to the least state on its way: only that one may be taken for good. `level`: where
// the walk began; its end is no higher, so where nothing is below `level` the end is a least state too.
Order to_least(const OrderProblem& g, const Words& marked, bool forward, const Order& path, Bytes level) {
  Words before = marked;
  Order between = path;
  if (!forward) {
    for (auto& word : before) word = ~word;
    for (const int32_t v : path) before[v >> 6] &= ~(1ull << (v & 63));
    std::reverse(between.begin(), between.end());
  }
  const Cut cut = least_state(g, before, between, -1);
  if (cut.bytes >= level) return path;
  std::vector<uint8_t> taken(g.op_count, 0);
  for (size_t i = 0; i < between.size(); ++i) taken[between[i]] = cut.done[i] == forward;
  Order out;
  for (const int32_t v : path)
    if (taken[v]) out.push_back(v);
  return out;
}

// Ops that are walked together: `parts` are those that no need ties to each other, only results that several read. The
// walks from the front and the back of each part, and of all together where they are more than one.
struct Group {
  Order ops;
  std::vector<Order> parts;
  std::vector<std::array<std::unique_ptr<Hill>, 2>> hills;  // one per part, then one for all where that differs
};

class Roots {
 public:
  explicit Roots(int32_t count) : parent_(count, -1) {}
  void reset(const Order& ops) {
    for (const int32_t v : ops) parent_[v] = v;
  }
  int32_t find(int32_t v) {
    while (parent_[v] != v) v = parent_[v] = parent_[parent_[v]];
    return v;
  }
  void join(int32_t a, int32_t b) { parent_[find(a)] = find(b); }

 private:
  std::vector<int32_t> parent_;
};

class Search {
 public:
  Search(const OrderProblem& g, const Words& before, const Order& between, Bytes low, Bytes high, int64_t states,
         const Stop& stop)
      : g_(g), target_(low), high_(high), states_(states), stop_(stop), done_(before), after_(g.words, ~0ull),
        left_(between.size()), within_(g.op_count, 0), roots_(g.op_count), part_members_(g), group_members_(g) {
    for (int32_t i = 0; i < g.words; ++i) after_[i] &= ~before[i];
    for (const int32_t v : between) after_[v >> 6] &= ~(1ull << (v & 63));
    for (const int32_t v : between) within_[v] = 1;
    split(between);
    levels();
  }

  Exact run() {
    int64_t limit = std::min(states_, kFirst);
    while (left_ > 0 && target_ < high_) {
      if (advance(limit)) {
        limit = std::min(states_, kFirst);
        continue;
      }
      if (raise()) continue;
      if (limit >= states_ || stop_()) break;
      limit = std::min(states_, limit * 8);
    }
    Exact result;
    result.bound = std::min(target_, high_);
    result.complete = left_ == 0 || target_ >= high_;
    if (left_ == 0) {
      result.order = front_;
      result.order.insert(result.order.end(), back_.rbegin(), back_.rend());
    }
    return result;
  }

 private:
  // Takes one lower state for good, from the front or the back of some group; false where no walk found one.
  bool advance(int64_t limit) {
    for (int side = 0; side < 2; ++side) {
      exhausted_[side] = true;
      blocked_[side] = false;
      next_[side] = high_;
    }
    for (auto group = groups_.begin(); group != groups_.end(); ++group)
      for (int side = 0; side < 2; ++side) {
        const size_t count = group->parts.size() + (group->parts.size() > 1);
        for (size_t i = 0; i < count; ++i) {
          const bool whole = i + 1 == count;
          Hill& hill = walk(*group, i, side);
          const bool only = whole && groups_.size() == 1;
          bool whole_path = true, moved = false;
          Outcome outcome = Outcome::kLower;
          while (whole_path && outcome == Outcome::kLower) {
            outcome = hill.run(target_ - level_[side], limit, only, stop_);
            if (outcome != Outcome::kLower && outcome != Outcome::kEnd) break;
            whole_path = take(hill, side == 0, outcome == Outcome::kEnd);
            moved = true;
          }
          if (moved) {
            settle(group, whole_path);
            return true;
          }
          if (!whole) continue;
          if (outcome == Outcome::kCut) exhausted_[side] = false;
          blocked_[side] = blocked_[side] || !hill.reached_end();
          next_[side] = std::min(next_[side], level_[side] + hill.waiting());
        }
      }
    return false;
  }

  // The next target, where no walk of a side has more to see: had an order within the target crossed all groups, the
  // first of them to come back to its level could have done so alone, from that side. Where both sides saw all there is,
  // the smaller next target is enough, and no step is taken for good at a higher one than it needs.
  bool raise() {
    Bytes next = target_;
    if (exhausted_[0] && exhausted_[1]) {
      next = std::min(next_[0], next_[1]);
    } else {
      for (int side = 0; side < 2; ++side)
        if (exhausted_[side] && blocked_[side]) next = std::max(next, next_[side]);
    }
    if (next <= target_) return false;
    target_ = next;
    return true;
  }

  Hill& walk(Group& group, size_t index, int side) {
    auto& hill = group.hills[index][side];
    if (!hill) {
      const bool whole = index + 1 == group.hills.size();
      const Order& ops = whole ? group.ops : group.parts[index];
      const Members& members = whole ? group_members_ : part_members_;
      hill = std::make_unique<Hill>(
          Walker(g_, side == 0, side == 0 ? done_ : after_, ops, 0, members, members.owner[ops.front()]));
    }
    return *hill;
  }

  // Takes the walk's path for good, or the part of it that leads to the least state; whether it was all.
  bool take(Hill& hill, bool forward, bool end) {
    Words& marked = forward ? done_ : after_;
    const bool all = end || hill.free_moves_only();
    const Order path = all ? hill.path() : to_least(g_, marked, forward, hill.path(), level_[forward ? 0 : 1]);
    const bool whole = path.size() == hill.path().size();
    for (const int32_t v : path) {
      add(marked.data(), v);
      within_[v] = 0;
      (forward ? front_ : back_).push_back(v);
    }
    left_ -= path.size();
    if (whole && !end) level_[forward ? 0 : 1] += hill.rebase();
    return whole;
  }

  // What is left of a group is split again.
  void settle(std::list<Group>::iterator group, bool levels_known) {
    Order rest;
    for (const int32_t v : group->ops)
      if (within_[v]) rest.push_back(v);
    groups_.erase(group);
    if (!rest.empty()) split(rest);
    if (!levels_known) levels();
  }

  void levels() {
    Words all = done_;
    for (const auto& group : groups_)
      for (const int32_t v : group.ops) add(all.data(), v);
    level_[0] = level_of(g_, done_.data());
    level_[1] = level_of(g_, all.data());
  }

  // Adds the groups of `ops`: tied by needs, or by a result that dies among them and that both read.
  void split(const Order& ops) {
    roots_.reset(ops);
    for (const int32_t v : ops)
      for (const int32_t p : row(g_.needs, v))
        if (within_[p]) roots_.join(v, p);
    std::vector<int32_t> part(ops.size());
    for (size_t i = 0; i < ops.size(); ++i) part[i] = roots_.find(ops[i]);
    for (const int32_t v : ops)
      for (const int32_t s : row(g_.reads, v)) {
        if (g_.kept[s] || g_.nbytes[s] == 0) continue;
        bool dies = true;
        for (const int32_t reader : row(g_.readers, s)) dies = dies && !has(after_.data(), reader);
        for (const int32_t reader : row(g_.readers, s))
          if (dies && within_[reader]) roots_.join(v, reader);
      }
    std::vector<std::pair<std::pair<int32_t, int32_t>, int32_t>> sorted;  // group, part, place
    for (size_t i = 0; i < ops.size(); ++i) sorted.push_back({{roots_.find(ops[i]), part[i]}, static_cast<int32_t>(i)});
    std::sort(sorted.begin(), sorted.end());
    for (size_t i = 0; i < sorted.size();) {
      Group group;
      const int32_t root = sorted[i].first.first;
      for (; i < sorted.size() && sorted[i].first.first == root; ++i) {
        if (group.parts.empty() || sorted[i].first.second != sorted[i - 1].first.second) group.parts.emplace_back();
        group.parts.back().push_back(ops[sorted[i].second]);
        group.ops.push_back(ops[sorted[i].second]);
      }
      for (const Order& one : group.parts) part_members_.claim(g_, one, ids_++);
      group_members_.claim(g_, group.ops, ids_++);
      group.hills.resize(group.parts.size() + (group.parts.size() > 1));
      groups_.push_back(std::move(group));
    }
  }

  const OrderProblem& g_;
  Bytes target_, high_;
  int64_t states_;
  const Stop& stop_;
  Words done_, after_;
  size_t left_;
  std::vector<uint8_t> within_;
  Roots roots_;
  Members part_members_, group_members_;
  int32_t ids_ = 0;
  std::list<Group> groups_;
  Order front_, back_;
  Bytes level_[2] = {0, 0}, next_[2] = {0, 0};
  bool exhausted_[2] = {false, false}, blocked_[2] = {false, false};
};

}  // namespace

Exact order_exact(const OrderProblem& g, const Words& before, const Order& between, Bytes low, Bytes high,
                  int64_t states, const Stop& stop) {
  return Search(g, before, between, low, high, states, stop).run();
}

}  // namespace memfit
