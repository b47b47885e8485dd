/* A module of C that uses cpubn.h, as a user's would. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>

#include "cpubn.h"

static const cpubn_table *bn;

/* normalize(x, y, mean, var, eps, channels): float32 and float64 buffers, contiguous; the status in words. */
static PyObject *normalize(PyObject *self, PyObject *args) {
    Py_buffer x, y, mean, var;
    double eps;
    Py_ssize_t channels;
    int status;
    cpubn_call call;
    if (!PyArg_ParseTuple(args, "y*w*y*y*dn", &x, &y, &mean, &var, &eps, &channels)) return NULL;
    call = cpubn_over(1, channels, x.len / 4 / channels);
    call.threads = 2;
    call.x = cpubn_of_shape(&call, x.buf, CPUBN_FLOAT32);
    call.y = cpubn_of_shape(&call, y.buf, CPUBN_FLOAT32);
    call.mean = mean.buf;
    call.var = var.buf;
    call.eps = eps;
    Py_BEGIN_ALLOW_THREADS
    status = bn->normalize(&call);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&x);
    PyBuffer_Release(&y);
    PyBuffer_Release(&mean);
    PyBuffer_Release(&var);
    return PyUnicode_FromString(bn->message(status));
}

#define OFFSET(field) offsetof(cpubn_call, field)
static PyObject *layout(PyObject *self, PyObject *none) {
    return Py_BuildValue("(nnnnnnnn)", sizeof(cpubn_array), sizeof(cpubn_call), sizeof(cpubn_table), OFFSET(threads),
                         OFFSET(inference), OFFSET(output), OFFSET(mean), OFFSET(affine));
}

static PyMethodDef methods[] = {
    {"normalize", normalize, METH_VARARGS, NULL}, {"layout", layout, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "client", NULL, -1, methods};

PyMODINIT_FUNC PyInit_client(void) {
    bn = cpubn_import();
    return bn == NULL ? NULL : PyModule_Create(&module);
}
