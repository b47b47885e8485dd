# The Cython twin of cpubn/_elementary.py: the same operations in the same order, so the same bits. A constant is cast,
# since C would compute in double beside it.


cdef inline real clipped(real z, real low, real high) noexcept nogil:
    z = low if z < low else z
    return high if z > high else z


cdef inline real minus_abs(real z) noexcept nogil:
    return -z if z > 0 else z


cdef inline real power_of_two(real biased) noexcept nogil:
    if real is float:
        return cpubn_power_of_two_float(biased)
    else:
        return cpubn_power_of_two_double(biased)


cdef inline real exp(real z) noexcept nogil:
    cdef real rounder, bias, k, half, r, p
    if real is float:
        rounder = 1.5 * 2.0**23
        bias = 127
        z = clipped(z, <real>-110, <real>100)
    else:
        rounder = 1.5 * 2.0**52
        bias = 1023
        z = clipped(z, <real>-760, <real>720)
    k = (z * <real>1.4426950408889634 + rounder) - rounder
    r = (z - k * <real>0.693145751953125) - k * <real>1.42860682030941723212e-6
    if real is float:
        p = <real>1.9875691500e-4
        p = p * r + <real>1.3981999507e-3
        p = p * r + <real>8.3334519073e-3
        p = p * r + <real>4.1665795894e-2
        p = p * r + <real>1.6666665459e-1
        p = p * r + <real>5.0000001201e-1
    else:  # 1 / 13!, ..., 1 / 2!
        p = 1.6059043836821613e-10
        p = p * r + 2.08767569878681e-9
        p = p * r + 2.505210838544172e-8
        p = p * r + 2.755731922398589e-7
        p = p * r + 2.7557319223985893e-6
        p = p * r + 2.48015873015873e-5
        p = p * r + 1.984126984126984e-4
        p = p * r + 1.388888888888889e-3
        p = p * r + 8.333333333333333e-3
        p = p * r + 4.1666666666666664e-2
        p = p * r + 1.6666666666666666e-1
        p = p * r + 0.5
    p = ((r * r) * p + r) + <real>1
    half = (k * <real>0.5 + rounder) - rounder
    bias = rounder + bias
    return (p * power_of_two(half + bias)) * power_of_two((k - half) + bias)


cdef inline real tanh(real z) noexcept nogil:
    cdef real x = z * z, p, q, near, far, magnitude
    if real is float:
        p = <real>-5.70498872745e-3
        p = p * x + <real>2.06390887954e-2
        p = p * x + <real>-5.37397155531e-2
        p = p * x + <real>1.33314422036e-1
        p = p * x + <real>-3.33332819422e-1
        q = 1
    else:
        p = -9.64399179425052238628e-1
        p = p * x + -9.92877231001918586564e1
        p = p * x + -1.61468768441708447952e3
        q = 1
        q = q * x + 1.12811678491632931402e2
        q = q * x + 2.23548839060100448583e3
        q = q * x + 4.84406305325125486048e3
    near = (z * x) * (p / q) + z
    near = z if x == 0 else near
    magnitude = -minus_abs(z)
    far = <real>1 - <real>2 / (exp(magnitude + magnitude) + <real>1)
    far = -far if z < 0 else far
    return far if magnitude >= <real>0.625 else near


cdef inline real erf(real z) noexcept nogil:
    cdef real square = z * z, p, q, x, near, far
    if real is float:
        p = <real>7.85385358e-5
        p = p * square + <real>-8.01019125e-4
        p = p * square + <real>5.18832741e-3
        p = p * square + <real>-2.68538118e-2
        p = p * square + <real>1.12835851e-1
        p = p * square + <real>-3.76126258e-1
        p = p * square + <real>1.28379166e-1
    else:  # 2 / sqrt(pi) * (-1)**n / (n! * (2 * n + 1)) for n from 18 to 1, and 2 / sqrt(pi) - 1
        p = 4.763348040515068e-18
        p = p * square + -9.063970842808673e-17
        p = p * square + 1.6342614095367152e-15
        p = p * square + -2.7835162072109212e-14
        p = p * square + 4.4632242632864775e-13
        p = p * square + -6.7113668551641105e-12
        p = p * square + 9.422759064650411e-11
        p = p * square + -1.2290555301717926e-9
        p = p * square + 1.4807192815879218e-8
        p = p * square + -1.6365844691234924e-7
        p = p * square + 1.6462114365889246e-6
        p = p * square + -1.492565035840625e-5
        p = p * square + 1.2055332981789664e-4
        p = p * square + -8.548327023450852e-4
        p = p * square + 5.223977625442188e-3
        p = p * square + -2.6866170645131252e-2
        p = p * square + 1.1283791670955126e-1
        p = p * square + -3.7612638903183754e-1
        p = p * square + 1.28379167095512573896e-1
    near = z * p + z
    x = clipped(-minus_abs(z), <real>1, <real>8)
    if real is float:
        p = <real>-3.88892045e-4
        p = p * x + <real>6.00522523e-3
        p = p * x + <real>-4.09986887e-2
        p = p * x + <real>1.64135122e-1
        p = p * x + <real>-4.31682068e-1
        p = p * x + <real>7.92597198e-1
        p = p * x + <real>-1.04821191e0
        p = p * x + <real>9.86127553e-1
        q = 1
    else:
        p = 2.46196981473530512524e-10
        p = p * x + 5.64189564831068821977e-1
        p = p * x + 7.46321056442269912687e0
        p = p * x + 4.86371970985681366614e1
        p = p * x + 1.96520832956077098242e2
        p = p * x + 5.26445194995477358631e2
        p = p * x + 9.34528527171957607540e2
        p = p * x + 1.02755188689515710272e3
        p = p * x + 5.57535335369399327526e2
        q = 1
        q = q * x + 1.32281951154744992508e1
        q = q * x + 8.67072140885989742329e1
        q = q * x + 3.54937778887819891062e2
        q = q * x + 9.75708501743205489753e2
        q = q * x + 1.82390916687909736289e3
        q = q * x + 2.24633760818710981792e3
        q = q * x + 1.65666309194161350182e3
        q = q * x + 5.57535340817727675546e2
    far = <real>1 - exp(-(x * x)) * (p / q)
    far = -far if z < 0 else far
    return far if square >= 1 else near
