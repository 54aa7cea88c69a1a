// Exact LRU stack distances: how many other lines were used since a line was used last. Included where it is compiled
// (reuse_portable.cc, reuse_avx2.cc), inside a namespace, after the standard headers.
//
// A bit for every moment at which some line was used last; a distance is the number of bits set after the line's own moment.
// Bits are counted in words, sums over 512 bits, and sums over 32,768: a query adds a few of each, an update changes three
// (a flat alternative to Olken's tree, 1981, and Bennett and Kruskal's, 1975). When moments run out they are numbered anew.
class ReuseStack {
 public:
  explicit ReuseStack(int64_t lines) : last_(lines, kNever) {
    int64_t room = std::max<int64_t>(4 * lines, 1 << 17);
    moments_ = (room + kGroup - 1) / kGroup * kGroup;
    words_.assign(moments_ / 64, 0);
    blocks_.assign(moments_ / kBlock, 0);
    groups_.assign(moments_ / kGroup, 0);
    line_.assign(moments_, 0);
  }

  static constexpr int64_t kCold = -1;

  // Brings what a later `use` of the line will look at nearer.
  inline __attribute__((always_inline)) void soon(uint32_t line) const { __builtin_prefetch(&last_[line]); }
  inline __attribute__((always_inline)) void next(uint32_t line) const {
    const uint32_t before = last_[line];
    if (before != kNever) __builtin_prefetch(&words_[before >> 6]);
  }

  inline __attribute__((always_inline)) int64_t use(uint32_t line) {
    if (line == front_) return 0;
    front_ = line;
    if (now_ == moments_) compact();
    const int64_t before = last_[line];
    int64_t distance = kCold;
    if (before != kNever) {
      distance = after(before);
      words_[before >> 6] &= ~(uint64_t{1} << (before & 63));
      --blocks_[before / kBlock];
      --groups_[before / kGroup];
    }
    words_[now_ >> 6] |= uint64_t{1} << (now_ & 63);
    ++blocks_[now_ / kBlock];
    ++groups_[now_ / kGroup];
    line_[now_] = line;
    last_[line] = static_cast<uint32_t>(now_++);
    return distance;
  }

 private:
  static constexpr int64_t kBlock = 512, kGroup = 32768, kNear = 24;
  static constexpr uint32_t kNever = 0xffffffffu;

  int64_t after(int64_t moment) const {
    const int64_t word = moment >> 6, top = (now_ - 1) >> 6;
    int64_t found = __builtin_popcountll(words_[word] & (~uint64_t{1} << (moment & 63)));
    if (top - word <= kNear) {  // near in time, as in loops: as many words every time, which processors foresee
      for (int64_t w = word + 1; w <= top; ++w) found += __builtin_popcountll(words_[w]);
      return found;
    }
    const int64_t block = moment / kBlock, last_block = (now_ - 1) / kBlock;
    const int64_t words_end = (block + 1) * (kBlock / 64);
    for (int64_t w = word + 1; w < words_end; ++w) found += __builtin_popcountll(words_[w]);
    const int64_t group = moment / kGroup, last_group = (now_ - 1) / kGroup;
    const int64_t per = kGroup / kBlock;
    if (group == last_group) return found + sum(blocks_.data() + block + 1, last_block - block);
    found += sum(blocks_.data() + block + 1, (group + 1) * per - block - 1);
    for (int64_t g = group + 1; g <= last_group; ++g) found += groups_[g];
    return found;
  }
  static int64_t sum(const uint16_t* from, int64_t many) {
    int32_t total = 0;
    for (int64_t i = 0; i < many; ++i) total += from[i];
    return total;
  }

  void compact() {
    int64_t to = 0;
    for (int64_t w = 0; w < moments_ / 64; ++w)
      for (uint64_t bits = words_[w]; bits; bits &= bits - 1) {
        const uint32_t line = line_[w * 64 + __builtin_ctzll(bits)];
        line_[to] = line;
        last_[line] = static_cast<uint32_t>(to++);
      }
    std::fill(words_.begin(), words_.end(), 0);
    std::fill(blocks_.begin(), blocks_.end(), 0);
    std::fill(groups_.begin(), groups_.end(), 0);
    for (int64_t i = 0; i < to; ++i) {
      words_[i >> 6] |= uint64_t{1} << (i & 63);
      ++blocks_[i / kBlock];
      ++groups_[i / kGroup];
    }
    now_ = to;
  }

  std::vector<uint32_t> last_;
  std::vector<uint64_t> words_;
  std::vector<uint16_t> blocks_;
  std::vector<uint32_t> groups_;
  std::vector<uint32_t> line_;
  int64_t moments_ = 0, now_ = 0;
  uint32_t front_ = 0xffffffffu;
};
