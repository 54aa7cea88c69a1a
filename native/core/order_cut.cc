#include "core/order_cut.h"

#include <algorithm>
#include <limits>
#include <queue>

namespace memfit {

namespace {

constexpr Bytes kForever = std::numeric_limits<Bytes>::max() / 4;

class Flow {
 public:
  explicit Flow(int32_t nodes) : head_(nodes, -1) {}
  void edge(int32_t from, int32_t to, Bytes capacity) {
    edges_.push_back({to, head_[from], capacity});
    head_[from] = static_cast<int32_t>(edges_.size()) - 1;
    edges_.push_back({from, head_[to], 0});
    head_[to] = static_cast<int32_t>(edges_.size()) - 1;
  }

  Bytes run(int32_t source, int32_t sink) {
    Bytes total = 0;
    while (levels(source, sink)) {
      place_ = head_;
      while (const Bytes pushed = push(source, sink)) {
        total += pushed;
        if (total >= kForever) return kForever;
      }
    }
    return total;
  }
  bool on_source_side(int32_t node) const { return level_[node] >= 0; }  // after `run`

 private:
  struct Edge {
    int32_t to, next;
    Bytes left;
  };

  bool levels(int32_t source, int32_t sink) {
    level_.assign(head_.size(), -1);
    queue_.assign(1, source);
    level_[source] = 0;
    for (size_t at = 0; at < queue_.size(); ++at)
      for (int32_t e = head_[queue_[at]]; e >= 0; e = edges_[e].next)
        if (edges_[e].left > 0 && level_[edges_[e].to] < 0) {
          level_[edges_[e].to] = level_[queue_[at]] + 1;
          queue_.push_back(edges_[e].to);
        }
    return level_[sink] >= 0;
  }

  // One path from source to sink along rising levels, found without recursion.
  Bytes push(int32_t source, int32_t sink) {
    path_.clear();
    int32_t node = source;
    while (node != sink) {
      int32_t& e = place_[node];
      while (e >= 0 && !(edges_[e].left > 0 && level_[edges_[e].to] == level_[node] + 1)) e = edges_[e].next;
      if (e >= 0) {
        path_.push_back(e);
        node = edges_[e].to;
        continue;
      }
      if (path_.empty()) return 0;
      level_[node] = -2;
      node = edges_[path_.back() ^ 1].to;
      path_.pop_back();
    }
    Bytes least = kForever;
    for (const int32_t e : path_) least = std::min(least, edges_[e].left);
    for (const int32_t e : path_) {
      edges_[e].left -= least;
      edges_[e ^ 1].left += least;
    }
    return least;
  }

  std::vector<int32_t> head_, place_, level_, queue_, path_;
  std::vector<Edge> edges_;
};

// The flow between two states. What is forced joins its side: ancestors of the op the source, what waits for it the sink;
// only ops without a relation to it are nodes, and the storages that they decide about.
class StateCut {
 public:
  StateCut(const OrderProblem& g, const Words& before, const Order& between)
      : g_(g), before_(before), between_(between), seen_(g.storage_count, 0) {
    for (const int32_t v : between) {
      for (const int32_t s : row(g.reads, v)) touch(s);
      for (const int32_t s : row(g.writes, v)) touch(s);
    }
    // What lives through, whoever runs: made before and read only behind, or kept.
    for (int32_t s = 0; s < g.storage_count; ++s) {
      if (seen_[s] || g.producer[s] < 0 || !has(before.data(), g.producer[s])) continue;
      bool alive = g.kept[s];
      for (const int32_t reader : row(g.readers, s)) alive = alive || !has(before.data(), reader);
      if (alive) through_ += g.nbytes[s];
    }
  }

  // `op` runs next; or any, where it is -1.
  Cut least(int32_t op) const {
    std::vector<int32_t> node(g_.op_count, kSink);
    for (int32_t v = 0; v < g_.op_count; ++v)
      if (has(before_.data(), v)) node[v] = kSource;
    for (const int32_t v : between_) node[v] = kFree;
    if (op >= 0) {
      for (const int32_t p : row(g_.needs, op)) spread(g_.needs, p, kSource, node);
      spread(g_.needed_by, op, kSink, node);
    }
    int32_t count = 2;
    for (const int32_t v : between_)
      if (node[v] == kFree) node[v] = count++;
    Flow flow(count + static_cast<int32_t>(storages_.size()));
    for (const int32_t v : between_)
      if (node[v] >= 2)
        for (const int32_t p : row(g_.needs, v))
          if (node[p] >= 2) flow.edge(node[v], node[p], kForever);
    Bytes always = through_;
    for (const int32_t s : storages_) {
      if (node[g_.producer[s]] == kSink) continue;
      bool alive = g_.kept[s];
      for (const int32_t reader : row(g_.readers, s)) alive = alive || (node[reader] == kSink && !takes(op, reader, s));
      if (alive && node[g_.producer[s]] == kSource) {
        always += g_.nbytes[s];
        continue;
      }
      flow.edge(node[g_.producer[s]], count, g_.nbytes[s]);
      if (alive) flow.edge(count, kSink, kForever);
      else
        for (const int32_t reader : row(g_.readers, s))
          if (node[reader] >= 2) flow.edge(count, node[reader], kForever);
      ++count;
    }
    Cut cut;
    cut.bytes = always + flow.run(kSource, kSink) + (op >= 0 ? g_.own[op] : 0);
    for (const int32_t v : between_)
      cut.done.push_back(node[v] == kSource || (node[v] >= 2 && flow.on_source_side(node[v])));
    return cut;
  }

 private:
  static constexpr int32_t kSource = 0, kSink = 1, kFree = -1;

  // Whether the op's own read of a storage does not keep it: its output takes those bytes over.
  bool takes(int32_t op, int32_t reader, int32_t s) const { return reader == op && g_.reuse[op] == s && !g_.kept[s]; }

  void spread(const Lists& lists, int32_t from, int32_t side, std::vector<int32_t>& node) const {
    if (node[from] != kFree) return;
    Order stack{from};
    node[from] = side;
    while (!stack.empty()) {
      const int32_t v = stack.back();
      stack.pop_back();
      for (const int32_t u : row(lists, v))
        if (node[u] == kFree) {
          node[u] = side;
          stack.push_back(u);
        }
    }
  }

  void touch(int32_t s) {
    if (seen_[s] || g_.nbytes[s] == 0) return;
    seen_[s] = 1;
    storages_.push_back(s);
  }

  const OrderProblem& g_;
  const Words& before_;
  const Order& between_;
  std::vector<uint8_t> seen_;
  Order storages_;
  Bytes through_ = 0;
};

}  // namespace

Cut least_state(const OrderProblem& g, const Words& before, const Order& between, int32_t op) {
  return StateCut(g, before, between).least(op);
}

Bound order_bound(const OrderProblem& g, const Order& order, const Stop& stop) {
  const Words nothing(g.words, 0);
  const StateCut cuts(g, nothing, order);
  const auto during = bytes_during(g, order);
  std::priority_queue<std::pair<Bytes, int32_t>> caps;
  for (size_t i = 0; i < order.size(); ++i) caps.push({during[i], order[i]});
  Bound bound;
  while (!caps.empty()) {
    const auto [cap, op] = caps.top();
    if (cap <= bound.bytes) break;
    if (stop()) return bound;
    caps.pop();
    const Cut cut = cuts.least(op);
    if (cut.bytes > bound.bytes) bound.bytes = cut.bytes, bound.op = op;
  }
  bound.complete = true;
  return bound;
}

Order order_uncross(const OrderProblem& g, const Order& given, Bytes target, const Stop& stop) {
  const auto peak_of = [&](const Order& order) {
    const auto during = bytes_during(g, order);
    return during.empty() ? 0 : *std::max_element(during.begin(), during.end());
  };
  Order order = given;
  std::vector<std::pair<int32_t, int32_t>> pieces{{0, g.op_count}};
  while (!pieces.empty()) {
    const auto [first, last] = pieces.back();
    pieces.pop_back();
    if (last - first < 2) continue;
    if (stop()) break;
    Words before(g.words, 0);
    for (int32_t i = 0; i < first; ++i) add(before.data(), order[i]);
    const auto during = bytes_during(g, order);
    const auto worst = std::max_element(during.begin() + first, during.begin() + last);
    if (*worst <= target) continue;
    const auto place = static_cast<int32_t>(worst - during.begin());
    const int32_t op = order[place];
    const Order between(order.begin() + first, order.begin() + last);
    const Cut cut = least_state(g, before, between, op);
    if (cut.bytes >= *worst) continue;
    int32_t at = first;
    for (size_t i = 0; i < between.size(); ++i)
      if (cut.done[i]) order[at++] = between[i];
    const int32_t middle = at;
    order[at++] = op;
    for (size_t i = 0; i < between.size(); ++i)
      if (!cut.done[i] && between[i] != op) order[at++] = between[i];
    pieces.push_back({first, middle});
    pieces.push_back({middle + 1, last});
  }
  return peak_of(order) < peak_of(given) ? order : given;
}

}  // namespace memfit
