#include "core/nest_program.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace memfit {
namespace {

constexpr int64_t kLongestPeriod = int64_t{1} << 40;

int64_t join(int64_t period, int64_t modulus, int64_t step) {
  const int64_t need = modulus / std::gcd(modulus, step % modulus);
  const int64_t part = period / std::gcd(period, need);
  return part > kLongestPeriod / need ? 0 : part * need;
}

int64_t trips_of(const NestNode& node, const std::vector<int64_t>& counter) {
  int64_t trips = std::numeric_limits<int64_t>::max();
  for (const auto& bound : node.trips) trips = std::min(trips, bound.at(counter));
  return std::max<int64_t>(trips, 0);
}

// Marks the lines of one access; loops that neither its subscripts nor the bounds of its loops name run once.
class Marker {
 public:
  Marker(const Nest& nest, int32_t access, std::vector<int32_t> loops, std::vector<uint64_t>& seen, int64_t first)
      : nest_(nest), access_(nest.nodes[access]), loops_(std::move(loops)), seen_(seen), first_(first),
        counter_(nest.variables, 0), needed_(loops_.size(), false) {
    for (size_t i = loops_.size(); i-- > 0;) {
      const int32_t v = nest_.nodes[loops_[i]].variable;
      needed_[i] = access_.address.coefficient[v] != 0;
      for (size_t j = i + 1; j < loops_.size(); ++j)
        for (const auto& bound : nest_.nodes[loops_[j]].trips) needed_[i] = needed_[i] || bound.coefficient[v] != 0;
    }
  }
  void run() { walk(0); }

 private:
  void walk(size_t i) {
    if (i == loops_.size()) {
      mark(access_.address.at(counter_));
      return;
    }
    const auto& loop = nest_.nodes[loops_[i]];
    int64_t trips = trips_of(loop, counter_);
    if (trips == 0) return;
    if (!needed_[i]) trips = 1;
    const int64_t step = access_.address.coefficient[loop.variable];
    if (i + 1 == loops_.size() && step != 0) {
      counter_[loop.variable] = 0;
      int64_t at = access_.address.at(counter_);
      const int64_t line = int64_t{1} << nest_.line_shift;
      if (step > -line && step < line) {
        int64_t low = at >> nest_.line_shift, high = (at + step * (trips - 1)) >> nest_.line_shift;
        if (low > high) std::swap(low, high);
        for (; low <= high; ++low) bit(low);
      } else {
        for (int64_t t = 0; t < trips; ++t, at += step) mark(at);
      }
      return;
    }
    for (int64_t t = 0; t < trips; ++t) {
      counter_[loop.variable] = t;
      walk(i + 1);
    }
    counter_[loop.variable] = 0;
  }
  void mark(int64_t address) { bit(address >> nest_.line_shift); }
  void bit(int64_t line) { seen_[(line - first_) >> 6] |= uint64_t{1} << ((line - first_) & 63); }

  const Nest& nest_;
  const NestNode& access_;
  std::vector<int32_t> loops_;
  std::vector<uint64_t>& seen_;
  int64_t first_;
  std::vector<int64_t> counter_;
  std::vector<bool> needed_;
};

}  // namespace

NestPeriod period_of(const Nest& nest, int32_t loop, const std::vector<uint32_t>& sets) {
  const auto& node = nest.nodes[loop];
  const int64_t line = int64_t{1} << nest.line_shift;
  NestPeriod period{1, std::vector<int64_t>(nest.arrays.size(), 0)};
  std::vector<int64_t> step(nest.arrays.size(), 0);
  std::vector<bool> met(nest.arrays.size(), false);
  bool any = false;
  int64_t leader = 0;
  for (int32_t n = loop + 1; n < node.end; ++n) {
    const auto& access = nest.nodes[n];
    if (access.loop) continue;
    const int64_t s = access.address.coefficient[node.variable];
    if (met[access.array] && step[access.array] != s) return {};
    met[access.array] = true;
    step[access.array] = s;
    if (!any) leader = s;
    any = true;
    period.trips = join(period.trips, line, s);
    for (uint32_t n_sets : sets)
      if (period.trips && s != leader) period.trips = join(period.trips, line * n_sets, s - leader);
    if (!period.trips) return {};
  }
  if (!any) return {};
  for (size_t a = 0; a < step.size(); ++a) {
    if (step[a] && period.trips > kLongestPeriod / std::abs(step[a])) return {};
    period.lines[a] = period.trips * step[a] / line;
  }
  return period;
}

int64_t steady_trips(const Nest& nest, int32_t loop, int64_t trips, const std::vector<int64_t>& counter) {
  const auto& node = nest.nodes[loop];
  const int32_t v = node.variable;
  std::vector<bool> inside(nest.variables, false);
  for (int32_t n = loop + 1; n < node.end; ++n)
    if (nest.nodes[n].loop) inside[nest.nodes[n].variable] = true;
  std::vector<int64_t> start = counter;
  start[v] = 0;
  int64_t steady = trips;
  for (int32_t n = loop + 1; n < node.end; ++n) {
    if (!nest.nodes[n].loop) continue;
    int64_t constant = std::numeric_limits<int64_t>::max();
    bool moves = false, known = true;
    for (const auto& bound : nest.nodes[n].trips) {
      bool of_inside = false;
      for (int32_t u = 0; u < nest.variables; ++u) of_inside = of_inside || (inside[u] && bound.coefficient[u]);
      if (bound.coefficient[v]) moves = true;
      if (of_inside) known = false;
      if (!bound.coefficient[v] && !of_inside) constant = std::min(constant, bound.at(start));
    }
    if (!moves) continue;
    if (!known || constant == std::numeric_limits<int64_t>::max()) return 0;
    for (const auto& bound : nest.nodes[n].trips) {
      const int64_t c = bound.coefficient[v], at = bound.at(start);
      if (!c) continue;
      if (at < constant) return 0;
      if (c < 0) steady = std::min(steady, (at - constant) / -c + 1);
    }
  }
  return steady;
}

bool separate(const Nest& nest) {
  for (size_t a = 0; a < nest.arrays.size(); ++a)
    for (size_t b = 0; b < a; ++b)
      if (nest.arrays[a].first_line <= nest.arrays[b].last_line && nest.arrays[b].first_line <= nest.arrays[a].last_line)
        return false;
  return true;
}

std::vector<int64_t> footprint(const Nest& nest) {
  std::vector<int64_t> lines(nest.arrays.size(), 0);
  for (size_t a = 0; a < nest.arrays.size(); ++a) {
    const auto& array = nest.arrays[a];
    std::vector<uint64_t> seen((array.last_line - array.first_line + 64) / 64, 0);
    std::vector<int32_t> loops;
    for (int32_t n = 0; n < static_cast<int32_t>(nest.nodes.size()); ++n) {
      while (!loops.empty() && nest.nodes[loops.back()].end <= n) loops.pop_back();
      if (nest.nodes[n].loop)
        loops.push_back(n);
      else if (nest.nodes[n].array == static_cast<int32_t>(a))
        Marker(nest, n, loops, seen, array.first_line).run();
    }
    for (uint64_t word : seen) lines[a] += __builtin_popcountll(word);
  }
  return lines;
}

}  // namespace memfit
