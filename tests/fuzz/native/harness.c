/* The program around a decoder: starts an interpreter, which makes the native modules, finds the decoder's address in
 * tests.fuzz.native's module, and then gives inputs to it. libFuzzer's loop calls it; with -DREPLAY it reads files instead. */

#include <Python.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef int (*target)(const uint8_t *, size_t);
static target chosen;

/* Stands before the interpreter's for the modules, which ask for a frame only to add it to the traceback of an exception;
 * without a frame they add none. */
PyFrameObject *PyFrame_New(PyThreadState *state, PyCodeObject *code, PyObject *globals, PyObject *locals)
{
    (void)state;
    (void)code;
    (void)globals;
    (void)locals;
    return NULL;
}

static target address_of(const char *name)
{
    PyObject *module = PyImport_ImportModule("decoders");
    const char *tables[] = {"PURE", "RAISING"};
    target found = NULL;
    for (int i = 0; module != NULL && i < 2; i++) {
        PyObject *address = PyDict_GetItemString(PyObject_GetAttrString(module, tables[i]), name);
        if (address != NULL)
            found = (target)PyLong_AsVoidPtr(address);
    }
    if (PyErr_Occurred())
        PyErr_Print();
    return found;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    const char *name = getenv("DECODER");
    Py_InitializeEx(0);
    chosen = name == NULL ? NULL : address_of(name);
    if (chosen == NULL) {
        fprintf(stderr, "DECODER names no decoder\n");
        exit(2);
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    chosen(data, size);
    return 0;
}

#ifdef REPLAY
int main(int argc, char **argv)
{
    LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (file == NULL)
            continue;
        static uint8_t input[1 << 20];
        size_t size = fread(input, 1, sizeof input, file);
        fclose(file);
        uint8_t *copy = malloc(size ? size : 1); /* so that a sanitizer knows where it ends */
        memcpy(copy, input, size);
        LLVMFuzzerTestOneInput(copy, size);
        free(copy);
    }
    return 0;
}
#endif
