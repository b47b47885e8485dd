// Samples that lanes cannot be loaded from where they stand: strided, of another type, or too few, they go through buffers.
#pragma once
#include "lanes.hpp"

namespace cpubn {
enum Type { OTHER, FLOAT32, FLOAT64, FLOAT16, BFLOAT16, UINT8, INT8, UINT16, INT16 };
constexpr ptrdiff_t BUFFER = 256; // elements that go through buffers together

// Elements side by side: planes of `lines` lines of `width` elements each, counted through as one run.
struct Place {
    char *data; // null: there is none
    ptrdiff_t width, lines, step, row, plane; // strides of elements, lines and planes, in elements, of signs in bits
    Type type;
    ptrdiff_t size; // bytes of an element
};

// round(min(max(value * inverse + zero, lowest), highest)) as 8 bits; NaN becomes the lowest.
struct Quantizer {
    float inverse, zero, lowest, highest;
};
// As the lowest bits of lanes: those of a sum with 1.5 * 2**23 are a whole number, rounded to even.
WORD Lanes<float> quantized(const Quantizer &q, const Lanes<float> &a) {
    const Lanes<float> value = a * Lanes<float>(q.inverse) + Lanes<float>(q.zero);
    return min(max(Lanes<float>(q.lowest), value), Lanes<float>(q.highest)) + Lanes<float>(12582912.0f);
}

// Item: a sample as so many bytes.
template <typename Item> WORD void pick(const Item *from, ptrdiff_t step, ptrdiff_t n, Item *to) {
    if (step == 1) memcpy(to, from, n * sizeof(Item));
    else if (step == 3) // colours: of a step that it knows the compiler makes vectors, which took a third of the time
        for (ptrdiff_t i = 0; i < n; i++) to[i] = from[3 * i];
    else
        for (ptrdiff_t i = 0; i < n; i++) to[i] = from[i * step];
}
template <typename Item> WORD void put_apart(const Item *from, Item *to, ptrdiff_t step, ptrdiff_t n) {
    if (step == 1) memcpy(to, from, n * sizeof(Item));
    else
        for (ptrdiff_t i = 0; i < n; i++) to[i * step] = from[i];
}

WORD ptrdiff_t place_of(const Place &p, ptrdiff_t line, ptrdiff_t at) {
    return line / p.lines * p.plane + line % p.lines * p.row + at * p.step;
}
template <typename Item> WORD void move_items(const Place &p, ptrdiff_t first, ptrdiff_t n, Item *buffer, bool put) {
    ptrdiff_t line = first / p.width, at = first % p.width;
    while (n > 0) {
        ptrdiff_t part = n < p.width - at ? n : p.width - at;
        Item *data = (Item *)p.data + place_of(p, line, at);
        if (put) put_apart(buffer, data, p.step, part);
        else pick((const Item *)data, p.step, part, buffer);
        buffer += part, n -= part, line++, at = 0;
    }
}
// n elements from the first on, into the buffer or, if `put`, from it.
WORD void move(const Place &p, ptrdiff_t first, ptrdiff_t n, void *buffer, bool put) {
    if (p.size == 4) move_items(p, first, n, (uint32_t *)buffer, put);
    else if (p.size == 2) move_items(p, first, n, (uint16_t *)buffer, put);
    else if (p.size == 1) move_items(p, first, n, (uint8_t *)buffer, put);
    else move_items(p, first, n, (uint64_t *)buffer, put);
}

WORD ptrdiff_t size_of(Type type) {
    return type == FLOAT64 ? 8 : type == FLOAT32 ? 4 : type == UINT8 || type == INT8 ? 1 : 2;
}
#if defined(CPUBN_HALF)
constexpr bool HALVES_HAVE_LOOPS = true;
#else
constexpr bool HALVES_HAVE_LOOPS = false; // where a conversion is a call, theirs took 0.13 MB
#endif
// Lanes from element i on of samples of a type that is no double.
LONG_WORD Lanes<float> load_as(Type type, const void *p, ptrdiff_t i) {
    switch (type) {
    case FLOAT16: return load((const half *)p + i);
    case BFLOAT16: return load((const bfloat *)p + i);
    case UINT8: return load((const uint8_t *)p + i);
    case INT8: return load((const int8_t *)p + i);
    case UINT16: return load((const uint16_t *)p + i);
    case INT16: return load((const int16_t *)p + i);
    default: return load((const float *)p + i);
    }
}
template <typename S> WORD void put_lanes(S *p, const Lanes<float> &a, bool past) {
    if (past) stream(p, a);
    else store(p, a);
}
// A store of them or, but for bytes, a stream.
LONG_WORD void put_as(Type type, const Quantizer *q, void *p, ptrdiff_t i, const Lanes<float> &a, bool past) {
    switch (type) {
    case FLOAT16: return put_lanes((half *)p + i, a, past);
    case BFLOAT16: return put_lanes((bfloat *)p + i, a, past);
    case FLOAT32: return put_lanes((float *)p + i, a, past);
    default: return store((uint8_t *)p + i, quantized(*q, a));
    }
}
WORD void store_lanes(float *p, const Lanes<float> &a) { store(p, a); }
WORD void store_lanes(double *p, const Lanes<float> &a) { store(p, widen(a, 0)), store(p + 16, widen(a, 1)); }
WORD Lanes<float> load_floats(const float *p) { return load(p); }
WORD Lanes<float> load_floats(const double *p) { return narrow(load(p), load(p + 16)); }

// to (n,) <- n <= BUFFER elements from the first on, and zeros up to a multiple of 32.
template <typename T> static CALLED void gather(const Place &p, ptrdiff_t first, ptrdiff_t n, T *to) {
    uint64_t moved[BUFFER];
    ptrdiff_t end = (n + 31) / 32 * 32;
    char *bytes = p.type == FLOAT64 || (sizeof(T) == 4 && p.type == FLOAT32) ? (char *)to : (char *)moved;
    memset(bytes + n * p.size, 0, (end - n) * p.size);
    move(p, first, n, bytes, false);
    if (bytes == (char *)moved)
        for (ptrdiff_t i = 0; i < end; i += 32) store_lanes(to + i, load_as(p.type, bytes, i));
}

// n <= BUFFER elements from the first on <- source (n,), which has room for a multiple of 32.
template <typename T>
static CALLED void scatter(const T *source, const Place &p, ptrdiff_t first, ptrdiff_t n, const Quantizer *q) {
    uint64_t moved[BUFFER];
    ptrdiff_t end = (n + 31) / 32 * 32;
    if (p.type == FLOAT64 || (sizeof(T) == 4 && p.type == FLOAT32)) {
        move(p, first, n, (void *)source, true);
        return;
    }
    for (ptrdiff_t i = 0; i < end; i += 32) put_as(p.type, q, moved, i, load_floats(source + i), false);
    move(p, first, n, moved, true);
}

// to <- n <= BUFFER bits from the first on. `size` of their place is the bit that it starts from.
static CALLED void gather_bits(const Place &p, ptrdiff_t first, ptrdiff_t n, uint8_t *to) {
    memset(to, 0, (n + 7) / 8);
    for (ptrdiff_t i = 0; i < n; i++) {
        ptrdiff_t bit = p.size + place_of(p, (first + i) / p.width, (first + i) % p.width);
        to[i / 8] |= (p.data[bit / 8] >> bit % 8 & 1) << i % 8;
    }
}

// The 32 bits from that one on; eight bytes are read.
WORD uint32_t bits_at(const uint8_t *packed, ptrdiff_t bit) {
    uint64_t word;
    memcpy(&word, packed + bit / 8, 8);
    return (uint32_t)(word >> bit % 8);
}
} // namespace cpubn
