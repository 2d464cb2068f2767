/* For the C files of this package: numbers of a model's type, `real` (bfloat16 or float32), and what a Llama-like layer
   computes of single tokens, with the roundings of transformers. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define INSIDE static inline __attribute__((always_inline))

#ifdef BFLOAT16
typedef uint16_t real;
INSIDE float read_one(real x) {
  uint32_t bits = (uint32_t)x << 16;
  float out;
  memcpy(&out, &bits, sizeof out);
  return out;
}
INSIDE real rounded(float x) { /* to the nearest, ties to even; not-a-numbers stay such */
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  uint32_t up = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return x == x ? (real)up : (real)0x7fc0;
}
#else
typedef float real;
INSIDE float read_one(real x) { return x; }
INSIDE real rounded(float x) { return x; }
#endif

/* e^x to about one unit in the last place (Cephes' expf), written so that compilers can do many at once; 0 where it is
   less than 2e-38. */
INSIDE float exponential(float x) {
  float in = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
  float whole = __builtin_rintf(in * 1.44269504088896341f);
  float rest = in - whole * 0.693359375f + whole * 2.12194440e-4f;
  float sum = 1.9875691500e-4f;
  sum = sum * rest + 1.3981999507e-3f;
  sum = sum * rest + 8.3334519073e-3f;
  sum = sum * rest + 4.1665795894e-2f;
  sum = sum * rest + 1.6666665459e-1f;
  sum = sum * rest + 5.0000001201e-1f;
  sum = sum * rest * rest + rest + 1.0f;
  int32_t bits = x < -87.0f ? 0 : ((int32_t)whole + 127) << 23;
  float power;
  memcpy(&power, &bits, sizeof power);
  return x == x ? sum * power : x;
}

/* RMSNorm: out[E] = x * factor * weight; returns the factor, 1 / sqrt(mean(x^2) + epsilon). */
INSIDE float norm_one(const real *x, const real *weight, real *out, long size, float epsilon) {
  float sum = 0.0f;
  for (long e = 0; e < size; e++) sum += read_one(x[e]) * read_one(x[e]);
  const float factor = 1.0f / sqrtf(sum / (float)size + epsilon);
  for (long e = 0; e < size; e++) out[e] = rounded(read_one(rounded(read_one(x[e]) * factor)) * read_one(weight[e]));
  return factor;
}

/* silu(gate) * held */
INSIDE real gate_one(real gate, real held) {
  const float x = read_one(gate);
  return rounded(read_one(rounded(x / (1.0f + exponential(-x)))) * read_one(held));
}

/* to[D] = a head turned by the cosines and sines [D] of its place: its two halves are the coordinates of points (as
   rotate_half has it). */
INSIDE void turn_one(const real *head, const real *cosine, const real *sine, real *to, long size) {
  const long half = size / 2;
#pragma omp simd
  for (long d = 0; d < half; d++) {
    const float low = read_one(head[d]), high = read_one(head[d + half]);
    const float first = read_one(rounded(low * read_one(cosine[d])));
    const float second = read_one(rounded(-high * read_one(sine[d])));
    const float third = read_one(rounded(high * read_one(cosine[d + half])));
    const float fourth = read_one(rounded(low * read_one(sine[d + half])));
    to[d] = rounded(first + second), to[d + half] = rounded(third + fourth);
  }
}
