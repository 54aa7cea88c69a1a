#include "large_placement.h"

#include <algorithm>
#include <numeric>

namespace memfit {

namespace {

// The first and last section of every piece, and how many sections there are. Empty pieces get last < first.
int32_t cut(const std::vector<int64_t>& lower, const std::vector<int64_t>& upper, std::vector<int32_t>& first,
            std::vector<int32_t>& last) {
  struct Event {
    int64_t time;
    bool begins;
    int32_t piece;
  };
  std::vector<Event> events;
  events.reserve(2 * lower.size());
  for (size_t p = 0; p < lower.size(); ++p) {
    if (lower[p] >= upper[p]) continue;
    events.push_back({lower[p], true, static_cast<int32_t>(p)});
    events.push_back({upper[p], false, static_cast<int32_t>(p)});
  }
  std::sort(events.begin(), events.end(),
            [](const Event& a, const Event& b) { return a.time != b.time ? a.time < b.time : a.begins < b.begins; });
  int32_t section = 0;
  bool freed = false;
  for (const auto& event : events) {
    if (event.begins && freed) ++section;
    freed = !event.begins;
    (event.begins ? first : last)[event.piece] = section;
  }
  return section + 1;
}

// Range maximum by doubling: O(n log n) to build, O(1) to ask.
class Maxima {
 public:
  explicit Maxima(const std::vector<int64_t>& values) : levels_{values} {
    for (size_t width = 1; 2 * width <= values.size(); width *= 2) {
      const auto& below = levels_.back();
      std::vector<int64_t> level(values.size() - 2 * width + 1);
      for (size_t i = 0; i < level.size(); ++i) level[i] = std::max(below[i], below[i + width]);
      levels_.push_back(std::move(level));
    }
  }
  int64_t of(int32_t from, int32_t to) const {
    size_t k = 0;
    while ((2 << k) <= to - from + 1) ++k;
    return std::max(levels_[k][from], levels_[k][to + 1 - (1 << k)]);
  }

 private:
  std::vector<std::vector<int64_t>> levels_;
};

}  // namespace

LargeProblem::LargeProblem(std::vector<int64_t> sizes, std::vector<int64_t> alignments, std::vector<int64_t> pins,
                           const std::vector<int64_t>& starts, const std::vector<int64_t>& lower,
                           const std::vector<int64_t>& upper, const std::vector<int64_t>& lows,
                           const std::vector<int64_t>& highs)
    : size(std::move(sizes)), alignment(std::move(alignments)), fixed(std::move(pins)) {
  buffers = static_cast<int32_t>(size.size());
  const auto given = static_cast<int32_t>(lower.size());
  std::vector<int32_t> from(given, 0), to(given, -1), order, owner_of(given), number(given, -1);
  sections = cut(lower, upper, from, to);
  for (int32_t p = 0; p < given; ++p)
    if (to[p] >= from[p]) order.push_back(p);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return from[a] < from[b]; });
  pieces = static_cast<int32_t>(order.size());
  for (int32_t i = 0; i < buffers; ++i)
    for (int64_t p = starts[i]; p < starts[i + 1]; ++p) owner_of[p] = i;

  std::vector<int64_t> change(sections + 1, 0), alive(sections + 1, 0), begun(sections + 1, 0);
  for (int32_t k = 0; k < pieces; ++k) {
    const int32_t p = order[k];
    number[p] = k;
    owner.push_back(owner_of[p]), first.push_back(from[p]), last.push_back(to[p]);
    low.push_back(lows[p]), high.push_back(highs[p]);
    change[from[p]] += highs[p] - lows[p];
    change[to[p] + 1] -= highs[p] - lows[p];
    ++alive[from[p]], --alive[to[p] + 1], ++begun[from[p]];
  }
  load.resize(sections);
  std::partial_sum(change.begin(), change.end() - 1, load.begin());
  std::partial_sum(alive.begin(), alive.end(), alive.begin());

  start.assign(buffers + 1, 0), reach.assign(buffers, 0), lifetime.assign(buffers, 0);
  for (int32_t i = 0; i < buffers; ++i) {
    for (int64_t p = starts[i]; p < starts[i + 1]; ++p) {
      if (number[p] < 0) continue;
      piece_of.push_back(number[p]);
      reach[i] = std::max(reach[i], highs[p]);
      lifetime[i] += to[p] - from[p] + 1;
    }
    start[i + 1] = static_cast<int32_t>(piece_of.size());
  }

  block_of.resize(sections);
  int64_t since = 0;
  for (int32_t s = 0; s < sections; ++s) {
    const int64_t crossing = alive[s] - begun[s];
    if (s == 0 || since >= 64 + crossing / 4) ++blocks, since = 0;
    since += begun[s];
    block_of[s] = blocks - 1;
  }
}

int64_t LargeProblem::bound() const { return load.empty() ? 0 : *std::max_element(load.begin(), load.end()); }

std::vector<int64_t> LargeProblem::largest_load() const {
  std::vector<int64_t> largest(buffers, 0);
  const Maxima maxima(load);
  for (int32_t p = 0; p < pieces; ++p)
    largest[owner[p]] = std::max(largest[owner[p]], maxima.of(first[p], last[p]));
  return largest;
}

}  // namespace memfit
