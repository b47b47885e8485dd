// The plainest loops that move the bytes of a pass: what "of limit" divides by. No non-temporal stores, no prefetch.
#include <cstdint>

// Below this many floats (128 KB) a second thread costs more than it gives. Of "parallel" alone: a plain if turns simd
// off as well, and at this size the scale loop then took 29 us for 7, the sum 38 for 7, flipped bytes 55 for 4.
constexpr int64_t SERIAL = 32768;

extern "C" {

void scale(const float *__restrict x, float *__restrict y, float a, int64_t n, int threads) {
#pragma omp parallel for simd num_threads(threads) schedule(static) if (parallel : n > SERIAL)
    for (int64_t i = 0; i < n; i++) y[i] = a * x[i];
}

void combine(const float *__restrict dy, const float *__restrict x, float *__restrict dx, float a, int64_t n,
             int threads) {
#pragma omp parallel for simd num_threads(threads) schedule(static) if (parallel : n > SERIAL)
    for (int64_t i = 0; i < n; i++) dx[i] = a * dy[i] + x[i];
}

void widen(const uint8_t *__restrict x, float *__restrict y, float a, int64_t n, int threads) {
#pragma omp parallel for simd num_threads(threads) schedule(static) if (parallel : n > SERIAL)
    for (int64_t i = 0; i < n; i++) y[i] = a * x[i];
}

void flip(const uint8_t *__restrict x, uint8_t *__restrict y, int64_t n, int threads) {
#pragma omp parallel for simd num_threads(threads) schedule(static) if (parallel : n > 4 * SERIAL)
    for (int64_t i = 0; i < n; i++) y[i] = x[i] ^ 128;
}

float sum(const float *__restrict x, int64_t n, int threads) {
    float s = 0;
#pragma omp parallel for simd num_threads(threads) schedule(static) reduction(+ : s) if (parallel : n > SERIAL)
    for (int64_t i = 0; i < n; i++) s += x[i];
    return s;
}
}
