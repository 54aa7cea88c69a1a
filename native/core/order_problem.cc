#include "core/order_problem.h"

#include <algorithm>

namespace memfit {

namespace {

Lists transposed(const Lists& lists, int32_t rows) {
  Lists out;
  out.start.assign(rows + 1, 0);
  for (const int32_t item : lists.items) ++out.start[item + 1];
  for (int32_t i = 0; i < rows; ++i) out.start[i + 1] += out.start[i];
  out.items.resize(lists.items.size());
  auto place = out.start;
  const auto count = static_cast<int32_t>(lists.start.size()) - 1;
  for (int32_t i = 0; i < count; ++i)
    for (const int32_t item : row(lists, i)) out.items[place[item]++] = i;
  return out;
}

}  // namespace

void OrderProblem::finish(const std::vector<Bytes>& workspace) {
  words = (op_count + 63) / 64;
  needed_by = transposed(needs, op_count);
  readers = transposed(reads, storage_count);
  producer.assign(storage_count, -1);
  own = workspace;
  made.assign(op_count, 0);
  for (int32_t v = 0; v < op_count; ++v) {
    for (const int32_t s : row(writes, v)) {
      producer[s] = v;
      own[v] += nbytes[s];
      if (kept[s] || readers.count(s) > 0) made[v] += nbytes[s];
    }
    const int32_t r = reuse[v];
    const bool read = std::find(reads.begin(v), reads.end(v), r) != reads.end(v);
    if (!read || writes.count(v) == 0 || nbytes[*writes.begin(v)] != nbytes[r]) reuse[v] = -1;
  }
}

std::vector<Bytes> bytes_during(const OrderProblem& g, const Order& order) {
  const Direction walk{g, true};
  Words marked(g.words, 0);
  std::vector<Bytes> out;
  out.reserve(order.size());
  Bytes level = 0;
  for (const int32_t v : order) {
    const Step step = walk.step(marked.data(), v, level);
    out.push_back(step.during);
    level = step.after;
    add(marked.data(), v);
  }
  return out;
}

Bytes level_of(const OrderProblem& g, const uint64_t* done) {
  Bytes level = 0;
  for (int32_t s = 0; s < g.storage_count; ++s) {
    if (g.producer[s] < 0 || !has(done, g.producer[s])) continue;
    bool alive = g.kept[s];
    for (const int32_t reader : row(g.readers, s)) alive = alive || !has(done, reader);
    if (alive) level += g.nbytes[s];
  }
  return level;
}

std::vector<int32_t> forced_positions(const OrderProblem& g, const Order& order) {
  // Forced after position i where op i has all ops before it as ancestors and all behind it as descendants.
  const int32_t count = g.op_count;
  std::vector<int32_t> ancestors(count, 0), descendants(count, 0);
  const auto closure = [&](const Lists& before, bool from_front, std::vector<int32_t>& sizes) {
    // In blocks of 64 ops at a time: which of them can be reached from each op.
    std::vector<uint64_t> reach(count);
    for (int32_t block = 0; block < count; block += 64) {
      std::fill(reach.begin(), reach.end(), 0);
      for (int32_t i = 0; i < count; ++i) {
        const int32_t v = order[from_front ? i : count - 1 - i];
        uint64_t bits = 0;
        for (const int32_t p : row(before, v)) bits |= reach[p];
        sizes[v] += __builtin_popcountll(bits);
        reach[v] = bits | (v >= block && v < block + 64 ? 1ull << (v - block) : 0);
      }
    }
  };
  closure(g.needs, true, ancestors);
  closure(g.needed_by, false, descendants);
  std::vector<int32_t> out{0};
  for (int32_t i = 0; i < count; ++i) {
    const int32_t v = order[i];
    if (ancestors[v] + descendants[v] + 1 != count) continue;
    if (out.back() != i) out.push_back(i);
    out.push_back(i + 1);
  }
  if (out.back() != count) out.push_back(count);
  return out;
}

}  // namespace memfit
