/* What the statuses of cpubn.h say, in words. */
#pragma once
#include "cpubn.h"

static const char *cpubn_words(int status) {
    switch (status) {
    case CPUBN_OK: return "done";
    case CPUBN_BAD_SIZE:
        return "size must be sizeof(cpubn_call), and the shape not negative and of no more bytes than there are";
    case CPUBN_MISSING:
        return "every array and vector that the function needs must be given, and running_mean and running_var together";
    case CPUBN_BAD_TYPE: return "the type of an array must be one of cpubn_type, and go with x's as cpubn.h says";
    case CPUBN_BAD_STRIDES: return "an array that is written must have no stride of 0, and not overlap itself";
    case CPUBN_BAD_NUMBER:
        return "eps must be above 0 (in inference at least 0), momentum from 0 to 1, an activation's numbers in its range";
    case CPUBN_BAD_ACTIVATION: return "activation must be one of cpubn_activation";
    case CPUBN_BAD_VARIANCE: return "var + eps must be above 0 in every channel";
    case CPUBN_FEW_VALUES: return "the batch's own statistics need more than 1 value per channel";
    case CPUBN_NO_MEMORY: return "there is no memory for it";
    case CPUBN_OVERLAP:
        return "what is written must overlap nothing else, but for y or dx that is x, residual or dy itself";
    default: return "no status of cpubn's";
    }
}
