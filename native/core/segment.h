// Named ranges of memory with a base, a limit and a protection, between guard pages, and the handler that names them.
//
//   | guard: no access | pad | base ....... limit | pad | guard: no access |       an anonymous segment ends at its guard,
//                                                                                so that one byte too many faults
//
// A fault inside a known range is either thrown by the copy of ours that met it (`copy_checked`), or, in anybody's code,
// told on standard error with the segment, the offset and the access, and ends the process with `kFaultExit`. Faults
// elsewhere go to the handler that was there before.
#pragma once
#include <cstddef>
#include <cstdint>

namespace memfit {

constexpr int kFaultExit = 86;

enum Protection : int { kNoAccess = 0, kRead = 1, kReadWrite = 3 };

// What a checked copy ran into: `offset` from the segment's base, `access` 0 read, 1 write, 2 unknown; `file`: the file
// behind the memory is shorter than the mapping.
struct Fault {
  int64_t offset = 0;
  int access = 2;
  bool file = false;
};

class Segment {
 public:
  // Zeroed memory; throws std::system_error.
  Segment(const char* name, int64_t bytes, int64_t guard_bytes);
  // The first bytes of an open file, read-only; changes of ours never reach it.
  Segment(const char* name, int descriptor, int64_t bytes, int64_t guard_bytes);
  ~Segment();
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;

  void protect(int protection);
  void rename(const char* name);
  void close();  // the addresses stay reserved, whoever touches them faults
  int64_t breach() const;  // offset from base of the first changed byte of the pads, INT64_MIN: none
  char* base() const { return base_; }
  int64_t bytes() const { return bytes_; }
  int protection() const { return protection_; }
  bool closed() const { return closed_; }

 private:
  void enlist(const char* name);
  char* range_ = nullptr;   // guard included
  size_t range_bytes_ = 0;
  char* data_ = nullptr;    // pages that may be touched
  size_t data_bytes_ = 0;
  char* base_ = nullptr;
  int64_t bytes_ = 0;
  int protection_ = kReadWrite;
  bool file_ = false, closed_ = false;
  int slot_ = -1;
};

// Copies bytes that lie in a segment, or go there; false where it faulted, with what it ran into.
bool copy_checked(void* to, const void* from, size_t bytes, Fault& fault);

// A block of its own between guard pages, known by `name`; nullptr where there is no memory. `guarded_bytes`: its size.
void* allocate_guarded(const char* name, size_t bytes);
bool free_guarded(void* address);

// Puts the handler in place (again, where another one came over it). Done by the first segment.
void watch_faults();

}  // namespace memfit
