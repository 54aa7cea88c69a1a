#include "core/gather_rows.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "core/gather_convert.h"
#include "core/gather_vectors.h"

namespace memfit {
namespace {

constexpr int64_t kTile = 4096;  // pixels taken apart at a time: three runs of them stay in the first cache
constexpr int64_t kShort = 8192, kBytesAhead = 4096;
std::atomic<bool> force_portable{false};

// Scale and shift of one channel, or none.
struct Affine {
  bool used;
  double scale, shift;
};

template <class S, class T>
void run(const S* from, int64_t n, Affine by, T* to, bool vectors, bool stream) {
  const auto scale = static_cast<float>(by.used ? by.scale : 1.0), shift = static_cast<float>(by.used ? by.shift : 0.0);
  if constexpr (std::is_same<S, uint8_t>::value && std::is_same<T, float>::value) {
    if (vectors && run_u8_f32(from, n, scale, shift, to, stream)) return;
  }
  if constexpr (std::is_same<S, uint8_t>::value && (std::is_same<T, Half>::value || std::is_same<T, Brain>::value)) {
    auto* bits = reinterpret_cast<uint16_t*>(to);
    if (vectors && run_u8_half(from, n, scale, shift, bits, std::is_same<T, Brain>::value, stream)) return;
  }
  if constexpr (std::is_same<S, uint16_t>::value && std::is_same<T, int64_t>::value) {
    if (vectors && !by.used && run_u16_i64(from, n, to)) return;
  }
  if (by.used)
    for (int64_t i = 0; i < n; ++i) to[i] = scaled<S, T>(from[i], by.scale, by.shift);
  else
    for (int64_t i = 0; i < n; ++i) to[i] = converted<S, T>(from[i]);
}

// Values whose scale and shift repeat with the channels: written out until they fill some vectors.
struct Pattern {
  std::vector<float> scale, shift;
  int64_t period = 0;
};

Pattern pattern_of(const GatherPlan& plan) {
  Pattern made;
  const int64_t c = plan.channels, times = c < 256 ? 8 * ((32 + c - 1) / c) : 1;
  made.period = c * times;
  made.scale.resize(made.period);
  made.shift.resize(made.period);
  for (int64_t i = 0; i < made.period; ++i) {
    made.scale[i] = static_cast<float>(plan.scale[i % c]);
    made.shift[i] = static_cast<float>(plan.shift[i % c]);
  }
  return made;
}

template <class S, class T>
bool patterned(const Pattern& pattern, const S* from, int64_t n, T* to, bool stream) {
  for (int64_t i = 0; i < n; i += pattern.period) {
    const int64_t part = std::min(pattern.period, n - i);
    const float *scale = pattern.scale.data(), *shift = pattern.shift.data();
    if constexpr (std::is_same<S, float>::value && std::is_same<T, float>::value) {
      if (!pattern_f32_f32(from + i, part, scale, shift, to + i, stream)) return false;
    } else if constexpr (std::is_same<S, float>::value && (std::is_same<T, Half>::value || std::is_same<T, Brain>::value)) {
      auto* bits = reinterpret_cast<uint16_t*>(to + i);
      if (!pattern_f32_half(from + i, part, scale, shift, bits, std::is_same<T, Brain>::value, stream)) return false;
    } else if constexpr (std::is_same<S, uint8_t>::value && std::is_same<T, float>::value) {
      if (!pattern_u8_f32(from + i, part, scale, shift, to + i, stream)) return false;
    } else {
      return false;
    }
  }
  return true;
}

template <class S, class T>
void gather(const GatherPlan& plan, const uint8_t* base, const int64_t* offsets, int64_t count, T* out) {
  const int64_t c = plan.channels, inner = plan.inner, size = c * inner;
  const bool vectors = gather_vectorised(), affine = plan.scale != nullptr;
  const auto by = [&](int64_t channel) { return affine ? Affine{true, plan.scale[channel], plan.shift[channel]} : Affine{false, 1, 0}; };
  const bool same = c == 1 || inner == 1;  // one channel, or one pixel: both layouts are one
  const Layout layout = same ? (c == 1 ? Layout::keep_first : Layout::keep_last) : plan.layout;
  Pattern pattern;
  if (layout == Layout::keep_last && affine && vectors) pattern = pattern_of(plan);
  std::vector<S> planes;
  if (layout == Layout::last_to_first) planes.resize(static_cast<size_t>(c * std::min(kTile, inner)));
  const int64_t row_bytes = size * static_cast<int64_t>(sizeof(S));
  const int64_t ahead = std::clamp<int64_t>(kBytesAhead / std::max<int64_t>(row_bytes, 1), 4, 32);
  for (int64_t i = 0; i < count; ++i) {
    const S* from = reinterpret_cast<const S*>(base + offsets[i]);
    if (row_bytes <= kShort && i + ahead < count)  // the hardware sees no order in short rows
      for (int64_t b = 0; b < row_bytes; b += 64) __builtin_prefetch(base + offsets[i + ahead] + b);
    T* to = out + i * size;
    if (!affine && std::is_same<S, T>::value && (layout == Layout::keep_last || layout == Layout::keep_first)) {
      std::memcpy(static_cast<void*>(to), from, sizeof(T) * static_cast<size_t>(size));
    } else if (layout == Layout::keep_first) {
      for (int64_t k = 0; k < c; ++k) run(from + k * inner, inner, by(k), to + k * inner, vectors, plan.stream);
    } else if (layout == Layout::keep_last && !affine) {
      run(from, size, Affine{false, 1, 0}, to, vectors, plan.stream);
    } else if (layout == Layout::keep_last) {
      if (vectors && patterned(pattern, from, size, to, plan.stream)) continue;
      for (int64_t p = 0; p < inner; ++p)
        for (int64_t k = 0; k < c; ++k) to[p * c + k] = scaled<S, T>(from[p * c + k], plan.scale[k], plan.shift[k]);
    } else if (layout == Layout::first_to_last) {
      for (int64_t k = 0; k < c; ++k)
        for (int64_t p = 0; p < inner; ++p)
          to[p * c + k] = affine ? scaled<S, T>(from[k * inner + p], plan.scale[k], plan.shift[k]) : converted<S, T>(from[k * inner + p]);
    } else {
      for (int64_t start = 0; start < inner; start += kTile) {
        const int64_t n = std::min(kTile, inner - start), room = std::min(kTile, inner);
        const S* at = from + start * c;
        bool done = false;
        if constexpr (std::is_same<S, uint8_t>::value)
          done = vectors && c == 3 && split_three(at, n, planes.data(), planes.data() + room, planes.data() + 2 * room);
        if (!done)
          for (int64_t p = 0; p < n; ++p)
            for (int64_t k = 0; k < c; ++k) planes[static_cast<size_t>(k * room + p)] = at[p * c + k];
        for (int64_t k = 0; k < c; ++k) run(planes.data() + k * room, n, by(k), to + k * inner + start, vectors, plan.stream);
      }
    }
  }
  if (plan.stream && vectors) stream_fence();
}

template <class S>
void to_target(const GatherPlan& plan, const uint8_t* base, const int64_t* offsets, int64_t count, uint8_t* out) {
  switch (plan.target) {
    case Element::u8: return gather<S>(plan, base, offsets, count, out);
    case Element::i8: return gather<S>(plan, base, offsets, count, reinterpret_cast<int8_t*>(out));
    case Element::u16: return gather<S>(plan, base, offsets, count, reinterpret_cast<uint16_t*>(out));
    case Element::i16: return gather<S>(plan, base, offsets, count, reinterpret_cast<int16_t*>(out));
    case Element::u32: return gather<S>(plan, base, offsets, count, reinterpret_cast<uint32_t*>(out));
    case Element::i32: return gather<S>(plan, base, offsets, count, reinterpret_cast<int32_t*>(out));
    case Element::u64: return gather<S>(plan, base, offsets, count, reinterpret_cast<uint64_t*>(out));
    case Element::i64: return gather<S>(plan, base, offsets, count, reinterpret_cast<int64_t*>(out));
    case Element::f16: return gather<S>(plan, base, offsets, count, reinterpret_cast<Half*>(out));
    case Element::f32: return gather<S>(plan, base, offsets, count, reinterpret_cast<float*>(out));
    case Element::f64: return gather<S>(plan, base, offsets, count, reinterpret_cast<double*>(out));
    case Element::bf16: return gather<S>(plan, base, offsets, count, reinterpret_cast<Brain*>(out));
  }
}

}  // namespace

int element_bytes(Element element) {
  switch (element) {
    case Element::u8: case Element::i8: return 1;
    case Element::u16: case Element::i16: case Element::f16: case Element::bf16: return 2;
    case Element::u32: case Element::i32: case Element::f32: return 4;
    default: return 8;
  }
}

void gather_rows(const GatherPlan& plan, const uint8_t* base, const int64_t* offsets, int64_t count, uint8_t* out) {
  switch (plan.source) {
    case Element::u8: return to_target<uint8_t>(plan, base, offsets, count, out);
    case Element::i8: return to_target<int8_t>(plan, base, offsets, count, out);
    case Element::u16: return to_target<uint16_t>(plan, base, offsets, count, out);
    case Element::i16: return to_target<int16_t>(plan, base, offsets, count, out);
    case Element::u32: return to_target<uint32_t>(plan, base, offsets, count, out);
    case Element::i32: return to_target<int32_t>(plan, base, offsets, count, out);
    case Element::u64: return to_target<uint64_t>(plan, base, offsets, count, out);
    case Element::i64: return to_target<int64_t>(plan, base, offsets, count, out);
    case Element::f16: return to_target<Half>(plan, base, offsets, count, out);
    case Element::f32: return to_target<float>(plan, base, offsets, count, out);
    case Element::f64: return to_target<double>(plan, base, offsets, count, out);
    case Element::bf16: return to_target<Brain>(plan, base, offsets, count, out);
  }
}

bool gather_vectorised() {
  static const bool here = vectors_here();
  return here && !force_portable.load(std::memory_order_relaxed);
}

void gather_force_portable(bool portable) { force_portable.store(portable, std::memory_order_relaxed); }

}  // namespace memfit
