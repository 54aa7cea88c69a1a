// Many pieces of one file into memory, past the page cache, many at a time.
//
// io_uring keeps `depth` reads in flight from one thread (Axboe 2019); where the system has none, threads that read.
// The descriptor is the caller's, opened with O_DIRECT or not; with it offsets, lengths and addresses are multiples of
// 4096. Cost: O(pieces) submissions; about 0.04 s of CPU time per GB with pieces of 128 KiB.
#pragma once
#include <cstdint>

namespace memfit {

struct ReadFailure {
  int64_t piece;  // -1: all was read
  int error;      // errno, or 0 where the file ended before the piece did
};

enum class ReadMethod : int { ring, threads };

// Reads piece i, `lengths[i]` bytes at `offsets[i]`, to `memory + targets[i]`. Pieces may reach past `file_bytes`: what
// lies beyond is left as it was. Once it returns nothing writes to `memory` any more, whatever failed. `refused`: which
// submission of the ring is to fail (tests), -1: none.
ReadFailure read_pieces(int descriptor, const int64_t* offsets, const int64_t* lengths, const int64_t* targets, int64_t count,
                        uint8_t* memory, int64_t file_bytes, int depth, ReadMethod method, int refused = -1);

// Whether io_uring works here.
bool ring_here();

}  // namespace memfit
