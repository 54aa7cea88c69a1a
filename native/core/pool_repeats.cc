#include "pool_repeats.h"

namespace memfit {
namespace {

constexpr int64_t kSlots = 1 << 14;
constexpr uint64_t kFactor = 0x9E3779B97F4A7C15ull;

constexpr uint64_t power(uint64_t base, int exponent) {
  uint64_t result = 1;
  for (int i = 0; i < exponent; ++i) result *= base;
  return result;
}

uint64_t mixed(uint64_t value) {
  value ^= value >> 31;
  value *= 0xD6E8FEB86659FD93ull;
  return value ^ value >> 29;
}

}  // namespace

void PoolRepeats::forget() {
  oldest_ = count_;
  distance_ = equal_ = judged_ = period_ = known_ = known_until_ = 0;
  last_step_ = step_before_ = -1;
  hash_valid_ = false;
}

bool PoolRepeats::add(const PoolEvent& event) {
  if (ring_.empty()) {
    ring_.resize(kRoom);
    seen_.assign(kSlots, {0, -1});
  }
  ring_[static_cast<size_t>(count_++ & (kRoom - 1))] = event;
  const bool stepped = event.code == kStepCode && at_step();
  if (stepped) {
    hash_valid_ = false;
    return true;
  }
  if (period_ != 0) {
    if (event.code == back(period_).code) return (count_ - border_) % period_ == 0;
    known_ = period_;
    known_until_ = count_ + 4 * known_;
    period_ = distance_ = 0;
    hash_valid_ = false;  // windows were not looked at while the period held
  }
  if (count_ - oldest_ < kWindow) return false;
  roll();
  Seen& slot = seen_[static_cast<size_t>(hash_ >> 40 & (kSlots - 1))];
  const int64_t before = slot.window == hash_ && slot.at >= seen_from_ ? slot.at : -1;
  slot = {hash_, count_};
  if (!search(before)) return false;
  settle();
  return (count_ - border_) % period_ == 0;
}

// The hash of the last kWindow events.
void PoolRepeats::roll() {
  constexpr uint64_t gone = power(kFactor, kWindow);
  if (hash_valid_) {
    hash_ = hash_ * kFactor + mixed(back(0).code + 1) - mixed(back(kWindow).code + 1) * gone;
    return;
  }
  hash_ = 0;
  for (int64_t ago = kWindow - 1; ago >= 0; --ago) hash_ = hash_ * kFactor + mixed(back(ago).code + 1);
  hash_valid_ = true;
  seen_from_ = count_;
}

// Whether the distance that stands has become a period. `before`: the count at an equal window, -1: none.
bool PoolRepeats::search(int64_t before) {
  if (distance_ != 0) {
    if (count_ - 1 - distance_ >= oldest_ && back(0).code == back(distance_).code) {
      ++equal_;
    } else {
      distance_ = 0;
    }
  }
  // A single step that differs: what repeated before it is looked for first.
  if (count_ < known_until_ && distance_ != known_ && count_ % kWindow == 0 && alike(known_)) {
    distance_ = known_;
    equal_ = kWindow;
    judged_ = 2 * known_;
  }
  if (distance_ == 0) {
    if (before < 0) return false;
    const int64_t apart = count_ - before;
    if (apart > kLongest || apart < kShortest) return false;
    distance_ = apart;
    equal_ = kWindow;
    judged_ = 2 * apart;
  }
  if (equal_ < judged_) return false;
  judged_ = equal_ + distance_;  // looked at again a period later
  return back(0).live == back(distance_).live;
}

// Whether the last events equal those so far back.
bool PoolRepeats::alike(int64_t distance) const {
  if (count_ - kWindow - distance < oldest_) return false;
  for (int64_t ago = 0; ago < kWindow; ++ago)
    if (back(ago).code != back(ago + distance).code) return false;
  return true;
}

// The border lies where least is alive.
void PoolRepeats::settle() {
  period_ = distance_;
  int64_t best = 0;
  for (int64_t ago = 1; ago < period_; ++ago)
    if (back(ago).live < back(best).live) best = ago;
  border_ = count_ - best;
}

// Two steps in a row with the same events are a period, its border the mark.
bool PoolRepeats::at_step() {
  step_before_ = last_step_;
  last_step_ = count_;
  const int64_t length = last_step_ - step_before_;
  if (step_before_ < oldest_ || length < 2 || length > kLongest || step_before_ - length < oldest_) return false;
  for (int64_t ago = 0; ago < length; ++ago)
    if (back(ago).code != back(ago + length).code) return false;
  if (back(0).live != back(length).live) return false;
  period_ = distance_ = length;
  border_ = count_;
  return true;
}

}  // namespace memfit
