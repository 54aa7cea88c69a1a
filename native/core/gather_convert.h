// One value: from any element type, into any. What the vector paths must agree with to the bit.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace memfit {

struct Half { uint16_t bits; };
struct Brain { uint16_t bits; };

inline float as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint32_t as_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16, rest = half & 0x7FFF;
  if (rest >= 0x7C00) return as_float(sign | 0x7F800000u | (rest & 0x3FF) << 13);
  if (rest >= 0x0400) return as_float(sign | ((rest << 13) + 0x38000000u));
  return as_float(sign | as_bits(static_cast<float>(rest) * 5.9604644775390625e-08f));  // 2^-24
}

// Round to nearest, ties to even, as the hardware does.
inline uint16_t float_to_half(float value) {
  const uint32_t bits = as_bits(value), sign = bits >> 16 & 0x8000, rest = bits & 0x7FFFFFFF;
  if (rest > 0x7F800000) return static_cast<uint16_t>(sign | 0x7E00);
  if (rest >= 0x477FF000) return static_cast<uint16_t>(sign | 0x7C00);
  if (rest < 0x38800000) {  // below the smallest normal half: adding 0.5 lets the float unit round at the right bit
    const float shifted = as_float(rest) + 0.5f;
    return static_cast<uint16_t>(sign | (as_bits(shifted) - 0x3F000000u));
  }
  return static_cast<uint16_t>(sign | (rest - 0x38000000u + 0xFFF + (rest >> 13 & 1)) >> 13);
}

inline uint16_t float_to_brain(float value) {
  const uint32_t bits = as_bits(value);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return 0x7FC0;
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

template <class S>
inline float number_f(S value) { return static_cast<float>(value); }
inline float number_f(Half value) { return half_to_float(value.bits); }
inline float number_f(Brain value) { return as_float(static_cast<uint32_t>(value.bits) << 16); }

template <class S>
inline double number_d(S value) { return static_cast<double>(value); }
inline double number_d(Half value) { return number_f(value); }
inline double number_d(Brain value) { return number_f(value); }

template <class T>
inline T from_f(float value) { return static_cast<T>(value); }
template <>
inline Half from_f<Half>(float value) { return {float_to_half(value)}; }
template <>
inline Brain from_f<Brain>(float value) { return {float_to_brain(value)}; }

template <class T>
constexpr bool is_small_float = std::is_same<T, float>::value || std::is_same<T, Half>::value || std::is_same<T, Brain>::value;

// Only converted: whole numbers stay whole.
template <class S, class T>
inline T converted(S value) {
  if constexpr (std::is_same<S, T>::value) return value;
  else if constexpr (is_small_float<T>) return from_f<T>(number_f(value));
  else if constexpr (std::is_same<T, double>::value) return number_d(value);
  else if constexpr (std::is_integral<S>::value) return static_cast<T>(value);
  else return static_cast<T>(number_d(value));
}

template <class S, class T>
inline T scaled(S value, double scale, double shift) {
  if constexpr (is_small_float<T>) {
    const float product = number_f(value) * static_cast<float>(scale);
    return from_f<T>(product + static_cast<float>(shift));
  } else {
    const double product = number_d(value) * scale;
    return static_cast<T>(product + shift);
  }
}

}  // namespace memfit
