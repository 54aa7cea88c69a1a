#include "placement_portfolio.h"

#include <algorithm>
#include <cmath>

#include "placement_restart.h"
#include "random.h"

namespace memfit {

namespace {

struct Recipe {
  const char* order;
  bool fewest;
  double learning;  // > 0: restarts with learned weights
  int64_t base;
};

// Which orders and in which sequence: each was the first to solve some family of instances (tight packings, jittered
// ones, telescoping lifetimes) that those before it did not.
constexpr Recipe kRecipes[] = {
    {"TAW", true, 0, 0},     {"XZ", true, 1.0, 500},   {"TWA", false, 0, 0},   {"TOW", false, 0, 0},
    {"XZ", true, 0.3, 1500}, {"WAT", true, 0, 0},      {"TDB", false, 0, 0},   {"TAW", false, 0, 0},
    {"ZTW", true, 0, 0},     {"XZ", true, 0.6, 800},   {"WAT", false, 0, 0},   {"XW", true, 1.0, 300},
    {"P", true, 0.3, 500},   {"BT", true, 0, 0},       {"XZ", false, 1.0, 500}};
constexpr int32_t kRecipeCount = sizeof(kRecipes) / sizeof(kRecipes[0]);
constexpr int64_t kSlice = 256;
constexpr int32_t kMostLanes = 64;

}  // namespace

PlacementPortfolio::PlacementPortfolio(const PlacementShape& shape, int64_t limit, uint32_t switches, uint64_t seed,
                                       int32_t first, int32_t stride)
    : shape_(shape), limit_(limit), switches_(switches), seed_(seed), first_(first), stride_(std::max(stride, 1)) {}

void PlacementPortfolio::open() {
  const int32_t number = first_ + stride_ * static_cast<int32_t>(lanes_.size());
  const Recipe& recipe = kRecipes[number % kRecipeCount];
  SearchOptions options;
  options.order = recipe.order;
  options.switches = recipe.fewest ? switches_ : switches_ & ~static_cast<uint32_t>(kFewest);
  options.seed = seed_ * 1000003 + static_cast<uint64_t>(number);
  for (Lane& kept : kept_)
    if (kept.number == number) {
      lanes_.push_back(std::move(kept));
      kept.number = -1;
      return;
    }
  Lane lane{nullptr, nullptr, std::pow(static_cast<double>(lanes_.size() + 1), 0.7), number, 0};
  if (recipe.learning > 0 && !shape_.windowed) {
    options.noise = 0.05;
    auto made = make_restarting(shape_, limit_, options, {recipe.base, recipe.learning, 0.95});
    lane.learning = made.get();
    lane.search = std::move(made);
  } else {
    if (number >= kRecipeCount || seed_ != 0) {
      Random random(options.seed);
      options.noise = number < kRecipeCount ? 0.02 : 0.05 + 0.6 * random.unit() * random.unit();
    }
    lane.search = make_search(shape_, limit_, options);
  }
  lanes_.push_back(std::move(lane));
}

void PlacementPortfolio::aim(int64_t limit) {
  limit_ = limit;
  status_ = SearchStatus::kPaused;
  winner_ = -1;
  std::vector<Lane> learned;
  for (Lane& lane : kept_)
    if (lane.number >= 0) learned.push_back(std::move(lane));
  for (Lane& lane : lanes_)
    if (lane.learning != nullptr) learned.push_back(std::move(lane));
  kept_.clear();
  lanes_.clear();
  for (Lane& lane : learned) {
    lane.learning->aim(limit);
    lane.before = lane.search->nodes();
    kept_.push_back(std::move(lane));
  }
}

SearchStatus PlacementPortfolio::run(int64_t nodes) {
  const int64_t until = nodes_ + nodes;
  while (status_ == SearchStatus::kPaused && nodes_ < until) {
    size_t next = 0;
    double least = -1;
    for (size_t k = 0; k < lanes_.size(); ++k) {
      const double spent = static_cast<double>(lanes_[k].search->nodes() - lanes_[k].before) * lanes_[k].weight;
      if (least < 0 || spent < least) least = spent, next = k;
    }
    if (lanes_.empty() || (least > 0 && static_cast<int32_t>(lanes_.size()) < kMostLanes &&
                           least >= kSlice * std::pow(static_cast<double>(lanes_.size() + 1), 0.7))) {
      next = lanes_.size();
      open();
    }
    PlacementSearch& search = *lanes_[next].search;
    const int64_t before = search.nodes();
    status_ = search.run(std::max(kSlice, (before - lanes_[next].before) / 8));
    nodes_ += std::max<int64_t>(search.nodes() - before, 1);
    if (status_ == SearchStatus::kPaused) continue;
    winner_ = lanes_[next].number;
    if (status_ == SearchStatus::kFound) offsets_ = search.offsets();
  }
  return status_;
}

}  // namespace memfit
