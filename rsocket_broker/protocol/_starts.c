/* The three functions of starts.py that a busy connection calls for every frame, with the same results.

   Each looks at the type and the length of what it is given before it touches a byte of it, so that no call of
   Python's, however wrong, reads or writes outside of an object. starts.py holds what they mean. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#define PREFIX 3  /* bytes of the length in front of a frame */
#define OPENING 7 /* bytes in front of a frame's type: its length and its stream id */
#define START 9   /* bytes in front of a frame's body */

static uint32_t
read_uint(const unsigned char *at, int bytes)
{
    uint32_t value = 0;
    while (bytes-- > 0) {
        value = value << 8 | *at++;
    }
    return value;
}

static void
write_uint(unsigned char *at, int bytes, uint32_t value)
{
    while (bytes-- > 0) {
        at[bytes] = (unsigned char)(value & 0xFF);
        value >>= 8;
    }
}

/* An int of 0 to `most`. -1 with an exception for anything else. */
static int
take_uint(PyObject *given, uint32_t most, uint32_t *value)
{
    unsigned long found;
    if (!PyLong_Check(given)) {
        PyErr_SetString(PyExc_TypeError, "an int is wanted");
        return -1;
    }
    found = PyLong_AsUnsignedLong(given);
    if ((found == (unsigned long)-1 && PyErr_Occurred()) || found > most) {
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "a number is not between 0 and %lu", (unsigned long)most);
        return -1;
    }
    *value = (uint32_t)found;
    return 0;
}

/* A bytes object and an offset that lies in it or at its end. -1 with an exception for anything else. */
static int
take_place(PyObject *data, PyObject *offset, Py_ssize_t *at)
{
    if (!PyBytes_Check(data) || !PyLong_Check(offset)) {
        PyErr_SetString(PyExc_TypeError, "bytes and an int are wanted");
        return -1;
    }
    *at = PyLong_AsSsize_t(offset);
    if (*at == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (*at < 0 || *at > PyBytes_GET_SIZE(data)) {
        PyErr_SetString(PyExc_ValueError, "the offset is outside of the buffer");
        return -1;
    }
    return 0;
}

static int
count_is(Py_ssize_t given, Py_ssize_t wanted)
{
    if (given != wanted) {
        PyErr_Format(PyExc_TypeError, "%zd arguments are wanted, not %zd", wanted, given);
        return 0;
    }
    return 1;
}

static PyObject *
read_start(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    const unsigned char *found;
    uint32_t numbers[4];
    PyObject *result;
    Py_ssize_t at;
    int i;

    if (!count_is(count, 2) || take_place(args[0], args[1], &at) < 0) {
        return NULL;
    }
    if (PyBytes_GET_SIZE(args[0]) - at < START) {
        PyErr_SetString(PyExc_ValueError, "the buffer ends inside the start of a frame");
        return NULL;
    }
    found = (const unsigned char *)PyBytes_AS_STRING(args[0]) + at;
    numbers[0] = read_uint(found, 1);
    numbers[1] = read_uint(found + 1, 2);
    numbers[2] = read_uint(found + 3, 4);
    numbers[3] = read_uint(found + 7, 2);
    result = PyTuple_New(4);
    for (i = 0; result != NULL && i < 4; i++) {
        PyObject *number = PyLong_FromUnsignedLong(numbers[i]);
        if (number == NULL) {
            Py_CLEAR(result);
        }
        else {
            PyTuple_SET_ITEM(result, i, number);
        }
    }
    return result;
}

static PyObject *
pack_start(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    uint32_t high, low, stream_id, kind;
    PyObject *result;
    unsigned char *to;

    if (!count_is(count, 4) || take_uint(args[0], 0xFF, &high) < 0 || take_uint(args[1], 0xFFFF, &low) < 0 ||
        take_uint(args[2], 0xFFFFFFFF, &stream_id) < 0 || take_uint(args[3], 0xFFFF, &kind) < 0) {
        return NULL;
    }
    result = PyBytes_FromStringAndSize(NULL, START);
    if (result == NULL) {
        return NULL;
    }
    to = (unsigned char *)PyBytes_AS_STRING(result);
    write_uint(to, 1, high);
    write_uint(to + 1, 2, low);
    write_uint(to + 3, 4, stream_id);
    write_uint(to + 7, 2, kind);
    return result;
}

static PyObject *
cut(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    const unsigned char *buffer;
    const char *opening;
    Py_ssize_t at, size, known, head;
    uint32_t first, most;
    uint64_t expected; /* never wraps round, as in Python */
    PyObject *bodies;

    if (!count_is(count, 5) || take_place(args[0], args[1], &at) < 0 ||
        take_uint(args[2], 0xFFFFFFFF, &first) < 0 || take_uint(args[4], 0x7FFFFFFF, &most) < 0) {
        return NULL;
    }
    if (!PyBytes_Check(args[3])) {
        PyErr_SetString(PyExc_TypeError, "what frames begin with is bytes");
        return NULL;
    }
    bodies = PyList_New(0);
    if (bodies == NULL) {
        return NULL;
    }
    buffer = (const unsigned char *)PyBytes_AS_STRING(args[0]);
    opening = PyBytes_AS_STRING(args[3]);
    size = PyBytes_GET_SIZE(args[0]);
    known = PyBytes_GET_SIZE(args[3]);
    head = OPENING + known;
    expected = first;
    while (size - at >= head) { /* so all that is looked at up to the body lies in the buffer */
        const unsigned char *frame = buffer + at;
        Py_ssize_t length = PREFIX + (Py_ssize_t)read_uint(frame, PREFIX);
        PyObject *body;
        int failed;

        if (length > size - at || length < head || length > (Py_ssize_t)most ||
            read_uint(frame + PREFIX, 4) != expected || memcmp(frame + OPENING, opening, (size_t)known) != 0) {
            break;
        }
        body = PyBytes_FromStringAndSize((const char *)frame + head, length - head);
        failed = body == NULL || PyList_Append(bodies, body) < 0;
        Py_XDECREF(body);
        if (failed) {
            Py_DECREF(bodies);
            return NULL;
        }
        at += length;
        expected += 2;
    }
    return Py_BuildValue("(Nn)", bodies, at);
}

static PyMethodDef methods[] = {
    {"read_start", (PyCFunction)(void (*)(void))read_start, METH_FASTCALL, NULL},
    {"pack_start", (PyCFunction)(void (*)(void))pack_start, METH_FASTCALL, NULL},
    {"cut", (PyCFunction)(void (*)(void))cut, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED}, /* there is no state */
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_starts", .m_size = 0, .m_methods = methods, .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__starts(void)
{
    return PyModuleDef_Init(&definition);
}
