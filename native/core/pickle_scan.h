// Walks the opcodes of a pickle and finds the first one that plain data does not need, before anything is loaded.
#pragma once
#include <cstddef>
#include <cstdint>

namespace memfit {

enum class Refused { kNothing, kClass, kUnknown, kAfter, kNumber, kMemo, kDeep, kTruncated, kStructure };

struct PickleScan {
  int64_t place;  // byte of the opcode, -1 where nothing is refused
  Refused why;
};

PickleScan scan_pickle(const uint8_t* data, size_t size);

}  // namespace memfit
