#include "placement_order.h"

#include <algorithm>
#include <numeric>

#include "random.h"

namespace memfit {

std::vector<int32_t> placement_ranks(const PlacementShape& shape, const SearchOptions& options) {
  const int32_t count = shape.count;
  std::vector<int64_t> section_total(shape.sections, 0);
  for (int32_t s = 0; s < shape.sections; ++s)
    for (int32_t m = shape.member_start[s]; m < shape.member_start[s + 1]; ++m)
      section_total[s] += shape.size[shape.members[m]];
  std::vector<std::vector<double>> keys(count);
  Random random(options.seed);
  for (int32_t i = 0; i < count; ++i) {
    double width = 0, total = 0, most = 0, sum = 0;
    for (int32_t k = shape.span_start[i]; k < shape.span_start[i + 1]; ++k) {
      width += shape.spans[k].last - shape.spans[k].first;
      for (int32_t s = shape.spans[k].first; s < shape.spans[k].last; ++s)
        total = std::max(total, static_cast<double>(section_total[s]));
      if (!options.weight.empty())
        for (int32_t s = shape.spans[k].first; s < shape.spans[k].last; ++s) {
          most = std::max(most, options.weight[s]);
          sum += options.weight[s];
        }
    }
    for (char letter : options.order) {
      double key = 0;
      if (letter == 'D') key = shape.duration[i];
      if (letter == 'B') key = shape.duration[i] * static_cast<double>(shape.size[i]);
      if (letter == 'X') key = most;
      if (letter == 'Y') key = sum;
      if (letter == 'P') key = sum * static_cast<double>(shape.size[i]);
      if (letter == 'A') key = width * static_cast<double>(shape.size[i]);
      if (letter == 'O') key = shape.neighbour_start[i + 1] - shape.neighbour_start[i];
      if (letter == 'T') key = total;
      if (letter == 'W') key = width;
      if (letter == 'Z') key = static_cast<double>(shape.size[i]);
      if (letter == 'L') key = shape.hull[i].first;
      if (letter == 'U') key = shape.hull[i].last;
      keys[i].push_back(key * (1 + options.noise * (random.unit() - 0.5)));
    }
  }
  std::vector<int32_t> order(count), rank(count);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return keys[a] > keys[b]; });
  for (int32_t k = 0; k < count; ++k) rank[order[k]] = k;
  return rank;
}

}  // namespace memfit
