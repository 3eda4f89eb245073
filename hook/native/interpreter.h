// The Python that runs inside Kea.
#ifndef LEASEHOLD_INTERPRETER_H
#define LEASEHOLD_INTERPRETER_H

#include <string>

namespace leasehold {

/// Starts Python on the first call and imports the package beside this library. Returns "", or why it could not, with
/// Python's traceback. Python gets no signal handler, no environment variable and no site of the user's.
std::string start_python();

}  // namespace leasehold

#endif
