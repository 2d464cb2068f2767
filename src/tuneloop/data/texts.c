/* What is asked of every character of many texts: words, writings, forms to compare, shingles.

Called by compiled.py with Python's lock held. Each function gives what the numpy form gives in the module that is named
beside it; tables come from there. `texts` is a list of Python's own texts, which no one has to join, encode and cut
apart again: they are read and made by functions that every CPython exports under these names. */

#include <stdint.h>
#include <stdlib.h>

typedef struct Object Object; /* Python's */
extern Object *PyBytes_FromStringAndSize(const char *bytes, long size);
extern Object *PyErr_NoMemory(void);
extern Object *PyList_GetItem(Object *list, long at);
extern int PyList_SetItem(Object *list, long at, Object *one); /* takes the reference over */
extern long PyList_Size(Object *list);
extern Object *PyUnicode_FromKindAndData(int bytes, const void *codes, long size);
extern uint32_t *PyUnicode_AsUCS4(Object *text, uint32_t *codes, long room, int with_end);
extern long PyUnicode_GetLength(Object *text);

enum { LONG = 5, SHORT = 3, DENSE = 0x2e80, PAD = 0x10ffff }; /* as in shingles.py */
enum { HASHES = 128, BIN = 32 - 7 };                          /* as in minhash.py */

typedef struct {
  Object *texts;
  long at, count; /* which text is next, and how many there are */
  uint32_t *codes, *made;
  long size, room; /* code points of the text, and how many there is room for; `made` has room for three times as many,
                      and for six bytes of each behind them */
} Reader;

static Reader reader(Object *texts) { return (Reader){.texts = texts, .count = PyList_Size(texts)}; }

/* The code points of the next text, with LONG pads behind them. 0 where there is none, or Python has an error to raise.
   What was reserved is then free. */
static int next(Reader *one) {
  Object *text = one->at < one->count ? PyList_GetItem(one->texts, one->at++) : 0;
  one->size = text ? PyUnicode_GetLength(text) : -1;
  if (one->size + LONG > one->room) {
    one->room = 2 * (one->size + LONG);
    free(one->codes);
    one->codes = malloc(6 * one->room * sizeof *one->codes);
    if (!one->codes) return PyErr_NoMemory(), 0;
    one->made = one->codes + one->room;
  }
  if (one->size < 0 || !PyUnicode_AsUCS4(text, one->codes, one->size, 0)) {
    free(one->codes);
    return 0;
  }
  for (int pad = 0; pad < LONG; pad++) one->codes[one->size + pad] = PAD;
  return 1;
}

/* The class of each code point in a table of so many points, with two zeros in front; for those beyond `more` is 1. */
static const uint8_t *classified(const Reader *one, const uint8_t *classes, uint32_t points, int *more) {
  uint8_t *out = (uint8_t *)one->made;
  out[0] = out[1] = 0;
  for (long i = 0; i < one->size; i++) {
    uint32_t code = one->codes[i];
    *more |= code >= points;
    out[i + 2] = classes[code < points ? code : 0];
  }
  return out + 2;
}

/* counts[N]: the words of each text, by characters.py's classes. 1 where there are code points beyond the table. */
int words(Object *texts, const uint8_t *classes, uint32_t points, int64_t *counts) {
  enum { WORD = 1, JOINER = 2, ALONE = 4 };
  int more = 0;
  for (Reader one = reader(texts); next(&one);) {
    const uint8_t *is = classified(&one, classes, points, &more);
    uint32_t count = 0;
    for (long i = 0; i < one.size; i++) {
      int goes_on = (is[i - 1] == WORD) | ((is[i - 1] == JOINER) & (is[i - 2] == WORD));
      count += (is[i] == ALONE) | ((is[i] == WORD) & !goes_on);
    }
    *counts++ = count;
  }
  return more;
}

/* counts[N, kinds]: how often each class from 1 on stands in a text, by characters.py's writings; runs of the last are
   one each. 1 where there are code points beyond the table. */
int writings(Object *texts, const uint8_t *classes, uint32_t points, int64_t *counts, int kinds) {
  int more = 0;
  for (Reader one = reader(texts); next(&one);) {
    const uint8_t *is = classified(&one, classes, points, &more);
    for (int kind = 1; kind <= kinds; kind++) {
      uint32_t count = 0;
      for (long i = 0; i < one.size; i++) count += (is[i] == kind) & ((kind < kinds) | (is[i - 1] != kind));
      *counts++ = count;
    }
  }
  return more;
}

/* The form of a text by forms.py's table, in `made`; how many code points it has, or -1 where the table cannot tell. */
static long formed(const Reader *one, const uint32_t *table, uint32_t points) {
  enum { SPACE = ' ', DOTS = 0x2026 };
  uint32_t *to = one->made, form;
  int spaced = 1;
  for (long i = 0; i < one->size; i++) {
    uint32_t code = one->codes[i];
    form = code < points ? table[code] : UINT32_MAX;
    if (code == DOTS) to[0] = to[1] = form = '.', to += 2;
    if (form == UINT32_MAX) return -1;
    *to = form;
    to += !(spaced & (form == SPACE)); /* of spaces in a row the first stays, and none in front */
    spaced = form == SPACE;
  }
  return to - one->made - (spaced & (to > one->made));
}

/* The code points as UTF-8 within JSON, escaped as orjson does; where they end. */
static char *escaped(const uint32_t *codes, long count, char *to) {
  static const char digits[] = "0123456789abcdef", letters[] = "btn\0fr"; /* of the controls from 8 on */
  for (long i = 0; i < count; i++) {
    uint32_t code = codes[i];
    if (code < 0x20) {
      char letter = code >= 8 && code <= 13 ? letters[code - 8] : 0;
      *to++ = '\\', *to++ = letter ? letter : 'u';
      if (!letter) *to++ = '0', *to++ = '0', *to++ = digits[code >> 4], *to++ = digits[code & 15];
    } else if (code < 0x80) {
      if (code == '"' || code == '\\') *to++ = '\\';
      *to++ = code;
    } else {
      if (code < 0x800) *to++ = 0xc0 | code >> 6;
      else if (code < 0x10000) *to++ = 0xe0 | code >> 12, *to++ = 0x80 | (code >> 6 & 63);
      else *to++ = 0xf0 | code >> 18, *to++ = 0x80 | (code >> 12 & 63), *to++ = 0x80 | (code >> 6 & 63);
      *to++ = 0x80 | (code & 63);
    }
  }
  return to;
}

/* Puts the form of each text into the list `into`, as a text or, where it is to be quoted, as JSON without its quotes.
   Leaves those alone that the table cannot tell. */
void forms(Object *texts, const uint32_t *table, uint32_t points, Object *into, int quoted) {
  for (Reader one = reader(texts); next(&one);) {
    long count = formed(&one, table, points);
    if (count < 0) continue;
    char *bytes = (char *)(one.made + 3 * one.room);
    Object *made = quoted ? PyBytes_FromStringAndSize(bytes, escaped(one.made, count, bytes) - bytes)
                          : PyUnicode_FromKindAndData(4, one.made, count);
    if (!made || PyList_SetItem(into, one.at - 1, made)) one.count = 0; /* Python has an error to raise */
  }
}

/* The hash of the shingle that begins with these code points, as shingles.py has it. */
static inline uint32_t hash(const uint32_t *codes) {
  const uint32_t base = 0x9e3779b1;
  uint32_t brief = ((codes[0] + 1) * base + codes[1] + 1) * base + codes[2] + 1;
  uint32_t whole = (brief * base + codes[3] + 1) * base + codes[4] + 1;
  uint32_t mixed = codes[0] >= DENSE ? brief : whole;
  mixed = (mixed ^ mixed >> 16) * 0x85ebca6b;
  mixed = (mixed ^ mixed >> 13) * 0xc2b2ae35;
  return mixed ^ mixed >> 16;
}

/* The hashes of a text's shingles in their order; how many they are. */
static long shingled(const Reader *one, uint32_t *out) {
  long count = one->size >= LONG ? one->size - LONG + 1 : 0;
  for (long i = 0; i < count; i++) out[i] = hash(one->codes + i);
  for (long i = count; i <= one->size - SHORT; i++)
    if (one->codes[i] >= DENSE) out[count++] = hash(one->codes + i);
  if (!count && one->size) out[count++] = hash(one->codes); /* too short for any */
  return count;
}

/* out: the hashes of all shingles, text by text; counts[N]: how many each text has. */
void hashes(Object *texts, uint32_t *out, int64_t *counts) {
  for (Reader one = reader(texts); next(&one);) {
    *counts = shingled(&one, out);
    out += *counts++;
  }
}

/* signatures[N, HASHES]: of the smallest hash of each bin the last byte. A bin that none falls into asks the bins that
   stand in its column of lenders[HASHES, HASHES], one after the other; where no bin has one, all are 0. */
void signatures(Object *texts, const uint8_t *lenders, uint8_t *signatures) {
  for (Reader one = reader(texts); next(&one); signatures += HASHES) {
    uint32_t least[HASHES];
    uint8_t taken[HASHES];
    int some = 0;
    long count = shingled(&one, one.made);
    for (int bin = 0; bin < HASHES; bin++) least[bin] = UINT32_MAX;
    for (long i = 0; i < count; i++) {
      uint32_t *bin = least + (one.made[i] >> BIN);
      *bin = one.made[i] < *bin ? one.made[i] : *bin;
    }
    for (int bin = 0; bin < HASHES; bin++) some |= taken[bin] = least[bin] != UINT32_MAX;
    for (int bin = 0; bin < HASHES; bin++) {
      const uint8_t *lender = lenders + bin;
      while (some && !taken[bin] && !taken[*lender]) lender += HASHES;
      signatures[bin] = !some ? 0 : (uint8_t)least[taken[bin] ? bin : *lender];
    }
  }
}
