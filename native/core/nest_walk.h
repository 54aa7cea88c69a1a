// Runs a nest through a cache without building its trace. Included where a cache is compiled, as cache_lru.h is.
//
// Two steps, both exact. (1) In an innermost loop, iterations that touch the same lines as the one before are counted, not
// simulated, once one of them has hit throughout: hits leave the state as it was. (2) A loop whose period moves every
// array by whole lines and all of them onto sets in one way (period_of) jumps once the state after a period equals the state
// before it, moved: what follows must repeat, moved again, as the simulator does not know what lines are called (Warping,
// Morelli and Reineke, PLDI 2022, for the idea). Snapshots back off, so that a loop that never repeats pays little.
template <class Cache>
class NestWalk {
 public:
  NestWalk(const Nest& nest, const std::vector<uint32_t>& sets, Cache& cache, bool jump, const CacheStop& stop)
      : nest_(nest), cache_(cache), stop_(stop), depths_(cache.depth() + 1), counter_(nest.variables, 0),
        period_(nest.nodes.size()), failures_(nest.nodes.size(), 0), wait_(nest.nodes.size(), 0) {
    counts_.served.assign(nest.arrays.size() * depths_, 0);
    if (jump && cache.can_jump() && separate(nest))
      for (size_t n = 0; n < nest.nodes.size(); ++n)
        if (nest.nodes[n].loop) period_[n] = period_of(nest, static_cast<int32_t>(n), sets);
  }

  NestCounts run() {
    body(0, static_cast<int32_t>(nest_.nodes.size()));
    for (int i = 0; i + 1 < depths_; ++i) {
      counts_.write_backs.push_back(cache_.write_backs(i));
      counts_.prefetches.push_back(cache_.prefetches(i));
    }
    return std::move(counts_);
  }

 private:
  struct Reference {
    int64_t address, step, left, steps_per_line;
    uint32_t write;
    int64_t* served;
  };

  void body(int32_t from, int32_t to) {
    for (int32_t n = from; n < to; n = nest_.nodes[n].end) {
      if (stopped_) return;
      const auto& node = nest_.nodes[n];
      if (node.loop) {
        loop(n);
      } else {
        const int64_t address = node.address.at(counter_);
        ++counts_.served[node.array * depths_ + cache_.access(cache_.front(), line_of(address), node.write)];
        ++counts_.simulated;
      }
    }
  }

  void loop(int32_t n) {
    const auto& node = nest_.nodes[n];
    int64_t trips = std::numeric_limits<int64_t>::max();
    for (const auto& bound : node.trips) trips = std::min(trips, bound.at(counter_));
    if (trips <= 0) return;
    const auto& period = period_[n];
    if (!period.trips || trips / 3 < period.trips) return range(n, 0, trips);
    if (wait_[n] > 0) {
      --wait_[n];
      return range(n, 0, trips);
    }
    jumping(n, trips);
  }

  void jumping(int32_t n, int64_t trips) {
    const auto& period = period_[n];
    const int64_t p = period.trips, steady = steady_trips(nest_, n, trips, counter_);
    const auto words = static_cast<int64_t>(cache_.state_words());
    int64_t at = 0, gap = 1;
    bool jumped = false;
    std::vector<uint32_t> kept;
    std::vector<ArrayShift> shift;
    for (size_t a = 0; a < nest_.arrays.size(); ++a)
      shift.push_back({static_cast<uint32_t>(nest_.arrays[a].first_line), static_cast<uint32_t>(nest_.arrays[a].last_line),
                       period.lines[a]});
    while (!stopped_ && trips - at >= 2 * p && steady - at >= 2 * p) {
      const int64_t before = counts_.simulated;
      range(n, at, at + p);
      at += p;
      const int64_t work = std::max<int64_t>(counts_.simulated - before, 1);
      if ((steady - at) / p * work < 4 * words) break;  // the rest costs less than looking at the state
      const int64_t apart = std::min(std::max(gap - 1, words / work), (steady - at) / p - 2);
      if (apart > 0) {
        range(n, at, at + apart * p);
        at += apart * p;
      }
      if (steady - at < 2 * p) break;
      cache_.keep(kept);
      const auto served = counts_.served;
      std::vector<int64_t> written;
      for (int i = 0; i + 1 < depths_; ++i) written.push_back(cache_.write_backs(i));
      range(n, at, at + p);
      at += p;
      if (cache_.same(kept, shift)) {
        const int64_t times = (steady - at) / p;
        for (size_t i = 0; i < served.size(); ++i) counts_.served[i] += times * (counts_.served[i] - served[i]);
        for (int i = 0; i + 1 < depths_; ++i) cache_.add_write_backs(i, times * (cache_.write_backs(i) - written[i]));
        cache_.move(shift, times);
        at += times * p;
        ++counts_.jumps;
        counts_.jumped_periods += times;
        jumped = true;
        break;
      }
      gap *= 2;
    }
    failures_[n] = jumped ? 0 : std::min(failures_[n] + 1, 20);
    if (failures_[n] > 3) wait_[n] = int64_t{1} << (failures_[n] - 3);
    range(n, at, trips);
  }

  void range(int32_t n, int64_t from, int64_t to) {
    const auto& node = nest_.nodes[n];
    if (from >= to) return;
    bool innermost = true;
    for (int32_t m = n + 1; m < node.end; ++m) innermost = innermost && !nest_.nodes[m].loop;
    if (innermost) {
      leaf(n, from, to);
    } else {
      for (int64_t t = from; t < to && !stopped_; ++t) {
        counter_[node.variable] = t;
        body(n + 1, node.end);
      }
    }
    counter_[node.variable] = 0;
  }

  int64_t within_line(int64_t address, int64_t step) const {
    const int64_t line = int64_t{1} << nest_.line_shift, inside = address & (line - 1);
    if (step == 0) return std::numeric_limits<int64_t>::max();
    return step > 0 ? (line - inside + step - 1) / step : inside / -step + 1;
  }

  void leaf(int32_t n, int64_t from, int64_t to) {
    const auto& node = nest_.nodes[n];
    const int64_t line = int64_t{1} << nest_.line_shift;
    references_.clear();
    counter_[node.variable] = from;
    for (int32_t m = n + 1; m < node.end; ++m) {
      const auto& access = nest_.nodes[m];
      const int64_t address = access.address.at(counter_), step = access.address.coefficient[node.variable];
      const int64_t size = step < 0 ? -step : step;
      const int64_t whole = size && line % size == 0 ? line / size : size >= line && size % line == 0 ? 1 : 0;
      references_.push_back({address, step, within_line(address, step), whole, access.write, &counts_.served[access.array * depths_]});
    }
    const size_t many = references_.size();
    Reference* const all = references_.data();
    const auto front = cache_.front();
    const bool twice = many <= cache_.first_ways() && Cache::kSameEveryTime;
    for (int64_t t = from; t < to;) {
      int64_t run = to - t;
      for (size_t r = 0; r < many; ++r) run = all[r].left < run ? all[r].left : run;
      if (run == 1) {  // a line changes every time, as down a column
        const int64_t start = t;
        do {
          for (size_t r = 0; r < many; ++r) {
            auto& it = all[r];
            ++it.served[cache_.access(front, line_of(it.address), it.write)];
            it.address += it.step;
          }
          ++t;
        } while (t < to && single(all, many));
        counts_.simulated += static_cast<int64_t>(many) * (t - start);
        ticks_ += t - start;
        for (size_t r = 0; r < many; ++r) all[r].left = within_line(all[r].address, all[r].step);
        if (ask()) break;
        continue;
      }
      int64_t done = 0;
      bool quiet = false;
      do {
        bool hit = true;
        for (size_t r = 0; r < many; ++r) {
          const int depth = cache_.access(front, line_of(all[r].address), all[r].write);
          ++all[r].served[depth];
          hit = hit && depth == 0;
        }
        ++done;
        quiet = hit || twice;
      } while (done < run && !quiet);
      counts_.simulated += static_cast<int64_t>(many) * done;
      t += run;
      for (size_t r = 0; r < many; ++r) {
        auto& it = all[r];
        it.served[0] += run - done;
        it.address += it.step * run;
        it.left -= it.step ? run : 0;
        if (it.left == 0) it.left = it.steps_per_line ? it.steps_per_line : within_line(it.address, it.step);
      }
      ticks_ += done;
      if (ask()) break;
    }
    counter_[node.variable] = 0;
  }

  // Whether some reference that strides over whole lines will change its line again, whatever the others do.
  bool single(const Reference* all, size_t many) const {
    if (ticks_ >= kTicks) return false;
    bool strides = false;
    for (size_t r = 0; r < many; ++r) strides = strides || all[r].steps_per_line == 1;
    return strides;
  }

  bool ask() {
    if (ticks_ < kTicks) return false;
    ticks_ = 0;
    if (stop_ && stop_()) stopped_ = true;
    return stopped_;
  }

  uint32_t line_of(int64_t address) const { return static_cast<uint32_t>(address >> nest_.line_shift); }

  static constexpr int64_t kTicks = 20'000'000;
  const Nest& nest_;
  Cache& cache_;
  const CacheStop& stop_;
  int depths_;
  std::vector<int64_t> counter_;
  std::vector<NestPeriod> period_;
  std::vector<int> failures_;
  std::vector<int64_t> wait_;
  std::vector<Reference> references_;
  NestCounts counts_;
  int64_t ticks_ = 0;
  bool stopped_ = false;
};
