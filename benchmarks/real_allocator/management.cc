// The management library that the allocator asks about the device: one device, no fabric.
#define ANSWERS(name, code) \
  extern "C" int name() { return code; }
ANSWERS(nvmlInit_v2, 0)
ANSWERS(nvmlDeviceGetHandleByPciBusId_v2, 0)
ANSWERS(nvmlDeviceGetNvLinkRemoteDeviceType, 3)
ANSWERS(nvmlDeviceGetNvLinkRemotePciInfo_v2, 3)
ANSWERS(nvmlSystemGetCudaDriverVersion_v2, 3)
ANSWERS(nvmlDeviceGetGpuFabricInfoV, 3)
extern "C" int nvmlDeviceGetComputeRunningProcesses(void*, unsigned* count, void*) {
  *count = 0;
  return 0;
}
