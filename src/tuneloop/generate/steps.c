/* What stands between the matrix products of one decoding step of a Llama-like layer, for a CPU.

Compiled for one model by compiled.py, which says what the arguments are: BFLOAT16 or not, SIZE (of a head), GROUP
(query heads of one key/value head), HEADS (key/value heads). Where transformers rounds to the model's type between two
operations, this rounds too, so that norms, turns and gates have the bits of transformers' own; attention is computed
in float32 as a whole (online softmax: Milakov & Gimelshein 2018, arXiv 1805.02867) and rounded at its end.
Shapes: T tokens, E hidden size, C places of a slot, W = 2 * HEADS * SIZE values of a place: keys, then values. */

#include "numbers.h"

#define BLOCK 64     /* places whose scores are known at once */
#define SERIAL 16384 /* numbers below which a second thread is not worth its waking */

/* normed[T, E] = x / sqrt(mean(x^2) + epsilon) * weight[E]; before that x += more, where more is given. */
void norm(real *x, const real *more, const real *weight, real *normed, long tokens, long size, float epsilon) {
#pragma omp parallel for schedule(static) if (tokens * size > SERIAL)
  for (long t = 0; t < tokens; t++) {
    real *row = x + t * size;
    if (more) {
      const real *add = more + t * size;
      for (long e = 0; e < size; e++) row[e] = rounded(read_one(row[e]) + read_one(add[e]));
    }
    norm_one(row, weight, normed + t * size, size, epsilon);
  }
}

/* out[T, F] = silu(gate) * held; rows of gate and held begin `stride` numbers after one another. */
void gated(const real *gate, const real *held, real *out, long tokens, long size, long stride) {
#pragma omp parallel for schedule(static) if (tokens * size > SERIAL)
  for (long t = 0; t < tokens; t++) {
    const real *g = gate + t * stride, *h = held + t * stride;
    for (long f = 0; f < size; f++) out[t * size + f] = gate_one(g[f], h[f]);
  }
}

/* to[SIZE] = a head of token t turned by its place, for which cosine and sine [T, SIZE] stand; without a cosine it is
   not turned. */
INSIDE void turned(const real *head, const real *cosine, const real *sine, long t, real *to) {
  if (cosine) turn_one(head, cosine + t * SIZE, sine + t * SIZE, to, SIZE);
  else memcpy(to, head, SIZE * sizeof(real));
}

/* out[GROUP, SIZE]: what the queries of one key/value head read at the places from `begin` to before `end`. */
INSIDE void read_places(const float *query, const real *keys, const real *values, long begin, long end, real *out) {
  const long width = 2L * HEADS * SIZE;
  float sums[GROUP * SIZE] = {0}, scores[GROUP][BLOCK], largest[GROUP], total[GROUP];
  for (int g = 0; g < GROUP; g++) largest[g] = -INFINITY, total[g] = 0.0f;
  for (long first = begin; first < end; first += BLOCK) {
    const int count = end - first < BLOCK ? (int)(end - first) : BLOCK;
    for (int c = 0; c < count; c++) {
      float key[SIZE];
      for (int d = 0; d < SIZE; d++) key[d] = read_one(keys[(first + c) * width + d]);
      for (int g = 0; g < GROUP; g++) {
        float score = 0.0f;
        for (int d = 0; d < SIZE; d++) score += query[g * SIZE + d] * key[d];
        scores[g][c] = score;
      }
    }
    for (int g = 0; g < GROUP; g++) {
      float most = largest[g], sum = 0.0f;
      for (int c = 0; c < count; c++) most = scores[g][c] > most ? scores[g][c] : most;
      const float faded = exponential(largest[g] - most); /* of -inf at first: nothing, times nothing */
      for (int c = 0; c < count; c++) scores[g][c] = exponential(scores[g][c] - most), sum += scores[g][c];
      for (int d = 0; d < SIZE; d++) sums[g * SIZE + d] *= faded;
      largest[g] = most, total[g] = total[g] * faded + sum;
    }
    for (int c = 0; c < count; c++) {
      float value[SIZE];
      for (int d = 0; d < SIZE; d++) value[d] = read_one(values[(first + c) * width + d]);
      for (int g = 0; g < GROUP; g++)
        for (int d = 0; d < SIZE; d++) sums[g * SIZE + d] += scores[g][c] * value[d];
    }
  }
  for (int g = 0; g < GROUP; g++)
    for (int d = 0; d < SIZE; d++) out[g * SIZE + d] = rounded(sums[g * SIZE + d] / total[g]);
}

/* Writes each token's keys and values [HEADS, SIZE] each, behind one another, to place at[t] of slot row[t] of the slots
   [.., C, W]; then its queries [HEADS * GROUP, SIZE] read there what the token sees: its own place and those before it,
   `window` of them at most. Queries and keys are turned before by cosine and sine [T, SIZE], where these are given.
   Queries of two tokens begin `asking` numbers after one another, keys `holding`. out [T, HEADS * GROUP, SIZE]. */
void attend(const real *queries, long asking, const real *held, long holding, const real *cosine, const real *sine,
            real *slots, const int64_t *row, const int64_t *at, real *out, long tokens, long places, long window,
            float scaling) {
  const long width = 2L * HEADS * SIZE;
#pragma omp parallel
  {
#pragma omp for collapse(2) schedule(static)
    for (long t = 0; t < tokens; t++)
      for (int h = 0; h < HEADS; h++) {
        const real *key = held + t * holding + h * SIZE;
        real *place = slots + (row[t] * places + at[t]) * width + h * SIZE;
        turned(key, cosine, sine, t, place);
        memcpy(place + HEADS * SIZE, key + HEADS * SIZE, SIZE * sizeof(real));
      }
#pragma omp for collapse(2) schedule(dynamic)
    for (long t = 0; t < tokens; t++)
      for (int h = 0; h < HEADS; h++) {
        float query[GROUP * SIZE];
        for (int g = 0; g < GROUP; g++) {
          real asked[SIZE];
          const real *asks = queries + t * asking + ((long)h * GROUP + g) * SIZE;
          turned(asks, cosine, sine, t, asked);
          for (int d = 0; d < SIZE; d++) query[g * SIZE + d] = read_one(asked[d]) * scaling;
        }
        const long end = at[t] + 1, begin = end > window ? end - window : 0;
        const real *keys = slots + row[t] * places * width + h * SIZE;
        read_places(query, keys, keys + HEADS * SIZE, begin, end, out + (t * HEADS + h) * GROUP * SIZE);
      }
  }
}
