// Drives the released allocator of libc10_cuda by commands on standard input, and prints its own snapshot as JSON.
//
//   h N          keep the last N events            a ID BYTES STREAM    allocate
//   F FRACTION   limit to a part of the device     f ID                 free
//   e            empty the cache                   r ID STREAM          another stream uses it
//   b POOL       allocate to a private pool        n POOL               no longer        x POOL   give the pool up
//
// With MEMFIT_CAPTURE set, b and n also mark the beginning and the end of a CUDA graph's capture.
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/cuda/PeerToPeerAccess.h>

#include <iostream>
#include <unordered_map>

extern "C" void memfit_turn_clock(uint64_t to);
namespace c10::cuda::_internal {
C10_CUDA_API void setHasPrimaryContext(bool (*function)(c10::DeviceIndex));
}
using namespace c10::cuda;

static const char* kActions[] = {"alloc", "free_requested", "free_completed", "segment_alloc", "segment_free",
                                 "segment_map", "segment_unmap", "snapshot", "oom", "user_defined"};

static void print(CUDACachingAllocator::CUDAAllocator& allocator) {
  const auto found = allocator.snapshot({0, 0}, true);
  std::cout << "{\"settings\":\"" << found.config_metadata.last_allocator_settings << "\",\"segments\":[";
  const char* comma = "";
  for (const auto& s : found.segments) {
    std::cout << comma << "[" << s.address << "," << s.total_size << "," << s.requested_size << "," << s.allocated_size << ","
              << s.active_size << "," << reinterpret_cast<uint64_t>(s.stream) << "," << s.is_large << "," << s.is_expandable
              << "," << s.owner_private_pool_id.first << "," << s.owner_private_pool_id.second << ",[";
    const char* between = "";
    for (const auto& b : s.blocks) {
      std::cout << between << "[" << b.size << "," << b.requested_size << "," << b.allocated << "," << b.active << "]";
      between = ",";
    }
    std::cout << "]]";
    comma = ",\n";
  }
  std::cout << "],\"trace\":[";
  comma = "";
  for (const auto& e : found.device_traces.at(0)) {
    std::cout << comma << "[\"" << kActions[static_cast<int>(e.action_)] << "\"," << e.addr_ << "," << e.size_ << ","
              << reinterpret_cast<uint64_t>(e.stream_) << "," << e.mempool_.first << "," << e.mempool_.second << "]";
    comma = ",\n";
  }
  std::cout << "]}\n";
}

int main() {
  _internal::setHasPrimaryContext([](c10::DeviceIndex) { return true; });
  detail::init_p2p_access_cache(1);
  auto& allocator = *CUDACachingAllocator::get();
  allocator.init(1);
  std::vector<CUDAStream> streams{getDefaultCUDAStream(0)};
  for (int i = 0; i < 4; ++i) streams.push_back(getStreamFromPool(false, 0));
  std::unordered_map<int64_t, at::DataPtr> held;
  uint64_t now = 0;
  std::string command;
  while (std::cin >> command) {
    memfit_turn_clock(++now);
    int64_t id = 0, bytes = 0, stream = 0;
    if (command == "a") {
      std::cin >> id >> bytes >> stream;
      setCurrentCUDAStream(streams.at(stream));
      try {
        held[id] = allocator.allocate(bytes);
      } catch (const c10::OutOfMemoryError&) {
        std::cerr << "oom " << id << "\n";
        break;
      }
    } else if (command == "f") {
      std::cin >> id;
      held.erase(id);
    } else if (command == "r") {
      std::cin >> id >> stream;
      allocator.recordStream(held.at(id), streams.at(stream));
    } else if (command == "e") {
      allocator.emptyCache();
    } else if (command == "F") {
      double fraction = 1;
      std::cin >> fraction;
      allocator.setMemoryFraction(fraction, 0);
    } else if (command == "h") {
      std::cin >> bytes;
      allocator.recordHistory(true, [] { return std::shared_ptr<c10::GatheredContext>(); }, bytes,
                              CUDACachingAllocator::RecordContext::NEVER, false, {});
    } else if (command == "b" || command == "n" || command == "x") {
      std::cin >> id;
      const c10::MempoolId_t pool{0, static_cast<unsigned long long>(id)};
      static const bool captures = std::getenv("MEMFIT_CAPTURE") != nullptr;
      if (command == "b") {
        allocator.beginAllocateToPool(0, pool, [](cudaStream_t) { return true; });
        if (captures) allocator.markCaptureBegin(0);
      }
      if (command == "n") {
        if (captures) allocator.markCaptureEnd(0);
        allocator.endAllocateToPool(0, pool);
      }
      if (command == "x") allocator.releasePool(0, pool);
    }
  }
  print(allocator);
  std::cout.flush();
  std::_Exit(0);
}
