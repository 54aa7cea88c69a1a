#include "large_placement_search.h"

#include <algorithm>


namespace memfit {

Filling::Filling(const LargeProblem& problem, std::vector<int32_t> order, GapFit fit, int64_t ceiling)
    : problem_(problem), spans_(problem), order_(std::move(order)), fit_(fit), ceiling_(ceiling) {
  for (int32_t i = 0; i < problem.buffers; ++i)
    if (problem.fixed[i] >= 0) spans_.put(i, problem.fixed[i]);
}

bool Filling::run(int64_t work) {
  const int64_t until = spans_.work() + work;
  for (; next_ < order_.size() && spans_.work() < until; ++next_) {
    const int32_t buffer = order_[next_];
    if (problem_.fixed[buffer] >= 0) continue;
    const int64_t offset = spans_.find(buffer, fit_, ceiling_);
    if (offset == kUnplaced) late_.push_back(buffer);
    else spans_.put(buffer, offset);
  }
  return next_ == order_.size();
}

std::vector<int64_t> Filling::whole() const {
  Spans spans = spans_;
  for (size_t i = next_; i < order_.size(); ++i)
    if (problem_.fixed[order_[i]] < 0) spans.put(order_[i], spans.above(order_[i]));
  for (const int32_t buffer : late_) spans.put(buffer, spans.find(buffer, GapFit::kFirst, kNoCeiling));
  return spans.offset();
}

EjectionSearch::EjectionSearch(const LargeProblem& problem, const std::vector<int64_t>& offset, int64_t ceiling,
                               Turn turn, uint64_t seed)
    : problem_(problem), board_(problem), ceiling_(ceiling), turn_(turn) {
  Random random(seed);
  std::vector<double> area;
  for (int32_t i = 0; i < problem.buffers; ++i)
    area.push_back(static_cast<double>(problem.size[i]) * static_cast<double>(problem.lifetime[i]));
  const double largest = std::max(1.0, area.empty() ? 1.0 : *std::max_element(area.begin(), area.end()));
  for (int32_t i = 0; i < problem.buffers; ++i) {
    const bool pinned = problem.fixed[i] >= 0;
    weight_.push_back(1 + static_cast<int64_t>(area[i] / largest * (1 << 30)));
    if (seed) weight_[i] += weight_[i] / 1024 * random.below(512);
    cost_.push_back(pinned ? -1 : weight_[i]);
    if (pinned) board_.put(i, problem.fixed[i]);
    else if (offset[i] != kUnplaced && offset[i] + problem.reach[i] <= ceiling) board_.put(i, offset[i]);
    else wait(i);
  }
}

void EjectionSearch::wait(int32_t buffer) {
  const int64_t first = turn_ == Turn::kOldest ? -++tickets_ : turn_ == Turn::kArea ? weight_[buffer] : problem_.size[buffer];
  waiting_.emplace(first, buffer);
}

bool EjectionSearch::run(int64_t work) {
  const int64_t until = board_.work() + work;
  while (!waiting_.empty() && board_.work() < until) {
    const int32_t buffer = waiting_.top().second;
    waiting_.pop();
    const int64_t offset = board_.force(buffer, ceiling_, cost_, evicted_);
    if (offset == kUnplaced) {
      hopeless_.push_back(buffer);
      continue;
    }
    for (const int32_t other : evicted_) {
      board_.take(other);
      cost_[other] += weight_[other];
      wait(other);
    }
    board_.put(buffer, offset);
  }
  return waiting_.empty() && hopeless_.empty();
}

std::vector<int64_t> EjectionSearch::whole() const {
  Board board = board_;
  for (const int32_t buffer : hopeless_) board.put(buffer, board.find(buffer, GapFit::kFirst, kNoCeiling));
  for (auto waiting = waiting_; !waiting.empty(); waiting.pop()) {
    const int32_t buffer = waiting.top().second;
    board.put(buffer, board.find(buffer, GapFit::kFirst, kNoCeiling));
  }
  return board.offset();
}

}  // namespace memfit
