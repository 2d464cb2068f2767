/* What stands between the matrix products of a training step, there and back, for a CPU.

Compiled for one type of numbers by kernels.py, which says what the arguments are. All is computed in float32 and rounded
where it is stored; where transformers rounds between two operations of the way forward, this does too.
Shapes: T tokens, E hidden size, F size between gate and down, H query heads, K key/value heads (G = H / K), D head size,
N tokens of all rows (those that rows share count in each), V vocabulary. */

#include <omp.h>
#include <stdlib.h>

#include "numbers.h"

#if defined(__AVX512F__)
#define LANES 16
#define WIDE 4
#elif defined(__AVX2__)
#define LANES 8
#define WIDE 2
#else
#define LANES 4
#define WIDE 4
#endif
#define TALL 4       /* rows of a tile of TALL * WIDE vectors, whose sums stay in registers */
#define ROWS 48      /* queries of a block, those of all heads that share keys together */
#define SERIAL 16384 /* numbers below which a second thread is not worth its waking */
typedef float vector __attribute__((vector_size(4 * LANES), aligned(4)));

INSIDE long up_to(long number, long step) { return (number + step - 1) / step * step; }

/* A growing piece of memory of each thread, which stays; NULL where there is no more. */
static float *room(long count) {
  static _Thread_local float *held;
  static _Thread_local long size;
  if (count > size) {
    free(held);
    held = aligned_alloc(64, (size_t)up_to(count * 4, 64));
    size = held ? count : 0;
  }
  return held;
}

/* ---- products of small matrices ---- */

/* c[TALL, wide * LANES] = a[TALL, depth] · b[depth, wide * LANES], added to c where `more`. */
INSIDE void tile(const float *a, long row, long step, const float *b, long below, float *c, long under, long depth,
                 const int wide, int more) {
  vector sums[TALL][WIDE];
  for (int i = 0; i < TALL; i++)
    for (int j = 0; j < wide; j++) sums[i][j] = more ? *(vector *)(c + i * under + j * LANES) : (vector){0};
  for (long k = 0; k < depth; k++) {
    vector beside[WIDE];
    for (int j = 0; j < wide; j++) beside[j] = *(const vector *)(b + k * below + j * LANES);
    for (int i = 0; i < TALL; i++) {
      const float x = a[i * row + k * step];
      for (int j = 0; j < wide; j++) sums[i][j] += x * beside[j];
    }
  }
  for (int i = 0; i < TALL; i++)
    for (int j = 0; j < wide; j++) *(vector *)(c + i * under + j * LANES) = sums[i][j];
}

/* c[high, width] = a[high, depth] · b[depth, width], added to c where `more`. The numbers of a lie `row` and `step` after
   one another, rows of b and c `below` and `under`. TALL divides high, LANES width. */
static void multiply(const float *a, long row, long step, const float *b, long below, float *c, long under, long high,
                     long depth, long width, int more) {
  for (long j = 0; j < width; j += WIDE * LANES)
    for (long i = 0; i < high; i += TALL) {
      const float *left = a + i * row, *right = b + j;
      float *to = c + i * under + j;
      const long vectors = (width - j) / LANES;
      if (vectors >= WIDE) tile(left, row, step, right, below, to, under, depth, WIDE, more);
#if WIDE > 2
      else if (vectors == 3) tile(left, row, step, right, below, to, under, depth, 3, more);
      else if (vectors == 2) tile(left, row, step, right, below, to, under, depth, 2, more);
#endif
      else tile(left, row, step, right, below, to, under, depth, 1, more);
    }
}

/* ---- attention ---- */

/* Rows: the tokens of each lie in `paths`, from start[r] to before start[r + 1]; the first known[r] have their queries
   in another row. `order` says which row comes when: long ones first. */
struct rows {
  const int64_t *paths, *start, *known, *order;
  long count, asking, asked, size, deep, window; /* deep: D in whole vectors, the rest of which is 0 */
  float scaling;
};
/* A head's numbers of a token: base + token * token_step + head * head_step. */
struct heads {
  real *base;
  long token, head;
};

INSIDE real *head_of(struct heads x, long token, long head) { return x.base + token * x.token + head * x.head; }

/* to[count, deep] = the numbers of a head of some tokens, times `factor`. */
INSIDE void gather(const struct rows *all, struct heads x, const int64_t *tokens, long count, long head, float factor,
                   float *to) {
  for (long i = 0; i < count; i++, to += all->deep) {
    const real *from = head_of(x, tokens[i], head);
    for (long d = 0; d < all->size; d++) to[d] = read_one(from[d]) * factor;
    for (long d = all->size; d < all->deep; d++) to[d] = 0.0f;
  }
}

/* to[D, across]: the same the other way round, with zeros up to whole vectors. */
INSIDE void gather_turned(const struct rows *all, struct heads x, const int64_t *tokens, long count, long head,
                          float *to, long across) {
  for (long i = 0; i < count; i++) {
    const real *from = head_of(x, tokens[i], head);
    for (long d = 0; d < all->size; d++) to[d * across + i] = read_one(from[d]);
  }
  for (long d = 0; d < all->size; d++) memset(to + d * across + count, 0, (size_t)(up_to(count, LANES) - count) * 4);
}

INSIDE void scatter(const float *from, float factor, real *to, long size) {
  for (long d = 0; d < size; d++) to[d] = rounded(from[d] * factor);
}

/* One block: the queries `first` to before `end` of a row, those of all heads of one group behind one another, and the
   keys that one of them sees, in whole vectors. */
struct block {
  long first, end, begin, keys, high;
};

INSIDE struct block block_at(const struct rows *all, long first, long length) {
  const long group = all->asking / all->asked, most = ROWS / group > TALL ? ROWS / group : TALL;
  struct block found = {first, first + most < length ? first + most : length, 0, 0, 0};
  if (first >= all->window) found.begin = (first + 1 - all->window) / LANES * LANES;
  found.keys = up_to(found.end, LANES) - found.begin;
  found.high = up_to((found.end - first) * group, TALL);
  return found;
}

/* to[high, deep] = a block's queries, or what belongs to them; rows that are none are 0. */
INSIDE void gather_block(const struct rows *all, struct heads x, const int64_t *path, struct block part, long kept,
                         float factor, float *to) {
  const long group = all->asking / all->asked, own = part.end - part.first;
  for (long g = 0; g < group; g++)
    gather(all, x, path + part.first, own, kept * group + g, factor, to + g * own * all->deep);
  memset(to + group * own * all->deep, 0, (size_t)((part.high - group * own) * all->deep) * 4);
}

/* out[T, H, D] = what each query reads of the keys and values that it sees: its own token's and those before it in its
   row, `window` of them at most; total[T, H] = the logarithm of the sum of its shares' numerators. Returns whether there
   was memory for it. */
int attend(real *queries, long q_token, long q_head, real *keys, long k_token, long k_head, real *values, long v_token,
           long v_head, real *out, float *total, const int64_t *paths, const int64_t *start, const int64_t *known,
           const int64_t *order, long rows, long asking, long asked, long size, long window, float scaling) {
  const long group = asking / asked, deep = up_to(size, LANES);
  const struct rows all = {paths, start, known, order, rows, asking, asked, size, deep, window, scaling};
  const struct heads q = {queries, q_token, q_head}, k = {keys, k_token, k_head}, v = {values, v_token, v_head};
  int enough = 1;
#pragma omp parallel for schedule(dynamic) reduction(&& : enough)
  for (long task = 0; task < rows * asked; task++) {
    const long r = order[task / asked], kept = task % asked, length = start[r + 1] - start[r];
    const long wide = up_to(length, LANES), across = wide + LANES, high = ROWS + group * TALL + TALL;
    const int64_t *path = paths + start[r];
    float *turned = room(size * across + wide * deep + high * (wide + 2 * deep + 1));
    if (!turned) {
      enough = 0;
      continue;
    }
    float *held = turned + size * across, *asks = held + wide * deep, *read = asks + high * deep;
    float *scores = read + high * deep, *sums = scores + high * wide;
    gather_turned(&all, k, path, length, kept, turned, across);
    gather(&all, v, path, length, kept, 1.0f, held);
    memset(held + length * deep, 0, (size_t)((wide - length) * deep) * 4);
    for (long first = known[r]; first < length;) {
      const struct block part = block_at(&all, first, length);
      const long own = part.end - part.first;
      gather_block(&all, q, path, part, kept, scaling, asks);
      multiply(asks, deep, 1, turned + part.begin, across, scores, part.keys, part.high, size, part.keys, 0);
      for (long i = 0; i < group * own; i++) {
        const long at = part.first + i % own, from = at >= window ? at + 1 - window - part.begin : 0;
        const long upto = at + 1 - part.begin;
        float *row = scores + i * part.keys, most = -INFINITY, sum = 0.0f;
#pragma omp simd reduction(max : most)
        for (long j = from; j < upto; j++) most = row[j] > most ? row[j] : most;
        for (long j = from; j < upto; j++) row[j] = exponential(row[j] - most), sum += row[j];
        for (long j = 0; j < from; j++) row[j] = 0.0f;
        for (long j = upto; j < part.keys; j++) row[j] = 0.0f;
        total[path[at] * asking + kept * group + i / own] = most + logf(sum);
        sums[i] = sum;
      }
      multiply(scores, part.keys, 1, held + part.begin * deep, deep, read, deep, part.high, part.keys, deep, 0);
      for (long i = 0; i < group * own; i++)
        scatter(read + i * deep, 1.0f / sums[i],
                out + (path[part.first + i % own] * asking + kept * group + i / own) * size, size);
      first = part.end;
    }
  }
  return enough;
}

/* Gradients of attend's arguments: of_queries [T, H, D] and, a place of each row's tokens for itself, of_keys and
   of_values [N, K, D] in float32. slope [T, H, D] belongs to what attend gave. */
int attend_back(real *queries, long q_token, long q_head, real *keys, long k_token, long k_head, real *values,
                long v_token, long v_head, real *slope, long s_token, long s_head, const float *total, real *of_queries,
                float *of_keys, float *of_values, const int64_t *paths, const int64_t *start, const int64_t *known,
                const int64_t *order, long rows, long asking, long asked, long size, long window, float scaling) {
  const long group = asking / asked, deep = up_to(size, LANES);
  const struct rows all = {paths, start, known, order, rows, asking, asked, size, deep, window, scaling};
  const struct heads q = {queries, q_token, q_head}, k = {keys, k_token, k_head}, v = {values, v_token, v_head};
  const struct heads s = {slope, s_token, s_head};
  int enough = 1;
#pragma omp parallel for schedule(dynamic) reduction(&& : enough)
  for (long task = 0; task < rows * asked; task++) {
    const long r = order[task / asked], kept = task % asked, length = start[r + 1] - start[r];
    const long wide = up_to(length, LANES), across = wide + LANES, high = ROWS + group * TALL + TALL;
    const int64_t *path = paths + start[r];
    float *turned_k = room(2 * size * across + 3 * wide * deep + high * (2 * wide + 3 * deep));
    if (!turned_k) {
      enough = 0;
      continue;
    }
    float *turned_v = turned_k + size * across, *held = turned_v + size * across, *to_k = held + wide * deep;
    float *to_v = to_k + wide * deep, *asks = to_v + wide * deep, *slopes = asks + high * deep;
    float *to_q = slopes + high * deep, *shares = to_q + high * deep, *of_shares = shares + high * wide;
    gather_turned(&all, k, path, length, kept, turned_k, across);
    gather_turned(&all, v, path, length, kept, turned_v, across);
    gather(&all, k, path, length, kept, 1.0f, held);
    memset(held + length * deep, 0, (size_t)((wide - length) * deep) * 4);
    memset(to_k, 0, (size_t)(2 * wide * deep) * 4);
    for (long first = known[r]; first < length;) {
      const struct block part = block_at(&all, first, length);
      const long own = part.end - part.first, width = part.keys;
      gather_block(&all, q, path, part, kept, scaling, asks);
      gather_block(&all, s, path, part, kept, 1.0f, slopes);
      multiply(asks, deep, 1, turned_k + part.begin, across, shares, width, part.high, size, width, 0);
      multiply(slopes, deep, 1, turned_v + part.begin, across, of_shares, width, part.high, size, width, 0);
      for (long i = 0; i < part.high; i++) {
        float *share = shares + i * width, *of = of_shares + i * width, sum = 0.0f;
        if (i >= group * own) {
          memset(share, 0, (size_t)width * 4), memset(of, 0, (size_t)width * 4);
          continue;
        }
        const long at = part.first + i % own, from = at >= window ? at + 1 - window - part.begin : 0;
        const long upto = at + 1 - part.begin;
        const float all_shares = total[path[at] * asking + kept * group + i / own];
        for (long j = from; j < upto; j++) share[j] = exponential(share[j] - all_shares), sum += share[j] * of[j];
        for (long j = from; j < upto; j++) of[j] = share[j] * (of[j] - sum);
        for (long j = 0; j < from; j++) share[j] = of[j] = 0.0f;
        for (long j = upto; j < width; j++) share[j] = of[j] = 0.0f;
      }
      multiply(shares, 1, width, slopes, deep, to_v + part.begin * deep, deep, width, part.high, deep, 1);
      multiply(of_shares, 1, width, asks, deep, to_k + part.begin * deep, deep, width, part.high, deep, 1);
      multiply(of_shares, width, 1, held + part.begin * deep, deep, to_q, deep, part.high, width, deep, 0);
      for (long i = 0; i < group * own; i++)
        scatter(to_q + i * deep, scaling,
                of_queries + (path[part.first + i % own] * asking + kept * group + i / own) * size, size);
      first = part.end;
    }
    for (long i = 0; i < length; i++) {
      const long place = ((start[r] + i) * asked + kept) * size;
      memcpy(of_keys + place, to_k + i * deep, (size_t)size * 4);
      memcpy(of_values + place, to_v + i * deep, (size_t)size * 4);
    }
  }
  return enough;
}

/* ---- norms, turns, gates ---- */

/* out[T, E] = x * factor[T] * weight[E] for factor = 1 / sqrt(mean(x^2) + epsilon). */
void norm(const real *x, const real *weight, real *out, float *factor, long tokens, long size, float epsilon) {
#pragma omp parallel for schedule(static) if (tokens * size > SERIAL)
  for (long t = 0; t < tokens; t++) {
    const real *row = x + t * size;
    float sum = 0.0f;
    for (long e = 0; e < size; e++) sum += read_one(row[e]) * read_one(row[e]);
    factor[t] = 1.0f / sqrtf(sum / (float)size + epsilon);
    for (long e = 0; e < size; e++)
      out[t * size + e] = rounded(read_one(rounded(read_one(row[e]) * factor[t])) * read_one(weight[e]));
  }
}

/* of_x[T, E] and, one row a thread that is added up by the caller, of_weight[threads, E], where it is given. */
void norm_back(const real *slope, const real *x, const real *weight, const float *factor, real *of_x, float *of_weight,
               long tokens, long size) {
#pragma omp parallel if (tokens * size > SERIAL)
  {
    float *sums = of_weight ? of_weight + omp_get_thread_num() * size : 0;
#pragma omp for schedule(static)
    for (long t = 0; t < tokens; t++) {
      const real *s = slope + t * size, *row = x + t * size;
      const float scale = factor[t];
      float along = 0.0f;
      for (long e = 0; e < size; e++) along += read_one(s[e]) * read_one(weight[e]) * read_one(row[e]);
      along *= scale * scale / (float)size;
      for (long e = 0; e < size; e++) {
        const float back = read_one(s[e]) * read_one(weight[e]) - read_one(row[e]) * along;
        of_x[t * size + e] = rounded(back * scale);
      }
      if (!sums) continue;
#pragma omp simd
      for (long e = 0; e < size; e++) sums[e] += read_one(s[e]) * read_one(rounded(read_one(row[e]) * scale));
    }
  }
}

/* out[T, heads, D] = x turned by the cosines and sines [T, D]: a head's two halves are the coordinates of points (as
   rotate_half has it). `back` turns slopes the other way round. */
void turn(real *x, long x_token, long x_head, const real *cosine, const real *sine, real *out, long tokens, long count,
          long size, int back) {
  const struct heads from = {x, x_token, x_head};
  const long half = size / 2;
#pragma omp parallel for schedule(static) if (tokens * count * size > SERIAL)
  for (long t = 0; t < tokens; t++)
    for (long h = 0; h < count; h++) {
      const real *c = cosine + t * size, *s = sine + t * size, *low = head_of(from, t, h), *high = low + half;
      real *to = out + (t * count + h) * size;
      if (back) {
#pragma omp simd
        for (long d = 0; d < half; d++) {
          const float a = read_one(low[d]), b = read_one(high[d]);
          to[d] = rounded(a * read_one(c[d]) + b * read_one(s[d + half]));
          to[d + half] = rounded(b * read_one(c[d + half]) - a * read_one(s[d]));
        }
      } else {
#pragma omp simd
        for (long d = 0; d < half; d++) {
          const float a = read_one(low[d]), b = read_one(high[d]);
          const float first = read_one(rounded(a * read_one(c[d]))), second = read_one(rounded(-b * read_one(s[d])));
          const float third = read_one(rounded(b * read_one(c[d + half])));
          const float fourth = read_one(rounded(a * read_one(s[d + half])));
          to[d] = rounded(first + second), to[d + half] = rounded(third + fourth);
        }
      }
    }
}

/* out[count] = silu(gate) * held. */
void gated(const real *gate, const real *held, real *out, long count) {
#pragma omp parallel for simd schedule(static) if (count > SERIAL)
  for (long f = 0; f < count; f++) {
    const float x = read_one(gate[f]);
    out[f] = rounded(read_one(rounded(x / (1.0f + exponential(-x)))) * read_one(held[f]));
  }
}

/* Gradients of the gate and of what is held. */
void gated_back(const real *slope, const real *gate, const real *held, real *of_gate, real *of_held, long count) {
#pragma omp parallel for simd schedule(static) if (count > SERIAL)
  for (long f = 0; f < count; f++) {
    const float x = read_one(gate[f]), s = read_one(slope[f]), open = 1.0f / (1.0f + exponential(-x));
    of_gate[f] = rounded(s * read_one(held[f]) * open * (1.0f + x * (1.0f - open)));
    of_held[f] = rounded(s * read_one(rounded(x * open)));
  }
}

/* ---- loss ---- */

/* nll[n] = -log p(target[n]) and mean[n] = the mean of -log p over the vocabulary, for logits [N, V]. Where `weights`
   [N] are given, logits become the slopes of weights[n] * ((1 - smoothing) * nll[n] + smoothing * mean[n]), times
   p(target) where `dft`. Returns whether there was memory for it. */
int likelihood(real *logits, const int64_t *target, const float *weights, float *nll, float *mean, long count,
               long size, float smoothing, int dft) {
  int enough = 1;
#pragma omp parallel for schedule(dynamic, 8) reduction(&& : enough)
  for (long n = 0; n < count; n++) {
    real *row = logits + n * size;
    float *numerators = room(size), most = -INFINITY, sum = 0.0f, whole = 0.0f;
    if (!numerators) {
      enough = 0;
      continue;
    }
#pragma omp simd reduction(max : most)
    for (long v = 0; v < size; v++) most = read_one(row[v]) > most ? read_one(row[v]) : most;
    for (long v = 0; v < size; v++) {
      const float x = read_one(row[v]) - most;
      numerators[v] = exponential(x);
      sum += numerators[v], whole += x;
    }
    const float log_sum = logf(sum);
    nll[n] = log_sum - (read_one(row[target[n]]) - most);
    mean[n] = log_sum - whole / (float)size;
    if (!weights) continue;
    const float factor = weights[n] * (dft ? exponential(-nll[n]) : 1.0f), even = smoothing / (float)size;
    for (long v = 0; v < size; v++) row[v] = rounded((numerators[v] / sum - even) * factor);
    row[target[n]] = rounded((numerators[target[n]] / sum - even - (1.0f - smoothing)) * factor);
  }
  return enough;
}
