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

/* Factors of products are bfloat16, multiplied two at a time, where numbers are and the CPU can; else float32. */
#if defined(BFLOAT16) && defined(__AVX512BF16__)
#include <immintrin.h>
#define PAIR 2
typedef uint16_t part;
INSIDE part part_of(real x) { return x; }
INSIDE part narrowed(float x) { return rounded(x); }
typedef __m512bh parts;
INSIDE parts beside(const part *many) { return (parts)_mm512_loadu_si512(many); }
INSIDE parts everywhere(const part *one) {
  int32_t both;
  memcpy(&both, one, sizeof both);
  return (parts)_mm512_set1_epi32(both);
}
INSIDE vector dot(vector sum, parts one, parts many) { return (vector)_mm512_dpbf16_ps((__m512)sum, one, many); }
#else
#define PAIR 1
typedef float part;
INSIDE part part_of(real x) { return read_one(x); }
INSIDE part narrowed(float x) { return x; }
typedef vector parts;
INSIDE parts beside(const part *many) { return *(const vector *)many; }
INSIDE parts everywhere(const part *one) { return *one + (vector){0}; }
INSIDE vector dot(vector sum, parts one, parts many) { return sum + one * many; }
#endif

INSIDE long up_to(long number, long step) { return (number + step - 1) / step * step; }

/* A growing piece of memory of each thread, which stays, for `count` float32; NULL where there is no more. */
static void *room(long count) {
  static _Thread_local void *held;
  static _Thread_local long size;
  if (count > size) {
    free(held);
    held = aligned_alloc(64, (size_t)up_to(count * 4, 64));
    size = held ? count : 0;
  }
  return held;
}

/* ---- products of small matrices: c = a · b ---- */

/* c[TALL, wide * LANES] = a[TALL, depth] · b[depth / PAIR, wide * LANES, PAIR], added to c where `more`. */
INSIDE void tile(const part *a, long row, long step, const part *b, long below, float *c, long under, long depth,
                 const int wide, int more) {
  vector sums[TALL][WIDE];
  for (int i = 0; i < TALL; i++)
    for (int j = 0; j < wide; j++) sums[i][j] = more ? *(vector *)(c + i * under + j * LANES) : (vector){0};
  for (long k = 0; k < depth / PAIR; k++) {
    parts many[WIDE];
    for (int j = 0; j < wide; j++) many[j] = beside(b + (k * below + j * LANES) * PAIR);
    for (int i = 0; i < TALL; i++) {
      const parts one = everywhere(a + i * row + k * step);
      for (int j = 0; j < wide; j++) sums[i][j] = dot(sums[i][j], one, many[j]);
    }
  }
  for (int i = 0; i < TALL; i++)
    for (int j = 0; j < wide; j++) *(vector *)(c + i * under + j * LANES) = sums[i][j];
}

/* c[high, width] = a[high, depth] · b[depth / PAIR, width, PAIR], added to c where `more`. Rows of a and its pairs lie
   `row` and `step` numbers after one another, rows of b and c `below` and `under` columns. TALL divides high, PAIR
   depth, LANES width. */
static void multiply(const part *a, long row, long step, const part *b, long below, float *c, long under, long high,
                     long depth, long width, int more) {
  for (long j = 0; j < width; j += WIDE * LANES)
    for (long i = 0; i < high; i += TALL) {
      const part *rows = a + i * row, *columns = b + j * PAIR;
      float *to = c + i * under + j;
      const long vectors = (width - j) / LANES;
      if (vectors >= WIDE) tile(rows, row, step, columns, below, to, under, depth, WIDE, more);
#if WIDE > 2
      else if (vectors == 3) tile(rows, row, step, columns, below, to, under, depth, 3, more);
      else if (vectors == 2) tile(rows, row, step, columns, below, to, under, depth, 2, more);
#endif
      else tile(rows, row, step, columns, below, to, under, depth, 1, more);
    }
}

/* ---- attention ---- */

/* Of all rows: query heads of one key/value head, D, D in whole vectors (what is beyond is 0), tokens that are seen. */
struct shape {
  long group, size, deep, window;
};
/* A head's numbers of a token: base + token * token_step + head * head_step. */
struct heads {
  real *base;
  long token, head;
};

INSIDE const real *head_of(struct heads x, long token, long head) { return x.base + token * x.token + head * x.head; }

/* A head of some tokens as one factor of a product. A left one: to[count, deep]. */
INSIDE void left(const struct shape *all, struct heads x, const int64_t *tokens, long count, long head, part *to) {
  for (long i = 0; i < count; i++, to += all->deep) {
    const real *from = head_of(x, tokens[i], head);
    for (long d = 0; d < all->size; d++) to[d] = part_of(from[d]);
    for (long d = all->size; d < all->deep; d++) to[d] = 0;
  }
}

/* A right one of which each token is a row: to[count / PAIR, deep, PAIR], from a left one with rows of `width`. */
INSIDE void right(const part *from, part *to, long count, long width) {
  for (long i = 0; i < count; i += PAIR)
    for (long d = 0; d < width; d++)
      for (long p = 0; p < PAIR; p++) to[i * width + d * PAIR + p] = from[(i + p) * width + d];
}

/* A right one of which each token is a column: to[deep / PAIR, across, PAIR]. */
INSIDE void right_turned(const struct shape *all, const part *from, part *to, long count, long across) {
  for (long i = 0; i < count; i++)
    for (long d = 0; d < all->deep; d += PAIR)
      memcpy(to + d * across + i * PAIR, from + i * all->deep + d, PAIR * sizeof(part));
}

/* Scores [high, width] as a left factor, and as a right one (or a left one turned): to[high / PAIR, width, PAIR]. */
INSIDE void left_scores(const float *scores, part *to, long count) {
  for (long i = 0; i < count; i++) to[i] = narrowed(scores[i]);
}

INSIDE void right_scores(const float *scores, part *to, long high, long width) {
  for (long i = 0; i < high; i += PAIR)
    for (long j = 0; j < width; j++)
      for (long p = 0; p < PAIR; p++) to[i * width + j * PAIR + p] = narrowed(scores[(i + p) * width + j]);
}

/* One block: the queries `first` to before `end` of a row, those of all heads of one group behind one another, and the
   keys that one of them sees, in whole vectors: `begin` and so many from there. */
struct block {
  long first, end, begin, keys, own, high;
};

INSIDE struct block block_at(const struct shape *all, long first, long length) {
  const long most = ROWS / all->group > TALL ? ROWS / all->group : TALL;
  struct block found = {first, first + most < length ? first + most : length, 0, 0, 0, 0};
  if (first >= all->window) found.begin = (first + 1 - all->window) / LANES * LANES;
  found.keys = up_to(found.end, LANES) - found.begin;
  found.own = found.end - first;
  found.high = up_to(found.own * all->group, TALL);
  return found;
}

/* Of the block's query i: its place in the row, and which of the block's keys it sees, `from` to before `upto`. */
struct query {
  long at, from, upto;
};

INSIDE struct query query_of(const struct shape *all, struct block now, long i) {
  const long at = now.first + i % now.own;
  return (struct query){at, at >= all->window ? at + 1 - all->window - now.begin : 0, at + 1 - now.begin};
}

INSIDE void hide(float *row, struct query seen, long keys) {
  memset(row, 0, (size_t)seen.from * 4), memset(row + seen.upto, 0, (size_t)(keys - seen.upto) * 4);
}

INSIDE void store(const float *from, float factor, real *to, long size) {
  for (long d = 0; d < size; d++) to[d] = rounded(from[d] * factor);
}

/* out[T, H, D] = what each query reads of the keys and values that it sees: its own token's and those before it in its
   row, `window` of them at most; total[T, H] = the logarithm of the sum of its shares' numerators. The tokens of row r
   lie in `paths`, from start[r] to before start[r + 1]; the first known[r] have their queries in another row; `order`
   says which row comes when, long ones first. Returns whether there was memory for it. */
int attend(real *queries, long q_token, long q_head, real *keys, long k_token, long k_head, real *values, long v_token,
           long v_head, real *out, float *total, const int64_t *paths, const int64_t *start, const int64_t *known,
           const int64_t *order, long rows, long asking, long asked, long size, long window, float scaling) {
  const long group = asking / asked, deep = up_to(size, LANES);
  const struct shape all = {group, size, deep, window};
  const struct heads q = {queries, q_token, q_head}, k = {keys, k_token, k_head}, v = {values, v_token, v_head};
  int enough = 1;
#pragma omp parallel for schedule(dynamic) reduction(&& : enough)
  for (long task = 0; task < rows * asked; task++) {
    const long r = order[task / asked], kept = task % asked, length = start[r + 1] - start[r];
    const long wide = up_to(length, LANES), across = wide + LANES, high = ROWS + group * TALL + TALL;
    const int64_t *path = paths + start[r];
    float *scores = room(deep * across + 2 * wide * deep + high * (2 * wide + 2 * deep + 1));
    if (!scores) {
      enough = 0;
      continue;
    }
    float *read = scores + high * wide, *sums = read + high * deep;
    part *turned = (part *)(sums + high), *held = turned + deep * across, *asks = held + wide * deep;
    part *shares = asks + high * deep, *laid = shares + high * wide;
    memset(laid, 0, (size_t)(wide * deep) * sizeof *laid);
    left(&all, k, path, length, kept, laid);
    right_turned(&all, laid, turned, wide, across);
    left(&all, v, path, length, kept, laid);
    right(laid, held, wide, deep);
    for (long first = known[r]; first < length;) {
      const struct block now = block_at(&all, first, length);
      for (long g = 0; g < group; g++)
        left(&all, q, path + first, now.own, kept * group + g, asks + g * now.own * deep);
      memset(asks + group * now.own * deep, 0, (size_t)((now.high - group * now.own) * deep) * sizeof *asks);
      multiply(asks, deep, PAIR, turned + now.begin * PAIR, across, scores, now.keys, now.high, deep, now.keys, 0);
      for (long i = 0; i < group * now.own; i++) {
        const struct query seen = query_of(&all, now, i);
        float *row = scores + i * now.keys, most = -INFINITY, sum = 0.0f;
#pragma omp simd reduction(max : most)
        for (long j = seen.from; j < seen.upto; j++) row[j] *= scaling, most = row[j] > most ? row[j] : most;
        for (long j = seen.from; j < seen.upto; j++) row[j] = exponential(row[j] - most), sum += row[j];
        hide(row, seen, now.keys);
        total[path[seen.at] * asking + kept * group + i / now.own] = most + logf(sum);
        sums[i] = sum;
      }
      left_scores(scores, shares, now.high * now.keys);
      multiply(shares, now.keys, PAIR, held + now.begin * deep, deep, read, deep, now.high, now.keys, deep, 0);
      for (long i = 0; i < group * now.own; i++)
        store(read + i * deep, 1.0f / sums[i],
              out + (path[first + i % now.own] * asking + kept * group + i / now.own) * size, size);
      first = now.end;
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
  const struct shape all = {group, size, deep, window};
  const struct heads q = {queries, q_token, q_head}, k = {keys, k_token, k_head}, v = {values, v_token, v_head};
  const struct heads s = {slope, s_token, s_head};
  int enough = 1;
#pragma omp parallel for schedule(dynamic) reduction(&& : enough)
  for (long task = 0; task < rows * asked; task++) {
    const long r = order[task / asked], kept = task % asked, length = start[r + 1] - start[r];
    const long wide = up_to(length, LANES), across = wide + LANES, high = ROWS + group * TALL + TALL;
    const int64_t *path = paths + start[r];
    float *shares = room(2 * deep * across + 4 * wide * deep + high * (3 * wide + 5 * deep));
    if (!shares) {
      enough = 0;
      continue;
    }
    float *of_shares = shares + high * wide, *to_q = of_shares + high * wide, *to_k = to_q + high * deep;
    float *to_v = to_k + wide * deep;
    part *turned_k = (part *)(to_v + wide * deep), *turned_v = turned_k + deep * across;
    part *held = turned_v + deep * across, *laid = held + wide * deep, *asks = laid + wide * deep;
    part *slopes = asks + high * deep, *many = slopes + high * deep, *factor = many + high * deep;
    memset(to_k, 0, (size_t)(2 * wide * deep) * 4);
    memset(laid, 0, (size_t)(wide * deep) * sizeof *laid);
    left(&all, v, path, length, kept, laid);
    right_turned(&all, laid, turned_v, wide, across);
    left(&all, k, path, length, kept, laid);
    right_turned(&all, laid, turned_k, wide, across);
    right(laid, held, wide, deep);
    for (long first = known[r]; first < length;) {
      const struct block now = block_at(&all, first, length);
      const long width = now.keys, tall = now.high, real_rows = group * now.own;
      for (long g = 0; g < group; g++) {
        left(&all, q, path + first, now.own, kept * group + g, asks + g * now.own * deep);
        left(&all, s, path + first, now.own, kept * group + g, slopes + g * now.own * deep);
      }
      memset(asks + real_rows * deep, 0, (size_t)((tall - real_rows) * deep) * sizeof *asks);
      memset(slopes + real_rows * deep, 0, (size_t)((tall - real_rows) * deep) * sizeof *asks);
      multiply(asks, deep, PAIR, turned_k + now.begin * PAIR, across, shares, width, tall, deep, width, 0);
      multiply(slopes, deep, PAIR, turned_v + now.begin * PAIR, across, of_shares, width, tall, deep, width, 0);
      for (long i = 0; i < real_rows; i++) {
        const struct query seen = query_of(&all, now, i);
        float *share = shares + i * width, *of = of_shares + i * width, sum = 0.0f;
        const float all_shares = total[path[seen.at] * asking + kept * group + i / now.own];
        for (long j = seen.from; j < seen.upto; j++)
          share[j] = exponential(share[j] * scaling - all_shares), sum += share[j] * of[j];
        for (long j = seen.from; j < seen.upto; j++) of[j] = share[j] * (of[j] - sum);
        hide(share, seen, width), hide(of, seen, width);
      }
      memset(shares + real_rows * width, 0, (size_t)((tall - real_rows) * width) * 4);
      memset(of_shares + real_rows * width, 0, (size_t)((tall - real_rows) * width) * 4);
      right_scores(shares, factor, tall, width);
      right(slopes, many, tall, deep);
      multiply(factor, PAIR, width * PAIR, many, deep, to_v + now.begin * deep, deep, width, tall, deep, 1);
      right_scores(of_shares, factor, tall, width);
      right(asks, many, tall, deep);
      multiply(factor, PAIR, width * PAIR, many, deep, to_k + now.begin * deep, deep, width, tall, deep, 1);
      left_scores(of_shares, factor, tall * width);
      multiply(factor, width, PAIR, held + now.begin * deep, deep, to_q, deep, tall, width, deep, 0);
      for (long i = 0; i < real_rows; i++)
        store(to_q + i * deep, scaling,
              of_queries + (path[first + i % now.own] * asking + kept * group + i / now.own) * size, size);
      first = now.end;
    }
    for (long i = 0; i < length; i++)
      for (long d = 0; d < size; d++) {
        const long place = ((start[r] + i) * asked + kept) * size + d;
        of_keys[place] = to_k[i * deep + d] * scaling, of_values[place] = to_v[i * deep + d];
      }
  }
  return enough;
}

/* ---- norms, turns, gates ---- */

/* out[T, E] = x * factor[T] * weight[E] for factor = 1 / sqrt(mean(x^2) + epsilon). */
void norm(const real *x, const real *weight, real *out, float *factor, long tokens, long size, float epsilon) {
#pragma omp parallel for schedule(static) if (tokens * size > SERIAL)
  for (long t = 0; t < tokens; t++) factor[t] = norm_one(x + t * size, weight, out + t * size, size, epsilon);
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

/* out[T, heads, D] = x turned by the cosines and sines [T, D]. `back` turns slopes the other way round. */
void turn(real *x, long x_token, long x_head, const real *cosine, const real *sine, real *out, long tokens, long count,
          long size, int back) {
  const struct heads from = {x, x_token, x_head};
  const long half = size / 2;
#pragma omp parallel for schedule(static) if (tokens * count * size > SERIAL)
  for (long t = 0; t < tokens; t++)
    for (long h = 0; h < count; h++) {
      const real *c = cosine + t * size, *s = sine + t * size, *low = head_of(from, t, h), *high = low + half;
      real *to = out + (t * count + h) * size;
      if (!back) {
        turn_one(low, c, s, to, size);
        continue;
      }
#pragma omp simd
      for (long d = 0; d < half; d++) {
        const float a = read_one(low[d]), b = read_one(high[d]);
        to[d] = rounded(a * read_one(c[d]) + b * read_one(s[d + half]));
        to[d + half] = rounded(b * read_one(c[d + half]) - a * read_one(s[d]));
      }
    }
}

/* out[count] = silu(gate) * held. */
void gated(const real *gate, const real *held, real *out, long count) {
#pragma omp parallel for simd schedule(static) if (count > SERIAL)
  for (long f = 0; f < count; f++) out[f] = gate_one(gate[f], held[f]);
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
