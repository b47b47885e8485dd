/* The same in C: a window of a sensor's stream, normalized with the interpreter's lock released. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "cpubn.h"

static const cpubn_table *bn;

static PyObject *normalize(PyObject *self, PyObject *args) {
    Py_buffer x, mean, var;
    int status;
    if (!PyArg_ParseTuple(args, "w*y*y*", &x, &mean, &var)) return NULL;
    Py_ssize_t channels = mean.len / (Py_ssize_t)sizeof(double);
    if (channels == 0 || mean.len != var.len || x.len % (channels * (Py_ssize_t)sizeof(float)) != 0) {
        PyErr_SetString(PyExc_ValueError, "x must be of float32, mean and var of float64, with as many channels");
    } else {
        cpubn_call call = cpubn_over(1, channels, x.len / channels / (Py_ssize_t)sizeof(float));
        call.x = call.y = cpubn_of_shape(&call, x.buf, CPUBN_FLOAT32);
        call.mean = mean.buf, call.var = var.buf, call.eps = 1e-5;
        call.activation = CPUBN_RELU, call.threads = 2;
        Py_BEGIN_ALLOW_THREADS
        status = bn->normalize(&call);
        Py_END_ALLOW_THREADS
        if (status != CPUBN_OK) PyErr_SetString(PyExc_ValueError, bn->message(status));
    }
    PyBuffer_Release(&x), PyBuffer_Release(&mean), PyBuffer_Release(&var);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"normalize", normalize, METH_VARARGS, "relu((x - mean) / sqrt(var + eps)) of one window (C, L), in place."},
    {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "in_c", NULL, -1, methods};

PyMODINIT_FUNC PyInit_in_c(void) {
    bn = cpubn_import();
    return bn == NULL ? NULL : PyModule_Create(&module);
}
