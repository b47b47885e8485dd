# The words of lanes.hpp and the formulas of maths.hpp and activations.hpp, as Cython sees them: overloads stand once for each sample type.

from libc.stdint cimport int8_t, int16_t, uint8_t, uint16_t, uint32_t

from cpubn.backends.compiled.job cimport Quantizer, Type

cdef extern from "activations.hpp" namespace "cpubn" nogil:
    const char* NAMES
    const char* NAMES_OF_CLIPS
    const char* NAMES_BY_OUTPUT
    int formula_of(int, bint) noexcept
    ctypedef struct half:
        uint16_t bits
    ctypedef struct bfloat:
        uint16_t bits
    ctypedef struct mixed:
        pass
    cdef cppclass Mask[T]:
        Mask[T] operator|(Mask[T])
        Mask[T] operator&(Mask[T])
    # Lanes of the type that samples of type S are computed in: 32 floats, or of doubles 16.
    cdef cppclass Lane[S]:
        Lane()
        Lane(double)
        Lane[S] operator+(Lane[S])
        Lane[S] operator-(Lane[S])
        Lane[S] operator*(Lane[S])
        Lane[S] operator/(Lane[S])
        Mask[S] operator<(Lane[S])
        Mask[S] operator<=(Lane[S])
        Mask[S] operator>(Lane[S])
        Mask[S] operator==(Lane[S])
    cdef cppclass Sum "cpubn::SumOf" [S]:
        Lane[S] pending
        Sum()
        Sum(double)
        void put_away()
        void load_total(const double*)
        void store_total(double*)
    Lane[float] load(const float*)
    void store(float*, Lane[float])
    void stream(float*, Lane[float])
    Lane[float] plus(Lane[float], Lane[float])
    Lane[float] last(Lane[float], Py_ssize_t)
    void add_to(double*, Lane[float])
    Lane[double] sixteen(Sum[float])
    Lane[float] activate(int, Lane[float], double, double)
    uint32_t inside(Lane[float], double, double, bint)
    Lane[float] derive(int, Lane[float], double, double)
    Lane[float] signed_by(uint32_t, Lane[float], Lane[float])
    Lane[float] counted(Lane[float], Lane[float], Lane[float])
    Lane[float] kept_by(Lane[float], const char*, bint)
    Lane[float] weights_at(const float*, Type, const char*, bint)
    Lane[half] load(const half*)
    void store(half*, Lane[half])
    void stream(half*, Lane[half])
    Lane[half] plus(Lane[half], Lane[half])
    Lane[half] last(Lane[half], Py_ssize_t)
    void add_to(double*, Lane[half])
    Lane[double] sixteen(Sum[half])
    Lane[half] activate(int, Lane[half], double, double)
    uint32_t inside(Lane[half], double, double, bint)
    Lane[half] derive(int, Lane[half], double, double)
    Lane[half] signed_by(uint32_t, Lane[half], Lane[half])
    Lane[half] counted(Lane[half], Lane[half], Lane[half])
    Lane[half] kept_by(Lane[half], const char*, bint)
    Lane[half] weights_at(const half*, Type, const char*, bint)
    Lane[bfloat] load(const bfloat*)
    void store(bfloat*, Lane[bfloat])
    void stream(bfloat*, Lane[bfloat])
    Lane[bfloat] plus(Lane[bfloat], Lane[bfloat])
    Lane[bfloat] last(Lane[bfloat], Py_ssize_t)
    void add_to(double*, Lane[bfloat])
    Lane[double] sixteen(Sum[bfloat])
    Lane[bfloat] activate(int, Lane[bfloat], double, double)
    uint32_t inside(Lane[bfloat], double, double, bint)
    Lane[bfloat] derive(int, Lane[bfloat], double, double)
    Lane[bfloat] signed_by(uint32_t, Lane[bfloat], Lane[bfloat])
    Lane[bfloat] counted(Lane[bfloat], Lane[bfloat], Lane[bfloat])
    Lane[bfloat] kept_by(Lane[bfloat], const char*, bint)
    Lane[bfloat] weights_at(const bfloat*, Type, const char*, bint)
    Lane[mixed] activate(int, Lane[mixed], double, double)
    Lane[mixed] derive(int, Lane[mixed], double, double)
    Lane[mixed] signed_by(uint32_t, Lane[mixed], Lane[mixed])
    Lane[mixed] counted(Lane[mixed], Lane[mixed], Lane[mixed])
    Lane[mixed] weights_at(const mixed*, Type, const char*, bint)
    Lane[double] load(const double*)
    void store(double*, Lane[double])
    void stream(double*, Lane[double])
    Lane[double] plus(Lane[double], Lane[double])
    Lane[double] last(Lane[double], Py_ssize_t)
    void add_to(double*, Lane[double])
    Lane[double] sixteen(Sum[double])
    Lane[double] activate(int, Lane[double], double, double)
    uint32_t inside(Lane[double], double, double, bint)
    Lane[double] derive(int, Lane[double], double, double)
    Lane[double] signed_by(uint32_t, Lane[double], Lane[double])
    Lane[double] counted(Lane[double], Lane[double], Lane[double])
    Lane[double] kept_by(Lane[double], const char*, bint)
    Lane[double] weights_at(const double*, Type, const char*, bint)
    Lane[float] load(const uint8_t*)
    Lane[float] load(const int8_t*)
    Lane[float] load(const uint16_t*)
    Lane[float] load(const int16_t*)
    void put_two(float*, double, double, Py_ssize_t)
    void put_two(double*, double, double, Py_ssize_t)
    double fold(Lane[double])
    Lane[double] fold_rows(const double*)
    Lane[double] some(const double*, Py_ssize_t)
    void store_some(double*, Lane[double], Py_ssize_t)
    Lane[double] as_single(Lane[double])
    Lane[double] sqrt(Lane[double])
    Lane[double] at_least "cpubn::max"(Lane[double], Lane[double])
    cdef cppclass Pair:
        Lane[double] high
        Lane[double] low
    Pair two_sum(Lane[double], Lane[double])
    Lane[double] magnitude(Lane[double])
    Mask[double] outside(Lane[double], double, double)
    void prefetch(const void*)
    Lane[double] widen(Lane[float], int)
    Lane[float] narrow(Lane[double], Lane[double])
    uint32_t pack(Mask[float])
    uint32_t pack(Mask[double])
    Lane[double] select(Mask[double], Lane[double], Lane[double])
    Lane[double] rstd(Lane[double], Lane[double])
    Mask[double] forward_is_wide(Lane[double], Lane[double], Lane[double])
    Mask[double] backward_is_wide(Lane[double], Lane[double], Lane[double], Lane[double], Lane[double])

cdef extern from "samples.hpp" namespace "cpubn" nogil:
    const Py_ssize_t BUFFER
    const bint HALVES_HAVE_LOOPS
    cdef struct Place:
        char* data
        int axes
        Py_ssize_t* sizes
        Py_ssize_t* steps
        Py_ssize_t start
        Type type
        Py_ssize_t size
        bint swapped
    void gather(const Place&, Py_ssize_t, Py_ssize_t, float*)
    void gather(const Place&, Py_ssize_t, Py_ssize_t, double*)
    void scatter(const float*, const Place&, Py_ssize_t, Py_ssize_t, const Quantizer*)
    void scatter(const double*, const Place&, Py_ssize_t, Py_ssize_t, const Quantizer*)
    void gather_bits(const Place&, Py_ssize_t, Py_ssize_t, uint8_t*)
    uint32_t bits_at(const uint8_t*, Py_ssize_t)
    Lane[mixed] load_as(Type, const void*, Py_ssize_t)
    void put_as(Type, const Quantizer*, void*, Py_ssize_t, Lane[mixed], bint)

ctypedef fused real:
    float
    double

ctypedef fused sample:
    float
    half
    bfloat
    double

ctypedef fused any_sample:
    float
    half
    bfloat
    double
    mixed
