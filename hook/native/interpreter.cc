#include <Python.h>
// Python's header must come first.
#include <dlfcn.h>

#include "interpreter.h"

extern "C" int leasehold_start_cffi(void);

namespace leasehold {
namespace {

/// The folder of this very library, with the package `leasehold_hook` in it.
std::string own_folder() {
    Dl_info info{};
    static const char anchor = 0;
    if (dladdr(&anchor, &info) == 0 || info.dli_fname == nullptr) {
        return {};
    }
    const std::string path = info.dli_fname;
    const size_t slash = path.rfind('/');
    return slash == std::string::npos ? "." : path.substr(0, slash);
}

std::string initialize() {
    // Kea loads hooks with local scope, but compiled modules of the standard library (ssl, sqlite3) expect libpython's
    // symbols in the global one.
    if (dlopen(LEASEHOLD_LIBPYTHON, RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD) == nullptr) {
        return std::string("cannot bring " LEASEHOLD_LIBPYTHON " into global scope: ") + dlerror();
    }
    if (Py_IsInitialized() != 0) {
        return {};
    }
    PyPreConfig before;
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1;
    PyStatus status = Py_PreInitialize(&before);
    if (PyStatus_Exception(status) == 0) {
        PyConfig config;
        PyConfig_InitIsolatedConfig(&config);
        config.install_signal_handlers = 0;  // SIGTERM, SIGINT, SIGHUP are Kea's
        config.write_bytecode = 0;           // the library's folder is not Kea's to write to
        // By its name, or a `python3` of a virtual environment earlier in PATH would be taken for this one.
        status = PyConfig_SetBytesString(&config, &config.program_name, LEASEHOLD_PYTHON);
        if (PyStatus_Exception(status) == 0) {
            status = Py_InitializeFromConfig(&config);
        }
        PyConfig_Clear(&config);
    }
    if (PyStatus_Exception(status) != 0) {
        return std::string("cannot start Python: ") + (status.err_msg != nullptr ? status.err_msg : "no reason given");
    }
    PyEval_SaveThread();
    return {};
}

// Runs `code`; with `result`, an expression of it is the answer's text.
std::string run(const char* code, const char* result) {
    const PyGILState_STATE gil = PyGILState_Ensure();
    std::string text;
    PyRun_SimpleString(code);
    if (result != nullptr) {
        PyObject* const names = PyModule_GetDict(PyImport_AddModule("__main__"));
        PyObject* const value = PyRun_String(result, Py_eval_input, names, names);
        const char* const utf8 = value != nullptr ? PyUnicode_AsUTF8(value) : nullptr;
        text = utf8 != nullptr ? utf8 : "";
        Py_XDECREF(value);
        PyErr_Clear();
    }
    PyGILState_Release(gil);
    return text;
}

bool put_first_on_path(const std::string& folder) {
    const PyGILState_STATE gil = PyGILState_Ensure();
    PyObject* const path = PySys_GetObject("path");
    PyObject* const entry = PyUnicode_DecodeFSDefault(folder.c_str());
    const bool done = path != nullptr && entry != nullptr && PyList_Insert(path, 0, entry) == 0;
    Py_XDECREF(entry);
    PyErr_Clear();
    PyGILState_Release(gil);
    return done;
}

std::string start() {
    const std::string folder = own_folder();
    if (folder.empty()) {
        return "cannot find out the library's own folder";
    }
    if (std::string why = initialize(); !why.empty()) {
        return why;
    }
    if (!put_first_on_path(folder)) {
        return "cannot put " + folder + " on Python's path";
    }
    // cffi prints a failed import to sys.stderr, which a daemon has not; Kea's log is the place for it.
    run("import io, sys\nsys.stderr = io.StringIO()", nullptr);
    const int failed = leasehold_start_cffi();
    const std::string printed = run("import sys\nkept, sys.stderr = sys.stderr, sys.__stderr__", "kept.getvalue()");
    return failed != 0 ? "importing leasehold_hook.main failed: " + printed : "";
}

}  // namespace

std::string start_python() {
    static const auto* const why = new std::string(start());
    return *why;
}

}  // namespace leasehold
