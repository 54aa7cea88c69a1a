#include "pool_plan.h"

#include <algorithm>
#include <numeric>

#include "greedy_placement.h"

namespace memfit {
namespace {

using Span = std::pair<int64_t, int64_t>;

// Sorted, those that touch joined.
std::vector<Span> joined(std::vector<Span> spans) {
  std::sort(spans.begin(), spans.end());
  std::vector<Span> out;
  for (const Span& span : spans) {
    if (!out.empty() && span.first <= out.back().second) {
      out.back().second = std::max(out.back().second, span.second);
    } else {
      out.push_back(span);
    }
  }
  return out;
}

bool meets(const std::vector<Span>& spans, int64_t start, int64_t end) {
  const auto after = std::upper_bound(spans.begin(), spans.end(), start, [](int64_t value, const Span& span) { return value < span.second; });
  return after != spans.end() && after->first < end;
}

std::vector<int64_t> pack(const std::vector<PoolPlan::Entry>& entries, const std::vector<size_t>& rows, const std::vector<Span>& taken) {
  const auto period = static_cast<int64_t>(entries.size());
  PlacementColumns columns;
  const size_t count = taken.size() + rows.size();
  columns.start.resize(count + 1);
  std::iota(columns.start.begin(), columns.start.end(), 0);
  columns.alignment.assign(count, 1);
  columns.low.assign(count, 0);
  for (const Span& span : taken) {
    columns.lower.push_back(0);
    columns.upper.push_back(period);
    columns.high.push_back(span.second - span.first);
    columns.fixed.push_back(span.first);
  }
  for (const size_t row : rows) {
    columns.lower.push_back(static_cast<int64_t>(row));
    columns.upper.push_back(entries[row].until);
    columns.high.push_back(entries[row].granules);
    columns.fixed.push_back(-1);
  }
  std::vector<int64_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  const auto length = [&](int64_t row) { return columns.upper[row] - columns.lower[row]; };
  std::stable_sort(order.begin() + static_cast<std::ptrdiff_t>(taken.size()), order.end(), [&](int64_t a, int64_t b) {
    return columns.high[a] != columns.high[b] ? columns.high[a] > columns.high[b] : length(a) > length(b);
  });
  GreedyPlacement placement(columns, order, Fit::best);
  while (!placement.advance(INT64_MAX / 2)) {
  }
  const auto& offsets = placement.offsets();
  return {offsets.begin() + static_cast<std::ptrdiff_t>(taken.size()), offsets.end()};
}

}  // namespace

PoolPlan plan_period(const std::vector<PoolEvent>& events, const std::vector<Span>& taken) {
  PoolPlan plan;
  std::vector<size_t> born;  // entry of each allocation
  for (const PoolEvent& event : events) {
    plan.entries.push_back({event.code, -1, 0, -1});
    if (PoolRepeats::allocates(event.code)) {
      born.push_back(plan.entries.size() - 1);
    } else if (event.code != PoolRepeats::kStepCode) {
      const uint64_t age = event.code >> 2;  // 1: the latest allocation
      if (age >= 1 && age <= born.size()) plan.entries[born[born.size() - age]].until = static_cast<int64_t>(plan.entries.size()) - 1;
    }
  }
  std::vector<size_t> rows;
  int64_t recorded_end = 0;
  bool recorded = true;
  for (const size_t row : born) {
    if (plan.entries[row].until < 0) continue;
    plan.entries[row].granules = static_cast<int64_t>(events[row].code >> 2);
    rows.push_back(row);
    const int64_t start = events[row].start, end = start + plan.entries[row].granules;
    recorded = recorded && start >= 0 && !meets(taken, start, end);
    recorded_end = std::max(recorded_end, end);
  }
  const std::vector<int64_t> offsets = pack(plan.entries, rows, taken);
  int64_t packed_end = 0;
  for (size_t i = 0; i < rows.size(); ++i) packed_end = std::max(packed_end, offsets[i] + plan.entries[rows[i]].granules);
  plan.packed = !recorded || packed_end < recorded_end;
  plan.end = plan.packed ? packed_end : recorded_end;
  std::vector<Span> spans;
  for (size_t i = 0; i < rows.size(); ++i) {
    PoolPlan::Entry& entry = plan.entries[rows[i]];
    entry.start = plan.packed ? offsets[i] : events[rows[i]].start;
    plan.entries[static_cast<size_t>(entry.until)].start = entry.start;
    spans.emplace_back(entry.start, entry.start + entry.granules);
  }
  plan.spans = joined(std::move(spans));
  return plan;
}

}  // namespace memfit
