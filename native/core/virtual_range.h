// Reserved virtual ranges over one sparse memory file: a range is contiguous for whoever reads it, while each part of it
// may be any part of the file, also one that other ranges show too (an alias). Pages exist once they are written.
// Linux only (memfd, MAP_FIXED, hole punching). The idea of contiguous virtual key/value memory: Prabhu et al., vAttention
// (2024), there with the driver's virtual memory calls; here with plain system calls, on the CPU.
#pragma once
#include <cstddef>
#include <cstdint>

namespace memfit {

// A sparse file in memory. Offsets cost nothing; pages are born by the first write and die in `punch`.
class SharedFile {
 public:
  explicit SharedFile(int64_t bytes);  // throws std::system_error
  ~SharedFile();
  SharedFile(const SharedFile&) = delete;
  SharedFile& operator=(const SharedFile&) = delete;

  void write(int64_t offset, const void* from, int64_t bytes);  // also where no range shows the offset
  void punch(int64_t offset, int64_t bytes);                    // gives whole pages back; no effect in a forked child
  int64_t resident() const;                                     // bytes of pages that exist
  bool foreign() const;                                         // this process is a child of the one that made it
  int descriptor() const { return descriptor_; }
  void close();

 private:
  int descriptor_ = -1;
  int64_t owner_ = 0;
};

// A reserved range of addresses. Nothing of it can be touched before `show`.
class VirtualRange {
 public:
  explicit VirtualRange(int64_t bytes);  // throws std::system_error
  ~VirtualRange();
  VirtualRange(const VirtualRange&) = delete;
  VirtualRange& operator=(const VirtualRange&) = delete;

  void show(int64_t offset, int64_t bytes, const SharedFile& file, int64_t file_offset);  // whole pages
  void populate(int64_t offset, int64_t bytes);  // makes the pages now, all in one call; where the kernel cannot, later
  // Forgets what it shows. Readers that are still there see zeros in fresh private pages, never a fault; the addresses
  // go with the destructor.
  void retire();
  char* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  char* data_ = nullptr;
  int64_t size_ = 0;
  bool retired_ = false;
};

// Bytes that one token of one row has in a source: where each head begins, and how long it is.
struct TokenSource {
  const char* data;
  int64_t row_stride, head_stride, token_stride, head_bytes;
};

// Copies tokens of rows x heads into the layout of a range: token after token, the heads of a token side by side.
void append_tokens(char* to, int64_t row_bytes, int64_t position, const TokenSource& from, int64_t rows, int64_t heads,
                   int64_t tokens);

}  // namespace memfit
