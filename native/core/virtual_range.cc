#include "virtual_range.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <system_error>

namespace memfit {

static void fail(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

SharedFile::SharedFile(int64_t bytes) : owner_(getpid()) {
  descriptor_ = memfd_create("memfit-kv", MFD_CLOEXEC);
  if (descriptor_ < 0) fail("memory file");
  if (ftruncate(descriptor_, bytes) != 0) {
    const int error = errno;
    ::close(descriptor_);
    errno = error;
    fail("size of the memory file");
  }
}

SharedFile::~SharedFile() { close(); }

void SharedFile::close() {
  if (descriptor_ >= 0) ::close(descriptor_);
  descriptor_ = -1;
}

bool SharedFile::foreign() const { return getpid() != owner_; }

void SharedFile::write(int64_t offset, const void* from, int64_t bytes) {
  if (foreign()) throw std::runtime_error("a forked child may not write to its parent's memory file");
  const char* next = static_cast<const char*>(from);
  while (bytes > 0) {
    const ssize_t done = pwrite(descriptor_, next, static_cast<size_t>(bytes), offset);
    if (done < 0) {
      if (errno == EINTR) continue;
      fail("write to the memory file");
    }
    next += done;
    offset += done;
    bytes -= done;
  }
}

void SharedFile::punch(int64_t offset, int64_t bytes) {
  if (descriptor_ < 0 || foreign() || bytes <= 0) return;
  while (fallocate(descriptor_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes) != 0)
    if (errno != EINTR) fail("give pages back");
}

int64_t SharedFile::resident() const {
  struct stat status;
  if (descriptor_ < 0) return 0;
  if (fstat(descriptor_, &status) != 0) fail("state of the memory file");
  return static_cast<int64_t>(status.st_blocks) * 512;
}

VirtualRange::VirtualRange(int64_t bytes) : size_(bytes) {
  void* at = mmap(nullptr, static_cast<size_t>(bytes), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) fail("reserve addresses");
  data_ = static_cast<char*>(at);
}

VirtualRange::~VirtualRange() {
  if (data_ != nullptr) munmap(data_, static_cast<size_t>(size_));
}

void VirtualRange::show(int64_t offset, int64_t bytes, const SharedFile& file, int64_t file_offset) {
  if (retired_ || offset < 0 || bytes <= 0 || bytes > size_ - offset) throw std::out_of_range("outside of the range");
  void* at = mmap(data_ + offset, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE,
                  file.descriptor(), file_offset);
  if (at == MAP_FAILED) fail("show a part of the memory file");
}

void VirtualRange::populate(int64_t offset, int64_t bytes) {
  if (retired_ || offset < 0 || bytes <= 0 || bytes > size_ - offset) throw std::out_of_range("outside of the range");
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
  if (madvise(data_ + offset, static_cast<size_t>(bytes), MADV_POPULATE_WRITE) != 0 && errno == ENOMEM) fail("make pages");
}

void VirtualRange::retire() {
  if (retired_) return;
  void* at = mmap(data_, static_cast<size_t>(size_), PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  if (at == MAP_FAILED) fail("retire a range");
  retired_ = true;
}

void append_tokens(char* to, int64_t row_bytes, int64_t position, const TokenSource& from, int64_t rows, int64_t heads,
                   int64_t tokens) {
  const int64_t token_bytes = heads * from.head_bytes;
  const bool heads_side_by_side = heads == 1 || from.head_stride == from.head_bytes;
  for (int64_t row = 0; row < rows; ++row) {
    char* target = to + row * row_bytes + position * token_bytes;
    const char* source = from.data + row * from.row_stride;
    for (int64_t token = 0; token < tokens; ++token, target += token_bytes, source += from.token_stride) {
      if (heads_side_by_side) {
        std::memcpy(target, source, static_cast<size_t>(token_bytes));
      } else {
        for (int64_t head = 0; head < heads; ++head)
          std::memcpy(target + head * from.head_bytes, source + head * from.head_stride,
                      static_cast<size_t>(from.head_bytes));
      }
    }
  }
}

}  // namespace memfit
