#include "core/order_beam.h"

#include <algorithm>
#include <unordered_map>

#include "core/order_exact.h"
#include "core/order_state.h"

namespace memfit {

namespace {

struct Link {
  int32_t parent;
  Order path;
};

struct Held {
  LiveState state;
  int32_t link;
};

uint64_t hash(const Words& set) {
  uint64_t z = 0x9E3779B97F4A7C15ull;
  for (const uint64_t word : set) {
    z = (z ^ word) * 0xBF58476D1CE4E5B9ull;
    z ^= z >> 29;
  }
  return z;
}

}  // namespace

Order order_beam(const OrderProblem& g, const Order& any, bool forward, int32_t width, Bytes low, Bytes high,
                 const Stop& stop) {
  Words all(g.words, 0);
  for (const int32_t v : any) add(all.data(), v);
  Members members(g);
  members.claim(g, any, 0);
  const Walker walker(g, forward, Words(g.words, 0), any, forward ? 0 : level_of(g, all.data()), members, 0);
  std::vector<Link> links;
  std::vector<std::vector<Held>> layers(any.size() + 1);
  const auto better = [&](const Held& a, const Held& b) {
    const Bytes x = std::max(a.state.peak, low), y = std::max(b.state.peak, low);
    return x != y ? x < y : a.state.level < b.state.level;
  };
  const auto keep = [&](Held&& held) {
    auto& layer = layers[held.state.count];
    layer.push_back(std::move(held));
    if (layer.size() < 4 * static_cast<size_t>(width)) return;
    std::nth_element(layer.begin(), layer.begin() + 2 * width, layer.end(), better);
    layer.resize(2 * width);
  };
  LiveState first = walker.start();
  walker.settle(first, low);
  keep({std::move(first), -1});
  for (size_t at = 0; at < any.size(); ++at) {
    auto layer = std::move(layers[at]);
    layers[at] = {};
    if (layer.empty()) continue;
    if (stop()) return {};
    std::sort(layer.begin(), layer.end(), better);
    std::unordered_map<uint64_t, int> seen;
    int32_t taken = 0;
    for (auto& held : layer) {
      if (taken == width) break;
      if (!seen.emplace(hash(held.state.marked), 1).second) continue;
      ++taken;
      const auto link = static_cast<int32_t>(links.size());
      links.push_back({held.link, std::move(held.state.path)});
      held.state.path.clear();
      // Only the steps that are no worse than `width` others can last.
      std::vector<std::pair<std::pair<Bytes, Bytes>, int32_t>> steps;
      for (const int32_t op : held.state.ready) {
        const Step step = walker.cost(held.state, op);
        if (step.during < high) steps.push_back({{std::max({step.during, held.state.peak, low}), step.after}, op});
      }
      const size_t count = std::min(steps.size(), static_cast<size_t>(width));
      std::partial_sort(steps.begin(), steps.begin() + count, steps.end());
      for (size_t i = 0; i < count; ++i) {
        Held next{held.state, link};
        const int32_t op = steps[i].second;
        walker.run(next.state, op, walker.cost(next.state, op));
        walker.settle(next.state, std::max(low, next.state.peak));
        keep(std::move(next));
      }
    }
  }
  auto& last = layers[any.size()];
  if (last.empty()) return {};
  const auto best = std::min_element(last.begin(), last.end(), better);
  Order out(best->state.path.rbegin(), best->state.path.rend());
  for (int32_t link = best->link; link >= 0; link = links[link].parent)
    out.insert(out.end(), links[link].path.rbegin(), links[link].path.rend());
  if (forward) std::reverse(out.begin(), out.end());
  return out;
}

Order order_windows(const OrderProblem& g, const Order& given, Bytes low, int32_t longest, int64_t states,
                    const Stop& stop) {
  Order order = given;
  while (!stop()) {
    const auto during = bytes_during(g, order);
    const Bytes peak = *std::max_element(during.begin(), during.end());
    if (peak <= low) break;
    const auto worst = static_cast<int32_t>(std::max_element(during.begin(), during.end()) - during.begin());
    bool lower = false;
    for (int32_t size = 16; !lower && size / 2 < longest; size *= 2) {
      for (const int32_t share : {2, 4, 1}) {  // the worst step in the middle, early, late
        const int32_t length = std::min(size, longest);
        const int32_t first = std::max(0, worst - (share == 1 ? length - 2 : length / share));
        const int32_t last = std::min(g.op_count, first + length);
        Words before(g.words, 0);
        for (int32_t i = 0; i < first; ++i) add(before.data(), order[i]);
        const Order between(order.begin() + first, order.begin() + last);
        const Exact found = order_exact(g, before, between, low, peak, states, stop);
        if (found.order.empty()) continue;
        std::copy(found.order.begin(), found.order.end(), order.begin() + first);
        lower = true;
        break;
      }
    }
    if (!lower) break;
  }
  return order;
}

}  // namespace memfit
