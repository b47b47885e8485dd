// Samples that lanes cannot be loaded from where they stand: strided, of another type, or too few, they go through buffers.
#pragma once
#include "lanes.hpp"

namespace cpubn {
enum Type { OTHER, FLOAT32, FLOAT64, FLOAT16, BFLOAT16, UINT8, INT8, UINT16, INT16 };
constexpr ptrdiff_t BUFFER = 256; // elements that go through buffers together

// Elements counted through as one run: along the first axis, again for each place on the second, and so on without end.
constexpr int AXES = 5;
struct Place {
    char *data; // null: there is none
    int axes;
    ptrdiff_t sizes[AXES], steps[AXES]; // strides in elements, of signs in bits
    ptrdiff_t start; // the run's first element, counted so
    Type type;
    ptrdiff_t size; // bytes that strides count in: an element's, or 1 of one that is not aligned or not native; the first bit
    bool swapped; // the bytes of each element
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

// The same of elements that stand `step` bytes apart, anywhere.
template <typename Item> WORD Item turned(Item item, bool swapped) {
    Item made = item;
    if (swapped)
        for (size_t i = 0; i < sizeof(Item); i++) ((char *)&made)[i] = ((char *)&item)[sizeof(Item) - 1 - i];
    return made;
}
template <typename Item> WORD void move_bytes(char *data, ptrdiff_t step, ptrdiff_t n, Item *buffer, bool put, bool swapped) {
    for (ptrdiff_t i = 0; i < n; i++) {
        Item item;
        memcpy(&item, put ? (char *)&buffer[i] : data + i * step, sizeof(Item));
        item = turned(item, swapped);
        memcpy(put ? data + i * step : (char *)&buffer[i], &item, sizeof(Item));
    }
}

// Where an element of a place stands: how far along each axis, and so many steps from the place's start in memory.
struct Position {
    ptrdiff_t at[AXES], offset;
};
WORD Position position_of(const Place &p, ptrdiff_t element) {
    Position spot;
    ptrdiff_t left = p.start + element;
    int last = p.axes - 1;
    spot.offset = 0;
    for (int k = 0; k < last; k++) {
        spot.at[k] = left % p.sizes[k], left /= p.sizes[k];
        spot.offset += spot.at[k] * p.steps[k];
    }
    spot.at[last] = left, spot.offset += left * p.steps[last];
    return spot;
}
// How many of the n elements from here on stand on one line.
WORD ptrdiff_t on_line(const Place &p, const Position &spot, ptrdiff_t n) {
    return p.axes > 1 && p.sizes[0] - spot.at[0] < n ? p.sizes[0] - spot.at[0] : n;
}
WORD void go_on(const Place &p, Position *spot, ptrdiff_t n) {
    spot->at[0] += n, spot->offset += n * p.steps[0];
    for (int k = 0; k + 1 < p.axes && spot->at[k] == p.sizes[k]; k++) {
        spot->offset += p.steps[k + 1] - p.sizes[k] * p.steps[k];
        spot->at[k] = 0, spot->at[k + 1]++;
    }
}

WORD ptrdiff_t size_of(Type type) {
    return type == FLOAT64 ? 8 : type == FLOAT32 ? 4 : type == UINT8 || type == INT8 ? 1 : 2;
}
template <typename Item> WORD void move_items(const Place &p, ptrdiff_t first, ptrdiff_t n, Item *buffer, bool put) {
    Position spot = position_of(p, first);
    while (n > 0) {
        ptrdiff_t part = on_line(p, spot, n);
        char *data = p.data + spot.offset * p.size;
        if (p.size != sizeof(Item)) move_bytes(data, p.steps[0], part, buffer, put, p.swapped);
        else if (put) put_apart(buffer, (Item *)data, p.steps[0], part);
        else pick((const Item *)data, p.steps[0], part, buffer);
        buffer += part, n -= part;
        go_on(p, &spot, part);
    }
}
// n elements from the first on, into the buffer or, if `put`, from it.
WORD void move(const Place &p, ptrdiff_t first, ptrdiff_t n, void *buffer, bool put) {
    ptrdiff_t size = size_of(p.type);
    if (size == 4) move_items(p, first, n, (uint32_t *)buffer, put);
    else if (size == 2) move_items(p, first, n, (uint16_t *)buffer, put);
    else if (size == 1) move_items(p, first, n, (uint8_t *)buffer, put);
    else move_items(p, first, n, (uint64_t *)buffer, put);
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
// What samples count for: bytes are 0 or 1. `still`: one for all lanes.
WORD double weight_of(Type type, const char *p) {
    float single;
    double value;
    if (type == UINT8) return *p ? 1.0 : 0.0;
    if (type == FLOAT32) return memcpy(&single, p, sizeof single), (double)single;
    return memcpy(&value, p, sizeof value), value;
}
LONG_WORD Lanes<float> single_weights(Type type, const char *p, bool still) {
    if (still) return Lanes<float>((float)weight_of(type, p));
    if (type == UINT8) return min(load((const uint8_t *)p), Lanes<float>(1.0f));
    if (type == FLOAT32) return load((const float *)p);
    return narrow(load((const double *)p), load((const double *)p + 16));
}
static CALLED Lanes<double> double_weights(Type type, const char *p, bool still) {
    if (still) return Lanes<double>(weight_of(type, p));
    if (type == FLOAT64) return load((const double *)p);
    float values[32] = {0}; // lanes of floats are twice as many, and behind these there need be no more
    if (type == FLOAT32) memcpy(values, p, 16 * sizeof(float));
    else
        for (int i = 0; i < 16; i++) values[i] = p[i] ? 1.0f : 0.0f;
    return widen(load((const float *)values), 0);
}
template <typename S> WORD Lanes<float> weights_at(const S *, Type type, const char *p, bool still) { return single_weights(type, p, still); }
WORD Lanes<double> weights_at(const double *, Type type, const char *p, bool still) { return double_weights(type, p, still); }
#ifndef CPUBN_KEEP
WORD F keep(F a, const uint8_t *p) { return pick(mask(whole(p) > all(0.0f), F()), a, all(0.0f)); }
#endif
// Lanes whose byte is not 0, or 0; `still`: one byte for all.
WORD Lanes<float> kept_by(const Lanes<float> &a, const char *p, bool still) {
    Lanes<float> r;
    const uint32_t bits_of_all = *p ? ~0u : 0u;
    if (still) { EACH(float) r.v[i] = bits<F>(bits<U>(a.v[i]) & bits_of_all); }
    else { EACH(float) r.v[i] = keep(a.v[i], (const uint8_t *)p + W * i); }
    return r;
}
WORD Lanes<double> kept_by(const Lanes<double> &a, const char *p, bool still) {
    return select(double_weights(UINT8, p, still) > Lanes<double>(0.0), a, Lanes<double>(0.0));
}
// Lanes that count, and another number in place of those that do not.
LANE_WORD Lanes<T> counted(const Lanes<T> &weights, const Lanes<T> &a, const Lanes<T> &other) { return select(weights > Lanes<T>((T)0), a, other); }

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
    char *bytes = p.type == (sizeof(T) == 8 ? FLOAT64 : FLOAT32) ? (char *)to : (char *)moved;
    memset(bytes + n * size_of(p.type), 0, (end - n) * size_of(p.type));
    move(p, first, n, bytes, false);
    if (bytes == (char *)moved)
        for (ptrdiff_t i = 0; i < end; i += 32)
            store_lanes(to + i, p.type == FLOAT64 ? load_floats((const double *)bytes + i) : load_as(p.type, bytes, i));
}

// A double as a float for a conversion to half: what is left over makes it odd, so that the second rounding is as if the first.
WORD float odd(double value) {
    float made = (float)value;
    int32_t bits;
    memcpy(&bits, &made, 4);
    if (value != value || (double)made == value) return made;
    bits -= (made < 0 ? -(double)made : (double)made) > (value < 0 ? -value : value);
    bits |= 1;
    memcpy(&made, &bits, 4);
    return made;
}
WORD void make_odd(float *, ptrdiff_t) {}
WORD void make_odd(double *p, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) p[i] = odd(p[i]);
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
    if (p.type == FLOAT16) make_odd((T *)source, n);
    for (ptrdiff_t i = 0; i < end; i += 32) put_as(p.type, q, moved, i, load_floats(source + i), false);
    move(p, first, n, moved, true);
}

// to <- n <= BUFFER bits from the first on. `size` of their place is the bit that it starts from.
static CALLED void gather_bits(const Place &p, ptrdiff_t first, ptrdiff_t n, uint8_t *to) {
    Position spot = position_of(p, first);
    memset(to, 0, (n + 7) / 8);
    for (ptrdiff_t i = 0; i < n; i++) {
        ptrdiff_t bit = p.size + spot.offset;
        to[i / 8] |= (p.data[bit / 8] >> bit % 8 & 1) << i % 8;
        go_on(p, &spot, 1);
    }
}

// The 32 bits from that one on; eight bytes are read.
WORD uint32_t bits_at(const uint8_t *packed, ptrdiff_t bit) {
    uint64_t word;
    memcpy(&word, packed + bit / 8, 8);
    return (uint32_t)(word >> bit % 8);
}
} // namespace cpubn
