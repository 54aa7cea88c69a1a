// A CUDA runtime and driver without a GPU: enough of both for libc10_cuda's caching allocator to run as it is released.
//
// Memory is only counted. cudaMalloc and cuMemCreate refuse what would pass MEMFIT_DEVICE_BYTES. Addresses of segments
// come by MEMFIT_ADDRESSES: "rising", "lowest" (first hole that fits) or "scattered" (a fixed permutation), because the
// allocator breaks ties by address. Events are ready when a clock that the program turns has passed them.
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

namespace {

constexpr uint64_t kUnit = 2ull << 20;
uint64_t total_bytes() {
  static const uint64_t total = std::strtoull(std::getenv("MEMFIT_DEVICE_BYTES"), nullptr, 10);
  return total;
}
uint64_t used = 0;
uint64_t clock_now = 0;
std::map<uint64_t, uint64_t> taken;    // address -> bytes of every segment and reserved range
std::map<uint64_t, uint64_t> handles;  // physical memory -> bytes
uint64_t next_handle = 1, next_stream = 0x1000, rising = 0x7f0000000000ull, scatter = 1;
cudaError_t last_error = cudaSuccess;

uint64_t place(uint64_t bytes) {
  static const std::string how = std::getenv("MEMFIT_ADDRESSES") ? std::getenv("MEMFIT_ADDRESSES") : "rising";
  bytes = (bytes + kUnit - 1) / kUnit * kUnit;
  uint64_t address = 0x7e0000000000ull;
  if (how == "lowest") {
    for (const auto& [begin, size] : taken) {
      if (begin >= address + bytes) break;
      address = begin + size;
    }
  } else if (how == "scattered") {
    do {
      scatter = scatter * 6364136223846793005ull + 1442695040888963407ull;
      address = 0x7e0000000000ull + (scatter >> 44) * (kUnit << 6);
      auto after = taken.lower_bound(address);
      const bool free_after = after == taken.end() || after->first >= address + bytes;
      const bool free_before = after == taken.begin() || std::prev(after)->first + std::prev(after)->second <= address;
      if (free_after && free_before) break;
    } while (true);
  } else {
    address = rising;
    rising += bytes;
  }
  taken[address] = bytes;
  return address;
}

cudaError_t fail(cudaError_t error) { return last_error = error; }

CUresult create(CUmemGenericAllocationHandle* handle, size_t bytes, const CUmemAllocationProp*, unsigned long long) {
  if (used + bytes > total_bytes()) return CUDA_ERROR_OUT_OF_MEMORY;
  used += bytes;
  *handle = next_handle++;
  handles[*handle] = bytes;
  return CUDA_SUCCESS;
}
CUresult release(CUmemGenericAllocationHandle handle) {
  used -= handles[handle];
  handles.erase(handle);
  return CUDA_SUCCESS;
}
CUresult reserve(CUdeviceptr* address, size_t bytes, size_t, CUdeviceptr, unsigned long long) {
  *address = place(bytes);
  return CUDA_SUCCESS;
}
CUresult give_back(CUdeviceptr address, size_t) {
  taken.erase(address);
  return CUDA_SUCCESS;
}
CUresult map_pages(CUdeviceptr, size_t, size_t, CUmemGenericAllocationHandle, unsigned long long) { return CUDA_SUCCESS; }
CUresult unmap_pages(CUdeviceptr, size_t) { return CUDA_SUCCESS; }
CUresult set_access(CUdeviceptr, size_t, const CUmemAccessDesc*, size_t) { return CUDA_SUCCESS; }
CUresult device_attribute(int* value, CUdevice_attribute, CUdevice) {
  *value = 0;
  return CUDA_SUCCESS;
}
CUresult granularity(size_t* bytes, const CUmemAllocationProp*, CUmemAllocationGranularity_flags) {
  *bytes = kUnit;
  return CUDA_SUCCESS;
}
CUresult error_string(CUresult, const char** text) {
  *text = "a driver error";
  return CUDA_SUCCESS;
}
CUresult nothing() { return CUDA_SUCCESS; }

}  // namespace

extern "C" {

void memfit_turn_clock(uint64_t to) { clock_now = to; }
uint64_t memfit_used() { return used; }

cudaError_t cudaMalloc(void** address, size_t bytes) {
  if (used + bytes > total_bytes()) return fail(cudaErrorMemoryAllocation);
  used += bytes;
  *address = reinterpret_cast<void*>(place(bytes));
  handles[reinterpret_cast<uint64_t>(*address)] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFree(void* address) {
  const auto begin = reinterpret_cast<uint64_t>(address);
  used -= handles[begin];
  handles.erase(begin);
  taken.erase(begin);
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* left, size_t* total) {
  *total = total_bytes();
  *left = *total - used;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  std::memset(properties, 0, sizeof(*properties));
  properties->totalGlobalMem = total_bytes();
  properties->major = 9;
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = reinterpret_cast<cudaEvent_t>(new uint64_t(0));
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  static const uint64_t delay = std::getenv("MEMFIT_EVENT_DELAY") ? std::strtoull(std::getenv("MEMFIT_EVENT_DELAY"), nullptr, 10) : 5;
  *reinterpret_cast<uint64_t*>(event) = clock_now + delay;
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  return *reinterpret_cast<uint64_t*>(event) <= clock_now ? cudaSuccess : fail(cudaErrorNotReady);
}
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete reinterpret_cast<uint64_t*>(event);
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* value, cudaEvent_t, cudaEvent_t) {
  *value = 0;
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
  *stream = reinterpret_cast<cudaStream_t>(next_stream += 0x10);
  return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -1;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}
const char* cudaGetErrorName(cudaError_t) { return "an error"; }
const char* cudaGetErrorString(cudaError_t) { return "an error"; }
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  static const std::map<std::string, void*> known = {
      {"cuMemCreate", (void*)create},          {"cuMemRelease", (void*)release},
      {"cuMemAddressReserve", (void*)reserve}, {"cuMemAddressFree", (void*)give_back},
      {"cuMemMap", (void*)map_pages},          {"cuMemUnmap", (void*)unmap_pages},
      {"cuMemSetAccess", (void*)set_access},   {"cuDeviceGetAttribute", (void*)device_attribute},
      {"cuMemGetAllocationGranularity", (void*)granularity}, {"cuGetErrorString", (void*)error_string}};
  const auto found = known.find(name);
  *function = found == known.end() ? (void*)nothing : found->second;
  if (result) *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}

}

// What the allocator links against and these programs never reach, by name only.
#define REACHED_BY_NAME(name) extern "C" __attribute__((visibility("default"))) int name##_unused() asm(#name); int name##_unused() { return 0; }
REACHED_BY_NAME(cudaSetDevice)
REACHED_BY_NAME(cudaDeviceSynchronize)
REACHED_BY_NAME(cudaStreamSynchronize)
REACHED_BY_NAME(cudaStreamQuery)
REACHED_BY_NAME(cudaStreamWaitEvent)
REACHED_BY_NAME(cudaStreamGetCaptureInfo)
REACHED_BY_NAME(cudaThreadExchangeStreamCaptureMode)
REACHED_BY_NAME(cudaDeviceCanAccessPeer)
REACHED_BY_NAME(cudaDeviceEnablePeerAccess)
REACHED_BY_NAME(cudaDeviceGetDefaultMemPool)
REACHED_BY_NAME(cudaFreeAsync)
REACHED_BY_NAME(cudaMallocAsync)
REACHED_BY_NAME(cudaGraphNodeGetDependencies)
REACHED_BY_NAME(cudaIpcCloseMemHandle)
REACHED_BY_NAME(cudaIpcGetMemHandle)
REACHED_BY_NAME(cudaIpcOpenMemHandle)
REACHED_BY_NAME(cudaMemPoolGetAttribute)
REACHED_BY_NAME(cudaMemPoolSetAccess)
REACHED_BY_NAME(cudaMemPoolSetAttribute)
REACHED_BY_NAME(cudaMemPoolTrimTo)
REACHED_BY_NAME(cudaMemcpy)
REACHED_BY_NAME(cudaMemcpyAsync)
REACHED_BY_NAME(cudaMemcpyPeerAsync)
