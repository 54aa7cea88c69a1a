#include "placement_restart.h"

#include <algorithm>

namespace memfit {

namespace {

// 1 1 2 1 1 2 4 1 1 2 ...: term `turn`, from 1.
int64_t luby(int64_t turn) {
  for (;;) {
    int64_t power = 1;
    while (2 * power - 1 < turn) power *= 2;
    if (2 * power - 1 == turn) return power;
    turn -= power - 1;
  }
}

class Restarting final : public RestartingSearch {
 public:
  Restarting(const PlacementShape& shape, int64_t limit, const SearchOptions& options, const RestartOptions& restart)
      : shape_(shape), limit_(limit), options_(options), restart_(restart), failed_(shape.sections, 0.0) {
    for (int32_t s = 0; s < shape.sections; ++s) {
      double sum = 0;
      for (int32_t m = shape.member_start[s]; m < shape.member_start[s + 1]; ++m)
        sum += static_cast<double>(shape.size[shape.members[m]]);
      load_.push_back(sum / static_cast<double>(std::max<int64_t>(limit, 1)));
    }
    counts_.assign(shape.sections, 0);
  }
  SearchStatus run(int64_t nodes) override {
    while (nodes > 0) {
      if (!search_) begin();
      const int64_t before = search_->nodes();
      const int64_t share = std::min(nodes, length_ - before);
      const SearchStatus status = search_->run(std::max<int64_t>(share, 1));
      const int64_t spent = std::max<int64_t>(search_->nodes() - before, 1);
      nodes_ += spent;
      nodes -= spent;
      if (status != SearchStatus::kPaused) return status;
      if (search_->nodes() >= length_) learn();
    }
    return SearchStatus::kPaused;
  }
  void aim(int64_t limit) override {
    if (search_) learn();
    limit_ = limit;
    turn_ = 0;
  }
  int64_t nodes() const override { return nodes_; }
  std::vector<int64_t> offsets() const override { return search_->offsets(); }
  const std::vector<int64_t>& failures() const override { return counts_; }

 private:
  void begin() {
    SearchOptions options = options_;
    options.seed = options_.seed * 7919 + static_cast<uint64_t>(runs_++);
    const double worst = failed_.empty() ? 0 : *std::max_element(failed_.begin(), failed_.end());
    options.weight.resize(failed_.size());
    for (size_t s = 0; s < failed_.size(); ++s)
      options.weight[s] = load_[s] + (worst > 0 ? restart_.learning * failed_[s] / worst : 0);
    search_ = make_search(shape_, limit_, options);
    length_ = restart_.base * luby(++turn_);
  }
  void learn() {
    const auto& found = search_->failures();
    double sum = 1;
    for (int64_t count : found) sum += static_cast<double>(count);
    for (size_t s = 0; s < failed_.size(); ++s) {
      failed_[s] = failed_[s] * restart_.decay + static_cast<double>(found[s]) / sum;
      counts_[s] += found[s];
    }
    search_.reset();
  }

  const PlacementShape& shape_;
  int64_t limit_;
  SearchOptions options_;
  RestartOptions restart_;
  std::vector<double> load_, failed_;
  std::vector<int64_t> counts_;
  std::unique_ptr<PlacementSearch> search_;
  int64_t nodes_ = 0, length_ = 0, turn_ = 0, runs_ = 0;
};

}  // namespace

std::unique_ptr<RestartingSearch> make_restarting(const PlacementShape& shape, int64_t limit,
                                                  const SearchOptions& options, const RestartOptions& restart) {
  return std::make_unique<Restarting>(shape, limit, options, restart);
}

}  // namespace memfit
