# The Cython twin of cpubn/_activations.py: the same operations in the same order, so the same bits.

cdef enum:  # as in _activations.NAMES, after none
    RELU = 1
    RELU6
    LEAKY_RELU
    HARDSWISH
    SILU
    GELU
    SIGMOID
    TANH
    CLIP
    SIGMOID_OF_OUTPUT  # derivatives alone
    TANH_OF_OUTPUT


cdef inline real relu(real z) noexcept nogil:
    return 0 if z < 0 else z


cdef inline real relu_gradient(real z) noexcept nogil:
    return 0 if z <= 0 else 1


cdef inline real leaky_relu(real z, real slope) noexcept nogil:
    return z if z > 0 else z * slope


cdef inline real leaky_relu_gradient(real z, real slope) noexcept nogil:
    return 1 if z > 0 else slope


cdef inline real hardswish(real z) noexcept nogil:
    return z * (clipped(z + <real>3, <real>0, <real>6) / <real>6)


cdef inline real hardswish_gradient(real z) noexcept nogil:
    cdef real inner = z / <real>3 + <real>0.5
    inner = inner if z < 3 else 1
    return 0 if z <= -3 else inner


cdef inline real sigmoid(real z) noexcept nogil:
    cdef real e = exp(minus_abs(z))
    cdef real numerator = e if z < 0 else 1
    return numerator / (<real>1 + e)


cdef inline real sigmoid_gradient(real z) noexcept nogil:
    cdef real e = exp(minus_abs(z))
    cdef real denominator = <real>1 + e
    return e / (denominator * denominator)


cdef inline real silu(real z) noexcept nogil:
    return z * sigmoid(z)


cdef inline real silu_gradient(real z) noexcept nogil:
    return sigmoid(z) + z * sigmoid_gradient(z)


cdef inline real normal_distribution(real z) noexcept nogil:
    return <real>0.5 * (<real>1 + erf(z * <real>0.7071067811865476))


cdef inline real gelu(real z) noexcept nogil:
    return z * normal_distribution(z)


cdef inline real gelu_gradient(real z) noexcept nogil:
    return normal_distribution(z) + z * (<real>0.3989422804014327 * exp(<real>-0.5 * (z * z)))


cdef inline real tanh_gradient(real z) noexcept nogil:
    return <real>4 * sigmoid_gradient(z + z)


cdef inline real clip_gradient(real z, real low, real high) noexcept nogil:
    return 0 if (z <= low) | (z >= high) else 1


cdef void activate(int code, real low, real high, real* z, Py_ssize_t n) noexcept nogil:
    """z[i] <- f(z[i])."""
    cdef Py_ssize_t i
    if code == RELU:
        for i in range(n):
            z[i] = relu(z[i])
    elif code == RELU6:
        for i in range(n):
            z[i] = clipped(z[i], <real>0, <real>6)
    elif code == LEAKY_RELU:
        for i in range(n):
            z[i] = leaky_relu(z[i], low)
    elif code == HARDSWISH:
        for i in range(n):
            z[i] = hardswish(z[i])
    elif code == SILU:
        for i in range(n):
            z[i] = silu(z[i])
    elif code == GELU:
        for i in range(n):
            z[i] = gelu(z[i])
    elif code == SIGMOID:
        for i in range(n):
            z[i] = sigmoid(z[i])
    elif code == TANH:
        for i in range(n):
            z[i] = tanh(z[i])
    elif code == CLIP:
        for i in range(n):
            z[i] = clipped(z[i], low, high)


cdef void scale_by_gradient(int code, real low, real high, const real* z, real* g, Py_ssize_t n) noexcept nogil:
    """g[i] <- g[i] * f'(z[i])."""
    cdef Py_ssize_t i
    if code == RELU:
        for i in range(n):
            g[i] *= relu_gradient(z[i])
    elif code == RELU6:
        for i in range(n):
            g[i] *= clip_gradient(z[i], <real>0, <real>6)
    elif code == LEAKY_RELU:
        for i in range(n):
            g[i] *= leaky_relu_gradient(z[i], low)
    elif code == HARDSWISH:
        for i in range(n):
            g[i] *= hardswish_gradient(z[i])
    elif code == SILU:
        for i in range(n):
            g[i] *= silu_gradient(z[i])
    elif code == GELU:
        for i in range(n):
            g[i] *= gelu_gradient(z[i])
    elif code == SIGMOID:
        for i in range(n):
            g[i] *= sigmoid_gradient(z[i])
    elif code == TANH:
        for i in range(n):
            g[i] *= tanh_gradient(z[i])
    elif code == CLIP:
        for i in range(n):
            g[i] *= clip_gradient(z[i], low, high)
    elif code == SIGMOID_OF_OUTPUT:
        for i in range(n):
            g[i] *= z[i] * (<real>1 - z[i])
    elif code == TANH_OF_OUTPUT:
        for i in range(n):
            g[i] *= <real>1 - z[i] * z[i]
