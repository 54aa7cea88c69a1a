// Runs a nest or a recorded trace through a ReuseStack. Included where that is compiled, after reuse_stack.h.
// A walk over a nest that only knows distances: iterations on the same lines are counted, not walked (see nest_walk.h).
class ReuseWalk {
 public:
  ReuseWalk(const Nest& nest, const std::vector<int64_t>& capacities, const CacheStop& stop)
      : nest_(nest), capacities_(capacities), stop_(stop), counter_(nest.variables, 0), first_(lowest(nest)),
        stack_(highest(nest) - first_ + 1) {
    counts_.distance.assign(highest(nest) - first_ + 2, 0);
    counts_.misses.assign(nest.arrays.size() * capacities.size(), 0);
    counts_.cold.assign(nest.arrays.size(), 0);
  }
  ReuseCounts run() {
    body(0, static_cast<int32_t>(nest_.nodes.size()));
    counts_.stopped = stopped_;
    return std::move(counts_);
  }

 private:
  struct Reference {
    int64_t address, step;
    int32_t array;
  };
  static int64_t lowest(const Nest& nest) {
    int64_t line = std::numeric_limits<int64_t>::max();
    for (const auto& a : nest.arrays) line = std::min(line, a.first_line);
    return nest.arrays.empty() ? 0 : line;
  }
  static int64_t highest(const Nest& nest) {
    int64_t line = 0;
    for (const auto& a : nest.arrays) line = std::max(line, a.last_line);
    return line;
  }
  void count(int32_t array, int64_t distance, int64_t times) {
    int64_t* misses = counts_.misses.data() + array * capacities_.size();
    if (distance == ReuseStack::kCold) {
      counts_.distance.back() += times;
      counts_.cold[array] += times;
      for (size_t c = 0; c < capacities_.size(); ++c) misses[c] += times;
      return;
    }
    counts_.distance[distance] += times;
    if (distance < smallest_) return;
    for (size_t c = 0; c < capacities_.size(); ++c) misses[c] += distance >= capacities_[c] ? times : 0;
  }
  uint32_t line_of(int64_t address) const { return static_cast<uint32_t>((address >> nest_.line_shift) - first_); }
  void body(int32_t from, int32_t to) {
    for (int32_t n = from; n < to && !stopped_; n = nest_.nodes[n].end) {
      const auto& node = nest_.nodes[n];
      if (!node.loop) {
        count(node.array, stack_.use(line_of(node.address.at(counter_))), 1);
        continue;
      }
      int64_t trips = std::numeric_limits<int64_t>::max();
      for (const auto& bound : node.trips) trips = std::min(trips, bound.at(counter_));
      bool innermost = true;
      for (int32_t m = n + 1; m < node.end; ++m) innermost = innermost && !nest_.nodes[m].loop;
      if (innermost) {
        leaf(n, trips);
      } else {
        for (int64_t t = 0; t < trips && !stopped_; ++t) {
          counter_[node.variable] = t;
          body(n + 1, node.end);
        }
      }
      counter_[node.variable] = 0;
    }
  }
  void leaf(int32_t n, int64_t trips) {
    const auto& node = nest_.nodes[n];
    const int64_t line = int64_t{1} << nest_.line_shift;
    references_.clear();
    counter_[node.variable] = 0;
    for (int32_t m = n + 1; m < node.end; ++m)
      references_.push_back({nest_.nodes[m].address.at(counter_), nest_.nodes[m].address.coefficient[node.variable],
                             nest_.nodes[m].array});
    const size_t many = references_.size();
    for (int64_t t = 0; t < trips;) {
      int64_t run = trips - t;
      for (const auto& r : references_) {
        const int64_t inside = r.address & (line - 1);
        if (r.step > 0) run = std::min(run, (line - inside + r.step - 1) / r.step);
        if (r.step < 0) run = std::min(run, inside / -r.step + 1);
      }
      for (auto& r : references_) count(r.array, stack_.use(line_of(r.address)), 1);
      if (run > 1)
        for (size_t r = 0; r < many; ++r) count(references_[r].array, repeated(r), run - 1);
      for (auto& r : references_) r.address += r.step * run;
      t += run;
      if (++ticks_ >= 4'000'000) {
        ticks_ = 0;
        if (stop_ && stop_()) stopped_ = true;
        if (stopped_) return;
      }
    }
  }
  // The distance of a reference whose iteration touches what the one before touched: lines used since, going round.
  int64_t repeated(size_t r) const {
    const size_t many = references_.size();
    const uint32_t own = line_of(references_[r].address);
    int64_t distance = 0;
    for (size_t back = 1; back < many; ++back) {
      const size_t other = (r + many - back) % many;
      const uint32_t line = line_of(references_[other].address);
      if (line == own) break;
      bool met = false;
      for (size_t b = 1; b < back && !met; ++b) met = line_of(references_[(r + many - b) % many].address) == line;
      distance += !met;
    }
    return distance;
  }

  const Nest& nest_;
  const std::vector<int64_t>& capacities_;
  const CacheStop& stop_;
  std::vector<int64_t> counter_;
  int64_t first_;
  ReuseStack stack_;
  std::vector<Reference> references_;
  ReuseCounts counts_;
  int64_t smallest_ = capacities_.empty() ? std::numeric_limits<int64_t>::max()
                                          : *std::min_element(capacities_.begin(), capacities_.end());
  int64_t ticks_ = 0;
  bool stopped_ = false;
};

template <class Address>
ReuseCounts walk_distances(const Address* addresses, const CacheTrace& trace, int64_t lines, const CacheStop& stop) {
  constexpr int64_t kFar = 24, kNear = 10;
  ReuseCounts counts;
  counts.distance.assign(lines + 1, 0);
  ReuseStack stack(lines);
  const auto first = static_cast<uint32_t>(trace.first_line);
  const auto line_of = [&](int64_t i) { return static_cast<uint32_t>(addresses[i] >> trace.line_shift) - first; };
  for (int64_t i = 0; i < trace.count; ++i) {
    if (i + kFar < trace.count) {
      stack.soon(line_of(i + kFar));
      stack.next(line_of(i + kNear));
    }
    const int64_t distance = stack.use(line_of(i));
    ++counts.distance[distance == ReuseStack::kCold ? lines : distance];
    if ((i & 0x3fffff) == 0x3fffff && stop && stop()) {
      counts.stopped = true;
      break;
    }
  }
  return counts;
}
