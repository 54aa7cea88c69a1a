#include "placement_shape.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace memfit {

namespace {

template <class T>
void rows(const std::vector<std::vector<T>>& lists, std::vector<int32_t>& start, std::vector<T>& items) {
  start.assign(1, 0);
  items.clear();
  for (const auto& list : lists) {
    items.insert(items.end(), list.begin(), list.end());
    start.push_back(static_cast<int32_t>(items.size()));
  }
}

// Sections as sorted lists of instance buffers; a section whose list is contained in a neighbour's goes.
struct Columns {
  std::vector<std::vector<int32_t>> live;  // kept sections -> buffers of the instance
};

Columns cut_time(const PlacementInstance& in) {
  std::vector<int64_t> cuts(in.piece_lower);
  cuts.insert(cuts.end(), in.piece_upper.begin(), in.piece_upper.end());
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  const auto at = [&](int64_t t) { return std::lower_bound(cuts.begin(), cuts.end(), t) - cuts.begin(); };
  std::vector<std::vector<int32_t>> born(cuts.size() + 1), died(cuts.size() + 1);
  const int32_t count = static_cast<int32_t>(in.size.size());
  for (int32_t i = 0; i < count; ++i)
    for (int64_t p = in.start[i]; p < in.start[i + 1]; ++p) {
      if (in.piece_lower[p] >= in.piece_upper[p]) continue;
      born[at(in.piece_lower[p])].push_back(i);
      died[at(in.piece_upper[p])].push_back(i);
    }
  // Between two deaths the live set only grows, so the largest set of such a run stands for it: a section is kept
  // exactly when a birth lies before it and a death right after it.
  Columns out;
  std::vector<int32_t> live;
  bool grown = false;
  for (size_t t = 0; t < cuts.size(); ++t) {
    if (!died[t].empty()) {
      if (grown) out.live.push_back(live);
      grown = false;
      std::vector<int32_t> gone(died[t]);
      std::sort(gone.begin(), gone.end());
      live.erase(std::remove_if(live.begin(), live.end(),
                                [&](int32_t i) { return std::binary_search(gone.begin(), gone.end(), i); }),
                 live.end());
    }
    if (!born[t].empty()) {
      live.insert(live.end(), born[t].begin(), born[t].end());
      grown = true;
    }
  }
  for (auto& list : out.live) std::sort(list.begin(), list.end());
  return out;
}

// The largest sum of bytes in use at an instant; deaths before births.
int64_t largest_load(const PlacementInstance& in) {
  std::vector<std::pair<int64_t, int64_t>> events;
  for (size_t p = 0; p < in.piece_lower.size(); ++p) {
    if (in.piece_lower[p] >= in.piece_upper[p]) continue;
    const int64_t bytes = in.piece_high[p] - in.piece_low[p];
    events.push_back({in.piece_lower[p], bytes});
    events.push_back({in.piece_upper[p], -bytes});
  }
  std::sort(events.begin(), events.end());
  int64_t sum = 0, most = 0;
  for (const auto& [when, bytes] : events) most = std::max(most, sum += bytes);
  return most;
}

}  // namespace

PlacementShape make_shape(const PlacementInstance& in) {
  PlacementShape out;
  const int32_t total = static_cast<int32_t>(in.size.size());
  int64_t divisor = 0;
  for (int32_t i = 0; i < total; ++i) {
    divisor = std::gcd(divisor, in.size[i]);
    if (in.fixed[i] >= 0) divisor = std::gcd(divisor, in.fixed[i]);
    if (in.alignment[i] > 1) divisor = std::gcd(divisor, in.alignment[i]);
    for (int64_t p = in.start[i]; p < in.start[i + 1]; ++p) {
      if (in.piece_low[p] != 0 || in.piece_high[p] != in.size[i]) out.windowed = true;
      divisor = std::gcd(std::gcd(divisor, in.piece_low[p]), in.piece_high[p]);
    }
  }
  out.divisor = std::max<int64_t>(divisor, 1);
  std::vector<int32_t> moving(total, -1);
  for (int32_t i = 0; i < total; ++i) {
    if (in.fixed[i] >= 0) {
      out.plain = false;
      continue;
    }
    moving[i] = out.count++;
    out.buffer.push_back(i);
    out.size.push_back(in.size[i] / out.divisor);
    out.duration.push_back(static_cast<double>(in.upper[i] - in.lower[i]));
    // An alignment that divides the divisor is kept by every multiple of it.
    const int64_t alignment = in.alignment[i] > 1 ? in.alignment[i] / out.divisor : 1;
    out.alignment.push_back(std::max<int64_t>(alignment, 1));
    if (out.alignment.back() > 1) out.plain = false;
  }
  for (int32_t i = 0; i < total; ++i)
    if (in.fixed[i] >= 0)
      for (int64_t p = in.start[i]; p < in.start[i + 1]; ++p)
        out.pinned_top = std::max(out.pinned_top, (in.fixed[i] + in.piece_high[p]) / out.divisor);
  out.load = std::max(largest_load(in) / out.divisor, out.pinned_top);
  if (out.windowed) out.source = in;
  const Columns columns = cut_time(in);
  out.sections = static_cast<int32_t>(columns.live.size());
  std::vector<std::vector<int32_t>> members(out.sections);
  std::vector<std::vector<Span>> spans(out.count);
  std::vector<std::vector<Obstacle>> pins(out.sections), obstacles(out.count);
  for (int32_t s = 0; s < out.sections; ++s) {
    for (int32_t i : columns.live[s]) {
      if (moving[i] < 0) {
        pins[s].push_back({in.fixed[i] / out.divisor, (in.fixed[i] + in.size[i]) / out.divisor});
        continue;
      }
      members[s].push_back(moving[i]);
      auto& own = spans[moving[i]];
      if (!own.empty() && own.back().last == s) own.back().last = s + 1;
      else own.push_back({s, s + 1});
    }
    std::sort(pins[s].begin(), pins[s].end(), [](const Obstacle& a, const Obstacle& b) { return a.low < b.low; });
    for (size_t p = 1; p < pins[s].size(); ++p)
      if (pins[s][p].low < pins[s][p - 1].high) out.clash = true;
    for (int32_t m : members[s]) obstacles[m].insert(obstacles[m].end(), pins[s].begin(), pins[s].end());
  }
  for (auto& list : obstacles) {
    std::sort(list.begin(), list.end(), [](const Obstacle& a, const Obstacle& b) {
      return a.low != b.low ? a.low < b.low : a.high < b.high;
    });
    list.erase(std::unique(list.begin(), list.end(),
                           [](const Obstacle& a, const Obstacle& b) { return a.low == b.low && a.high == b.high; }),
               list.end());
  }
  std::vector<std::vector<int32_t>> neighbours(out.count);
  std::vector<int32_t> seen(out.count, -1);
  for (int32_t i = 0; i < out.count; ++i) {
    out.hull.push_back(spans[i].empty() ? Span{0, 0} : Span{spans[i].front().first, spans[i].back().last});
    seen[i] = i;
    for (const Span& span : spans[i])
      for (int32_t s = span.first; s < span.last; ++s)
        for (int32_t j : members[s])
          if (seen[j] != i) {
            seen[j] = i;
            neighbours[i].push_back(j);
          }
    std::sort(neighbours[i].begin(), neighbours[i].end());
  }
  std::map<std::vector<int64_t>, int32_t> lifetimes, twins;
  out.same_before.assign(out.count, -1);
  for (int32_t i = 0; i < out.count; ++i) {
    std::vector<int64_t> key;
    for (const Span& span : spans[i]) key.insert(key.end(), {span.first, span.last});
    out.lifetime_class.push_back(lifetimes.emplace(key, static_cast<int32_t>(lifetimes.size())).first->second);
    // Same spans mean the same sections, hence the same obstacles.
    key.insert(key.end(), {-1, out.size[i], out.alignment[i]});
    auto [place, fresh] = twins.emplace(key, i);
    if (!fresh) {
      out.same_before[i] = place->second;
      place->second = i;
    }
  }
  rows(spans, out.span_start, out.spans);
  rows(members, out.member_start, out.members);
  rows(neighbours, out.neighbour_start, out.neighbours);
  rows(obstacles, out.obstacle_start, out.obstacles);
  rows(pins, out.pin_start, out.pins);
  return out;
}

}  // namespace memfit
