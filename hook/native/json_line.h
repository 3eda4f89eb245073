// One line of JSON (RFC 8259), written without allocation into a buffer that has room for it.
#ifndef LEASEHOLD_JSON_LINE_H
#define LEASEHOLD_JSON_LINE_H

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace leasehold {

/// Stands for a client without an Ethernet address, and for the sum of several; JSON's null.
constexpr uint64_t kNoMac = UINT64_MAX;

/// What a call to drain() wrote.
struct Drained {
    size_t octets = 0;
    uint64_t lines = 0;
};

class JsonLine {
public:
    /// Room that a caller leaves for each line: the longest record, with every number at its largest, has 230 octets.
    static constexpr size_t kLongest = 256;

    JsonLine(char* out, uint64_t sequence, std::string_view type, int64_t at_ms) : begin_(out), end_(out) {
        raw("{\"seq\":");
        number(sequence);
        raw(",\"type\":\"");
        raw(type);
        raw("\",\"at\":");
        number(at_ms);
    }

    JsonLine(const JsonLine&) = delete;
    JsonLine& operator=(const JsonLine&) = delete;

    template <typename Integer>
    JsonLine& field(std::string_view name, Integer value) {
        key(name);
        number(value);
        return *this;
    }

    /// `text` is one of our own words: nothing in it needs escaping.
    JsonLine& word(std::string_view name, std::string_view text) {
        key(name);
        raw("\"");
        raw(text);
        raw("\"");
        return *this;
    }

    JsonLine& mac(uint64_t mac) {
        key("mac");
        if (mac == kNoMac) {
            raw("null");
            return *this;
        }
        static constexpr char kHex[] = "0123456789abcdef";
        raw("\"");
        for (int shift = 44; shift >= 0; shift -= 4) {
            *end_++ = kHex[(mac >> shift) & 0xF];
            if (shift % 8 == 0 && shift > 0) {
                *end_++ = ':';
            }
        }
        raw("\"");
        return *this;
    }

    JsonLine& ip(uint32_t address) {
        key("ip");
        raw("\"");
        for (int shift = 24; shift >= 0; shift -= 8) {
            number((address >> shift) & 0xFF);
            raw(shift > 0 ? "." : "\"");
        }
        return *this;
    }

    /// Ends the line; returns its octets, the newline included.
    size_t end() {
        raw("}\n");
        return static_cast<size_t>(end_ - begin_);
    }

private:
    void key(std::string_view name) {
        raw(",\"");
        raw(name);
        raw("\":");
    }

    void raw(std::string_view text) {
        std::memcpy(end_, text.data(), text.size());
        end_ += text.size();
    }

    template <typename Integer>
    void number(Integer value) {
        end_ = std::to_chars(end_, end_ + 20, value).ptr;
    }

    char* begin_;
    char* end_;
};

}  // namespace leasehold

#endif
