// Matrix products for Cachegrind and Callgrind: the accesses of memfit/testing/nests.py, one function an order.
//
//   cache_kernels ORDER N LD RUNS     ORDER ijk or ikj; A, B, C page-aligned, one after another, rows of LD floats
#include <cstdio>
#include <cstdlib>
#include <cstring>

extern "C" __attribute__((noinline)) void ijk(const float* A, const float* B, float* C, long n, long ld) {
  for (long i = 0; i < n; ++i)
    for (long j = 0; j < n; ++j) {
      float s = 0;
      for (long k = 0; k < n; ++k) s += A[i * ld + k] * B[k * ld + j];
      C[i * ld + j] = s;
    }
}

extern "C" __attribute__((noinline)) void ikj(const float* A, const float* B, float* C, long n, long ld) {
  for (long i = 0; i < n; ++i)
    for (long k = 0; k < n; ++k) {
      const float a = A[i * ld + k];
      for (long j = 0; j < n; ++j) C[i * ld + j] = B[k * ld + j] * a + C[i * ld + j];
    }
}

int main(int, char** given) {
  const long n = std::atol(given[2]), ld = std::atol(given[3]), runs = std::atol(given[4]);
  const size_t size = (n * ld * sizeof(float) + 4095) / 4096 * 4096;
  char* memory = static_cast<char*>(std::aligned_alloc(4096, 3 * size));
  if (!memory) return 1;
  float *A = reinterpret_cast<float*>(memory), *B = reinterpret_cast<float*>(memory + size),
        *C = reinterpret_cast<float*>(memory + 2 * size);
  for (long r = 0; r < runs; ++r) (std::strcmp(given[1], "ijk") ? ikj : ijk)(A, B, C, n, ld);
  std::printf("%ld\n", runs);
}
