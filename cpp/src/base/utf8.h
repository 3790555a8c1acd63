// UTF-8: what JSON is made of, and messages.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace seqcore {

// Bytes of the well-formed sequence at s[at] (Unicode 15, table 3-7), 0 if there is none.
std::size_t utf8_length(std::string_view s, std::size_t at);

// The lowest digits of a number, in base 16.
void append_hex(std::string& out, unsigned value, int digits);

// Any bytes, made fit for an error message: in quotes, valid UTF-8, without control characters, not long.
std::string quoted(std::string_view bytes, std::size_t most = 100);

}  // namespace seqcore
