// What a drain wrote, as tests look at it.
#ifndef LEASEHOLD_TESTS_DRAINED_H
#define LEASEHOLD_TESTS_DRAINED_H

#include <cstdint>
#include <string>

#include "json_line.h"

namespace leasehold {

struct DrainedText {
    std::string text;
    uint64_t lines;

    /// The sum of all the lines' fields of this name.
    uint64_t sum(const std::string& name) const {
        const std::string key = "\"" + name + "\":";
        uint64_t total = 0;
        for (size_t at = text.find(key); at != std::string::npos; at = text.find(key, at + 1)) {
            total += std::stoull(text.substr(at + key.size()));
        }
        return total;
    }

    bool has(const std::string& part) const {
        return text.find(part) != std::string::npos;
    }
};

}  // namespace leasehold

#endif
