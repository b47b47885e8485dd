# Which arrays share memory, found out without the interpreter: as overlap.py has it, where NumPy solves the same equation.

from libc.stdlib cimport llabs

from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.walks cimport *

cdef enum:
    TERMS = 2 * RANK + 1
    MOST_WORK = 100000  # beyond which arrays count as sharing memory

cdef struct Term:  # any whole number from `low` to `high` of steps
    Py_ssize_t step
    Py_ssize_t low
    Py_ssize_t high

cdef struct Equation:  # whose sum may be what is wanted
    Term[TERMS] terms  # by falling steps, the last one of 1
    int count
    Py_ssize_t[TERMS] least  # of the terms from each one on
    Py_ssize_t[TERMS] most


cdef inline void add_term(Equation* e, Py_ssize_t step, Py_ssize_t low, Py_ssize_t high) noexcept nogil:
    cdef int k = 0, j
    while k < e.count and e.terms[k].step > step:
        k += 1
    if k == e.count or e.terms[k].step != step:
        for j in range(e.count, k, -1):
            e.terms[j] = e.terms[j - 1]
        e.terms[k] = Term(step, 0, 0)
        e.count += 1
    e.terms[k].low += low
    e.terms[k].high += high


cdef inline const char* add_array(Equation* e, const Samples* a, bint less) noexcept nogil:
    """The terms of where an array's bytes are, or of that with the other sign; the first of its bytes."""
    cdef const char* first = a.data
    cdef Py_ssize_t step, last
    cdef int k
    for k in range(a.rank):
        step, last = a.strides[k] * a.size, a.shape[k] - 1
        if step < 0:
            first += step * last
        if last and step:
            add_term(e, llabs(step), -last if less else 0, 0 if less else last)
    last = size_of(a.type) - 1
    add_term(e, 1, -last if less else 0, 0 if less else last)
    return first


cdef inline bint is_solved(const Equation* e, Py_ssize_t wanted) noexcept nogil:
    """Whether the terms can be `wanted`: one after the other as much as leaves what the rest of them can be."""
    cdef Py_ssize_t[TERMS] n
    cdef Py_ssize_t[TERMS] last
    cdef Py_ssize_t[TERMS] left
    cdef int k = 0, work = 0
    left[0] = wanted
    if e.count > 1:
        narrow(e, 0, wanted, &n[0], &last[0])
    while k >= 0:
        work += 1
        if work > MOST_WORK:
            return True
        if k == e.count - 1:  # of steps of 1
            if e.terms[k].low <= left[k] <= e.terms[k].high:
                return True
            k -= 1
            continue
        n[k] += 1
        if n[k] > last[k]:
            k -= 1
            continue
        left[k + 1] = left[k] - n[k] * e.terms[k].step
        k += 1
        if k < e.count - 1:
            narrow(e, k, left[k], &n[k], &last[k])
    return False


cdef inline void narrow(const Equation* e, int k, Py_ssize_t wanted, Py_ssize_t* before, Py_ssize_t* last) noexcept nogil:
    """The number before the first one, and the last one, that a term can be for the rest to be what is left."""
    cdef const Term* term = &e.terms[k]
    before[0] = max(term.low, -floor_of(e.most[k + 1] - wanted, term.step)) - 1
    last[0] = min(term.high, floor_of(wanted - e.least[k + 1], term.step))


cdef inline Py_ssize_t floor_of(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    """a / b, rounded down; b is above 0."""
    return a // b - (a % b < 0)  # which C rounds towards 0


cdef inline bint is_empty(const Samples* a) noexcept nogil:
    cdef int k
    for k in range(a.rank):
        if a.shape[k] == 0:
            return True
    return False


cdef inline void extend(const Samples* a, const char** low, const char** high) noexcept nogil:
    """The memory from an array's first byte to behind its last one."""
    cdef Py_ssize_t reach
    cdef int k
    low[0], high[0] = a.data, a.data + size_of(a.type)
    for k in range(a.rank):
        reach = (a.shape[k] - 1) * a.strides[k] * a.size
        if reach < 0:
            low[0] += reach
        else:
            high[0] += reach


cdef inline bint share_memory(const Samples* a, const Samples* b) noexcept nogil:
    cdef const char* a_low
    cdef const char* a_high
    cdef const char* b_low
    cdef const char* b_high
    if a.data is NULL or b.data is NULL or is_empty(a) or is_empty(b):
        return False
    extend(a, &a_low, &a_high)
    extend(b, &b_low, &b_high)
    return a_low < b_high and b_low < a_high and share_bytes(a, b)


cdef inline bint share_bytes(const Samples* a, const Samples* b) noexcept nogil:
    """The same of arrays that are not empty, and whose memory lies in one another's."""
    cdef Equation e
    cdef Py_ssize_t wanted
    cdef int k
    e.count = 0
    wanted = -<Py_ssize_t>add_array(&e, a, False)
    wanted += <Py_ssize_t>add_array(&e, b, True)
    for k in range(e.count - 1, -1, -1):
        e.least[k], e.most[k] = e.terms[k].low * e.terms[k].step, e.terms[k].high * e.terms[k].step
        if k < e.count - 1:
            e.least[k] += e.least[k + 1]
            e.most[k] += e.most[k + 1]
    return e.least[0] <= wanted <= e.most[0] and is_solved(&e, wanted)


cdef inline bint is_one(const Samples* a, const Samples* b) noexcept nogil:
    """Whether two arrays of one shape are the same."""
    cdef int k
    if a.data != b.data or a.type != b.type:
        return False
    for k in range(a.rank):
        if a.shape[k] > 1 and a.strides[k] * a.size != b.strides[k] * b.size:
            return False
    return True


cdef inline bint overlaps_itself(const Samples* a) noexcept nogil:
    """Whether two elements share memory; exotic strides that cannot be told apart cheaply count as overlapping."""
    cdef Py_ssize_t[RANK] steps
    cdef Py_ssize_t reach = size_of(a.type), step
    cdef int[RANK] axes
    cdef int count = 0, k
    if is_empty(a):
        return False
    for axis in range(a.rank):
        if a.shape[axis] == 1:
            continue
        step, k = llabs(a.strides[axis] * a.size), count
        while k > 0 and steps[k - 1] > step:
            steps[k], axes[k] = steps[k - 1], axes[k - 1]
            k -= 1
        steps[k], axes[k] = step, axis
        count += 1
    for k in range(count):
        if steps[k] < reach:
            return True
        reach += steps[k] * (a.shape[axes[k]] - 1)
    return False
